/* SPDX-License-Identifier: Apache-2.0 */
#include "in_world.h"

#include "sys/net.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- core -------------------------------------------------------------------------------- */

static struct buffer *stream_of(struct world *world, uint64_t token)
{
    for (int i = 0; i < WORLD_TOKENS; i++) {
        if (world->stream_tokens[i] == token) {
            return &world->streams[i];
        }
    }
    for (int i = 0; i < WORLD_TOKENS; i++) {
        if (world->stream_tokens[i] == 0) {
            world->stream_tokens[i] = token;
            return &world->streams[i];
        }
    }
    abort();
}

static void forget_stream(struct world *world, uint64_t token)
{
    for (int i = 0; i < WORLD_TOKENS; i++) {
        if (world->stream_tokens[i] == token) {
            world->stream_tokens[i] = 0;
            buffer_done(&world->streams[i]);
        }
    }
}

static void tell(struct world *world, struct buffer *frame)
{
    assert(!frame->failed && ring_send(world->core, buffer_slice(frame)) == ERROR_NONE);
    buffer_done(frame);
}

static void answer(struct world *world, uint64_t token, enum error error)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_STORED);
    buffer_put_u64(&frame, token);
    buffer_put_u8(&frame, (uint8_t)error);
    tell(world, &frame);
}

static void take_commit(struct world *world, uint64_t token, struct reader *reader)
{
    struct world_mail *mail = &world->mail;
    arena_reset(&mail->arena);
    buffer_clear(&mail->content);
    /* The strings of the message point into the frame: keep a copy of that. */
    struct slice frame = arena_copy(&mail->arena, reader->rest);
    assert(frame.data != NULL);
    *reader = reader_make(frame);
    bool good = channel_get_message(reader, &mail->arena, &mail->message);
    assert(good);
    buffer_append(&mail->content, buffer_slice(stream_of(world, token)));
    buffer_append(&mail->content, reader->rest);
    uint64_t stated = mail->message.header_length + mail->message.body_length;
    bool is_asked = (mail->message.flags & CHANNEL_REPEATED) != 0 && mail->content.length == 0;
    assert(is_asked || mail->content.length == stated);
    forget_stream(world, token);
    world->commits++;
    if (world->holds_answers) {
        world->unanswered[world->unanswered_count++] = token;
    } else {
        answer(world, token, world->store_error);
    }
}

void world_answer_etrn(struct world *world)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_ETRN_DONE);
    buffer_put_u64(&frame, world->etrn_token);
    buffer_put_u8(&frame, (uint8_t)world->etrn_outcome);
    buffer_put_u64(&frame, 42);
    tell(world, &frame);
}

static void take_etrn(struct world *world, uint64_t token, struct reader *reader)
{
    (void)reader_take(reader, 16);
    (void)reader_u8(reader);
    struct slice domain = reader_bytes(reader);
    assert(!reader->failed && reader->rest.length == 0 && domain.length > 0);
    world->etrns++;
    world->etrn_token = token;
    if (!world->holds_answers) {
        world_answer_etrn(world);
    }
}

void world_answer_atrn(struct world *world)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_ATRN_DONE);
    buffer_put_u64(&frame, world->etrn_token);
    buffer_put_u8(&frame, (uint8_t)world->atrn_outcome);
    buffer_put_u32(&frame, 7);
    tell(world, &frame);
}

static void take_atrn(struct world *world, uint64_t token, struct reader *reader)
{
    struct buffer text;
    buffer_init(&text, 0);
    (void)reader_take(reader, 16);
    buffer_append(&text, reader_bytes(reader));
    buffer_append_text(&text, ":");
    for (uint32_t count = reader_u8(reader); count > 0; count--) {
        buffer_append_text(&text, " ");
        buffer_append(&text, reader_bytes(reader));
    }
    assert(!reader->failed && reader->rest.length == 0);
    buffer_put_u8(&text, 0);
    assert(text.length <= sizeof(world->atrn_request));
    memcpy(world->atrn_request, text.data, text.length);
    buffer_done(&text);
    world->atrns++;
    world->etrn_token = token;
    if (!world->holds_answers) {
        world_answer_atrn(world);
    }
}

static void take_frame(struct world *world, struct slice frame)
{
    struct reader reader = reader_make(frame);
    uint8_t type = reader_u8(&reader);
    world->largest_frame =
        frame.length > world->largest_frame ? frame.length : world->largest_frame;
    if (type == CHANNEL_CONTACT) {
        assert(reader.rest.length == 16);
        world->contacts++;
        return;
    }
    if (type == CHANNEL_REFUSED) {
        struct channel_refusal refusal;
        bool good = channel_get_refusal(&reader, &refusal);
        assert(good);
        world->refusals += good;
        return;
    }
    uint64_t token = reader_u64(&reader);
    assert(!reader.failed);
    if (type == CHANNEL_APPEND) {
        buffer_append(stream_of(world, token), reader.rest);
        world->appends++;
    } else if (type == CHANNEL_ETRN) {
        take_etrn(world, token, &reader);
    } else if (type == CHANNEL_ATRN) {
        take_atrn(world, token, &reader);
    } else if (type == CHANNEL_ABORT) {
        forget_stream(world, token);
        world->aborts++;
    } else {
        assert(type == CHANNEL_COMMIT);
        take_commit(world, token, &reader);
    }
}

