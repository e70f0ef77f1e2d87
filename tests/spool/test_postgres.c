/* SPDX-License-Identifier: Apache-2.0
 *
 * The spool on PostgreSQL when the database is away, slow, or comes back: what spool/postgres.h
 * says of the journal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/spool/harness_postgres.h"
#include "tests/sys/postgres.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Mail of the harness is of 2023; what went there at once has its place by the database's clock. */
static const char of_its_time_sql[] = "UPDATE holdfast.parts SET seq = 1700000000000000";

static int set_up(void **state)
{
    struct harness *harness = calloc(1, sizeof(*harness));
    harness_open(harness, HARNESS_POSTGRES);
    *state = harness;
    return 0;
}

static int tear_down(void **state)
{
    harness_done(*state);
    free(*state);
    return 0;
}

static const char messages_sql[] = "SELECT count(*) FROM (SELECT id FROM holdfast.messages"
                                   " UNION ALL SELECT id FROM holdfast.kept_messages) m";
static const char parts_sql[] = "SELECT count(*) FROM holdfast.parts";
static const char fates_sql[] = "SELECT count(*) FROM holdfast.fates";
static const char notes_sql[] = "SELECT count(*) FROM holdfast.notes";
static const char globals_sql[] = "SELECT count(*) FROM holdfast.globals WHERE key = 'key'";
static const char order_sql[] =
    "SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY seq, id) AS"
    " before FROM holdfast.parts) o WHERE before > id";

static void run(const char *sql)
{
    struct database *database = harness_database();
    assert_int_equal(database_run(database, sql, PATIENCE_MS), DATABASE_DONE);
}

static void end(struct harness *harness)
{
    harness_finish(harness, spool_find(harness->spool, harness_id(3)), 0);
}

static void it_is_in_the_database(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 2, 100); /* three recipients */
    harness_accept(harness, 3, 400000);
    assert_int_equal(harness_count(messages_sql), 2);
    assert_int_equal(harness_count(parts_sql), 2);
    assert_int_equal(harness_count("SELECT sum(length(bytes)) FROM holdfast.chunks"), 400000);
    assert_int_equal(
        harness_count("SELECT length(content) FROM holdfast.messages WHERE content IS NOT NULL"),
        100);
    end(harness);
    assert_int_equal(harness_count(fates_sql), 1);
    assert_int_equal(harness_state(harness).one_copy, 0);
    assert_true(harness_state(harness).up);
}

/* What is in the journal is known; the rest is tried again later. */
static void load_while_away(struct harness *harness)
{
    const struct spool_loader loader = {0};
    bool complete;
    enum error error;
    while ((error = spool_load(harness->spool, &loader, &complete)) == ERROR_NONE) {
        assert_false(complete);
    }
    assert_int_equal(error, ERROR_AGAIN);
}

static void what_comes_while_it_is_away_is_forwarded(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 1, 100);
    run(of_its_time_sql);
    postgres_stop(harness_server());
    for (uint64_t n = 2; n < 30; n++) {
        harness_accept(harness, n, 100);
        harness_check(harness, n, 100);
    }
    harness_accept(harness, 30, 500000);
    assert_int_equal(harness_state(harness).one_copy, 29);
    assert_false(harness_state(harness).up);
    assert_true(harness_state(harness).reason[0] != '\0');
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_true(harness_state(harness).up);
    assert_int_equal(harness_count(messages_sql), 30);
    assert_int_equal(harness_count(parts_sql), 30);
    assert_int_equal(harness_count(order_sql), 0);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 30);
    harness_check(harness, 30, 500000);
    harness_check(harness, 7, 100);
    /* The journal knows that it has nothing to forward, without asking. */
    spool_close(harness->spool);
    postgres_stop(harness_server());
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    load_while_away(harness);
    assert_int_equal(harness_state(harness).one_copy, 0);
    postgres_start(harness_server());
}

