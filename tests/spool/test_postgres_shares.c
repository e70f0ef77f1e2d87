/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes on one database, each with shares of its own: what spool/postgres.h says of shares.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/reader.h"
#include "sys/clock.h"
#include "tests/spool/nodes.h"
#include "tests/sys/postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- tests ------------------------------------------------------------------------------- */

static void each_owner_hears_of_its_part(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(a, 2, 100); /* three recipients: 20, 21, 22 */
    accept_at(b, 4, 100); /* two: 40, 41 */
    UNTIL(a->count == 2 && b->count == 2);
    assert_int_equal(a->parts[0].n, 2);
    assert_int_equal(a->parts[0].elsewhere, 2);
    assert_int_equal(b->parts[0].n, 2);
    assert_int_equal(b->parts[0].elsewhere, 5);
    assert_int_equal(a->parts[1].elsewhere, 2);
    assert_int_equal(b->parts[1].elsewhere, 1);
    assert_true(a->parts[0].sequence < a->parts[1].sequence);
    deliver(a, a->parts[0].handle, 0);
    deliver(a, a->parts[0].handle, 2); /* its part has ended */
    assert_int_equal(spool_find(a->harness.spool, harness_id(2)).index, SPOOL_NO_HANDLE.index);
    deliver(b, b->parts[0].handle, 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 3);
    struct spool_state status;
    spool_status(b->harness.spool, &status);
    assert_int_equal(status.messages, 1);
}

static void check_ticket(struct node *node, const struct part *part, uint64_t n, size_t length)
{
    uint8_t ticket[SPOOL_TICKET_MAX], *bytes = malloc(length + 1);
    size_t ticket_length, read = 0, got;
    struct disk *disk;
    struct spool_reader *reader;
    struct spool_stored *stored;
    struct spool_message message;
    struct arena arena;
    struct buffer want;
    arena_init(&arena);
    harness_content(n, length, &want);
    assert_int_equal(spool_ticket(node->harness.spool, part->handle, ticket, &ticket_length),
                     ERROR_NONE);
    assert_int_equal(disk_open_directory(node->harness.path, &disk), ERROR_NONE);
    assert_int_equal(spool_reader_open_log(disk, &reader), ERROR_NONE);
    assert_int_equal(
        spool_stored_open(reader, slice_make(ticket, ticket_length), &arena, &message, &stored),
        ERROR_NONE);
    assert_int_equal(message.body_length, length);
    do {
        assert_int_equal(spool_stored_read(stored, read, bytes + read, length - read, &got),
                         ERROR_NONE);
        read += got;
    } while (got > 0 && read < length);
    assert_int_equal(read, length);
    assert_memory_equal(bytes, want.data, length);
    spool_stored_close(stored);
    spool_reader_close(reader);
    buffer_done(&want);
    arena_done(&arena);
    free(bytes);
}

static void on_prepared(void *context, enum error error)
{
    struct told *told = context;
    told->done = true;
    told->error = error;
}

static void what_another_accepted_is_fetched(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1000, 700000};
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    for (size_t i = 0; i < 3; i++) {
        accept_at(a, 4 + 3 * i, lengths[i]); /* two recipients each */
    }
    UNTIL(a->count == 3 && b->count == 3);
    for (size_t i = 0; i < 3; i++) {
        struct told told = {0}, again = {0};
        uint64_t n = 4 + 3 * i;
        struct part *part = &b->parts[i];
        assert_true(spool_prepare(a->harness.spool, a->parts[i].handle, on_prepared, &told));
        check_ticket(a, &a->parts[i], n, lengths[i]);
        spool_pin(b->harness.spool, part->handle);
        assert_false(spool_prepare(b->harness.spool, part->handle, on_prepared, &told));
        assert_false(spool_prepare(b->harness.spool, part->handle, on_prepared, &again));
        UNTIL(told.done && again.done);
        assert_int_equal(told.error, ERROR_NONE);
        assert_int_equal(again.error, ERROR_NONE);
        assert_true(spool_prepare(b->harness.spool, part->handle, on_prepared, &told));
        check_ticket(b, part, n, lengths[i]);
        spool_unpin(b->harness.spool, part->handle);
        deliver(b, part->handle, 1);
    }
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 3);
}

