/* SPDX-License-Identifier: Apache-2.0
 *
 * A client of the simulated world: sends numbered messages, one after another, to recipients that
 * only it writes to, so that the order of its numbers is the order of acceptance.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "sim/actors.h"
#include "sim/bringer.h"
#include "sim/sim.h"
#include "sys/net.h"

enum step {
    AWAY,
    CONNECTING,
    GREETING,
    HELLO,
    PRESENTING,
    FORWARDING,
    MAIL,
    RECIPIENT,
    DATA,
    DOT,
    PAUSE
};

struct sim_client {
    struct loop *loop;
    struct ip_endpoint to;
    bool is_relay_client;
    struct ip_address source; /* of a relay client */
    struct bringer bringer;
    unsigned forwarding; /* replies to XFORWARD that are still to come */
    struct ledger *ledger;
    uint32_t first, count;
    enum step step;
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer;
    struct buffer in, out, content;
    uint32_t number; /* of the message under way */
    uint32_t sent_recipients;
    bool stopped;
};

static void client_leave(struct sim_client *client)
{
    if (client->step != AWAY) {
        loop_watch_free(client->watch);
        client->watch = NULL;
        net_close(client->fd);
    }
    client->step = AWAY;
    buffer_clear(&client->in);
    buffer_clear(&client->out);
    if (!client->stopped) {
        loop_timer_set(client->timer, (int64_t)(20 + sim_draw(500)));
    }
}

static void client_ready(void *context, unsigned ready);

static bool flush(struct sim_client *client)
{
    while (client->out.length > 0) {
        size_t sent;
        enum error error = net_send(client->fd, buffer_slice(&client->out), &sent);
        if (error == ERROR_AGAIN) {
            loop_watch_set(client->watch, LOOP_READ | LOOP_WRITE);
            return true;
        }
        if (error != ERROR_NONE) {
            client_leave(client);
            return false;
        }
        buffer_consume(&client->out, sent);
    }
    loop_watch_set(client->watch, LOOP_READ);
    return true;
}

static void content_make(struct sim_client *client)
{
    struct buffer *content = &client->content;
    buffer_clear(content);
    buffer_printf(content, "X-Number: %u\r\nSubject: simulated\r\n", client->number);
    if (client->ledger->brought) { /* users' mail would be given what is missing */
        buffer_printf(content,
                      "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
                      "Message-ID: <%u@client.test>\r\n",
                      client->number);
    }
    buffer_append_text(content, "\r\n");
    uint64_t lines = sim_chance(20) ? sim_draw(3000) : sim_draw(30);
    for (uint64_t i = 0; i < lines; i++) {
        static const char *const shapes[] = {"a line of text",   ".", "..", "", ".a dot in front",
                                             "\xc3\xa9t\xc3\xa9"};
        buffer_append_text(content, shapes[sim_draw(6)]);
        buffer_append_text(content, "\r\n");
    }
}

static uint64_t fnv(struct slice bytes)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < bytes.length; i++) {
        hash = (hash ^ bytes.data[i]) * 0x100000001b3ULL;
    }
    return hash;
}

static void content_send(struct sim_client *client)
{
    struct slice rest = buffer_slice(&client->content);
    while (rest.length > 0) {
        if (rest.data[0] == '.') {
            buffer_append_text(&client->out, ".");
        }
        size_t line = slice_find(rest, '\n') + 1;
        buffer_append(&client->out, slice_take(rest, line));
        rest = slice_skip(rest, line);
    }
    buffer_append_text(&client->out, ".\r\n");
}

