/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "tests/spool/harness.h"
#include "tests/spool/harness_postgres.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- loading ----------------------------------------------------------------------------- */

static void on_message(void *context, struct spool_handle handle,
                       const struct spool_message *message)
{
    struct harness *harness = context;
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(message->id, id);
    assert_int_equal(spool_find(harness->spool, message->id).index, handle.index);
    buffer_printf(&harness->loaded, "message %s from %.*s to", id, SLICE_PRINT(message->sender));
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        buffer_printf(&harness->loaded, " %.*s/%u", SLICE_PRINT(message->recipients[i].address),
                      message->recipients[i].notify);
    }
    buffer_printf(&harness->loaded, " %lld %u %u %x %d %lld %llu+%llu %.*s %.*s %u\n",
                  (long long)message->received_ms, message->odometer_s, message->elapsed_s,
                  message->flags, message->priority, (long long)message->deliver_by_ms,
                  (unsigned long long)message->header_length,
                  (unsigned long long)message->body_length, SLICE_PRINT(message->origin.listener),
                  SLICE_PRINT(message->origin.user), message->origin.client.port);
    harness->messages++;
}

static void on_fate(void *context, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate)
{
    struct harness *harness = context;
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(spool_id(harness->spool, handle), id);
    buffer_printf(&harness->loaded, "fate %s/%u %d\n", id, delivery, (int)fate);
    harness->fates++;
}

static void on_note(void *context, struct spool_handle handle, uint32_t delivery, uint16_t kind,
                    struct slice payload)
{
    struct harness *harness = context;
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(spool_id(harness->spool, handle), id);
    buffer_printf(&harness->loaded, "note %s/%u %u %.*s\n", id, delivery, kind,
                  SLICE_PRINT(payload));
    harness->notes++;
}

static void on_global(void *context, struct slice key, struct slice payload)
{
    struct harness *harness = context;
    buffer_printf(&harness->loaded, "global %.*s %.*s\n", SLICE_PRINT(key), SLICE_PRINT(payload));
    harness->globals++;
}

static void on_damage(void *context, const char *text)
{
    struct harness *harness = context;
    buffer_printf(&harness->loaded, "damage %s\n", text);
    harness->damages++;
}

static void on_late_fate(void *context, struct message_id message, struct spool_handle handle,
                         uint32_t delivery, enum spool_fate fate)
{
    struct harness *harness = context;
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(message, id);
    buffer_printf(&harness->loaded, "late fate %s/%u %d %s\n", id, delivery, (int)fate,
                  handle.index == SPOOL_NO_HANDLE.index ? "gone" : "here");
}

void harness_load(struct harness *harness)
{
    struct spool_loader loader = {.context = harness,
                                  .message = on_message,
                                  .fate = on_fate,
                                  .note = on_note,
                                  .global_note = on_global,
                                  .damage = on_damage,
                                  .late_fate = on_late_fate};
    bool complete = false;
    buffer_clear(&harness->loaded);
    harness->messages = harness->fates = harness->notes = 0;
    harness->globals = harness->damages = 0;
    while (!complete) {
        assert_int_equal(spool_load(harness->spool, &loader, &complete), ERROR_NONE);
    }
    buffer_put_u8(&harness->loaded, 0);
}

bool harness_loaded(const struct harness *harness, const char *line)
{
    return strstr((const char *)harness->loaded.data, line) != NULL;
}

/* ---- opening ----------------------------------------------------------------------------- */

enum error harness_try_open(struct harness *harness)
{
    if (harness->kind == HARNESS_MEMORY) {
        return spool_open_memory(harness->loop, harness->store, &harness->owner, &harness->spool);
    }
    struct disk *disk;
    if (harness->make_disk != NULL) {
        disk = harness->make_disk(harness);
    } else {
        assert_int_equal(disk_open_directory(harness->path, &disk), ERROR_NONE);
    }
    if (harness->kind == HARNESS_POSTGRES) {
        return harness_open_postgres(harness, disk, 1, NULL);
    }
    return spool_open_log(harness->loop, disk, &harness->settings, &harness->owner,
                          &harness->spool);
}

void harness_open(struct harness *harness, enum harness_kind kind)
{
    harness->kind = kind;
    if (harness->settings.segment_bytes == 0) {
        spool_settings_default(&harness->settings);
        harness->settings.segment_bytes = 1 << 20;
        harness->settings.large_bytes = 256 << 10;
        harness->settings.reserve_bytes = 1;
        harness->settings.ready_segments = 1;
    }
    harness->loop = loop_new();
    assert_non_null(harness->loop);
    if (kind == HARNESS_MEMORY) {
        harness->store = spool_memory_store_new();
    } else if (harness->make_disk == NULL) {
        strcpy(harness->path, "/tmp/holdfast-spool-XXXXXX");
        assert_non_null(mkdtemp(harness->path));
    }
    if (kind == HARNESS_POSTGRES) {
        harness_tables();
    }
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
}

