/* SPDX-License-Identifier: Apache-2.0
 *
 * What an edge that has gone mad can say to core, and what an operator's program can: frames cut
 * out of the input, on the rings of both edges and on a control stream, against a whole core with a
 * spool in memory.
 *
 * Input: pieces, each u8 way (0 edge-in, 1 edge-out, 2 control JSON, 3 control bytes, 4 a good
 * message, 5 a good report on the last job), u16 length, bytes.
 */
#include "service/channel.h"
#include "service/control_frame.h"
#include "service/core_internal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a disk that refuses everything: the event journal must bear it ---------------------------
 */

static enum error no_open(struct disk *disk, const char *name, unsigned flags,
                          struct disk_file **ret_file)
{
    (void)disk, (void)name, (void)flags, (void)ret_file;
    return ERROR_DENIED;
}

static enum error no_list(struct disk *disk, disk_list_fn *fn, void *context)
{
    (void)disk, (void)fn, (void)context;
    return ERROR_NONE;
}

static enum error no_space(struct disk *disk, struct disk_space *ret_space)
{
    (void)disk, (void)ret_space;
    return ERROR_IO;
}

static void no_free(struct disk *disk)
{
    free(disk);
}

static struct disk *no_disk(void)
{
    static const struct disk_ops ops = {
        .open = no_open, .list = no_list, .space = no_space, .free = no_free};
    struct disk *disk = calloc(1, sizeof(*disk));
    disk->ops = &ops;
    return disk;
}

/* ---- the world ------------------------------------------------------------------------------- */

struct world {
    struct loop *loop;
    struct core *core;
    struct ring *in;
    struct ring *out;
    struct loop_later *later;
    int turns;
    int control;
    uint32_t session;
    uint64_t job;
    struct message_id message;
    uint32_t count;
};

static void ignore(void *context)
{
    (void)context;
}

/* Frames of core to edge-out: remembers what a good report needs. */
static void listen_out(struct world *world)
{
    struct slice frame;
    while (ring_receive(world->out, &frame) == ERROR_NONE) {
        struct reader reader = reader_make(frame);
        uint8_t type = reader_u8(&reader);
        world->session = reader_u32(&reader);
        if (type == CHANNEL_DELIVER) {
            world->job = reader_u64(&reader);
            const struct job *job = map_get(&world->core->jobs, world->job);
            world->message = job != NULL ? job->message : world->message;
            world->count = job != NULL ? job->count : 0;
        }
        ring_release(world->out);
    }
    while (ring_receive(world->in, &frame) == ERROR_NONE) {
        ring_release(world->in);
    }
    uint8_t bytes[65536];
    while (recv(world->control, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
}

static void stop(void *context)
{
    struct world *world = context;
    if (world->turns-- > 0) {
        loop_later_ask(world->later);
    } else {
        loop_stop(world->loop);
    }
}

/* A few turns of the loop, without waiting for anything. */
static void turn(struct world *world, int turns)
{
    world->turns = turns;
    loop_later_ask(world->later);
    loop_run(world->loop);
    listen_out(world);
}

static enum error open_memory(void *context, struct loop *loop, const struct spool_owner *owner,
                              struct spool **ret_spool)
{
    return spool_open_memory(loop, context, owner, ret_spool);
}

static void send_good_message(struct world *world, struct slice bytes)
{
    const struct spool_recipient recipients[2] = {{.address = SLICE_LITERAL("a@example.com")},
                                                  {.address = SLICE_LITERAL("b@example.org")}};
    uint8_t variety = bytes.length > 0 ? bytes.data[0] : 0;
    struct spool_message message = {
        .id = {0x0190000000000000ULL + variety, 1},
        .received_ms = 1000,
        .flags = variety & 1 ? SPOOL_SENDER_VERIFIED : 0,
        .body_length = 5,
        .sender = SLICE_LITERAL("s@example.net"),
        .recipients = recipients,
        .recipient_count = variety & 2 ? 2 : 1,
    };
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_COMMIT);
    buffer_put_u64(&frame, variety);
    channel_put_message(&frame, &message);
    buffer_append_text(&frame, "hello");
    (void)!ring_send(world->in, buffer_slice(&frame));
    buffer_done(&frame);
}

/* A report about the last session and job, of the type that the first byte says. */
static void send_good_report(struct world *world, struct slice bytes)
{
    uint8_t type = (uint8_t)(CHANNEL_OPENED + (bytes.length > 0 ? bytes.data[0] % 8 : 0));
    uint8_t verdict = bytes.length > 1 ? bytes.data[1] % 7 : 0;
    const struct relay_reply reply = {
        .stage = RELAY_AT_DOT, .code = verdict == 0 ? 250 : 550, .text = SLICE_LITERAL("text")};
    const struct relay_capabilities capabilities = {.flags = 31};
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, type);
    if (type == CHANNEL_RESUMED) {
        buffer_put_u8(&frame, verdict & 1);
    } else {
        buffer_put_u32(&frame, world->session);
        if (type != CHANNEL_READY) {
            buffer_put_u32(&frame, 0);
        }
    }
    if (type == CHANNEL_OPENED) {
        channel_put_capabilities(&frame, &capabilities);
        buffer_put_bytes(&frame, SLICE_LITERAL("encrypt: TLSv1.3"));
    } else if (type == CHANNEL_ENDED) {
        channel_put_reply(&frame, &reply);
    } else if (type == CHANNEL_READY) {
        buffer_put_u64(&frame, world->job);
    } else if (type == CHANNEL_RESULT || type == CHANNEL_WORKING) {
        buffer_put_u64(&frame, world->job);
        if (type == CHANNEL_RESULT) {
            buffer_put_u8(&frame, 0);
        }
        channel_put_id(&frame, world->message);
        buffer_put_u32(&frame, world->count);
        for (uint32_t i = 0; i < world->count; i++) {
            buffer_put_u32(&frame, i);
            if (type == CHANNEL_RESULT) {
                buffer_put_u8(&frame, verdict);
                channel_put_reply(&frame, &reply);
            }
        }
    }
    (void)!ring_send(world->out, buffer_slice(&frame));
    buffer_done(&frame);
}

