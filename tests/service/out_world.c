/* SPDX-License-Identifier: Apache-2.0 */
#include "service/channel.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "out_world.h"

#include "base/crc32c.h"
#include "sys/net.h"

/* ---- servers ------------------------------------------------------------------------------- */

struct visit {
    struct server *server;
    int fd;
    struct loop_watch *watch;
    struct buffer in, out, heard;
    size_t parsed; /* of in */
    uint32_t recipients, recipients_seen, dots;
    size_t content; /* where it begins, within in */
    bool in_content, over, mute;
    struct loop_timer *timer;
};

struct server {
    struct loop *loop;
    int listener;
    struct loop_watch *watch;
    struct server_script script;
    struct visit *visits[VISITS_MAX];
    uint32_t visit_count;
    struct buffer taken;
};

static void visit_end(struct visit *visit)
{
    if (!visit->over) {
        visit->over = true;
        loop_watch_free(visit->watch);
        loop_timer_free(visit->timer);
        net_close(visit->fd);
    }
}

static void visit_flush(struct visit *visit)
{
    while (visit->out.length > 0 && !visit->over) {
        size_t sent = 0;
        enum error error = net_send(visit->fd, buffer_slice(&visit->out), &sent);
        if (error == ERROR_AGAIN) {
            loop_watch_set(visit->watch, LOOP_READ | LOOP_WRITE);
            return;
        }
        if (error != ERROR_NONE) {
            visit_end(visit);
            return;
        }
        buffer_consume(&visit->out, sent);
    }
    if (!visit->over) {
        loop_watch_set(visit->watch, LOOP_READ);
    }
}

static void reply(struct visit *visit, const char *text)
{
    if (text == NULL) {
        visit->mute = true;
        return;
    }
    if (text[0] == '\0') {
        visit_flush(visit);
        visit_end(visit);
        return;
    }
    buffer_printf(&visit->out, "%s\r\n", text);
}

static void take_dot(struct visit *visit)
{
    const struct server_script *script = &visit->server->script;
    const char *text =
        script->dots > 0 && ++visit->dots > script->dots ? script->last_dot : script->dot;
    struct slice content =
        slice_skip(slice_take(buffer_slice(&visit->in), visit->parsed), visit->content);
    if (text != NULL && text[0] == '2') {
        buffer_append(&visit->server->taken, slice_take(content, content.length - 3));
        buffer_append_text(&visit->server->taken, "|");
    }
    for (uint32_t i = 0; i < (script->lmtp ? visit->recipients : 1); i++) {
        reply(visit, text);
    }
    visit->in_content = false;
}

static void take_command(struct visit *visit, struct slice line)
{
    const struct server_script *script = &visit->server->script;
    if (slice_starts_fold(line, SLICE_LITERAL("EHLO ")) ||
        slice_starts_fold(line, SLICE_LITERAL("LHLO "))) {
        reply(visit, script->hello);
    } else if (slice_starts_fold(line, SLICE_LITERAL("MAIL "))) {
        visit->recipients = 0;
        visit->recipients_seen = 0;
        reply(visit, script->mail);
    } else if (slice_starts_fold(line, SLICE_LITERAL("RCPT "))) {
        const char *text = visit->recipients_seen++ > 0 && script->second_recipient != NULL
                               ? script->second_recipient
                               : script->recipient;
        visit->recipients += text != NULL && text[0] == '2';
        reply(visit, text);
    } else if (slice_starts_fold(line, SLICE_LITERAL("DATA"))) {
        bool none = visit->recipients == 0;
        reply(visit, none ? "554 5.5.1 no valid recipients" : script->data);
        visit->in_content = !none && script->data != NULL && script->data[0] == '3';
        visit->content = visit->parsed;
    } else if (slice_starts_fold(line, SLICE_LITERAL("QUIT"))) {
        reply(visit, "221 bye");
        reply(visit, "");
    } else {
        reply(visit, "250 whatever");
    }
}

static void take_lines(struct visit *visit)
{
    while (!visit->over && !visit->mute) {
        struct slice rest = slice_skip(buffer_slice(&visit->in), visit->parsed);
        size_t end = slice_find(rest, '\n');
        if (end == rest.length) {
            break;
        }
        struct slice line = slice_take(rest, end + 1);
        visit->parsed += line.length;
        if (!visit->in_content) {
            take_command(visit, line);
        } else if (slice_equal(line, SLICE_LITERAL(".\r\n"))) {
            take_dot(visit);
        }
    }
}