static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
    rmdir(path);
}

void harness_done(struct harness *harness)
{
    spool_close(harness->spool);
    spool_memory_store_free(harness->store);
    loop_free(harness->loop);
    buffer_done(&harness->loaded);
    if (harness->path[0] != '\0') {
        remove_directory(harness->path);
    }
}

struct disk *harness_simulated_disk(struct harness *harness)
{
    return disk_sim_open(harness->context);
}

void harness_open_simulated(struct harness *harness, uint32_t segment_bytes)
{
    struct disk_sim *sim = disk_sim_new();
    *harness = (struct harness){.make_disk = harness_simulated_disk, .context = sim};
    spool_settings_default(&harness->settings);
    harness->settings.segment_bytes = segment_bytes;
    harness->settings.large_bytes = 256 << 10;
    harness->settings.reserve_bytes = 1;
    harness->settings.ready_segments = 1;
    harness_open(harness, HARNESS_LOG);
}

void harness_done_simulated(struct harness *harness)
{
    harness_done(harness);
    disk_sim_free(harness->context);
}

void harness_reopen(struct harness *harness)
{
    spool_close(harness->spool);
    harness->spool = NULL;
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
}

/* ---- batches ----------------------------------------------------------------------------- */

void harness_told(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct harness *harness = context;
    harness->done = true;
    harness->error = error;
    harness->handle_count = count;
    for (size_t i = 0; i < count && i < 64; i++) {
        harness->handles[i] = handles[i];
    }
    loop_stop(harness->loop);
}

/* What a full disk refuses is tried again when its owner ticks. */
struct ticking {
    struct harness *harness;
    struct loop_timer *timer;
};

static void tick_on(void *context)
{
    struct ticking *ticking = context;
    spool_tick(ticking->harness->spool);
    loop_timer_set(ticking->timer, 100);
}

enum error harness_submit(struct harness *harness, enum spool_durability durability)
{
    struct ticking ticking = {.harness = harness};
    ticking.timer = loop_timer_new(harness->loop, tick_on, &ticking);
    loop_timer_set(ticking.timer, 100);
    harness->done = false;
    spool_batch_submit(harness->spool, durability, harness_told, harness);
    assert_false(harness->done); /* never from inside the call */
    while (!harness->done) {
        loop_run(harness->loop);
    }
    loop_timer_free(ticking.timer);
    return harness->error;
}

void harness_settle(struct harness *harness)
{
    for (int i = 0; i < 3; i++) {
        spool_batch_begin(harness->spool);
        (void)!harness_submit(harness, SPOOL_SYNCED);
        spool_tick(harness->spool);
    }
}

static void pass_over(void *context)
{
    loop_stop(context);
}

void harness_pass(struct harness *harness, int64_t ms)
{
    struct loop_timer *timer = loop_timer_new(harness->loop, pass_over, harness->loop);
    loop_timer_set(timer, ms);
    loop_run(harness->loop);
    loop_timer_free(timer);
}

/* ---- messages ---------------------------------------------------------------------------- */

struct message_id harness_id(uint64_t n)
{
    return (struct message_id){0x0123456700000000ULL + n, n * 0x9e3779b97f4a7c15ULL};
}

static struct slice text(struct arena *arena, const char *format, uint64_t n)
{
    char bytes[128];
    snprintf(bytes, sizeof(bytes), format, (unsigned long long)n);
    return arena_copy(arena, slice_from_text(bytes));
}

void harness_message(uint64_t n, struct arena *arena, struct spool_message *ret_message)
{
    uint32_t count = 1 + n % 3;
    struct spool_recipient *recipients = arena_allocate(arena, count * sizeof(*recipients));
    for (uint32_t i = 0; i < count; i++) {
        recipients[i].address = text(arena, "recipient%llu@example.com", n * 10 + i);
        recipients[i].orcpt = text(arena, "rfc822;original%llu@example.com", n);
        recipients[i].notify = (uint8_t)(n + i) & 15;
    }
    *ret_message = (struct spool_message){
        .id = harness_id(n),
        .received_ms = 1700000000000 + (int64_t)n,
        .odometer_s = (uint32_t)n * 3,
        .elapsed_s = (uint32_t)n % 7,
        .flags = (uint32_t)n & (SPOOL_8BIT | SPOOL_SMTPUTF8 | SPOOL_RET_FULL),
        .priority = (int8_t)(n % 9) - 4,
        .deliver_by_ms = n % 2 == 0 ? 0 : 1700000000000 + (int64_t)n * 1000,
        .sender = n % 5 == 4 ? SLICE_EMPTY : text(arena, "sender%llu@example.org", n),
        .envelope_id = text(arena, "envid-%llu", n),
        .message_id_header = text(arena, "<%llu@example.org>", n),
        .origin = {.client = {.port = (uint16_t)(1000 + n)},
                   .helo = text(arena, "client%llu.example.org", n),
                   .listener = SLICE_LITERAL("mx"),
                   .protocol = SLICE_LITERAL("ESMTPS"),
                   .tls = SLICE_LITERAL("TLSv1.3 TLS_AES_256_GCM_SHA384"),
                   .user = n % 4 == 0 ? SLICE_EMPTY : text(arena, "user%llu", n),
                   .verdicts = text(arena, "spf=pass %llu", n),
                   .forwarded = n % 3 == 0 ? SLICE_EMPTY : text(arena, "PORT=%llu", n)},
        .recipients = recipients,
        .recipient_count = count,
    };
    memset(ret_message->origin.client.address.bytes, (int)n, 16);
}