static void a_dead_nodes_share_is_loaded_by_the_next(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    struct told told = {0};
    for (uint64_t n = 2; n < 20; n += 3) { /* three recipients each */
        accept_at(b, n, 10);
    }
    UNTIL(a->count == 6);
    deliver(a, a->parts[0].handle, 0);
    deliver(a, a->parts[0].handle, 2);
    deliver(a, a->parts[1].handle, 2);
    note(a, a->parts[2].handle, 0, "first", &told);
    UNTIL(told.done);
    told.done = false;
    note(a, a->parts[2].handle, 0, "second", &told);
    UNTIL(told.done);
    UNTIL(b->count == 6);
    take(b, world->share[0]);
    assert_int_equal(b->count, 11); /* one has ended */
    for (size_t i = 7; i < 11; i++) {
        assert_true(b->parts[i - 1].sequence < b->parts[i].sequence);
    }
    assert_int_equal(b->parts[6].n, 5);
    assert_int_equal(b->parts[6].fates, 4);
    assert_int_equal(b->parts[6].elsewhere, 2);
    assert_int_equal(b->parts[7].notes, 2);
    assert_string_equal(b->parts[7].last_note, "second");
    /* And what comes for it then. */
    accept_at(b, 23, 10);
    UNTIL(b->count == 13);
}

static void an_old_owners_decision_is_refused_and_its_fact_is_not(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    struct told told = {0};
    accept_at(a, 2, 10);
    accept_at(a, 5, 10);
    UNTIL(a->count == 2);
    take(b, world->share[0]);
    /* It does not know yet. */
    deliver(a, a->parts[0].handle, 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 1);
    assert_int_equal(a->left_count, 0);
    note(a, a->parts[1].handle, 0, "too late", &told);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_DENIED);
    UNTIL(a->left_count == 1);
    assert_int_equal(a->left[0], world->share[0]);
    assert_true(a->stale);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 0);
    assert_int_equal(spool_find(a->harness.spool, harness_id(5)).index, SPOOL_NO_HANDLE.index);
    struct spool_state status;
    spool_status(a->harness.spool, &status);
    assert_int_equal(status.messages, 0);
    /* The other's is not. */
    told.done = false;
    struct spool_handle handle = SPOOL_NO_HANDLE;
    for (size_t i = 0; i < b->count; i++) {
        if (b->parts[i].n == 5 && b->parts[i].elsewhere == 2) {
            handle = b->parts[i].handle;
        }
    }
    note(b, handle, 0, "mine", &told);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 1);
}

static void fact(struct node *node, uint64_t n, uint32_t delivery)
{
    spool_batch_fact(node->harness.spool, harness_id(n), delivery, SPOOL_DELIVERED, 1,
                     SLICE_LITERAL("m1"));
}