static void visit_ready(void *context, unsigned ready)
{
    struct visit *visit = context;
    uint8_t bytes[8192];
    size_t size = visit->server->script.reads > 0 ? visit->server->script.reads : sizeof(bytes);
    size_t length = 0;
    if (ready & LOOP_READ) {
        if (visit->in_content && visit->server->script.stalls) {
            loop_watch_set(visit->watch, 0);
            return;
        }
        enum error error = net_receive(visit->fd, bytes, size, &length);
        if (error != ERROR_NONE && error != ERROR_AGAIN) {
            visit_end(visit);
            return;
        }
        buffer_append(&visit->in, slice_make(bytes, length));
        take_lines(visit);
    }
    visit_flush(visit);
    if (visit->server->script.pause_ms > 0 && !visit->over) {
        loop_watch_set(visit->watch, 0);
        loop_timer_set(visit->timer, visit->server->script.pause_ms);
    }
}

static void pause_over(void *context)
{
    visit_flush(context);
}

static void server_ready(void *context, unsigned ready)
{
    (void)ready;
    struct server *server = context;
    int fd;
    struct ip_endpoint peer;
    while (net_accept(server->listener, &fd, &peer) == ERROR_NONE) {
        assert(server->visit_count < VISITS_MAX);
        struct visit *visit = calloc(1, sizeof(*visit));
        server->visits[server->visit_count++] = visit;
        visit->server = server;
        visit->fd = fd;
        buffer_init(&visit->in, 0);
        buffer_init(&visit->out, 0);
        visit->timer = loop_timer_new(server->loop, pause_over, visit);
        visit->watch = loop_watch_new(server->loop, fd, visit_ready, visit);
        loop_watch_set(visit->watch, LOOP_READ);
        for (int i = 0; server->script.flood && i < 5000; i++) {
            buffer_append_text(&visit->out, "220-flood\r\n");
        }
        reply(visit, server->script.greeting);
        visit_flush(visit);
    }
}

struct server *server_new(struct loop *loop, const char *address, uint16_t port,
                          const struct server_script *script)
{
    struct server *server = calloc(1, sizeof(*server));
    struct ip_endpoint at = {.port = port};
    server->loop = loop;
    server->script = *script;
    buffer_init(&server->taken, 0);
    bool good = ip_from_text(slice_from_text(address), &at.address) &&
                net_listen(&at, 100, &server->listener) == ERROR_NONE;
    assert(good);
    server->watch = loop_watch_new(loop, server->listener, server_ready, server);
    loop_watch_set(server->watch, LOOP_READ);
    return server;
}

uint16_t server_port(const struct server *server)
{
    struct ip_endpoint local;
    enum error error = net_local(server->listener, &local);
    assert(error == ERROR_NONE);
    return local.port;
}

void server_set(struct server *server, const struct server_script *script)
{
    server->script = *script;
}

void server_say(struct server *server, uint32_t visit, const char *text)
{
    server->visits[visit]->mute = false;
    reply(server->visits[visit], text);
    visit_flush(server->visits[visit]);
}

void server_free(struct server *server)
{
    for (uint32_t i = 0; i < server->visit_count; i++) {
        struct visit *visit = server->visits[i];
        visit_end(visit);
        buffer_done(&visit->in);
        buffer_done(&visit->out);
        free(visit);
    }
    loop_watch_free(server->watch);
    net_close(server->listener);
    buffer_done(&server->taken);
    free(server);
}

struct slice server_heard(const struct server *server, uint32_t visit)
{
    return visit < server->visit_count ? buffer_slice(&server->visits[visit]->in) : SLICE_EMPTY;
}

uint32_t server_visits(const struct server *server)
{
    return server->visit_count;
}

struct slice server_taken(const struct server *server)
{
    return buffer_slice(&server->taken);
}

/* ---- the core ------------------------------------------------------------------------------- */

static void put_reply(struct buffer *heard, const struct relay_reply *reply)
{
    static const char *const stages[] = {"resolve", "connect", "greeting", "hello",
                                         "tls",     "auth",    "mail",     "recipient",
                                         "data",    "content", "dot",      "idle"};
    static const char *const hows[] = {"reply", "lost", "timeout", "local"};
    buffer_printf(heard, " %s-%s", stages[reply->stage], hows[reply->how]);
    if (reply->code > 0) {
        buffer_printf(heard, "-%u", reply->code);
    }
}