void harness_content(uint64_t n, size_t length, struct buffer *ret_content)
{
    buffer_init(ret_content, 0);
    assert_int_equal(buffer_reserve(ret_content, length + 1), ERROR_NONE);
    uint64_t state = n * 2 + 1;
    for (size_t i = 0; i < length; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        ret_content->data[i] = (uint8_t)(state >> 56);
    }
    ret_content->length = length;
}

struct spool_handle harness_accept(struct harness *harness, uint64_t n, size_t length)
{
    struct arena arena;
    struct spool_message message;
    struct buffer content;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    harness_content(n, length, &content);
    message.header_length = length / 4;
    message.body_length = length - length / 4;
    spool_batch_begin(harness->spool);
    enum error error = spool_batch_message(harness->spool, &message, NULL, buffer_slice(&content));
    assert_int_equal(error, ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(harness->handle_count, 1);
    buffer_done(&content);
    arena_done(&arena);
    return harness->handles[0];
}

void harness_finish(struct harness *harness, struct spool_handle handle, uint32_t delivery)
{
    spool_batch_begin(harness->spool);
    spool_batch_fate(harness->spool, handle, delivery, SPOOL_DELIVERED);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
}

static void check_slice(struct slice got, struct slice want)
{
    assert_true(slice_equal(got, want));
}

static void check_envelope(const struct spool_message *got, const struct spool_message *want)
{
    assert_true(id_equal(got->id, want->id));
    assert_int_equal(got->received_ms, want->received_ms);
    assert_int_equal(got->odometer_s, want->odometer_s);
    assert_int_equal(got->elapsed_s, want->elapsed_s);
    assert_int_equal(got->flags, want->flags);
    assert_int_equal(got->priority, want->priority);
    assert_int_equal(got->deliver_by_ms, want->deliver_by_ms);
    check_slice(got->sender, want->sender);
    check_slice(got->envelope_id, want->envelope_id);
    check_slice(got->message_id_header, want->message_id_header);
    check_slice(got->origin.helo, want->origin.helo);
    check_slice(got->origin.listener, want->origin.listener);
    check_slice(got->origin.protocol, want->origin.protocol);
    check_slice(got->origin.tls, want->origin.tls);
    check_slice(got->origin.user, want->origin.user);
    check_slice(got->origin.verdicts, want->origin.verdicts);
    check_slice(got->origin.forwarded, want->origin.forwarded);
    assert_true(ip_equal(&got->origin.client.address, &want->origin.client.address));
    assert_int_equal(got->origin.client.port, want->origin.client.port);
    assert_int_equal(got->recipient_count, want->recipient_count);
    for (uint32_t i = 0; i < want->recipient_count; i++) {
        check_slice(got->recipients[i].address, want->recipients[i].address);
        check_slice(got->recipients[i].orcpt, want->recipients[i].orcpt);
        assert_int_equal(got->recipients[i].notify, want->recipients[i].notify);
    }
}

void harness_check(struct harness *harness, uint64_t n, size_t length)
{
    struct arena arena;
    struct spool_message want, got;
    struct buffer content;
    arena_init(&arena);
    harness_message(n, &arena, &want);
    harness_content(n, length, &content);
    struct spool_handle handle = spool_find(harness->spool, harness_id(n));
    assert_int_not_equal(handle.index, SPOOL_NO_HANDLE.index);
    assert_int_equal(spool_read_envelope(harness->spool, handle, &arena, &got), ERROR_NONE);
    check_envelope(&got, &want);
    assert_int_equal(got.sequence, spool_sequence(harness->spool, handle));
    assert_int_equal(got.header_length + got.body_length, length);
    uint8_t *bytes = malloc(length + 1);
    size_t read;
    assert_int_equal(spool_read_content(harness->spool, handle, 0, bytes, length + 1, &read),
                     ERROR_NONE);
    assert_int_equal(read, length);
    assert_memory_equal(bytes, content.data, length);
    free(bytes);
    buffer_done(&content);
    arena_done(&arena);
}
