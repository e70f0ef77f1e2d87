/* SPDX-License-Identifier: Apache-2.0 */
#include "core_bench.h"

#include "sys/clock.h"
#include "sys/net.h"
#include "sys/random.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a disk that can fail -------------------------------------------------------------------- */

struct faulty_disk {
    struct disk disk;
    struct disk_ops ops;
    const struct disk_ops *real_ops;
    struct disk *real;
    const struct bench *bench;
};

struct faulty_file {
    struct disk_file file;
    struct disk_file *real;
};

static struct faulty_disk *faulty(struct disk *disk)
{
    return (struct faulty_disk *)disk;
}

static struct disk_file *real_file(struct disk_file *file)
{
    return ((struct faulty_file *)file)->real;
}

static bool has_fault(struct disk *disk, enum bench_fault fault)
{
    const struct bench *bench = faulty(disk)->bench;
    return (bench->failing && fault != BENCH_SHORT_WRITE) || bench->fault == fault;
}

static bool is_read_only(struct disk *disk)
{
    return faulty(disk)->bench->fault == BENCH_READ_ONLY;
}

static enum error f_open(struct disk *disk, const char *name, unsigned flags,
                         struct disk_file **ret_file)
{
    if (is_read_only(disk) && (flags & DISK_WRITE) != 0) {
        return error_from_errno(EROFS);
    }
    struct faulty_file *file = calloc(1, sizeof(*file));
    file->file.disk = disk;
    enum error error = faulty(disk)->real->ops->open(faulty(disk)->real, name, flags, &file->real);
    if (error != ERROR_NONE) {
        free(file);
        return error;
    }
    *ret_file = &file->file;
    return ERROR_NONE;
}

static void f_close(struct disk_file *file)
{
    real_file(file)->disk->ops->close(real_file(file));
    free(file);
}

static enum error f_read(struct disk_file *file, uint64_t offset, void *ret_bytes, size_t length)
{
    if (faulty(file->disk)->bench->unreadable) {
        return ERROR_IO;
    }
    return real_file(file)->disk->ops->read(real_file(file), offset, ret_bytes, length);
}

static enum error f_write(struct disk_file *file, uint64_t offset, struct slice bytes)
{
    struct disk_file *real = real_file(file);
    if (has_fault(file->disk, BENCH_SHORT_WRITE)) {
        enum error error =
            real->disk->ops->write(real, offset, slice_take(bytes, bytes.length / 2));
        return error != ERROR_NONE ? error : error_from_errno(ENOSPC);
    }
    if (has_fault(file->disk, BENCH_NO_WRITE) || is_read_only(file->disk)) {
        return ERROR_IO;
    }
    return real->disk->ops->write(real, offset, bytes);
}

static enum error f_sync(struct disk_file *file)
{
    if (has_fault(file->disk, BENCH_NO_SYNC)) {
        return ERROR_IO;
    }
    return real_file(file)->disk->ops->sync(real_file(file));
}

static enum error f_allocate(struct disk_file *file, uint64_t length)
{
    if (has_fault(file->disk, BENCH_NO_WRITE) || is_read_only(file->disk)) {
        return ERROR_IO;
    }
    return real_file(file)->disk->ops->allocate(real_file(file), length);
}

static enum error f_truncate(struct disk_file *file, uint64_t length)
{
    if (is_read_only(file->disk)) {
        return ERROR_IO;
    }
    return real_file(file)->disk->ops->truncate(real_file(file), length);
}

static enum error f_size(struct disk_file *file, uint64_t *ret_length)
{
    return real_file(file)->disk->ops->size(real_file(file), ret_length);
}

static enum error f_rename(struct disk *disk, const char *from, const char *to)
{
    if (is_read_only(disk)) {
        return error_from_errno(EROFS);
    }
    return faulty(disk)->real->ops->rename(faulty(disk)->real, from, to);
}

static enum error f_unlink(struct disk *disk, const char *name)
{
    if (is_read_only(disk)) {
        return error_from_errno(EROFS);
    }
    return faulty(disk)->real->ops->unlink(faulty(disk)->real, name);
}

static enum error f_sync_directory(struct disk *disk)
{
    return faulty(disk)->real->ops->sync_directory(faulty(disk)->real);
}

static enum error f_list(struct disk *disk, disk_list_fn *fn, void *context)
{
    return faulty(disk)->real->ops->list(faulty(disk)->real, fn, context);
}

static enum error f_space(struct disk *disk, struct disk_space *ret_space)
{
    return faulty(disk)->real->ops->space(faulty(disk)->real, ret_space);
}