static void a_fact_needs_no_part(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(a, 2, 10); /* three recipients: 20 and 22 are a's, 21 is b's */
    accept_at(a, 5, 10); /* 50, 51, 52 */
    UNTIL(a->count == 2 && b->count == 2);
    spool_batch_begin(b->harness.spool);
    fact(b, 2, 0); /* in the other's part */
    fact(b, 2, 1); /* in its own */
    fact(b, 5, 2);
    assert_int_equal(harness_submit(&b->harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates WHERE server = 'm1'"), 3);
    assert_int_equal(spool_find(b->harness.spool, harness_id(2)).index, SPOOL_NO_HANDLE.index);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 0);
    take(b, world->share[0]); /* and who loads the part then has them */
    assert_int_equal(b->count, 4);
    assert_int_equal(b->parts[2].n, 2);
    assert_int_equal(b->parts[2].fates, 1);
    assert_int_equal(b->parts[3].fates, 4);
}

/* Two parts of one message here: each delivery is found in its own. */
static void each_delivery_is_found_in_its_part(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    take(a, world->share[1]);
    accept_at(a, 2, 10);
    UNTIL(a->count == 2);
    for (uint32_t i = 0; i < 3; i++) {
        struct spool_handle handle = spool_find_delivery(a->harness.spool, harness_id(2), i);
        assert_int_equal((part_of(a, handle)->elsewhere >> i) & 1, 0);
    }
    assert_int_equal(spool_find_delivery(a->harness.spool, harness_id(2), 3).index,
                     SPOOL_NO_HANDLE.index);
}

static void note_common(struct node *node, struct slice payload)
{
    spool_batch_begin(node->harness.spool);
    spool_batch_global_note(node->harness.spool, SLICE_LITERAL("common/a"), payload);
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
}

/* What was noted during an outage is written late. */
static void of_ordered_notes_the_greater_stays(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    static const char second[] =
        "SELECT get_byte(payload, 1) FROM holdfast.globals WHERE node = 0 AND key = 'common/a'";
    note_common(a, SLICE_LITERAL("\x02\x05 first"));
    assert_int_equal(ask(second), 5);
    note_common(b, SLICE_LITERAL("\x02\x04 late"));
    assert_int_equal(ask(second), 5);
    note_common(b, SLICE_LITERAL("\x02\x06 later"));
    assert_int_equal(ask(second), 6);
    note_common(a, SLICE_LITERAL("\x01\x01 unordered"));
    assert_int_equal(ask(second), 1);
}

/* What the node's journal still has is the place for its facts, too. */
static void a_fact_about_no_part_is_kept_while_the_database_is_away(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    postgres_stop(harness_server());
    accept_at(a, 4, 10); /* 40, 41 */
    spool_batch_begin(a->harness.spool);
    fact(a, 4, 1); /* the other's */
    assert_int_equal(harness_submit(&a->harness, SPOOL_SYNCED), ERROR_NONE);
    spool_close(a->harness.spool);
    postgres_start(harness_server());
    node_open(a, 1);
    take(a, world->share[0]);
    UNTIL(ask("SELECT count(*) FROM holdfast.fates WHERE delivery = 1 AND server = 'm1'") == 1);
    UNTIL(ask("SELECT count(*) FROM holdfast.parts") == 2);
}

static void add_about(struct node *node, uint64_t n, struct spool_handle about)
{
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    message.body_length = 5;
    assert_int_equal(
        spool_batch_message(node->harness.spool, &message, NULL, SLICE_LITERAL("hello")),
        ERROR_NONE);
    if (about.index != SPOOL_NO_HANDLE.index) {
        spool_batch_about(node->harness.spool, about);
    }
    arena_done(&arena);
}

/* A batch that decides of two shares, one of which is another's meanwhile. */
static void only_what_is_not_ours_is_refused(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    take(a, world->share[1]);
    accept_at(a, 2, 10);
    UNTIL(a->count == 2);
    struct spool_handle old = spool_find_delivery(a->harness.spool, harness_id(2), 0);
    struct spool_handle ours = spool_find_delivery(a->harness.spool, harness_id(2), 1);
    take(&world->nodes[1], world->share[0]);
    spool_batch_begin(a->harness.spool);
    add_about(a, 3, old);
    add_about(a, 6, ours);
    spool_batch_fate(a->harness.spool, old, 0, SPOOL_BOUNCED);
    spool_batch_fate(a->harness.spool, ours, 1, SPOOL_BOUNCED);
    assert_int_equal(harness_submit(&a->harness, SPOOL_SYNCED), ERROR_DENIED);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates WHERE delivery = 1"), 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.messages"), 2);
    assert_int_equal(spool_find_delivery(a->harness.spool, harness_id(2), 1).index,
                     SPOOL_NO_HANDLE.index); /* it has ended here, too */
}

/* With a message that may tell of any of them none is stored. */
static void with_a_message_about_nothing_all_of_it_is_refused(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    take(a, world->share[1]);
    accept_at(a, 2, 10);
    UNTIL(a->count == 2);
    struct spool_handle old = spool_find_delivery(a->harness.spool, harness_id(2), 0);
    struct spool_handle ours = spool_find_delivery(a->harness.spool, harness_id(2), 1);
    take(&world->nodes[1], world->share[0]);
    spool_batch_begin(a->harness.spool);
    add_about(a, 3, SPOOL_NO_HANDLE);
    spool_batch_fate(a->harness.spool, old, 0, SPOOL_BOUNCED);
    spool_batch_fate(a->harness.spool, ours, 1, SPOOL_BOUNCED);
    assert_int_equal(harness_submit(&a->harness, SPOOL_SYNCED), ERROR_DENIED);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.messages"), 1);
    assert_int_equal(spool_fate_of(a->harness.spool, ours, 1), 0); /* open again */
}