void world_hear(struct world *world)
{
    struct slice record;
    while (world->core != NULL && !world->is_deaf &&
           ring_receive(world->core, &record) == ERROR_NONE) {
        take_frame(world, record);
        ring_release(world->core);
    }
}

static void on_core_ring(void *context)
{
    struct world *world = context;
    world->is_working = true;
    world_hear(world);
    world->is_working = false;
}

void world_answer_all(struct world *world, enum error error)
{
    for (uint32_t i = 0; i < world->unanswered_count; i++) {
        answer(world, world->unanswered[i], error);
    }
    world->unanswered_count = 0;
}

void world_tell_route(struct world *world, uint32_t generation, uint32_t route, enum error error,
                      bool known, uint32_t flags, uint64_t size_limit)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_ROUTE);
    buffer_put_u32(&frame, generation);
    buffer_put_u32(&frame, route);
    buffer_put_u8(&frame, (uint8_t)error);
    buffer_put_u8(&frame, known);
    buffer_put_u32(&frame, flags);
    buffer_put_u64(&frame, size_limit);
    tell(world, &frame);
    world_settle(world);
}

void world_tell_accepting(struct world *world, enum error error)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_ACCEPTING);
    buffer_put_u8(&frame, (uint8_t)error);
    buffer_put_u64(&frame, 0);
    buffer_put_u8(&frame, !world->is_loading);
    tell(world, &frame);
    world_settle(world);
}

static bool make_ring(struct world *world)
{
    if (ring_pair_local(world->ring_bytes, CHANNEL_RING_IN_BACK, world->loop, world->loop,
                        &world->edge, &world->core) != ERROR_NONE) {
        world->edge = world->core = NULL;
        return false;
    }
    ring_set_handler(world->core, on_core_ring, world);
    return true;
}

void world_core_gone(struct world *world)
{
    smtp_in_set_ring(world->in, NULL);
    ring_free(world->edge);
    ring_free(world->core);
    world->edge = world->core = NULL;
    world->unanswered_count = 0;
    for (int i = 0; i < WORLD_TOKENS; i++) {
        world->stream_tokens[i] = 0;
        buffer_done(&world->streams[i]);
    }
}

bool world_new_core(struct world *world)
{
    world_core_gone(world);
    if (!make_ring(world)) {
        return false;
    }
    smtp_in_set_ring(world->in, world->edge);
    return true;
}

/* ---- configuration ----------------------------------------------------------------------- */

void world_init(struct world *world)
{
    *world = (struct world){.listener = -1, .ring_bytes = CHANNEL_RING_IN, .port = 2525};
    backend_begin();
    world->addresses[0] = (struct server_address){.is_literal = true, .port = 25};
    ip_from_text(SLICE_LITERAL("203.0.113.1"), &world->addresses[0].literal);
    world->addresses[1] = world->addresses[0];
    ip_from_text(SLICE_LITERAL("203.0.113.2"), &world->addresses[1].literal);
    ip_network_from_text(SLICE_LITERAL("192.0.2.0/24"), &world->from[0]);
    for (uint32_t i = 0; i < 2; i++) {
        world->chains[i] = i;
        world->servers[i] = (struct server_config){.name = SLICE_LITERAL("m"),
                                                   .addresses = &world->addresses[i],
                                                   .address_count = 1,
                                                   .failover = NO_INDEX};
        world->domains[i].name =
            i == 0 ? SLICE_LITERAL("example.com") : SLICE_LITERAL("example.org");
        world->routes[i] = (struct route_config){.kind = ROUTE_DOMAIN,
                                                 .name = world->domains[i].name,
                                                 .domains = &world->domains[i],
                                                 .domain_count = 1,
                                                 .chain = &world->chains[i],
                                                 .chain_length = 1};
    }
    world->routes[2] = (struct route_config){.kind = ROUTE_RELAY,
                                             .name = SLICE_LITERAL("outgoing"),
                                             .from = world->from,
                                             .from_count = 1,
                                             .chain = &world->chains[0],
                                             .chain_length = 1};
    world->listeners[0] = (struct listener_config){.name = SLICE_LITERAL("mx")};
    world->config = (struct service_config){
        .hostname = SLICE_LITERAL("mx.example.net"),
        .node = 1,
        .listeners = world->listeners,
        .listener_count = 1,
        .content_memory_bytes = 64 << 20,
        .limits = {.connections = 1000,
                   .connections_per_client = 100,
                   .recipients = 1000,
                   .message_bytes = 50 << 20,
                   .line_bytes = 1 << 20,
                   .header_bytes = 1 << 20,
                   .commands = 1000,
                   .errors = 20,
                   .command_timeout_ms = 300000,
                   .session_timeout_ms = 3600000,
                   .hops = 100},
        .relay = {.servers = world->servers,
                  .server_count = 2,
                  .routes = world->routes,
                  .route_count = 3,
                  .bounces = NO_INDEX,
                  .hostname = SLICE_LITERAL("mx.example.net"),
                  .postmaster = SLICE_LITERAL("ann@example.com")},
    };
    arena_init(&world->mail.arena);
    buffer_init(&world->mail.content, 0);
}