static void f_free(struct disk *disk)
{
    disk_free(faulty(disk)->real);
    free(disk);
}

static struct disk *faulty_disk_new(struct disk *real, const struct bench *bench)
{
    static const struct disk_ops ops = {
        .open = f_open,
        .close = f_close,
        .read = f_read,
        .write = f_write,
        .sync = f_sync,
        .allocate = f_allocate,
        .truncate = f_truncate,
        .size = f_size,
        .rename = f_rename,
        .unlink = f_unlink,
        .sync_directory = f_sync_directory,
        .list = f_list,
        .space = f_space,
        .free = f_free,
    };
    struct faulty_disk *disk = calloc(1, sizeof(*disk));
    disk->disk.ops = &ops;
    disk->real = real;
    disk->bench = bench;
    return &disk->disk;
}

/* ---- the edges ------------------------------------------------------------------------------- */

void bench_send_frame(struct bench *bench, struct ring *ring, const struct buffer *frame)
{
    (void)bench;
    assert_false(frame->failed);
    assert_int_equal(ring_send(ring, buffer_slice(frame)), ERROR_NONE);
}

static void take_in(void *context)
{
    struct bench *bench = context;
    struct slice frame;
    while (bench->in != NULL && ring_receive(bench->in, &frame) == ERROR_NONE) {
        struct reader reader = reader_make(frame);
        uint8_t type = reader_u8(&reader);
        if (type == CHANNEL_STORED) {
            uint64_t token = reader_u64(&reader);
            assert_true(token < BENCH_MAX);
            bench->stored_error[token] = (enum error)reader_u8(&reader);
            bench->stored++;
        } else if (type == CHANNEL_ETRN_DONE) {
            bench->etrn_token = reader_u64(&reader);
            bench->etrn_outcome = reader_u8(&reader);
            bench->etrn_messages = reader_u64(&reader);
            bench->etrns++;
        } else if (type == CHANNEL_RECIPIENT_DONE) {
            bench->recipient_token = reader_u64(&reader);
            bench->recipient_answer = reader_u8(&reader);
            bench->recipient_bytes = frame.length;
            bench->recipients_told++;
        } else if (type == CHANNEL_ACCEPTING) {
            bench->accepting = (enum error)reader_u8(&reader);
            (void)reader_u64(&reader);
            bench->knows = reader_u8(&reader) != 0;
        } else if (type == CHANNEL_ROUTE) {
            bench->routes_told++;
            bench->routes_generation = reader_u32(&reader);
        }
        assert_false(reader.failed);
        ring_release(bench->in);
    }
}

static struct buffer out_frame(enum channel_frame type, uint32_t session)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, (uint8_t)type);
    buffer_put_u32(&frame, session);
    return frame;
}

static void say(struct bench *bench, struct buffer frame)
{
    bench_send_frame(bench, bench->out, &frame);
    buffer_done(&frame);
}

static void connected(struct bench *bench, uint32_t session, uint32_t server)
{
    if (bench->connects) {
        struct buffer frame = out_frame(CHANNEL_OPENED, session);
        const struct relay_capabilities capabilities = {
            .flags = RELAY_CAP_8BITMIME | RELAY_CAP_SMTPUTF8, .size_limit = 10000000};
        buffer_put_u32(&frame, server);
        channel_put_capabilities(&frame, &capabilities);
        buffer_put_bytes(&frame, SLICE_LITERAL("opportunistic: not offered"));
        say(bench, frame);
        bench->opened++;
    } else {
        struct buffer frame = out_frame(CHANNEL_ENDED, session);
        const struct relay_reply reply = {.stage = RELAY_AT_CONNECT,
                                          .how = RELAY_LOST,
                                          .text = SLICE_LITERAL("connection refused")};
        buffer_put_u32(&frame, server);
        channel_put_reply(&frame, &reply);
        say(bench, frame);
    }
}

void bench_result(struct bench *bench, enum relay_verdict verdict, uint16_t code)
{
    struct buffer frame = out_frame(CHANNEL_RESULT, bench->session);
    buffer_put_u32(&frame, channel_server_key(&bench->config.relay, 0));
    buffer_put_u64(&frame, bench->job);
    buffer_put_u8(&frame, 0);
    channel_put_id(&frame, bench->message);
    buffer_put_u32(&frame, bench->delivery_count);
    for (uint32_t i = 0; i < bench->delivery_count; i++) {
        const struct relay_reply reply = {.stage = bench->stage,
                                          .how =
                                              verdict == RELAY_IN_DOUBT ? RELAY_LOST : RELAY_REPLY,
                                          .code = code,
                                          .enhanced = {(uint8_t)(code / 100), 0, 0},
                                          .text = SLICE_LITERAL("so it is")};
        buffer_put_u32(&frame, bench->deliveries[i]);
        buffer_put_u8(&frame, (uint8_t)verdict);
        channel_put_reply(&frame, &reply);
    }
    say(bench, frame);
}