/* The servers are called s0, s1 and so on; frames carry keys of their names. */
static uint32_t server_key(uint32_t number)
{
    char name[8];
    snprintf(name, sizeof(name), "s%u", number % 100);
    return crc32c(0, slice_from_text(name));
}

static uint32_t server_number(uint32_t key)
{
    for (uint32_t i = 0; i < 100; i++) {
        if (server_key(i) == key) {
            return i;
        }
    }
    return NO_INDEX;
}

static void take_result(struct fake_core *core, struct reader *reader)
{
    static const char *const verdicts[] = {"accepted", "refused",  "not-tried",
                                           "cut",      "in-doubt", "damaged"};
    uint32_t session = reader_u32(reader);
    uint32_t server = server_number(reader_u32(reader));
    uint64_t job = reader_u64(reader);
    bool reused = reader_u8(reader);
    struct message_id id = channel_get_id(reader);
    uint32_t count = reader_u32(reader);
    buffer_printf(&core->heard, "result %u %u %llu%s id%llu", session, server,
                  (unsigned long long)job, reused ? " reused" : "", (unsigned long long)id.low);
    for (uint32_t i = 0; i < count; i++) {
        struct relay_reply reply;
        uint32_t delivery = reader_u32(reader);
        uint8_t verdict = reader_u8(reader);
        bool good = channel_get_reply(reader, &reply);
        assert(good && verdict < 6);
        buffer_printf(&core->heard, " %u:%s", delivery, verdicts[verdict]);
        put_reply(&core->heard, &reply);
    }
    buffer_append_text(&core->heard, "\n");
    core->results++;
    if (core->durable) {
        core_say(core, CHANNEL_DURABLE, session, job);
    }
    if (core->close) {
        core_say(core, CHANNEL_CLOSE, session, 0);
    }
}

static void take_ready(struct fake_core *core, struct reader *reader)
{
    uint32_t session = reader_u32(reader);
    uint64_t job = reader_u64(reader);
    buffer_printf(&core->heard, "ready %u %llu\n", session, (unsigned long long)job);
    if (core->go) {
        core_say(core, CHANNEL_GO, session, job);
    }
}

bool core_heard(const struct fake_core *core, const char *words)
{
    return memmem(core->heard.data, core->heard.length, words, strlen(words)) != NULL;
}

static void hear_mx(struct fake_core *core, struct reader *reader)
{
    struct channel_mx mx;
    struct slice domain = reader_bytes(reader);
    bool good = channel_get_mx(reader, &mx);
    assert(good);
    buffer_printf(&core->heard, "mx %.*s %d %d %u", SLICE_PRINT(domain), mx.answer.error,
                  mx.answer.implicit, mx.answer.ttl_s);
    for (uint32_t i = 0; i < mx.answer.count; i++) {
        const struct mx_exchanger *exchanger = &mx.answer.exchangers[i];
        buffer_printf(&core->heard, "; %u %.*s %d", exchanger->preference,
                      SLICE_PRINT(exchanger->host), exchanger->error);
        for (uint32_t j = 0; j < exchanger->address_count; j++) {
            char text[IP_TEXT_SIZE];
            ip_to_text(&exchanger->addresses[j].address, text);
            buffer_printf(&core->heard, " %s", text);
        }
    }
    buffer_append_text(&core->heard, "\n");
}

