/* SPDX-License-Identifier: Apache-2.0
 *
 * The event journal on a real directory: what was added is found again, by every key, over restarts
 * and through damage.
 */
#include "service/events_internal.h"
#include "sys/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { FOUND_MAX = 4096 };

struct bench {
    char path[64];
    struct loop *loop;
    struct events *events;
    struct events_settings settings;
    uint32_t next;
    /* what a search gave */
    struct events_search *search;
    enum event_kind kinds[FOUND_MAX];
    struct message_id ids[FOUND_MAX];
    char last_reply[64];
    size_t count;
    bool end, cut;
};

static void open_events(struct bench *bench)
{
    struct disk *disk;
    assert_int_equal(disk_open_directory(bench->path, &disk), ERROR_NONE);
    assert_int_equal(events_open(bench->loop, disk, &bench->settings, &bench->events), ERROR_NONE);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    snprintf(bench->path, sizeof(bench->path), "/tmp/holdfast-events-XXXXXX");
    assert_non_null(mkdtemp(bench->path));
    bench->loop = loop_new();
    bench->settings = (struct events_settings){
        .keep_ms = 30ULL * 86400 * 1000, .total_bytes = 1 << 30, .file_bytes = 64 << 10};
    open_events(bench);
    *state = bench;
    return 0;
}

static void remove_file(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct bench *bench = context;
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", bench->path, name);
    unlink(path);
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    events_close(bench->events);
    struct disk *disk;
    assert_int_equal(disk_open_directory(bench->path, &disk), ERROR_NONE);
    assert_int_equal(disk->ops->list(disk, remove_file, bench), ERROR_NONE);
    disk_free(disk);
    rmdir(bench->path);
    loop_free(bench->loop);
    free(bench);
    return 0;
}

static struct message_id number_id(uint32_t number)
{
    return (struct message_id){0x0190000000000000ULL + number, 77};
}

/* Message `number` from s<number % 10>@a.example to r<number>@b.example and to all@b.example. */
static void add_message(struct bench *bench, uint32_t number)
{
    char sender[40], recipient[40], message_id[40];
    snprintf(sender, sizeof(sender), "s%u@a.example", number % 10);
    snprintf(recipient, sizeof(recipient), "R%u@b.example", number);
    snprintf(message_id, sizeof(message_id), "<m%u@a.example>", number);
    const struct slice recipients[] = {slice_from_text(recipient), SLICE_LITERAL("all@b.example")};
    struct event event = {.kind = EVENT_ACCEPTED,
                          .time_ms = clock_wall_ms(),
                          .id = number_id(number),
                          .delivery = EVENTS_NO_DELIVERY,
                          .bytes = 4096,
                          .sender = slice_from_text(sender),
                          .message_id = slice_from_text(message_id),
                          .recipients = recipients,
                          .recipient_count = 2};
    events_add(bench->events, &event);
}

static void add_delivered(struct bench *bench, uint32_t number)
{
    struct event event = {.kind = EVENT_DELIVERED,
                          .time_ms = clock_wall_ms(),
                          .id = number_id(number),
                          .delivery = 0,
                          .server = SLICE_LITERAL("m1"),
                          .reply = SLICE_LITERAL("250 2.0.0 ok"),
                          .tls = SLICE_LITERAL("encrypt: TLSv1.3")};
    events_add(bench->events, &event);
}

static void found(void *context, const struct event *events, size_t count, bool end, bool cut)
{
    struct bench *bench = context;
    for (size_t i = 0; i < count && bench->count < FOUND_MAX; i++) {
        bench->kinds[bench->count] = events[i].kind;
        bench->ids[bench->count++] = events[i].id;
        snprintf(bench->last_reply, sizeof(bench->last_reply), "%.*s",
                 SLICE_PRINT(events[i].reply));
        assert_int_equal(events[i].tls.length > 0, events[i].kind == EVENT_DELIVERED);
    }
    bench->end = end;
    bench->cut = bench->cut || cut;
    if (!end) {
        events_search_step(bench->search);
    }
}

static void search(struct bench *bench, const char *what)
{
    bench->count = 0;
    bench->end = bench->cut = false;
    bench->search = events_search_new(bench->events, slice_from_text(what), found, bench);
    assert_non_null(bench->search);
    events_search_step(bench->search);
    for (int i = 0; i < 100000 && !bench->end; i++) {
        worker_drain(bench->events->worker);
    }
    assert_true(bench->end);
    events_search_free(bench->search);
}