void bench_result_of_first(struct bench *bench, enum relay_verdict verdict, uint16_t code)
{
    bench->job = bench->first_job;
    bench->message = bench->first_message;
    bench_result(bench, verdict, code);
}

void bench_ready(struct bench *bench)
{
    struct buffer frame = out_frame(CHANNEL_READY, bench->session);
    buffer_put_u64(&frame, bench->job);
    say(bench, frame);
}

static void take_deliver(struct bench *bench, struct reader *reader)
{
    bench->session = reader_u32(reader);
    bench->job = reader_u64(reader);
    assert_true(reader_bytes(reader).length > 0);
    struct slice redirect = reader_bytes(reader);
    snprintf(bench->redirect, sizeof(bench->redirect), "%.*s", SLICE_PRINT(redirect));
    bench->delivery_count = reader_u32(reader);
    assert_true(bench->delivery_count <= BENCH_MAX);
    for (uint32_t i = 0; i < bench->delivery_count; i++) {
        bench->deliveries[i] = reader_u32(reader);
    }
    struct job *job = map_get(&bench->core->jobs, bench->job);
    assert_non_null(job);
    bench->message = job->message; /* a real edge has it from the ticket */
    if (bench->delivered++ == 0) {
        bench->first_job = bench->job;
        bench->first_message = bench->message;
    }
    if (bench->readies) {
        bench_ready(bench);
    }
}

/* Several sessions may be at work: the frame says which job is meant. */
static void know_job(struct bench *bench, struct reader *reader)
{
    bench->session = reader_u32(reader);
    bench->job = reader_u64(reader);
    const struct job *job = map_get(&bench->core->jobs, bench->job);
    assert_non_null(job);
    bench->message = job->message;
    bench->delivery_count = job->count;
    memcpy(bench->deliveries, job->deliveries, job->count * sizeof(job->deliveries[0]));
}

static void take_out(void *context)
{
    struct bench *bench = context;
    struct slice frame;
    while (bench->out != NULL && ring_receive(bench->out, &frame) == ERROR_NONE) {
        struct reader reader = reader_make(frame);
        uint8_t type = reader_u8(&reader);
        if (type == CHANNEL_CONNECT) {
            uint32_t session = reader_u32(&reader);
            uint32_t key = reader_u32(&reader);
            if (bench->connected < 16) {
                bench->connected_keys[bench->connected++] = key;
            }
            connected(bench, session, key);
        } else if (type == CHANNEL_DELIVER) {
            take_deliver(bench, &reader);
        } else if (type == CHANNEL_GO) {
            bench->gone++;
            if (bench->answers) {
                know_job(bench, &reader);
                bench_result(bench, bench->verdict, bench->code);
            }
        } else if (type == CHANNEL_CALLOUT) {
            bench->callouts++;
        } else if (type == CHANNEL_DURABLE) {
            bench->durable++;
        } else if (type == CHANNEL_NAME) {
            struct slice host = reader_bytes(&reader);
            bench->names_told++;
            snprintf(bench->name_told, sizeof(bench->name_told), "%.*s %u", SLICE_PRINT(host),
                     reader_u32(&reader));
        } else if (type == CHANNEL_CLOSE) {
            bench->closed++;
            uint32_t session = reader_u32(&reader);
            struct buffer ended = out_frame(CHANNEL_ENDED, session);
            const struct relay_reply reply = {.stage = RELAY_AT_IDLE, .how = RELAY_LOCAL};
            buffer_put_u32(&ended, 0);
            channel_put_reply(&ended, &reply);
            say(bench, ended);
        }
        assert_false(reader.failed);
        ring_release(bench->out);
    }
}

void bench_attach_in(struct bench *bench)
{
    struct ring *core_side;
    ring_free(bench->in);
    assert_int_equal(ring_pair_local(CHANNEL_RING_IN, CHANNEL_RING_IN_BACK, bench->loop,
                                     bench->loop, &bench->in, &core_side),
                     ERROR_NONE);
    ring_set_handler(bench->in, take_in, bench);
    core_set_edge_in(bench->core, 0, core_side);
}