static void a_share_that_is_left_goes_with_its_handles(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_at(a, 3, 10); /* 30 */
    UNTIL(a->count == 1);
    spool_postgres_leave(a->harness.spool, world->share[0]);
    assert_int_equal(a->left_count, 0); /* never from inside the call */
    UNTIL(a->left_count == 1);
    assert_false(a->stale);
    assert_int_equal(spool_find(a->harness.spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    accept_at(a, 6, 10);
    take(a, world->share[0]);
    assert_int_equal(a->count, 3);
    assert_int_equal(a->parts[1].n, 3);
    assert_int_equal(a->parts[2].n, 6);
}

/* A transaction that began before and ends after: nothing is passed by. */
static void a_late_commit_is_seen(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    run("BEGIN; SELECT pg_current_xact_id()");
    accept_at(a, 3, 10);
    accept_at(a, 6, 10);
    for (int i = 0; i < 30; i++) {
        spool_postgres_follow(a->harness.spool);
        pass();
    }
    assert_int_equal(a->count, 0);
    run("COMMIT");
    UNTIL(a->count == 2);
    assert_int_equal(a->parts[0].n, 3);
    assert_int_equal(a->parts[1].n, 6);
}

/* The first mail of a share, whose number cannot be had: it stands where it was accepted, though
 * nothing was tried but to ask. */
static void what_waited_for_a_number_stands_where_it_was_accepted(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    note_common(a, SLICE_LITERAL("\x02\x05 connected"));
    run("ALTER TABLE holdfast.shares RENAME TO none");
    accept_at(a, 3, 10);
    run("ALTER TABLE holdfast.none RENAME TO shares");
    UNTIL(ask("SELECT count(*) FROM holdfast.parts") == 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.parts WHERE seq < 1700000001000000"), 1);
}

/* In what is still to be loaded there may be mail that came late, and is older than what is here.
 */
static void what_is_being_loaded_has_not_been_followed(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(b, 4, 10);
    UNTIL(b->count == 1);
    int64_t token = own(a, world->share[1]);
    assert_true(spool_postgres_has_followed(a->harness.spool, 0));
    spool_postgres_take(a->harness.spool, world->share[1], token);
    while (a->taken_count == 1) {
        assert_false(spool_postgres_has_followed(a->harness.spool, 0));
        pass();
    }
    assert_true(spool_postgres_has_followed(a->harness.spool, 0));
}

static bool is_up(const struct node *node)
{
    struct spool_postgres_state status;
    spool_postgres_status(node->harness.spool, &status);
    return status.up;
}

/* Where those who would wait for it do not know yet, mail is not answered from the journal at once:
 * later mail of another node might go first. */
static void what_nobody_knows_of_is_not_answered_at_once(void **state)
{
    (void)state;
    enum { RECEIVED = 3, SLOW_MS = 2000, CLOCKS_MS = 20 };
    struct node *a = &world->nodes[0];
    int64_t received_ms = 1700000000000 + RECEIVED, begun_ms = clock_steady_ms();
    const int64_t told_from[] = {INT64_MAX, received_ms + 1};
    struct told told = {0};
    note_common(a, SLICE_LITERAL("\x02\x05 connected"));
    run("ALTER TABLE holdfast.parts RENAME TO none");
    spool_postgres_told(a->harness.spool, told_from[0]);
    offer_at(a, RECEIVED, &told);
    UNTIL(!is_up(a));
    for (size_t i = 0; i < 2; i++) {
        spool_postgres_told(a->harness.spool, told_from[i]);
        for (int pause = 0; pause < 20; pause++) {
            pass();
        }
        assert_true(!told.done || clock_steady_ms() - begun_ms >= SLOW_MS);
    }
    spool_postgres_told(a->harness.spool, received_ms);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(spool_postgres_behind(a->harness.spool), received_ms);
    /* And not before what another takes next is later by any node's clock. */
    for (uint64_t n = RECEIVED + 1; n < RECEIVED + 11; n++) {
        begun_ms = clock_steady_ms();
        told.done = false;
        offer_at(a, n, &told);
        UNTIL(told.done);
        assert_true(clock_steady_ms() - begun_ms >= CLOCKS_MS);
    }
    /* Or the database is back before. */
    told.done = false;
    spool_postgres_told(a->harness.spool, INT64_MAX);
    offer_at(a, RECEIVED + 11, &told);
    run("ALTER TABLE holdfast.none RENAME TO parts");
    UNTIL(told.done && spool_postgres_behind(a->harness.spool) == INT64_MAX);
    assert_int_equal(told.error, ERROR_NONE);
    assert_true(is_up(a));
}

static void without_a_lease_nothing_is_decided(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    struct told told = {0};
    accept_at(a, 3, 10);
    accept_at(a, 6, 10);
    UNTIL(a->count == 2);
    spool_postgres_lease(a->harness.spool, clock_steady_ms() + SPOOL_LEASE_MS - 1);
    note(a, a->parts[0].handle, 0, "attempt", &told);
    deliver(a, a->parts[1].handle, 0); /* which is a fact */
    accept_at(a, 9, 10);
    assert_false(told.done);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 1);
    spool_postgres_lease(a->harness.spool, clock_steady_ms() + LONG_MS);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 1);
}

static void a_fact_of_the_journal_alone_is_not_told_to_all(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_at(a, 3, 10);
    UNTIL(a->count == 1);
    postgres_stop(harness_server());
    accept_at(a, 6, 10); /* which nobody has handed over */
    assert_true(spool_postgres_has_told(a->harness.spool));
    deliver(a, a->parts[0].handle, 0);
    assert_false(spool_postgres_has_told(a->harness.spool));
    spool_close(a->harness.spool);
    node_open(a, 1);
    assert_false(spool_postgres_has_told(a->harness.spool));
    postgres_start(harness_server());
    UNTIL(spool_postgres_has_told(a->harness.spool));
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 1);
}