bool world_start(struct world *world)
{
    struct ip_endpoint at = {.port = world->port};
    ip_from_text(SLICE_LITERAL("127.0.0.1"), &at.address);
    world->loop = loop_new();
    world->shared = smtp_in_shared_new(NULL);
    while (net_listen(&at, 1000, &world->listener) != ERROR_NONE && at.port < UINT16_MAX) {
        at.port++;
    }
    world->port = at.port;
    world->listeners[0].at = at;
    if (world->loop == NULL || world->shared == NULL || world->listener < 0 ||
        (world->ring_bytes > 0 && !make_ring(world))) {
        return false;
    }
    world->in = smtp_in_new(world->loop, &world->config, 1, world->shared, &world->listener,
                            world->edge, &world->counters);
    return world->in != NULL;
}

void world_end(struct world *world)
{
    smtp_in_free(world->in);
    ring_free(world->edge);
    ring_free(world->core);
    smtp_in_shared_free(world->shared);
    if (world->listener >= 0) {
        net_close(world->listener);
    }
    for (int i = 0; i < WORLD_TOKENS; i++) {
        buffer_done(&world->streams[i]);
    }
    arena_done(&world->mail.arena);
    buffer_done(&world->mail.content);
    if (world->loop != NULL) {
        loop_free(world->loop);
    }
    backend_end();
}

void world_settle(struct world *world)
{
    backend_run(world, 40);
}

/* ---- clients ----------------------------------------------------------------------------- */

struct client *client_new(struct world *world, const char *address)
{
    struct ip_endpoint to = {.port = world->port};
    struct ip_address source;
    struct client *client = calloc(1, sizeof(*client));
    ip_from_text(SLICE_LITERAL("127.0.0.1"), &to.address);
    bool has_source = address != NULL && ip_from_text(slice_from_text(address), &source);
    if (client == NULL ||
        net_connect(&to, has_source ? &source : NULL, &client->fd) != ERROR_NONE) {
        abort();
    }
    client->world = world;
    buffer_init(&client->heard, 0);
    world_settle(world);
    return client;
}

static void hear(struct client *client)
{
    for (;;) {
        uint8_t bytes[4096];
        size_t length;
        enum error error =
            client->closed ? ERROR_AGAIN : net_receive(client->fd, bytes, sizeof(bytes), &length);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            client->closed = true;
            return;
        }
        buffer_append(&client->heard, slice_make(bytes, length));
    }
}

void client_free(struct client *client)
{
    net_close(client->fd);
    buffer_done(&client->heard);
    world_settle(client->world);
    free(client);
}

void client_send(struct client *client, struct slice bytes)
{
    for (int turn = 0; bytes.length > 0 && turn < 10000 && !client->closed; turn++) {
        size_t sent = 0;
        enum error error = net_send(client->fd, bytes, &sent);
        if (error == ERROR_NONE) {
            bytes = slice_skip(bytes, sent);
        } else if (error == ERROR_AGAIN) {
            backend_run(client->world, 1);
        } else {
            client->closed = true;
        }
        hear(client);
    }
    world_settle(client->world);
    hear(client);
}

void client_say(struct client *client, const char *line)
{
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, line);
    buffer_append_text(&text, "\r\n");
    client_send(client, buffer_slice(&text));
    buffer_done(&text);
}

const char *client_hear(struct client *client)
{
    static char line[1024];
    hear(client);
    struct slice all = buffer_slice(&client->heard);
    size_t end = slice_find(all, '\n');
    if (end == all.length || end == 0) {
        return "";
    }
    snprintf(line, sizeof(line), "%.*s", (int)end - 1, (const char *)all.data);
    buffer_consume(&client->heard, end + 1);
    return line;
}

bool client_talk(struct client *client, const char *line, const char *code)
{
    if (line != NULL) {
        client_say(client, line);
    }
    const char *heard;
    do {
        heard = client_hear(client);
    } while (strlen(heard) > 3 && heard[3] == '-');
    if (strncmp(heard, code, strlen(code)) != 0 || (code[0] == '\0' && heard[0] != '\0')) {
        fprintf(stderr, "said \"%s\", wanted \"%s\", heard \"%s\"\n", line != NULL ? line : "",
                code, heard);
        return false;
    }
    return true;
}

bool client_envelope(struct client *client, const char *recipient)
{
    char line[600];
    snprintf(line, sizeof(line), "RCPT TO:<%s>", recipient);
    return client_talk(client, "EHLO client.example", "250 ") &&
           client_talk(client, "MAIL FROM:<sender@example.net>", "250 ") &&
           client_talk(client, line, "250 ");
}