/* Priority, and a time of delivery of minutes. */
static void ask_more(struct sim_client *client, struct ledger_message *message)
{
    if (sim_chance(400)) {
        message->priority = (int8_t)((int)sim_draw(19) - 9);
        buffer_printf(&client->out, " MT-PRIORITY=%d", message->priority);
    }
    if (!client->ledger->patient && sim_chance(300)) {
        message->by_mode = sim_chance(300) ? 'R' : 'N';
        int seconds = 1 + (int)sim_draw(3000);
        seconds -= message->by_mode == 'N' && sim_chance(200) ? 2000 : 0;
        buffer_printf(&client->out, " BY=%d;%c", seconds, message->by_mode);
        for (uint32_t i = 0; i < message->count; i++) { /* it may become a dead letter first */
            message->entries[i].disturbed |= message->by_mode == 'R';
        }
        ledger_tell(client->ledger, "client: %u by %d;%c", client->number, seconds,
                    message->by_mode);
    }
}

static void mail_send(struct sim_client *client)
{
    struct ledger_message *message = &client->ledger->messages[client->number];
    bool extended = !client->ledger->brought || client->bringer.said_ehlo;
    client->step = MAIL;
    if (sim_chance(100)) {
        buffer_append_text(&client->out,
                           extended ? "MAIL FROM:<> BODY=8BITMIME\r\n" : "MAIL FROM:<>\r\n");
    } else {
        char sender[64];
        ledger_sender(client->number, sender);
        buffer_printf(&client->out, "MAIL FROM:<%s>", sender);
        message->verified = client->is_relay_client || client->bringer.origin.login[0] != '\0';
        if (client->is_relay_client && extended) {
            ask_more(client, message);
        }
        buffer_append_text(&client->out, "\r\n");
    }
}

/* Draws the next message; false when there are no numbers left. */
static bool message_begin(struct sim_client *client)
{
    struct ledger *ledger = client->ledger;
    if (client->stopped || ledger->issued == LEDGER_MESSAGES) {
        return false;
    }
    client->number = ledger->issued++;
    struct ledger_message *message = &ledger->messages[client->number];
    uint32_t wanted = sim_chance(800) ? 1 : 1 + (uint32_t)sim_draw(3);
    uint32_t start = (uint32_t)sim_draw(client->count);
    for (uint32_t i = 0; i < wanted && i < client->count; i++) {
        message->entries[message->count++].recipient = client->first + (start + i) % client->count;
    }
    content_make(client);
    message->hash = fnv(buffer_slice(&client->content));
    client->sent_recipients = 0;
    client->forwarding = bringer_put_xforward(&client->bringer, &client->out, &message->origin);
    if (client->forwarding > 0) {
        client->step = FORWARDING;
    } else {
        mail_send(client);
    }
    return true;
}

static void recipient_send(struct sim_client *client)
{
    char address[64];
    const struct ledger_message *message = &client->ledger->messages[client->number];
    ledger_address(message->entries[client->sent_recipients++].recipient, address);
    buffer_printf(&client->out, "RCPT TO:<%s>\r\n", address);
    client->step = RECIPIENT;
}

/* A whole reply has come. False: the visit is over. */
static bool reply(struct sim_client *client, int class)
{
    struct ledger_message *message = &client->ledger->messages[client->number];
    switch (client->step) {
    case GREETING:
    case PRESENTING:
        client->step = HELLO;
        if (client->ledger->brought) {
            bringer_put_hello(&client->bringer, &client->out);
        } else {
            buffer_append_text(&client->out, "EHLO client.test\r\n");
        }
        return class == 2;
    case HELLO:
        if (class == 2 && client->bringer.to_present > 0) {
            client->step = PRESENTING;
            bringer_put_xclient(&client->bringer, client->is_relay_client, &client->out);
            return true;
        }
        return class == 2 && message_begin(client);
    case FORWARDING:
        if (--client->forwarding == 0) {
            mail_send(client);
        }
        return class == 2;
    case MAIL:
        if (class == 2) {
            recipient_send(client);
        }
        return class == 2;
    case RECIPIENT:
        if (class != 2) {
            return false;
        }
        if (client->sent_recipients < message->count) {
            recipient_send(client);
        } else {
            client->step = DATA;
            buffer_append_text(&client->out, "DATA\r\n");
        }
        return true;
    case DATA:
        if (class != 3) {
            return false;
        }
        client->step = DOT;
        content_send(client);
        if (sim_chance(10)) { /* gives up in the middle */
            client->out.length = sim_draw(client->out.length);
            flush(client);
            return false;
        }
        return true;
    case DOT:
        if (class == 2) {
            message->acknowledged = true;
            for (uint32_t i = 0; i < message->count; i++) {
                ledger_tell(client->ledger, "client: %u for r%u acknowledged", client->number,
                            message->entries[i].recipient);
            }
            client->ledger->acknowledged++;
        } else {
            message->refused = true;
        }
        if (sim_chance(100)) {
            return false;
        }
        client->step = PAUSE;
        loop_timer_set(client->timer, (int64_t)sim_draw(300));
        return true;
    default:
        return false;
    }
}