void bench_resumed(struct bench *bench, bool fresh)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_RESUMED);
    buffer_put_u8(&frame, fresh);
    say(bench, frame);
}

void bench_attach_out(struct bench *bench, bool fresh, bool resumed)
{
    struct ring *core_side;
    ring_free(bench->out);
    assert_int_equal(ring_pair_local(CHANNEL_RING_OUT, CHANNEL_RING_OUT, bench->loop, bench->loop,
                                     &bench->out, &core_side),
                     ERROR_NONE);
    ring_set_handler(bench->out, take_out, bench);
    core_set_edge_out(bench->core, 0, 1, core_side);
    if (resumed) {
        bench_resumed(bench, fresh);
    }
}

static uint32_t send_message(struct bench *bench, uint32_t first, uint32_t recipients,
                             bool as_relay_client)
{
    static const char content[] = "Subject: test\r\n\r\nHello.\r\n";
    struct spool_recipient *list = calloc(recipients, sizeof(*list));
    char(*addresses)[64] = calloc(recipients, sizeof(*addresses));
    for (uint32_t i = 0; i < recipients; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "r%u@example.%s", first + i,
                 as_relay_client ? "org" : "com");
        list[i].address = slice_from_text(addresses[i]);
        list[i].notify = bench->notify;
    }
    struct id_maker maker = {.node = 1, .start = (uint32_t)random_u64()};
    struct spool_message message = {
        .id = id_make(&maker, clock_wall_ms()),
        .received_ms = clock_wall_ms(),
        .flags = bench->flags | (as_relay_client ? SPOOL_SENDER_VERIFIED : 0),
        .header_length = 17,
        .body_length = sizeof(content) - 1 - 17,
        .sender = SLICE_LITERAL("ann@sender.example"),
        .message_id_header = SLICE_LITERAL("<one@sender.example>"),
        .origin = {.helo = SLICE_LITERAL("client"),
                   .listener = SLICE_LITERAL("mx"),
                   .protocol = SLICE_LITERAL("ESMTP")},
        .recipients = list,
        .recipient_count = recipients,
    };
    assert_true(
        ip_from_text(as_relay_client ? SLICE_LITERAL("127.0.0.1") : SLICE_LITERAL("198.51.100.7"),
                     &message.origin.client.address));
    uint32_t token = bench->sent_count++;
    bench->sent[token] = message.id;
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_COMMIT);
    buffer_put_u64(&frame, token);
    channel_put_message(&frame, &message);
    buffer_append(&frame, slice_from_text(content));
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
    free(list);
    free(addresses);
    return token;
}

uint32_t bench_send(struct bench *bench, uint32_t recipients, bool as_relay_client)
{
    return send_message(bench, 0, recipients, as_relay_client);
}

uint32_t bench_send_to(struct bench *bench, uint32_t number)
{
    return send_message(bench, number, 1, false);
}

/* ---- running --------------------------------------------------------------------------------- */

struct wait {
    struct bench *bench;
    const uint32_t *counter;
    const bool *flag;
    uint32_t least;
    int64_t until_ms;
    struct loop_timer *timer;
    bool reached;
};

static void look(void *context)
{
    struct wait *wait = context;
    wait->reached =
        wait->counter != NULL ? *wait->counter >= wait->least : wait->flag != NULL && *wait->flag;
    if (wait->reached || clock_steady_ms() >= wait->until_ms) {
        loop_stop(wait->bench->loop);
    } else {
        loop_timer_set(wait->timer, 1);
    }
}

static bool run(struct bench *bench, const uint32_t *counter, uint32_t least, const bool *flag,
                int64_t ms)
{
    struct wait wait = {bench, counter, flag, least, clock_steady_ms() + ms, NULL, false};
    wait.timer = loop_timer_new(bench->loop, look, &wait);
    loop_timer_set(wait.timer, 0);
    loop_run(bench->loop);
    loop_timer_free(wait.timer);
    return wait.reached;
}

void bench_until(struct bench *bench, const uint32_t *counter, uint32_t least)
{
    assert_true(run(bench, counter, least, NULL, 10000));
}

void bench_run_ms(struct bench *bench, int64_t ms)
{
    (void)run(bench, NULL, 0, NULL, ms);
}