static void a_fact_that_the_database_refuses_keeps_nobody_waiting(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_at(a, 3, 10);
    UNTIL(a->count == 1);
    run("ALTER TABLE holdfast.fates ADD CHECK (fate = 0)");
    postgres_stop(harness_server());
    deliver(a, a->parts[0].handle, 0);
    assert_false(spool_postgres_has_told(a->harness.spool));
    postgres_start(harness_server());
    UNTIL(spool_postgres_has_told(a->harness.spool));
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 0);
}

/* Nobody has it in the database, and its node has gone: when that is back, the owner hears of it.
 */
static void what_a_node_kept_comes_to_the_owner_with_it(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(a, 2, 10);
    UNTIL(a->count == 1 && b->count == 1);
    postgres_stop(harness_server());
    accept_at(a, 5, 300000);
    deliver(a, a->parts[0].handle, 0);
    spool_close(a->harness.spool);
    postgres_start(harness_server());
    UNTIL(ask("SELECT count(*) FROM holdfast.messages") == 1);
    a->count = 0;
    node_open(a, 1);
    take(a, world->share[0]);
    UNTIL(b->count == 2);
    assert_int_equal(b->parts[1].n, 5);
    UNTIL(a->count == 2);
    assert_int_equal(a->parts[0].n, 2);
    UNTIL(ask("SELECT count(*) FROM holdfast.fates") == 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.parts"), 4);
    struct spool_postgres_state status;
    spool_postgres_status(a->harness.spool, &status);
    assert_int_equal(status.one_copy, 0);
}

static void others_are_told_that_there_is_something(void **state)
{
    (void)state;
    bool notified = false;
    run("LISTEN holdfast_mail");
    accept_at(&world->nodes[0], 2, 10);
    for (int i = 0; i < PATIENCE_MS / STEP_MS && !notified; i++) {
        pass();
        assert_int_equal(database_wait(harness_database(), STEP_MS, &notified), DATABASE_DONE);
    }
    assert_true(notified);
    run("UNLISTEN *");
}

/* Turns each bit of the message's content in the journal; a second time: they are as before. */
static void spoil(const struct harness *harness, uint64_t n, size_t length)
{
    struct buffer want;
    bool found = false;
    harness_content(n, length, &want);
    for (int turned = 0; turned < 2 && !found; turned++) {
        DIR *directory = opendir(harness->path);
        struct dirent *entry;
        assert_non_null(directory);
        while ((entry = readdir(directory)) != NULL && !found) {
            struct stat status;
            int file = openat(dirfd(directory), entry->d_name, O_RDWR);
            if (file < 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
                close(file);
                continue;
            }
            uint8_t *bytes = malloc((size_t)status.st_size + 1);
            assert_int_equal(pread(file, bytes, (size_t)status.st_size, 0), status.st_size);
            uint8_t *at = memmem(bytes, (size_t)status.st_size, want.data, want.length);
            if (at != NULL) {
                found = true;
                for (size_t i = 0; i < length; i++) {
                    at[i] ^= 0xff;
                }
                assert_int_equal(pwrite(file, at, length, at - bytes), length);
            }
            free(bytes);
            close(file);
        }
        closedir(directory);
        for (size_t i = 0; i < length; i++) {
            want.data[i] ^= 0xff;
        }
    }
    assert_true(found);
    buffer_done(&want);
}

/* It was answered 250, and nobody else has it. */
static void what_cannot_be_read_is_kept_until_it_can(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    struct spool_state status;
    struct spool_postgres_state postgres;
    accept_at(a, 9, 10);
    UNTIL(a->count == 1);
    postgres_pause(harness_server());
    accept_at(a, 3, 100); /* it is on its way */
    postgres_kill(harness_server());
    spoil(&a->harness, 3, 100);
    postgres_start(harness_server());
    accept_at(a, 6, 100);
    UNTIL(a->count == 2);
    assert_int_equal(a->parts[1].n, 6);
    UNTIL((spool_status(a->harness.spool, &status), status.quarantined) == 1);
    /* Also after a start. */
    for (int i = 0; i < 2; i++) {
        harness_settle(&a->harness);
        spool_close(a->harness.spool);
        node_open(a, 1);
        UNTIL((spool_status(a->harness.spool, &status), status.quarantined) > 0); /* tried */
        UNTIL((spool_postgres_status(a->harness.spool, &postgres), postgres.one_copy) == 1);
        UNTIL(ask("SELECT count(*) FROM holdfast.messages") == 2);
    }
    spool_close(a->harness.spool);
    spoil(&a->harness, 3, 100);
    node_open(a, 1);
    UNTIL(ask("SELECT count(*) FROM holdfast.messages") == 3);
    UNTIL((spool_postgres_status(a->harness.spool, &postgres), postgres.one_copy) == 0);
}

/* Somebody has it already when it is written down as new (RESCUE in pg_retire.c). */
static void what_is_followed_twice_is_there_once(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_at(a, 3, 10);
    UNTIL(a->count == 1);
    run("UPDATE holdfast.parts SET xid = pg_current_xact_id()");
    accept_at(a, 6, 10);
    UNTIL(a->count == 2);
    assert_int_equal(a->parts[1].n, 6);
    /* And when it is finished there. */
    deliver(a, a->parts[0].handle, 0);
    run("UPDATE holdfast.parts SET xid = pg_current_xact_id()");
    accept_at(a, 9, 10);
    UNTIL(a->count == 3);
    assert_int_equal(a->parts[2].n, 9);
}

/* Ids are made when a message begins. This one took so long that its time is being left. */
static void mail_that_was_slow_goes_where_its_range_went(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    spool_tick(a->harness.spool);
    UNTIL(ask("SELECT count(*) FROM holdfast.watermarks WHERE node = 1") == 1);
    run("UPDATE holdfast.partitions SET state = 3");
    accept_at(a, 3, 300000);
    UNTIL(a->count == 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.kept_messages"), 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.messages"), 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.chunks"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_owner_hears_of_its_part),
        CASE(what_another_accepted_is_fetched),
        CASE(a_dead_nodes_share_is_loaded_by_the_next),
        CASE(an_old_owners_decision_is_refused_and_its_fact_is_not),
        CASE(a_fact_needs_no_part),
        CASE(each_delivery_is_found_in_its_part),
        CASE(of_ordered_notes_the_greater_stays),
        CASE(a_fact_about_no_part_is_kept_while_the_database_is_away),
        CASE(only_what_is_not_ours_is_refused),
        CASE(with_a_message_about_nothing_all_of_it_is_refused),
        CASE(a_share_that_is_left_goes_with_its_handles),
        CASE(a_late_commit_is_seen),
        CASE(what_waited_for_a_number_stands_where_it_was_accepted),
        CASE(what_is_being_loaded_has_not_been_followed),
        CASE(what_nobody_knows_of_is_not_answered_at_once),
        CASE(without_a_lease_nothing_is_decided),
        CASE(a_fact_of_the_journal_alone_is_not_told_to_all),
        CASE(a_fact_that_the_database_refuses_keeps_nobody_waiting),
        CASE(what_a_node_kept_comes_to_the_owner_with_it),
        CASE(what_cannot_be_read_is_kept_until_it_can),
        CASE(what_is_followed_twice_is_there_once),
        CASE(mail_that_was_slow_goes_where_its_range_went),
        CASE(others_are_told_that_there_is_something),
    };
    return HARNESS_RUN("shares on PostgreSQL", tests);
}