static void send_control(struct world *world, struct slice bytes, bool framed)
{
    uint8_t prefix[4] = {0, 0, (uint8_t)(bytes.length >> 8), (uint8_t)bytes.length};
    if (framed && send(world->control, prefix, sizeof(prefix), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        return;
    }
    (void)!send(world->control, bytes.data, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void new_control(struct world *world)
{
    int pair[2];
    if (world->control >= 0) {
        close(world->control);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0) {
        abort();
    }
    world->control = pair[0];
    core_add_control(world->core, pair[1], true);
}

static void act(struct world *world, uint8_t way, struct slice bytes)
{
    switch (way % 7) {
    case 0:
        (void)!ring_send(world->in, bytes);
        break;
    case 1:
        (void)!ring_send(world->out, bytes);
        break;
    case 2:
    case 3:
        send_control(world, bytes, way % 7 == 2);
        break;
    case 4:
        send_good_message(world, bytes);
        break;
    case 5:
        send_good_report(world, bytes);
        break;
    default:
        new_control(world);
        break;
    }
}

static void attach(struct world *world)
{
    struct ring *side;
    if (ring_pair_local(1 << 17, 1 << 16, world->loop, world->loop, &world->in, &side) !=
        ERROR_NONE) {
        abort();
    }
    ring_set_handler(world->in, ignore, NULL);
    core_set_edge_in(world->core, 0, side);
    if (ring_pair_local(1 << 17, 1 << 17, world->loop, world->loop, &world->out, &side) !=
        ERROR_NONE) {
        abort();
    }
    ring_set_handler(world->out, ignore, NULL);
    core_set_edge_out(world->core, 0, 1, side);
    uint8_t resumed[2] = {CHANNEL_RESUMED, 1};
    (void)!ring_send(world->out, slice_make(resumed, sizeof(resumed)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t chain[1] = {0};
    static const uint32_t retry[1] = {600000};
    static const struct domain_pattern domain = {SLICE_LITERAL("example.com"), false};
    static const struct server_address address = {
        .is_literal = true, .literal = {{[10] = 255, 255, 192, 0, 2, 1}}, .port = 25};
    static const struct server_config server = {.name = SLICE_LITERAL("m1"),
                                                .addresses = &address,
                                                .address_count = 1,
                                                .connections = 4,
                                                .probe_interval_ms = 20,
                                                .failover = NO_INDEX};
    static const struct route_config routes[2] = {{.kind = ROUTE_DOMAIN,
                                                   .name = SLICE_LITERAL("example.com"),
                                                   .domains = &domain,
                                                   .domain_count = 1,
                                                   .chain = chain,
                                                   .chain_length = 1,
                                                   .retry_ms = retry,
                                                   .retry_count = 1},
                                                  {.kind = ROUTE_RELAY,
                                                   .name = SLICE_LITERAL("out"),
                                                   .any_user = true,
                                                   .chain = chain,
                                                   .chain_length = 1,
                                                   .retry_ms = retry,
                                                   .retry_count = 1}};
    static const struct service_config config = {
        .hostname = SLICE_LITERAL("mx.example.net"),
        .limits = {.message_bytes = 1 << 20},
        .relay = {.servers = &server,
                  .server_count = 1,
                  .routes = routes,
                  .route_count = 2,
                  .bounces = 1,
                  .hostname = SLICE_LITERAL("mx.example.net")},
        .content_memory_bytes = 1 << 20,
        .trace_keep_ms = 1000};
    static struct counters counters;
    struct world world = {.loop = loop_new(), .control = -1};
    world.later = loop_later_new(world.loop, stop, &world);
    struct spool_memory_store *store = spool_memory_store_new();
    if (core_new_with(world.loop, &config, 1, open_memory, store, no_disk(), &counters, NULL,
                      &world.core) != ERROR_NONE) {
        abort();
    }
    attach(&world);
    new_control(&world);
    turn(&world, 4);
    struct reader reader = reader_make(slice_make(data, size));
    for (int i = 0; i < 64 && reader.rest.length > 0; i++) {
        uint8_t way = reader_u8(&reader);
        size_t length = reader_u16(&reader);
        length = length < reader.rest.length ? length : reader.rest.length;
        act(&world, way, reader_take(&reader, length));
        turn(&world, 4);
    }
    turn(&world, 8);
    core_free(world.core);
    ring_free(world.in);
    ring_free(world.out);
    close(world.control);
    loop_later_free(world.later);
    loop_free(world.loop);
    spool_memory_store_free(store);
    return 0;
}