static void client_ready(void *context, unsigned ready)
{
    struct sim_client *client = context;
    if (client->step == CONNECTING) {
        if (net_connected(client->fd) != ERROR_NONE) {
            client_leave(client);
            return;
        }
        client->step = GREETING;
        loop_watch_set(client->watch, LOOP_READ);
        if (client->ledger->brought) {
            struct ip_endpoint from = sim_net_local(client->fd);
            bringer_connected(&client->bringer, &from);
            bringer_put_header(&client->bringer, &client->out);
            flush(client);
        }
        return;
    }
    if ((ready & LOOP_WRITE) != 0 && !flush(client)) {
        return;
    }
    uint8_t bytes[4096];
    size_t length;
    enum error error = net_receive(client->fd, bytes, sizeof(bytes), &length);
    if (error == ERROR_AGAIN) {
        return;
    }
    if (error != ERROR_NONE) {
        client_leave(client);
        return;
    }
    buffer_append(&client->in, slice_make(bytes, length));
    for (;;) {
        struct slice input = buffer_slice(&client->in);
        size_t end = slice_find(input, '\n');
        if (end == input.length) {
            break;
        }
        bool last = end > 3 && input.data[3] != '-';
        int class = input.data[0] - '0';
        buffer_consume(&client->in, end + 1);
        if (last && !reply(client, class)) {
            client_leave(client);
            return;
        }
    }
    flush(client);
}

static void client_timer(void *context)
{
    struct sim_client *client = context;
    if (client->stopped && client->step != PAUSE) {
        return;
    }
    if (client->step == PAUSE) {
        if (!message_begin(client)) {
            client_leave(client);
        } else {
            flush(client);
        }
        return;
    }
    if (client->step == AWAY) {
        const struct ip_address *source = client->is_relay_client ? &client->source : NULL;
        if (client->ledger->brought) {
            bringer_draw(&client->bringer, client->is_relay_client);
            source = &client->bringer.source;
        }
        if (net_connect(&client->to, source, &client->fd) != ERROR_NONE) {
            loop_timer_set(client->timer, 500);
            return;
        }
        client->watch = loop_watch_new(client->loop, client->fd, client_ready, client);
        client->step = CONNECTING;
        loop_watch_set(client->watch, LOOP_READ | LOOP_WRITE);
    }
}

struct sim_client *sim_client_new(struct loop *loop, const struct ip_endpoint *to,
                                  const struct ip_address *source, struct ledger *ledger,
                                  uint32_t first, uint32_t count)
{
    struct sim_client *client = calloc(1, sizeof(*client));
    assert(client != NULL);
    *client = (struct sim_client){
        .loop = loop, .to = *to, .ledger = ledger, .first = first, .count = count};
    if (source != NULL) {
        client->is_relay_client = true;
        client->source = *source;
    }
    buffer_init(&client->in, 0);
    buffer_init(&client->out, 0);
    buffer_init(&client->content, 0);
    client->timer = loop_timer_new(loop, client_timer, client);
    loop_timer_set(client->timer, (int64_t)sim_draw(100));
    return client;
}

void sim_client_stop(struct sim_client *client)
{
    client->stopped = true;
}

bool sim_client_idle(const struct sim_client *client)
{
    return client->step == AWAY;
}