static void a_start_while_it_is_away_keeps_it(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 3, 100);
    run(of_its_time_sql);
    postgres_stop(harness_server());
    harness_accept(harness, 6, 100);
    harness_accept(harness, 9, 300000);
    for (int i = 0; i < 3; i++) {
        spool_close(harness->spool);
        assert_int_equal(harness_try_open(harness), ERROR_NONE);
        load_while_away(harness);
        assert_int_equal(harness_state(harness).one_copy, 2 + i);
        harness_accept(harness, 12 + 3 * (uint64_t)i, 10);
    }
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_int_equal(harness_count(messages_sql), 6);
    assert_int_equal(harness_count(parts_sql), 6);
    assert_int_equal(harness_count(order_sql), 0);
    harness_load(harness);
    assert_int_equal(harness->messages + 1, 6); /* the last one it has accepted itself */
    harness_check(harness, 9, 300000);
}

static void a_fact_while_it_is_away_is_kept(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 2, 100); /* three recipients */
    struct spool_handle other = harness_accept(harness, 3, 100);
    postgres_stop(harness_server());
    spool_batch_begin(harness->spool);
    spool_batch_taken(harness->spool, handle, 1, SPOOL_DELIVERED, 1700000000000,
                      SLICE_LITERAL("m1"));
    spool_batch_taken(harness->spool, other, 0, SPOOL_PULLED, 1700000000000, SLICE_LITERAL("m1"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(spool_fate_of(harness->spool, handle, 1), SPOOL_DELIVERED);
    assert_int_equal(spool_find(harness->spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    spool_close(harness->spool);
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, harness_count("SELECT 1") == 1);
    harness_load(harness);
    assert_int_equal(harness->messages, 1);
    assert_int_equal(harness->fates, 1);
    assert_int_equal(harness_count(fates_sql), 2);
    assert_int_equal(
        harness_count("SELECT count(*) FROM holdfast.fates WHERE server = 'm1' AND when_ms ="
                      " 1700000000000"),
        2);
    assert_int_equal(harness_count(parts_sql), 2);
}

struct told {
    bool done;
    enum error error;
    struct loop *loop;
};

static void tell(void *context, enum error error, const struct spool_handle *handles, size_t n)
{
    struct told *told = context;
    (void)handles;
    (void)n;
    told->done = true;
    told->error = error;
}

/* Notes and other fates are not for the journal: they wait. */
static void a_decision_waits(void **state)
{
    struct harness *harness = *state;
    struct told told = {0};
    struct spool_handle handle = harness_accept(harness, 2, 100);
    postgres_stop(harness_server());
    spool_batch_begin(harness->spool);
    spool_batch_note(harness->spool, handle, 0, 7, SLICE_LITERAL("held"));
    spool_batch_fate(harness->spool, handle, 1, SPOOL_BOUNCED);
    spool_batch_taken(harness->spool, handle, 2, SPOOL_DELIVERED, 1, SLICE_LITERAL("m1"));
    spool_batch_submit(harness->spool, SPOOL_SYNCED, tell, &told);
    harness_accept(harness, 3, 100);
    harness_pass(harness, 300);
    assert_false(told.done);
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(harness_count(notes_sql), 1);
    assert_int_equal(harness_count(fates_sql), 2);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 2);
    assert_int_equal(harness->fates, 2);
    assert_true(harness_loaded(harness, "/0 7 held\n"));
}

static void notes_about_no_message_are_kept_meanwhile(void **state)
{
    struct harness *harness = *state;
    spool_batch_begin(harness->spool);
    spool_batch_global_note(harness->spool, SLICE_LITERAL("key"), SLICE_LITERAL("old"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    postgres_stop(harness_server());
    spool_batch_begin(harness->spool);
    spool_batch_global_note(harness->spool, SLICE_LITERAL("key"), SLICE_LITERAL("new"));
    spool_batch_global_note(harness->spool, SLICE_LITERAL("other"), SLICE_LITERAL("1"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    spool_close(harness->spool);
    postgres_start(harness_server());
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
    assert_true(harness_loaded(harness, "global key new\n"));
    assert_true(harness_loaded(harness, "global other 1\n"));
    HARNESS_UNTIL(
        harness, harness_count("SELECT count(*) FROM holdfast.globals WHERE payload = 'new'") == 1);
    assert_int_equal(harness_count(globals_sql), 1);
    harness_reopen(harness);
    assert_int_equal(harness->globals, 2);
    assert_true(harness_loaded(harness, "global key new\n"));
}

/* It stands still in the middle: nobody waits longer than said, and nothing comes twice. */
static void one_that_stands_still_keeps_nobody_waiting(void **state)
{
    struct harness *harness = *state;
    struct told told = {0};
    struct spool_handle handle = harness_accept(harness, 2, 100);
    postgres_pause(harness_server());
    spool_batch_begin(harness->spool);
    spool_batch_note(harness->spool, handle, 0, 7, SLICE_LITERAL("held"));
    spool_batch_submit(harness->spool, SPOOL_SYNCED, tell, &told);
    for (uint64_t n = 3; n < 20; n++) {
        harness_accept(harness, n, 100);
    }
    assert_false(told.done);
    assert_int_equal(harness_state(harness).one_copy, 17);
    postgres_resume(harness_server());
    HARNESS_UNTIL(harness, told.done && harness_state(harness).one_copy == 0);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(harness_count(notes_sql), 1);
    assert_int_equal(harness_count(messages_sql), 18);
    assert_int_equal(harness_count(parts_sql), 18);
}

/* Killed again and again while mail comes: each is there once. */
static void a_crash_of_it_loses_and_doubles_nothing(void **state)
{
    struct harness *harness = *state;
    enum { ROUNDS = 4, EACH = 40 };
    struct told told[ROUNDS * EACH] = {0};
    struct spool_handle handle = harness_accept(harness, 2, 10);
    for (int i = 0; i < ROUNDS * EACH; i++) {
        char payload[16];
        harness_accept(harness, 100 + (uint64_t)i * 3, 2000);
        snprintf(payload, sizeof(payload), "%d", i);
        spool_batch_begin(harness->spool);
        spool_batch_note(harness->spool, handle, 0, 1, slice_from_text(payload));
        spool_batch_submit(harness->spool, SPOOL_WRITTEN, tell, &told[i]);
        if (i % EACH == EACH / 2) {
            postgres_kill(harness_server());
        } else if (i % EACH == EACH - 1) {
            postgres_start(harness_server());
        }
    }
    HARNESS_UNTIL(harness, told[ROUNDS * EACH - 1].done && harness_state(harness).one_copy == 0);
    for (int i = 0; i < ROUNDS * EACH; i++) {
        assert_true(told[i].done && told[i].error == ERROR_NONE);
    }
    assert_int_equal(harness_count(messages_sql), ROUNDS * EACH + 1);
    assert_int_equal(harness_count(parts_sql), ROUNDS * EACH + 1);
    /* The last ones before a crash may go: they were not synced. */
    assert_int_equal(harness_count("SELECT count(*) - count(DISTINCT payload) FROM holdfast.notes"),
                     0);
    harness_reopen(harness);
    assert_int_equal(harness->messages, ROUNDS * EACH + 1);
    assert_int_equal(harness->damages, 0);
}

static void submit_message(struct harness *harness, uint64_t n, size_t length, struct told *told)
{
    struct arena arena;
    struct spool_message message;
    struct buffer content;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    harness_content(n, length, &content);
    message.header_length = 0;
    message.body_length = length;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, buffer_slice(&content)),
                     ERROR_NONE);
    spool_batch_submit(harness->spool, SPOOL_SYNCED, tell, told);
    buffer_done(&content);
    arena_done(&arena);
}

/* It stays here, and is told of; its companions are in the database. */
static void one_that_is_refused_stops_no_other(void **state)
{
    enum { MANY = 9, UNFIT = 5, LENGTH = 100 };
    struct harness *harness = *state;
    struct told told[MANY] = {0};
    run("ALTER TABLE holdfast.messages ADD CONSTRAINT fit CHECK (length(content) <> 666)");
    run("ALTER TABLE holdfast.kept_messages ADD CONSTRAINT fit CHECK (length(content) <> 666)");
    for (uint64_t i = 0; i < MANY; i++) {
        submit_message(harness, i + 1, i == UNFIT ? 666 : LENGTH, &told[i]);
    }
    for (int i = 0; i < MANY; i++) {
        HARNESS_UNTIL(harness, told[i].done);
        assert_int_equal(told[i].error, ERROR_NONE);
    }
    HARNESS_UNTIL(harness, harness->damages == 1);
    harness_accept(harness, MANY + 1, LENGTH);
    assert_int_equal(harness_count(messages_sql), MANY);
    assert_int_equal(harness_state(harness).one_copy, 1);
    assert_true(harness_state(harness).up);
    run("ALTER TABLE holdfast.messages DROP CONSTRAINT fit");
    run("ALTER TABLE holdfast.kept_messages DROP CONSTRAINT fit");
    harness_reopen(harness);
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_int_equal(harness_count(messages_sql), MANY + 1);
}

/* Above what its node has said of itself: that went before, with the first message. */
static void new_mail_stands_in_the_order_in_which_it_came(void **state)
{
    enum { MANY = 5, LENGTH = 100 };
    struct harness *harness = *state;
    struct told told[MANY] = {0};
    uint64_t before = 0;
    harness_accept(harness, 1, LENGTH);
    for (uint64_t i = 0; i < MANY; i++) {
        submit_message(harness, i + 2, LENGTH, &told[i]);
    }
    for (uint64_t i = 0; i < MANY; i++) {
        HARNESS_UNTIL(harness, told[i].done);
        assert_int_equal(told[i].error, ERROR_NONE);
    }
    assert_int_equal(harness_count(order_sql), 0);
    for (uint64_t n = 2; n < MANY + 2; n++) {
        uint64_t sequence =
            spool_sequence(harness->spool, spool_find(harness->spool, harness_id(n)));
        assert_true(sequence > before);
        before = sequence;
    }
    assert_int_equal(before, harness_count("SELECT max(seq) FROM holdfast.parts"));
}

/* Somebody else may have brought it: from an export, or under our number. */
static void what_is_there_already_stays_as_it_is(void **state)
{
    enum { THERE = 4, MANY = 5, LENGTH = 100 };
    struct harness *harness = *state;
    struct told told[MANY] = {0};
    char sql[300];
    struct message_id id = harness_id(THERE);
    harness_accept(harness, 1, LENGTH);
    snprintf(sql, sizeof(sql),
             "INSERT INTO holdfast.messages VALUES ('%016llx%016llx', 'there', 'already');"
             "INSERT INTO holdfast.parts (share, count, id) VALUES (77, 1, '%016llx%016llx')",
             (unsigned long long)id.high, (unsigned long long)id.low, (unsigned long long)id.high,
             (unsigned long long)id.low);
    run(sql);
    for (uint64_t i = 0; i < MANY; i++) {
        submit_message(harness, i + 2, LENGTH, &told[i]);
    }
    for (uint64_t i = 0; i < MANY; i++) {
        HARNESS_UNTIL(harness, told[i].done);
        assert_int_equal(told[i].error, ERROR_NONE);
    }
    assert_int_equal(harness_count(messages_sql), MANY + 1);
    assert_int_equal(harness_count(parts_sql), MANY + 1);
    assert_int_equal(
        harness_count("SELECT count(*) FROM holdfast.messages WHERE content = 'already'"), 1);
    assert_int_equal(harness_count("SELECT count(*) FROM holdfast.parts WHERE share = 77"), 1);
    assert_int_equal(harness->damages, 0);
    assert_true(harness_state(harness).up);
}

struct alone {
    struct harness *harness;
    bool done;
    uint64_t one_copy; /* when it was told */
};

static void tell_alone(void *context, enum error error, const struct spool_handle *handles,
                       size_t handle_count)
{
    struct alone *alone = context;
    (void)handles;
    (void)handle_count;
    assert_int_equal(error, ERROR_NONE);
    alone->one_copy = harness_state(alone->harness).one_copy;
    alone->done = true;
}

/* A group may wait for as many as the one before had, but not until the journal must help out. */
static void one_that_follows_many_goes_alone(void **state)
{
    enum { MANY = 8 };
    struct harness *harness = *state;
    struct told told[MANY] = {0};
    struct alone alone = {.harness = harness};
    struct arena arena;
    struct spool_message message;
    for (int i = 0; i < MANY; i++) {
        spool_batch_begin(harness->spool);
        spool_batch_global_note(harness->spool, SLICE_LITERAL("key"), SLICE_LITERAL("x"));
        spool_batch_submit(harness->spool, SPOOL_SYNCED, tell, &told[i]);
    }
    HARNESS_UNTIL(harness, told[MANY - 1].done);
    arena_init(&arena);
    harness_message(1, &arena, &message);
    message.header_length = message.body_length = 0;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    spool_batch_submit(harness->spool, SPOOL_SYNCED, tell_alone, &alone);
    HARNESS_UNTIL(harness, alone.done);
    assert_int_equal(alone.one_copy, 0);
    assert_int_equal(harness_count(messages_sql), 1);
    arena_done(&arena);
}

static uint64_t groups_of(const struct harness *harness)
{
    struct spool_state state;
    spool_status(harness->spool, &state);
    return state.groups;
}

/* Who all wait for one group let the database stand still while they work. */
static void many_that_keep_in_step_are_parted(void **state)
{
    enum { MANY = 20, ROUNDS = 8, LENGTH = 10 };
    struct harness *harness = *state;
    bool parted = false;
    uint64_t n = 1;
    for (int round = 0; round < ROUNDS; round++) {
        struct told told[MANY] = {0};
        uint64_t before = groups_of(harness);
        for (int i = 0; i < MANY; i++) {
            submit_message(harness, n++, LENGTH, &told[i]);
        }
        for (int i = 0; i < MANY; i++) {
            HARNESS_UNTIL(harness, told[i].done);
            assert_int_equal(told[i].error, ERROR_NONE);
        }
        parted |= round > 0 && groups_of(harness) - before == 2;
    }
    assert_true(parted);
    assert_int_equal(harness_count(messages_sql), MANY * ROUNDS);
    assert_int_equal(harness_count(order_sql), 0);
}

static void one_that_is_read_only_is_away(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 1, 10);
    run("ALTER SYSTEM SET default_transaction_read_only = on");
    run("SELECT pg_reload_conf()");
    HARNESS_UNTIL(harness,
                  harness_count("SELECT count(*) FROM pg_settings WHERE name ="
                                " 'default_transaction_read_only' AND setting = 'on'") == 1);
    run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND application_name = 'test'");
    harness_accept(harness, 3, 10);
    harness_accept(harness, 6, 10);
    assert_int_equal(harness_state(harness).one_copy, 2);
    run("SET default_transaction_read_only = off");
    run("ALTER SYSTEM RESET default_transaction_read_only");
    run("SELECT pg_reload_conf()");
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_int_equal(harness_count(messages_sql), 3);
}

/* Damage there is found. */
static void damage_is_told(void **state)
{
    struct harness *harness = *state;
    uint8_t bytes[200];
    size_t length;
    harness_accept(harness, 3, 100);
    harness_accept(harness, 6, 100);
    harness_accept(harness, 9, 100);
    spool_close(harness->spool);
    run("UPDATE holdfast.messages SET envelope = set_byte(envelope, 30, get_byte(envelope, 30) # 1)"
        " WHERE id = (SELECT min(id::text)::uuid FROM holdfast.messages)");
    run("UPDATE holdfast.messages SET content = set_byte(content, 30, get_byte(content, 30) # 1)"
        " WHERE id = (SELECT max(id::text)::uuid FROM holdfast.messages)");
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
    assert_int_equal(harness->messages, 2);
    assert_int_equal(harness->damages, 1);
    harness_check(harness, 6, 100);
    assert_int_equal(spool_read_content(harness->spool, spool_find(harness->spool, harness_id(9)),
                                        0, bytes, sizeof(bytes), &length),
                     ERROR_CORRUPT);
}

/* Who has no more connections to give is away, too. */
static void one_that_is_full_of_connections_is_away(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 1, 10);
    run("ALTER DATABASE postgres CONNECTION LIMIT 0");
    run("CREATE ROLE plain LOGIN IN ROLE pg_read_all_data, pg_write_all_data");
    run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA holdfast TO plain");
    run("GRANT USAGE ON SCHEMA holdfast TO plain");
    spool_close(harness->spool);
    harness_user("plain"); /* whom limits bind */
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_accept(harness, 3, 10);
    harness_accept(harness, 6, 10);
    assert_int_equal(harness_state(harness).one_copy, 2);
    assert_false(harness_state(harness).up);
    run("ALTER DATABASE postgres CONNECTION LIMIT -1");
    harness_load(harness);
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_int_equal(harness_count(messages_sql), 3);
    harness_user(NULL);
    run("DROP OWNED BY plain; DROP ROLE plain");
}

static void who_would_rather_defer_does(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    struct spool_state status;
    spool_close(harness->spool);
    harness_defer(true);
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
    harness_accept(harness, 1, 10);
    postgres_stop(harness_server());
    harness_accept(harness, 3, 10); /* it was not known yet */
    spool_status(harness->spool, &status);
    assert_int_equal(status.accepting, ERROR_IO);
    assert_true(status.reason[0] != '\0');
    arena_init(&arena);
    harness_message(6, &arena, &message);
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_IO);
    message.flags |= SPOOL_OWN_DSN;
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    spool_status(harness->spool, &status);
    assert_int_equal(status.accepting, ERROR_NONE);
    harness_accept(harness, 9, 10);
    assert_int_equal(harness_count(messages_sql), 4);
    harness_defer(false);
    arena_done(&arena);
}

