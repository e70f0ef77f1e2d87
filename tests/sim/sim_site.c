/* SPDX-License-Identifier: Apache-2.0
 *
 * A site without an address, in the simulated world: it connects, logs in (CRAM-MD5), says ATRN,
 * and once the connection is turned round a sim_server takes what comes. It calls on while that
 * works, as a site with two lines would.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/buffer.h"
#include "base/digest.h"
#include "sim/actors.h"
#include "sim/sim.h"
#include "sys/net.h"

enum step { AWAY, CONNECTING, GREETING, HELLO, CHALLENGE, PROOF, TURNING };

struct sim_site {
    struct loop *loop;
    struct ip_endpoint to;
    const char *name, *password;
    struct sim_server *server;
    enum step step;
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer; /* the next call */
    struct buffer in;
    uint32_t turns;
};

static void call_later(struct sim_site *site)
{
    loop_timer_set(site->timer, (int64_t)(200 + sim_draw(4000)));
}

/* The descriptor is kept, or not. */
static void leave(struct sim_site *site, bool closes)
{
    loop_watch_free(site->watch);
    site->watch = NULL;
    if (closes) {
        net_close(site->fd);
    }
    site->step = AWAY;
    buffer_clear(&site->in);
    call_later(site);
}

/* Short enough to go out at once. */
static bool say(struct sim_site *site, struct slice line)
{
    while (line.length > 0) {
        size_t sent;
        if (net_send(site->fd, line, &sent) != ERROR_NONE) {
            return false;
        }
        line = slice_skip(line, sent);
    }
    return true;
}

static bool prove(struct sim_site *site, struct slice challenge)
{
    uint8_t digest[DIGEST_MAX_BYTES];
    struct buffer said, response, line;
    buffer_init(&said, 0);
    buffer_init(&response, 0);
    buffer_init(&line, 0);
    bool good = base64_decode(&said, challenge) == ERROR_NONE &&
                digest_hmac(DIGEST_MD5, slice_from_text(site->password), buffer_slice(&said),
                            digest) == ERROR_NONE;
    buffer_printf(&response, "%s ", site->name);
    for (int i = 0; good && i < DIGEST_MD5_BYTES; i++) {
        buffer_printf(&response, "%02x", digest[i]);
    }
    base64_encode(&line, buffer_slice(&response));
    buffer_append_text(&line, "\r\n");
    good = good && say(site, buffer_slice(&line));
    buffer_done(&said);
    buffer_done(&response);
    buffer_done(&line);
    return good;
}

/* The last line of a reply. False: that is no use. */
static bool reply(struct sim_site *site, struct slice line)
{
    switch (site->step++) {
    case GREETING:
        return line.data[0] == '2' && say(site, SLICE_LITERAL("EHLO site.test\r\n"));
    case HELLO:
        return line.data[0] == '2' && say(site, SLICE_LITERAL("AUTH CRAM-MD5\r\n"));
    case CHALLENGE:
        return line.data[0] == '3' && prove(site, slice_skip(line, 4));
    case PROOF:
        return line.data[0] == '2' && say(site, SLICE_LITERAL("ATRN\r\n"));
    default:
        return false; /* to ATRN: 250 does not come here */
    }
}

static bool take_reply(struct sim_site *site, struct slice line)
{
    if (site->step == TURNING && line.data[0] == '2') {
        int fd = site->fd;
        site->turns++;
        leave(site, false);
        sim_server_visit(site->server, fd);
        return true;
    }
    if (!reply(site, line)) {
        leave(site, true);
        return true;
    }
    return false;
}

static void site_ready(void *context, unsigned ready)
{
    (void)ready;
    struct sim_site *site = context;
    if (site->step == CONNECTING) {
        if (net_connected(site->fd) != ERROR_NONE) {
            leave(site, true);
            return;
        }
        site->step = GREETING;
        loop_watch_set(site->watch, LOOP_READ);
        return;
    }
    uint8_t bytes[512];
    size_t length;
    enum error error = net_receive(site->fd, bytes, sizeof(bytes), &length);
    if (error == ERROR_AGAIN) {
        return;
    }
    if (error != ERROR_NONE) {
        leave(site, true);
        return;
    }
    buffer_append(&site->in, slice_make(bytes, length));
    for (;;) {
        static const char crlf[] = "\r\n";
        struct slice input = buffer_slice(&site->in);
        const uint8_t *end = input.length == 0 ? NULL : memmem(input.data, input.length, crlf, 2);
        if (end == NULL) {
            return;
        }
        struct slice line = slice_take(input, (size_t)(end - input.data));
        if (line.length > 3 && line.data[3] == ' ' && take_reply(site, line)) {
            return;
        }
        buffer_consume(&site->in, line.length + 2);
    }
}

static void call(void *context)
{
    struct sim_site *site = context;
    if (net_connect(&site->to, NULL, &site->fd) != ERROR_NONE) {
        call_later(site);
        return;
    }
    site->watch = loop_watch_new(site->loop, site->fd, site_ready, site);
    site->step = CONNECTING;
    loop_watch_set(site->watch, LOOP_READ | LOOP_WRITE);
}

struct sim_site *sim_site_new(struct loop *loop, const struct ip_endpoint *to, const char *name,
                              const char *password, struct sim_server *server)
{
    struct sim_site *site = calloc(1, sizeof(*site));
    assert(site != NULL);
    *site = (struct sim_site){
        .loop = loop, .to = *to, .name = name, .password = password, .server = server};
    buffer_init(&site->in, 0);
    site->timer = loop_timer_new(loop, call, site);
    call_later(site);
    return site;
}

uint32_t sim_site_turns(const struct sim_site *site)
{
    return site->turns;
}