static void finds_by_id_address_and_message_id(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 3000; i++) {
        add_message(bench, i);
        if (i >= 1) {
            add_delivered(bench, i - 1);
        }
        if (i % 100 == 0) {
            worker_drain(bench->events->worker);
        }
    }
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(number_id(1234), id);
    search(bench, id);
    assert_int_equal(bench->count, 2);
    assert_int_equal(bench->kinds[0], EVENT_ACCEPTED);
    assert_int_equal(bench->kinds[1], EVENT_DELIVERED);
    assert_string_equal(bench->last_reply, "250 2.0.0 ok");
    search(bench, "r1234@B.example"); /* case folded */
    assert_int_equal(bench->count, 2);
    assert_true(id_equal(bench->ids[0], number_id(1234)));
    search(bench, "<m7@a.example>");
    assert_int_equal(bench->count, 2);
    search(bench, "s3@a.example");
    assert_int_equal(bench->count, 600);
    assert_false(bench->cut);
    search(bench, "nobody@b.example");
    assert_int_equal(bench->count, 0);
    /* Only the newest are followed, and it is said. */
    search(bench, "all@b.example");
    assert_true(bench->cut);
    assert_true(id_equal(bench->ids[0], number_id(2000)));
    assert_int_equal(bench->count, 1999);
    /* All files but the last have an index by now, and it is used. */
    assert_true(bench->events->file_count > 4);
    for (size_t i = 0; i + 1 < bench->events->file_count; i++) {
        assert_int_equal(bench->events->files[i].index, INDEX_GOOD);
    }
}

static void add_refused(struct bench *bench, uint32_t number, uint64_t left_out)
{
    struct event event = {.kind = EVENT_REFUSED,
                          .time_ms = clock_wall_ms(),
                          .id = number_id(number),
                          .delivery = EVENTS_NO_DELIVERY,
                          .has_client = true,
                          .has_sender = number % 2 != 0,
                          .sender = SLICE_LITERAL("bob@c.example"),
                          .reply = SLICE_LITERAL("554 5.7.1 No"),
                          .left_out = left_out};
    char text[IP_TEXT_SIZE];
    snprintf(text, sizeof(text), "192.%u.%u.7", number / 256, number % 256);
    assert_true(ip_from_text(slice_from_text(text), &event.client));
    events_add(bench->events, &event);
}

static void finds_by_client(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 3000; i++) {
        add_refused(bench, i, i == 300 ? 12 : 0);
        if (i % 100 == 0) {
            worker_drain(bench->events->worker);
        }
    }
    assert_true(bench->events->file_count > 2);
    const char *const clients[] = {"192.0.1.7", "192.0.200.7", "192.11.183.7"};
    for (size_t i = 0; i < 3; i++) { /* in the oldest file, further on, and still in memory */
        search(bench, clients[i]);
        assert_int_equal(bench->count, 1);
        assert_int_equal(bench->kinds[0], EVENT_REFUSED);
        assert_string_equal(bench->last_reply, "554 5.7.1 No");
    }
    search(bench, "192.0.1.8"); /* a neighbour, of which nothing was left out */
    assert_int_equal(bench->count, 0);
    search(bench, "192.1.44.8"); /* and one that may have been */
    assert_int_equal(bench->count, 1);
    search(bench, "bob@c.example");
    assert_true(bench->cut);
}

/* More than one step may hold: what there is room for is given, whole, and it is said. */
static void a_search_that_finds_too_much_is_cut(void **state)
{
    enum { RECIPIENTS = 20000, LARGE = 40 };
    struct bench *bench = *state;
    bench->settings.file_bytes = 60 << 20;
    events_reconfigure(bench->events, &bench->settings);
    struct slice *recipients = calloc(RECIPIENTS, sizeof(*recipients));
    for (size_t i = 0; i < RECIPIENTS; i++) {
        recipients[i] = SLICE_LITERAL("somebody@b.example");
    }
    for (uint32_t i = 0; i < LARGE; i++) {
        struct event event = {.kind = EVENT_ACCEPTED,
                              .time_ms = clock_wall_ms(),
                              .id = number_id(i),
                              .delivery = EVENTS_NO_DELIVERY,
                              .recipients = recipients,
                              .recipient_count = RECIPIENTS};
        events_add(bench->events, &event);
        worker_drain(bench->events->worker);
    }
    free(recipients);
    for (uint32_t i = 0; i < LARGE; i++) {
        add_delivered(bench, i);
    }
    worker_drain(bench->events->worker);
    search(bench, "somebody@b.example");
    assert_true(bench->cut);
    assert_true(bench->count >= 30 && bench->count < 2 * LARGE);
    for (size_t i = 0; i < bench->count; i++) {
        assert_int_equal(bench->kinds[i], EVENT_ACCEPTED);
        assert_true(id_equal(bench->ids[i], number_id((uint32_t)i)));
    }
}