void bench_until_up(struct bench *bench)
{
    struct relay_server_view view;
    uint32_t up = 0;
    for (int i = 0; i < 1000 && up < bench->config.relay.server_count; i++) {
        bench_run_ms(bench, 10);
        relay_server(bench->core->relay, up, &view);
        up += view.state == SERVER_UP;
    }
    assert_int_equal(up, bench->config.relay.server_count);
}

/* ---- control --------------------------------------------------------------------------------- */

static void take_answer(struct bench *bench, json_t *frame)
{
    json_t *row = json_object_get(frame, "row");
    json_t *more = json_object_get(frame, "more");
    json_t *end = json_object_get(frame, "end");
    json_t *progress = json_object_get(frame, "progress");
    if (progress != NULL) {
        bench->progress++;
        bench->progress_done = json_integer_value(json_object_get(progress, "done"));
        bench->progress_all = json_integer_value(json_object_get(progress, "all"));
    } else if (row != NULL) {
        json_array_append(bench->rows, row);
    } else if (more != NULL) {
        const char *key;
        json_t *value;
        json_t *last = json_array_get(bench->rows, json_array_size(bench->rows) - 1);
        json_object_foreach(more, key, value)
        {
            json_array_extend(json_object_get(last, key), value);
        }
    } else if (end != NULL) {
        bench->exit = (int)json_integer_value(json_object_get(end, "exit"));
        const char *error = json_string_value(json_object_get(end, "error"));
        snprintf(bench->error, sizeof(bench->error), "%s", error != NULL ? error : "");
        bench->ended = true;
    }
    json_decref(frame);
}

static void take_control(void *context, unsigned ready)
{
    (void)ready;
    struct bench *bench = context;
    size_t size, length;
    void *space = control_reader_space(&bench->reader, &size);
    if (net_receive(bench->control, space, size, &length) != ERROR_NONE) {
        snprintf(bench->error, sizeof(bench->error), "closed");
        bench->ended = true;
        return;
    }
    control_reader_filled(&bench->reader, length);
    json_t *frame;
    while (control_reader_next(&bench->reader, &frame) == ERROR_NONE) {
        take_answer(bench, frame);
    }
}

int bench_ask(struct bench *bench, const char *command, const char *arguments)
{
    char text[4096];
    snprintf(text, sizeof(text), "%s", arguments);
    for (char *at = text; *at != 0; at++) {
        *at = *at == '\'' ? '"' : *at;
    }
    json_t *request = json_object();
    json_object_set_new(request, "command", json_string(command));
    json_t *parsed = json_loads(text, 0, NULL);
    assert_non_null(parsed);
    json_object_set_new(request, "arguments", parsed);
    struct buffer out;
    buffer_init(&out, 0);
    assert_int_equal(control_put(&out, request), ERROR_NONE);
    json_decref(request);
    assert_int_equal(send(bench->control, out.data, out.length, MSG_NOSIGNAL), out.length);
    buffer_done(&out);
    json_array_clear(bench->rows);
    bench->ended = false;
    bench->progress = 0;
    struct loop_watch *watch = loop_watch_new(bench->loop, bench->control, take_control, bench);
    loop_watch_set(watch, LOOP_READ);
    bool reached = run(bench, NULL, 0, &bench->ended, 10000);
    loop_watch_free(watch);
    assert_true(reached);
    return bench->exit;
}