static void take_frame(struct fake_core *core, struct reader *reader)
{
    struct relay_reply reply;
    struct relay_capabilities capabilities;
    uint8_t type = reader_u8(reader);
    if (type == CHANNEL_RESULT) {
        take_result(core, reader);
    } else if (type == CHANNEL_READY) {
        take_ready(core, reader);
    } else if (type == CHANNEL_RESUMED) {
        buffer_printf(&core->heard, "resumed %u\n", reader_u8(reader));
    } else if (type == CHANNEL_ADDRESSES) {
        uint32_t server = server_number(reader_u32(reader));
        buffer_printf(&core->heard, "addresses %u %u\n", server, reader_u32(reader));
    } else if (type == CHANNEL_NAME) {
        struct slice host = reader_bytes(reader);
        buffer_printf(&core->heard, "name %.*s %u\n", SLICE_PRINT(host), reader_u32(reader));
    } else if (type == CHANNEL_RESOLVED) {
        hear_mx(core, reader);
    } else if (type == CHANNEL_WORKING) {
        uint32_t session = reader_u32(reader);
        uint32_t server = server_number(reader_u32(reader));
        buffer_printf(&core->heard, "working %u %u %llu\n", session, server,
                      (unsigned long long)reader_u64(reader));
    } else if (type == CHANNEL_OPENED) {
        uint32_t session = reader_u32(reader);
        uint32_t server = server_number(reader_u32(reader));
        bool good = channel_get_capabilities(reader, &capabilities);
        assert(good);
        buffer_printf(&core->heard, "opened %u %u %x\n", session, server, capabilities.flags);
    } else {
        assert(type == CHANNEL_ENDED);
        uint32_t session = reader_u32(reader);
        uint32_t server = server_number(reader_u32(reader));
        bool good = channel_get_reply(reader, &reply);
        assert(good);
        buffer_printf(&core->heard, "ended %u %u", session, server);
        put_reply(&core->heard, &reply);
        buffer_append_text(&core->heard, "\n");
    }
    assert(!reader->failed);
}

static void core_ready(void *context)
{
    struct fake_core *core = context;
    struct slice record;
    while (ring_receive(core->ring, &record) == ERROR_NONE) {
        struct reader reader = reader_make(record);
        struct reader head = reader;
        enum channel_frame type = reader_u8(&head);
        uint32_t session = reader_u32(&head);
        take_frame(core, &reader);
        ring_release(core->ring);
        if (core->also != NULL) {
            core->also(core, type, session);
        }
    }
}

void core_attach(struct fake_core *core, struct loop *loop, struct ring *ring)
{
    core->loop = loop;
    core->ring = ring;
    buffer_done(&core->heard);
    buffer_init(&core->heard, 0);
    ring_set_handler(ring, core_ready, core);
    core_ready(core);
}

void core_done(struct fake_core *core)
{
    ring_free(core->ring);
    core->ring = NULL;
    buffer_done(&core->heard);
}

static void say(struct fake_core *core, struct buffer *frame)
{
    enum error error = ring_send(core->ring, buffer_slice(frame));
    assert(error == ERROR_NONE);
    buffer_done(frame);
}

void core_connect(struct fake_core *core, uint32_t session, uint32_t server)
{
    core_probe(core, session, server, 0);
}

void core_probe(struct fake_core *core, uint32_t session, uint32_t server,
                uint32_t knock_interval_ms)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_CONNECT);
    buffer_put_u32(&frame, session);
    buffer_put_u32(&frame, server_key(server));
    buffer_put_u32(&frame, knock_interval_ms);
    channel_put_sts(&frame, STS_NONE);
    say(core, &frame);
}

void core_deliver_ticket(struct fake_core *core, uint32_t session, uint64_t job,
                         struct slice ticket, const char *redirect, uint32_t count)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_DELIVER);
    buffer_put_u32(&frame, session);
    buffer_put_u64(&frame, job);
    buffer_put_bytes(&frame, ticket);
    buffer_put_bytes(&frame, slice_from_text(redirect));
    buffer_put_u32(&frame, count);
    for (uint32_t i = 0; i < count; i++) {
        buffer_put_u32(&frame, i);
    }
    say(core, &frame);
}

void core_deliver(struct fake_core *core, uint32_t session, uint64_t job, uint8_t ticket,
                  const char *redirect, uint32_t count)
{
    core_deliver_ticket(core, session, job, slice_make(&ticket, 1), redirect, count);
}

void core_resolve(struct fake_core *core, const char *domain)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_RESOLVE);
    buffer_put_bytes(&frame, slice_from_text(domain));
    say(core, &frame);
}

void core_tell_name(struct fake_core *core, const char *host, const char *address)
{
    struct buffer frame;
    struct ip_address bytes;
    bool good = ip_from_text(slice_from_text(address), &bytes);
    assert(good);
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_NAME);
    buffer_put_bytes(&frame, slice_from_text(host));
    buffer_put_u32(&frame, 1);
    buffer_append(&frame, slice_make(bytes.bytes, 16));
    say(core, &frame);
}

void core_say(struct fake_core *core, enum channel_frame type, uint32_t session, uint64_t job)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, (uint8_t)type);
    buffer_put_u32(&frame, session);
    if (type != CHANNEL_CLOSE) {
        buffer_put_u64(&frame, job);
    }
    say(core, &frame);
}