static void survives_a_restart(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 500; i++) {
        add_message(bench, i);
    }
    events_close(bench->events);
    open_events(bench);
    add_delivered(bench, 42);
    search(bench, "<m42@a.example>");
    assert_int_equal(bench->count, 2);
    assert_int_equal(bench->kinds[1], EVENT_DELIVERED);
    search(bench, "<m499@a.example>");
    assert_int_equal(bench->count, 1);
}

static void damage(struct bench *bench, const char *suffix, off_t offset)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/events-%016x%s", bench->path, 1, suffix);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    off_t size = lseek(fd, 0, SEEK_END);
    uint8_t noise[64];
    memset(noise, 0xa5, sizeof(noise));
    assert_int_equal(pwrite(fd, noise, sizeof(noise), offset >= 0 ? offset : size + offset),
                     sizeof(noise));
    close(fd);
}

static void a_torn_tail_and_a_hole_cost_what_lies_in_them(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 200; i++) {
        add_message(bench, i);
    }
    events_close(bench->events);
    damage(bench, "", -64);
    damage(bench, "", 4000);
    open_events(bench);
    search(bench, "<m0@a.example>");
    assert_int_equal(bench->count, 1);
    search(bench, "<m150@a.example>"); /* behind the hole */
    assert_int_equal(bench->count, 1);
    search(bench, "<m199@a.example>");
    assert_int_equal(bench->count, 0);
}

static void a_damaged_index_is_not_believed(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 1500; i++) {
        add_message(bench, i);
    }
    worker_drain(bench->events->worker);
    events_close(bench->events);
    damage(bench, ".index", 400);
    open_events(bench);
    for (uint32_t i = 0; i < 200; i += 7) {
        char what[40];
        snprintf(what, sizeof(what), "<m%u@a.example>", i);
        search(bench, what);
        assert_int_equal(bench->count, 1);
    }
    assert_int_equal(bench->events->files[0].index, INDEX_ABSENT);
}

static void keeps_within_time_and_size(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 6000; i++) {
        add_message(bench, i);
        if (i % 100 == 0) {
            worker_drain(bench->events->worker);
        }
    }
    size_t before = bench->events->file_count;
    bench->events->looked_ms = 0;
    events_tick(bench->events, clock_wall_ms());
    assert_int_equal(events_gone_until(bench->events), 0);
    bench->settings.total_bytes = 300 << 10;
    events_reconfigure(bench->events, &bench->settings);
    bench->events->looked_ms = 0;
    int64_t now = clock_wall_ms();
    events_tick(bench->events, now);
    worker_drain(bench->events->worker);
    int64_t gone = events_gone_until(bench->events);
    assert_true(gone > now - 60000 && gone <= now);
    assert_true(bench->events->file_count < before);
    uint64_t total = 0;
    for (size_t i = 0; i < bench->events->file_count; i++) {
        total += bench->events->files[i].bytes;
    }
    assert_true(total <= 300 << 10);
    search(bench, "<m0@a.example>");
    assert_int_equal(bench->count, 0);
    search(bench, "<m5999@a.example>");
    assert_int_equal(bench->count, 1);
    /* 31 days later only the file that is open is left. */
    events_tick(bench->events, clock_wall_ms() + 31LL * 86400 * 1000);
    worker_drain(bench->events->worker);
    assert_int_equal(bench->events->file_count, 1);
    assert_int_equal(events_gone_until(bench->events), gone); /* those went in their time */
}

static void fills_no_memory_when_the_disk_is_slow(void **state)
{
    struct bench *bench = *state;
    for (uint32_t i = 0; i < 200000; i++) { /* nothing is drained: completions wait */
        add_message(bench, i);
    }
    assert_true(events_dropped(bench->events) > 0);
    assert_true(bench->events->pending.capacity <= EVENTS_PENDING_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_by_id_address_and_message_id, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finds_by_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_search_that_finds_too_much_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(survives_a_restart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_torn_tail_and_a_hole_cost_what_lies_in_them, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_index_is_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keeps_within_time_and_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fills_no_memory_when_the_disk_is_slow, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