/* By the database's clock, and not past what the journal would send again after a crash: each
 * watermark is written down with what was there when it came. */
static void it_says_how_far_it_has_forwarded(void **state)
{
    static const char below_sql[] =
        "SELECT count(*) FROM holdfast.watermarks WHERE node = 1"
        " AND ('x' || left(replace(below::text, '-', ''), 12))::bit(48)::int8 / 1000.0"
        " BETWEEN extract(epoch FROM now()) - 3600 AND extract(epoch FROM now()) - 59";
    struct harness *harness = *state;
    run("CREATE TABLE IF NOT EXISTS public.said (xid xid8, below uuid); TRUNCATE public.said;"
        "CREATE OR REPLACE FUNCTION public.say() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO public.said VALUES (pg_current_xact_id(), new.below);"
        " RETURN new; END$$;"
        "CREATE TRIGGER say BEFORE INSERT OR UPDATE ON holdfast.watermarks"
        " FOR EACH ROW EXECUTE FUNCTION public.say()");
    spool_tick(harness->spool);
    HARNESS_UNTIL(harness, harness_count(below_sql) == 1);
    spool_close(harness->spool);
    postgres_stop(harness_server());
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    load_while_away(harness);
    harness_accept(harness, 4, 10); /* of 2009 */
    spool_close(harness->spool);
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    load_while_away(harness);
    postgres_start(harness_server());
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    /* The one that went with it is below it; it goes on when the journal has been synced. */
    assert_true(harness_count("SELECT count(*) FROM public.said JOIN holdfast.parts p USING (xid)"
                              " WHERE below <= p.id") > 0);
    assert_int_equal(
        harness_count("SELECT count(*) FROM public.said JOIN holdfast.parts p USING (xid)"
                      " WHERE below > p.id"),
        0);
    for (int i = 0; i < PATIENCE_MS / STEP_MS && harness_count(below_sql) == 0; i++) {
        spool_tick(harness->spool);
        harness_pass(harness, STEP_MS);
    }
    assert_int_equal(harness_count(below_sql), 1);
}