const char *bench_id(struct bench *bench, uint32_t number)
{
    static char text[4][ID_TEXT_LENGTH + 1];
    static unsigned turn;
    char *at = text[turn++ % 4];
    id_to_text(bench->sent[number], at);
    return at;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static enum error open_memory(void *context, struct loop *loop, const struct spool_owner *owner,
                              struct spool **ret_spool)
{
    struct bench *bench = context;
    return spool_open_memory(loop, bench->store, owner, ret_spool);
}

static enum error open_faulty(void *context, struct loop *loop, const struct spool_owner *owner,
                              struct spool **ret_spool)
{
    struct bench *bench = context;
    char path[100];
    struct disk *real;
    snprintf(path, sizeof(path), "%s/spool", bench->path);
    assert_int_equal(disk_open_directory(path, &real), ERROR_NONE);
    struct spool_settings settings;
    spool_settings_default(&settings);
    settings.segment_bytes = 1 << 20;
    settings.reserve_bytes = 1;
    return spool_open_log(loop, faulty_disk_new(real, bench), &settings, owner, ret_spool);
}

void bench_open(struct bench *bench)
{
    char path[100];
    struct disk *events;
    snprintf(path, sizeof(path), "%s/events", bench->path);
    assert_int_equal(disk_open_directory(path, &events), ERROR_NONE);
    assert_int_equal(core_new_with(bench->loop, &bench->config, 1,
                                   bench->store != NULL ? open_memory : open_faulty, bench, events,
                                   &bench->counters, bench->lease, &bench->core),
                     ERROR_NONE);
    bench_attach_in(bench);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    bench->control = pair[0];
    control_reader_init(&bench->reader);
    core_add_control(bench->core, pair[1], true);
}

static void has_stopped(void *context)
{
    *(uint32_t *)context = 1;
}

void bench_close(struct bench *bench)
{
    uint32_t stopped = 0;
    core_stop(bench->core, has_stopped, &stopped);
    bench_until(bench, &stopped, 1);
    core_free(bench->core);
    bench->core = NULL;
    ring_free(bench->in);
    ring_free(bench->out);
    bench->in = bench->out = NULL;
    close(bench->control);
    control_reader_done(&bench->reader);
}

static struct bench *bench_new(void)
{
    static const uint32_t chains[2] = {0, 1};
    static const uint32_t retry[1] = {600000};
    static const struct domain_pattern domain = {SLICE_LITERAL("example.com"), false};
    static struct ip_network local;
    struct bench *bench = calloc(1, sizeof(*bench));
    snprintf(bench->path, sizeof(bench->path), "/tmp/holdfast-core-XXXXXX");
    assert_non_null(mkdtemp(bench->path));
    assert_true(ip_network_from_text(SLICE_LITERAL("127.0.0.0/8"), &local));
    for (uint32_t i = 0; i < 2; i++) {
        bench->addresses[i] = (struct server_address){.is_literal = true, .port = 25};
        assert_true(ip_from_text(i == 0 ? SLICE_LITERAL("192.0.2.1") : SLICE_LITERAL("192.0.2.2"),
                                 &bench->addresses[i].literal));
        bench->servers[i] = (struct server_config){
            .name = i == 0 ? SLICE_LITERAL("m1") : SLICE_LITERAL("m2"),
            .addresses = &bench->addresses[i],
            .address_count = 1,
            .connections = 4,
            .connect_timeout_ms = 30000,
            .greeting_timeout_ms = 60000,
            .probe_interval_ms = 20,
            .failover = NO_INDEX,
        };
        bench->routes[i] = (struct route_config){
            .kind = i == 0 ? ROUTE_DOMAIN : ROUTE_RELAY,
            .name = i == 0 ? SLICE_LITERAL("example.com") : SLICE_LITERAL("out"),
            .domains = &domain,
            .domain_count = i == 0,
            .from = &local,
            .from_count = i == 1,
            .chain = &chains[i],
            .chain_length = 1,
            .retry_ms = retry,
            .retry_count = 1,
            .keep_ms = 30LL * 86400 * 1000,
            .keep_max_ms = 90LL * 86400 * 1000,
            .order_patience_ms = 30000,
        };
    }
    bench->config = (struct service_config){
        .hostname = SLICE_LITERAL("mx2.example.net"),
        .limits = {.message_bytes = 50 << 20, .recipients = 1000, .connections = 1000},
        .relay = {.servers = bench->servers,
                  .server_count = 2,
                  .routes = bench->routes,
                  .route_count = 2,
                  .bounces = 1,
                  .hostname = SLICE_LITERAL("mx2.example.net"),
                  .dead_letter_keep_ms = 30LL * 86400 * 1000},
        .content_memory_bytes = 64 << 20,
        .trace_keep_ms = 30LL * 86400 * 1000,
    };
    bench->connects = bench->readies = bench->answers = true;
    bench->verdict = RELAY_ACCEPTED;
    bench->code = 250;
    bench->stage = RELAY_AT_DOT;
    bench->rows = json_array();
    bench->loop = loop_new();
    return bench;
}

int bench_set_up_memory(void **state)
{
    struct bench *bench = bench_new();
    bench->store = spool_memory_store_new();
    bench_open(bench);
    *state = bench;
    return 0;
}

int bench_set_up_disk(void **state)
{
    struct bench *bench = bench_new();
    bench_open(bench);
    *state = bench;
    return 0;
}

int bench_tear_down(void **state)
{
    struct bench *bench = *state;
    if (bench->core != NULL) {
        bench_close(bench);
    }
    loop_free(bench->loop);
    spool_memory_store_free(bench->store);
    json_decref(bench->rows);
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s", bench->path);
    assert_int_equal(system(command), 0);
    free(bench);
    return 0;
}
