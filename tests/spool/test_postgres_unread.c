/* SPDX-License-Identifier: Apache-2.0
 *
 * The spool on PostgreSQL when its journal is on a disk that does not give back all that it took.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "tests/spool/harness_postgres.h"
#include "tests/sys/postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_up(void **state)
{
    struct harness *harness = calloc(1, sizeof(*harness));
    harness->make_disk = harness_simulated_disk;
    harness->context = disk_sim_new();
    harness_open(harness, HARNESS_POSTGRES);
    *state = harness;
    return 0;
}

static int tear_down(void **state)
{
    harness_done_simulated(*state);
    free(*state);
    return 0;
}

static struct spool_state status_of(const struct harness *harness)
{
    struct spool_state state;
    spool_status(harness->spool, &state);
    return state;
}

static const char messages_sql[] = "SELECT count(*) FROM (SELECT id FROM holdfast.messages"
                                   " UNION ALL SELECT id FROM holdfast.kept_messages) m";
static const char fates_sql[] = "SELECT count(*) FROM (SELECT id FROM holdfast.fates"
                                " UNION ALL SELECT id FROM holdfast.kept_fates) f";

struct search {
    struct disk *disk;
    struct slice wanted;
    char name[64];
    uint64_t at;
};

static void look_into(void *context, const char *name, uint64_t size)
{
    struct search *search = context;
    struct disk_file *file;
    if (search->disk->ops->open(search->disk, name, DISK_READ, &file) != ERROR_NONE) {
        return; /* made ready meanwhile, or removed */
    }
    uint8_t *bytes = malloc((size_t)size + 1);
    bool read = search->disk->ops->read(file, 0, bytes, (size_t)size) == ERROR_NONE;
    const uint8_t *found =
        read ? memmem(bytes, (size_t)size, search->wanted.data, search->wanted.length) : NULL;
    if (found != NULL && search->name[0] == '\0') {
        snprintf(search->name, sizeof(search->name), "%s", name);
        search->at = (uint64_t)(found - bytes);
    }
    free(bytes);
    search->disk->ops->close(file);
}

struct names {
    char each[64][64];
    uint64_t sizes[64];
    size_t count;
};

static void keep_name(void *context, const char *name, uint64_t size)
{
    struct names *names = context;
    assert_true(names->count < 64);
    snprintf(names->each[names->count], sizeof(names->each[0]), "%s", name);
    names->sizes[names->count++] = size;
}

/* Where the journal has that, there is a bad sector from now on; or in all of the file. */
static void spoil(const struct harness *harness, struct slice wanted, bool whole)
{
    struct search search = {.disk = disk_sim_open(harness->context), .wanted = wanted};
    struct names names = {.count = 0};
    assert_int_equal(search.disk->ops->list(search.disk, keep_name, &names), ERROR_NONE);
    for (size_t i = 0; i < names.count; i++) {
        look_into(&search, names.each[i], names.sizes[i]);
    }
    disk_free(search.disk);
    assert_true(search.name[0] != '\0');
    uint64_t from = whole ? 0 : search.at;
    disk_sim_fail_reads(harness->context, search.name, from,
                        whole ? UINT64_MAX : from + wanted.length);
}

static void heal(const struct harness *harness)
{
    disk_sim_fail_reads(harness->context, NULL, 0, 0);
}

static void what_cannot_be_read_stops_no_other(void **state)
{
    enum { MANY = 9, BAD = 5, LENGTH = 100 };
    struct harness *harness = *state;
    struct buffer content;
    postgres_stop(harness_server());
    for (uint64_t n = 1; n <= MANY; n++) {
        harness_accept(harness, n, LENGTH);
    }
    harness_content(BAD, LENGTH, &content);
    spoil(harness, buffer_slice(&content), false);
    buffer_done(&content);
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 1);
    harness_accept(harness, MANY + 1, LENGTH);
    assert_int_equal(harness_count(messages_sql), MANY);
    assert_true(harness_state(harness).up);
    assert_int_equal(status_of(harness).quarantined, 1);
    heal(harness);
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_int_equal(harness_count(messages_sql), MANY + 1);
    assert_int_equal(harness_count("SELECT count(*) FROM holdfast.parts"), MANY + 1);
    assert_int_equal(status_of(harness).quarantined, 1);
    assert_int_equal(harness->damages, 1);
}

/* What became of a message waits with it, and asks not at every turn of the loop. */
static void a_fact_of_what_cannot_be_read_waits(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 2, 100); /* three recipients */
    postgres_stop(harness_server());
    spool_batch_begin(harness->spool);
    spool_batch_taken(harness->spool, handle, 1, SPOOL_DELIVERED, 1700000000000,
                      SLICE_LITERAL("m1"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    /* It is in no group, which knows it without reading. */
    spool_close(harness->spool);
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    spoil(harness, SLICE_LITERAL("sender2@example.org"), false);
    postgres_start(harness_server());
    while (harness_count("SELECT 1") != 1) {
    }
    harness_load(harness);
    HARNESS_UNTIL(harness, harness->damages == 1);
    uint64_t groups = status_of(harness).groups;
    harness_pass(harness, 1000);
    assert_in_range(status_of(harness).groups - groups, 0, 20);
    assert_int_equal(harness_count(fates_sql), 0);
    heal(harness);
    HARNESS_UNTIL(harness, harness_count(fates_sql) == 1);
    assert_int_equal(harness->damages, 1);
}

static void note_error(void *context, enum error error, const struct spool_handle *handles,
                       size_t n)
{
    (void)handles;
    (void)n;
    *(enum error *)context = error;
}

/* Nobody has it for sure. */
static void what_cannot_be_read_at_once_is_not_accepted(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    enum error error = ERROR_AGAIN;
    harness_accept(harness, 1, 10);
    spoil(harness, SLICE_LITERAL("sender1@example.org"), true);
    arena_init(&arena);
    harness_message(2, &arena, &message);
    message.header_length = 0;
    message.body_length = 4;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_LITERAL("body")),
                     ERROR_NONE);
    spool_batch_submit(harness->spool, SPOOL_SYNCED, note_error, &error);
    arena_done(&arena);
    HARNESS_UNTIL(harness, error != ERROR_AGAIN);
    assert_int_equal(error, ERROR_IO);
    assert_int_equal(harness_state(harness).one_copy, 0);
    heal(harness);
    harness_accept(harness, 3, 10);
    assert_int_equal(harness_count(messages_sql), 2);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_cannot_be_read_stops_no_other),
        CASE(a_fact_of_what_cannot_be_read_waits),
        CASE(what_cannot_be_read_at_once_is_not_accepted),
    };
    return HARNESS_RUN("the journal beside PostgreSQL", tests);
}