/* ---- what the journal gives back late, or twice -------------------------------------------- */

/* What an old connection still has in its pipe is read when its group was written by another. */
static void a_late_commit_of_a_dead_connection_does_nothing(void **state)
{
    struct harness *harness = *state;
    struct told told = {0};
    struct spool_handle handle = harness_accept(harness, 2, 100);
    run("DROP TABLE IF EXISTS public.zombie; CREATE TABLE public.zombie AS"
        " SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query = 'COMMIT'"
        " ORDER BY state_change DESC LIMIT 1");
    pid_t zombie = (pid_t)harness_count("SELECT pid FROM public.zombie");
    assert_true(zombie > 0);
    assert_int_equal(kill(zombie, SIGSTOP), 0);
    spool_batch_begin(harness->spool);
    spool_batch_note(harness->spool, handle, 0, 7, SLICE_LITERAL("held"));
    spool_batch_submit(harness->spool, SPOOL_SYNCED, tell, &told);
    HARNESS_UNTIL(harness, told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(harness_count(notes_sql), 1);
    assert_int_equal(kill(zombie, SIGCONT), 0);
    HARNESS_UNTIL(
        harness,
        harness_count("SELECT count(*) FROM pg_stat_activity JOIN public.zombie USING (pid)") == 0);
    assert_int_equal(harness_count(notes_sql), 1);
    harness_accept(harness, 3, 10); /* and all goes on */
    assert_int_equal(harness_count(messages_sql), 2);
    assert_int_equal(harness_state(harness).one_copy, 0);
}

/* The server stood still: its node has answered for this from its journal, and for what came
 * behind it; so it stands where it was accepted, not where the server goes on. */
static void what_the_server_writes_late_stands_where_it_was_accepted(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 2, 100);
    assert_int_equal(
        harness_count("SELECT count(*) FROM holdfast.parts WHERE seq < 1700000001000000"), 0);
    pid_t writer =
        (pid_t)harness_count("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                             " AND query = 'COMMIT' ORDER BY state_change DESC LIMIT 1");
    assert_true(writer > 0);
    assert_int_equal(kill(writer, SIGSTOP), 0);
    harness_accept(harness, 3, 100);
    assert_int_equal(harness_state(harness).one_copy, 1);
    assert_int_equal(kill(writer, SIGCONT), 0);
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    assert_int_equal(
        harness_count("SELECT count(*) FROM holdfast.parts WHERE seq < 1700000001000000"), 1);
}

static void copy_journal(const char *from, const char *to)
{
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%.80s' && cp -a '%.80s' '%.80s'", to, from, to);
    assert_int_equal(system(command), 0);
}

/* A power cut takes what the journal had noted last; meanwhile its time has got a partition. */
static void what_is_forwarded_again_is_there_once(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    char saved[80], command[100];
    snprintf(saved, sizeof(saved), "%s.saved", harness->path);
    run("UPDATE holdfast.partitions SET state = 3");
    postgres_stop(harness_server());
    arena_init(&arena);
    harness_message(3, &arena, &message);
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    spool_batch_new_note(harness->spool, 0, 7, SLICE_LITERAL("held"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    spool_close(harness->spool);
    copy_journal(harness->path, saved);
    postgres_start(harness_server());
    for (int i = 0; i < 2; i++) {
        assert_int_equal(harness_try_open(harness), ERROR_NONE);
        harness_load(harness);
        HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
        assert_int_equal(harness_count(messages_sql), 1);
        assert_int_equal(harness_count("SELECT count(*) FROM (SELECT id FROM holdfast.parts"
                                       " UNION ALL SELECT id FROM holdfast.kept_parts) p"),
                         1);
        assert_int_equal(harness_count("SELECT count(*) FROM (SELECT id FROM holdfast.notes"
                                       " UNION ALL SELECT id FROM holdfast.kept_notes) n"),
                         1);
        spool_close(harness->spool);
        copy_journal(saved, harness->path);
        run("UPDATE holdfast.partitions SET state = 2");
    }
    snprintf(command, sizeof(command), "rm -rf '%s'", saved);
    assert_int_equal(system(command), 0);
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    arena_done(&arena);
}

/* What a child does until it is killed: accepts, and says so. */
static _Noreturn void child_accept(struct harness *harness, uint64_t from, int tell_to)
{
    harness->loop = loop_new();
    harness->spool = NULL;
    if (harness_try_open(harness) != ERROR_NONE) {
        _exit(1);
    }
    for (uint64_t n = from;; n += 3) {
        harness_accept(harness, n, n % 2 == 0 ? 3000 : 100000);
        if (write(tell_to, &n, sizeof(n)) != sizeof(n)) {
            _exit(1);
        }
    }
}

/* Killed anywhere, with the database there or away: what it has said is there, once. */
static void a_node_that_is_killed_loses_and_doubles_nothing(void **state)
{
    struct harness *harness = *state;
    enum { ROUNDS = 8, SAID_MAX = 1000 };
    static uint64_t said[SAID_MAX];
    size_t count_said = 0;
    struct loop *loop = harness->loop;
    spool_close(harness->spool);
    harness->spool = NULL;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int channel[2];
        size_t until = count_said + 10 + round * 7;
        assert_int_equal(pipe(channel), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(channel[0]);
            child_accept(harness, 3 + round * 3000, channel[1]);
        }
        close(channel[1]);
        uint64_t n;
        for (size_t i = 0; read(channel[0], &n, sizeof(n)) == sizeof(n); i++) {
            assert_true(count_said < SAID_MAX);
            said[count_said++] = n;
            if (i == 5 && round % 2 == 1) {
                postgres_kill(harness_server());
            }
            if (count_said == until) {
                kill(child, SIGKILL);
            }
        }
        assert_int_equal(waitpid(child, NULL, 0), child);
        close(channel[0]);
        if (round % 2 == 1) {
            postgres_start(harness_server());
        }
    }
    harness->loop = loop;
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
    HARNESS_UNTIL(harness, harness_state(harness).one_copy == 0);
    for (size_t i = 0; i < count_said; i++) {
        harness_check(harness, said[i], said[i] % 2 == 0 ? 3000 : 100000);
    }
    assert_int_equal(harness_count("SELECT count(*) - count(DISTINCT id) FROM holdfast.parts"), 0);
    assert_int_equal(harness->damages, 0);
    /* In order: that of their ids, for each node that lived. */
    assert_true(harness->messages >= count_said);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(it_is_in_the_database),
        CASE(what_comes_while_it_is_away_is_forwarded),
        CASE(a_start_while_it_is_away_keeps_it),
        CASE(a_fact_while_it_is_away_is_kept),
        CASE(a_decision_waits),
        CASE(notes_about_no_message_are_kept_meanwhile),
        CASE(one_that_stands_still_keeps_nobody_waiting),
        CASE(a_crash_of_it_loses_and_doubles_nothing),
        CASE(one_that_follows_many_goes_alone),
        CASE(many_that_keep_in_step_are_parted),
        CASE(one_that_is_refused_stops_no_other),
        CASE(new_mail_stands_in_the_order_in_which_it_came),
        CASE(what_is_there_already_stays_as_it_is),
        CASE(one_that_is_read_only_is_away),
        CASE(damage_is_told),
        CASE(one_that_is_full_of_connections_is_away),
        CASE(who_would_rather_defer_does),
        CASE(it_says_how_far_it_has_forwarded),
        CASE(a_late_commit_of_a_dead_connection_does_nothing),
        CASE(what_the_server_writes_late_stands_where_it_was_accepted),
        CASE(what_is_forwarded_again_is_there_once),
        CASE(a_node_that_is_killed_loses_and_doubles_nothing),
    };
    return HARNESS_RUN("spool on PostgreSQL", tests);
}
