/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node has read from the database and cannot be sure of any more: another server, an older
 * state of it, a new connection, what an earlier owner tells late.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/pg_page.h"
#include "tests/spool/nodes.h"
#include "tests/sys/postgres.h"

#include <stdio.h>
#include <stdlib.h>

enum { AWAY = 7777 }; /* a share that nobody owns */

#define BEGIN "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0;"

/* Accepted, but no owner has heard of it: it lies in no share that is anybody's. */
static void accept_unheard(struct node *node, uint64_t n)
{
    run(BEGIN "SELECT pg_current_xact_id()"); /* nobody reads beyond this */
    accept_at(node, n, 10);
    run("UPDATE holdfast.parts SET share = %d WHERE id = '%016llx%016llx'; COMMIT", AWAY,
        (unsigned long long)harness_id(n).high, (unsigned long long)harness_id(n).low);
}

static void end_sessions(void)
{
    (void)ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
              " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
}

/* An owner that follows has seen all that was committed until now. */
static void follow_past(struct node *node, uint64_t n)
{
    accept_heard(node, node, n, 10);
}

/* ---- another server -------------------------------------------------------------------------- */

static void a_server_of_older_transactions_is_read_from_the_start(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    spool_of(a)->spare.keep_ms = 0;
    follow_past(a, 3);
    accept_unheard(a, 12);
    database_keep();
    run("DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    follow_past(a, 6);
    database_put_back();
    run("UPDATE holdfast.parts SET share = %d WHERE share = %d", world->share[0], AWAY);
    accept_at(a, 9, 10);
    UNTIL(part_with(a, 9) != NULL);
    UNTIL(part_with(a, 12) != NULL);
    follow_past(a, 15);
    assert_int_equal(a->count, 5); /* each of them once */
    deliver(a, part_with(a, 3)->handle, 0);
    deliver(a, part_with(a, 12)->handle, 0);
}

/* Called on the reader's thread before it asks for rows whose keys it has; NULL: nothing is. */
static void (*before_rows)(void);
static _Atomic int rows_asked;

void __real_pg_page_run(void *job);
void __wrap_pg_page_run(void *job);
void __wrap_pg_page_run(void *job)
{
    const struct pg_page *page = job;
    if (page->kind == PG_PAGE_ROWS) {
        if (before_rows != NULL) {
            before_rows();
        }
        rows_asked++; /* who waits for that has the tests' connection again */
    }
    __real_pg_page_run(job);
}

/* As when what was kept is cleaned, or its range is dropped. */
static void finished_mail_goes(void)
{
    run("DELETE FROM holdfast.parts WHERE id IN (SELECT id FROM holdfast.fates);"
        "DELETE FROM holdfast.messages WHERE id IN (SELECT id FROM holdfast.fates);"
        "DELETE FROM holdfast.fates");
}

static void what_goes_while_it_is_read_is_no_damage(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    struct spool_state status;
    spool_of(a)->spare.keep_ms = 0; /* what is kept would not go */
    follow_past(a, 3);
    follow_past(a, 6);
    deliver(a, part_with(a, 3)->handle, 0);
    rows_asked = 0;
    before_rows = finished_mail_goes;
    postgres_stop(harness_server());
    postgres_start(harness_server());
    UNTIL(rows_asked > 0);
    before_rows = NULL;
    follow_past(a, 9);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.messages"), 2);
    spool_status(a->harness.spool, &status);
    assert_int_equal(status.quarantined, 0);
    assert_int_equal(a->count, 3);
}

static void lock_fates(void)
{
    run(BEGIN "LOCK TABLE holdfast.fates"); /* what is read of rows first */
}

/* Who retires a range detaches its parts first: so what is being read stays where it is. */
static void who_reads_rows_holds_up_who_detaches(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    follow_past(a, 3);
    deliver(a, part_with(a, 3)->handle, 0);
    rows_asked = 0;
    before_rows = lock_fates;
    postgres_stop(harness_server());
    postgres_start(harness_server());
    UNTIL(rows_asked > 0);
    before_rows = NULL;
    UNTIL(ask("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0);
    assert_true(ask("SELECT count(*) FROM pg_locks l JOIN pg_locks w USING (pid)"
                    " WHERE NOT w.granted AND l.granted"
                    " AND l.relation = 'holdfast.parts'::regclass") > 0);
    run("COMMIT");
    follow_past(a, 6);
}

/* A crash may forget transactions that nobody waited for, and use their numbers again. */
static void on_a_new_connection_following_goes_back(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_unheard(a, 12);
    follow_past(a, 3);
    run("UPDATE holdfast.parts SET share = %d WHERE share = %d", world->share[0], AWAY);
    follow_past(a, 6);
    assert_null(part_with(a, 12));
    deliver(a, part_with(a, 3)->handle, 0);
    end_sessions();
    UNTIL(part_with(a, 12) != NULL);
    follow_past(a, 9);
    assert_int_equal(a->count, 4);
}

/* What tells whether a group was committed is gone: damage, or somebody who tidied up. */
static void a_mark_that_is_gone_is_made_anew(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    follow_past(a, 3);
    run("DELETE FROM holdfast.globals WHERE key = '.group'");
    follow_past(a, 6);
    run("UPDATE holdfast.globals SET payload = 'x' WHERE key = '.group'");
    follow_past(a, 9);
    assert_int_equal(a->count, 3); /* each of them once */
}

static void what_ends_while_it_is_read_again_stays_so(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    follow_past(a, 3);
    run(BEGIN "LOCK TABLE holdfast.notes"); /* the last that is read of a page */
    end_sessions();
    UNTIL(ask("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0);
    deliver(a, part_with(a, 3)->handle, 0);
    run("COMMIT");
    follow_past(a, 6);
    assert_int_equal(parts_with(a, 3), 1);
    assert_int_equal(a->count, 2);
}

static void a_share_has_the_number_that_the_database_says_now(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_at(a, 4, 10); /* two recipients */
    assert_int_equal(ask("SELECT count(*) FROM holdfast.parts WHERE share = %d", world->share[1]),
                     1);
    run("UPDATE holdfast.shares SET share = 4711 WHERE share = %d", world->share[1]);
    end_sessions();
    accept_at(a, 7, 10);
    UNTIL(ask("SELECT count(*) FROM holdfast.parts") == 4);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.parts WHERE share = 4711"), 1);
}

/* ---- late fates ------------------------------------------------------------------------------ */

static void the_next_owner_hears_of_a_late_fact(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    follow_past(a, 2); /* 20, 21, 22 */
    follow_past(a, 6);
    take(b, world->share[0]);
    deliver(a, part_with(a, 2)->handle, 2); /* it does not know yet */
    struct part *part = NULL;
    for (size_t i = 0; i < b->count; i++) {
        if (b->parts[i].n == 2 && b->parts[i].share == world->share[0]) {
            part = &b->parts[i];
        }
    }
    assert_non_null(part);
    UNTIL(part->late == 1u << 2);
    UNTIL(part->late_count > 2); /* what is in flight here may have to end first */
    deliver(b, part->handle, 2);
    unsigned told = part->late_count;
    follow_past(b, 12);
    follow_past(b, 18);
    assert_int_equal(part->late_count, told);
    assert_int_equal(part->late, 1u << 2);
    /* Who owns it tells nobody. */
    deliver(b, part_with(b, 6)->handle, 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.late_fates"), 1);
}

/* Who says it does not know whose the part is: a report of edge-out that came too late. */
static void an_owner_hears_of_a_fact_about_its_part(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    follow_past(a, 2); /* 20 and 22 are a's, 21 is b's */
    UNTIL(part_with(b, 2) != NULL);
    spool_batch_begin(b->harness.spool);
    spool_batch_fact(b->harness.spool, harness_id(2), 2, SPOOL_DELIVERED, 1, SLICE_LITERAL("m1"));
    assert_int_equal(harness_submit(&b->harness, SPOOL_SYNCED), ERROR_NONE);
    UNTIL(part_with(a, 2)->late == 1u << 2);
    deliver(a, part_with(a, 2)->handle, 2);
    follow_past(b, 4); /* it has a part of that, too */
    assert_int_equal(part_with(b, 2)->late, 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.late_fates"), 1);
}

static void what_a_dead_owners_journal_says_is_heard_by_the_next(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    follow_past(a, 3);
    postgres_stop(harness_server());
    deliver(a, part_with(a, 3)->handle, 0);
    spool_close(a->harness.spool);
    postgres_start(harness_server());
    take(b, world->share[0]);
    assert_int_equal(part_with(b, 3)->fates, 0);
    node_open(a, 1);
    UNTIL(part_with(b, 3)->late == 1);
}

static void what_the_own_journal_says_is_known_before_the_database_has_it(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    follow_past(a, 2);
    postgres_stop(harness_server());
    deliver(a, part_with(a, 2)->handle, 0);
    spool_close(a->harness.spool);
    postgres_start(harness_server());
    int64_t token = own(a, world->share[0]);
    run(BEGIN "LOCK TABLE holdfast.fates, holdfast.kept_fates IN SHARE MODE");
    a->count = a->taken_count = 0;
    node_open(a, 1);
    spool_postgres_take(a->harness.spool, world->share[0], token);
    UNTIL(a->taken_count == 1);
    assert_int_equal(part_with(a, 2)->fates, 1);
    run("COMMIT");
    UNTIL(ask("SELECT count(*) FROM holdfast.fates") == 1);
}

/* What was written shortly before may be read of the next server only. */
static void of_another_server_what_came_late_is_read_from_the_start(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    follow_past(a, 3);
    run("INSERT INTO holdfast.late_fates (share, xid, id, delivery, fate)"
        " SELECT %d, '3', id, 0, 1 FROM holdfast.messages",
        world->share[0]);
    postgres_stop(harness_server());
    postgres_start(harness_server());
    UNTIL(part_with(a, 3)->late == 1);
}

/* ---- many ------------------------------------------------------------------------------------ */

/* Messages n, n + 6 .. of one recipient, which go into a share of their own. */
static void accept_many(struct node *node, uint64_t n, size_t count, int32_t share)
{
    run(BEGIN "SELECT pg_current_xact_id()");
    struct arena arena;
    arena_init(&arena);
    spool_batch_begin(node->harness.spool);
    for (size_t i = 0; i < count; i++) {
        struct spool_message message;
        harness_message(n + 6 * i, &arena, &message);
        message.body_length = 3;
        assert_int_equal(
            spool_batch_message(node->harness.spool, &message, NULL, SLICE_LITERAL("abc")),
            ERROR_NONE);
    }
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
    UNTIL(ask("SELECT count(*) FROM holdfast.parts WHERE share = %d", world->share[0]) ==
          (int64_t)count);
    run("UPDATE holdfast.parts SET share = %d WHERE share = %d; COMMIT", share, world->share[0]);
    arena_done(&arena);
}

static void shares_are_taken_side_by_side_and_the_others_are_followed(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    enum { MANY = 3000, FIRST = 100, SECOND = 101 };
    run("INSERT INTO holdfast.shares (share, name, family, part) VALUES (100, 'in:2', 'in', 2),"
        " (101, 'in:3', 'in', 3)");
    accept_many(a, 600, MANY, FIRST);
    accept_many(a, 603, MANY / 2, SECOND);
    accept_unheard(a, 12);
    int64_t tokens[] = {own(a, FIRST), own(a, SECOND)};
    size_t taken = a->taken_count;
    for (int waited = 0; waited < 2 * PG_PACE_MS; waited += STEP_MS) {
        pass(); /* the next look is at once */
    }
    run("UPDATE holdfast.parts SET share = %d, xid = pg_current_xact_id() WHERE share = %d",
        world->share[0], AWAY);
    assert_null(part_with(a, 12));
    spool_postgres_take(a->harness.spool, FIRST, tokens[0]);
    spool_postgres_take(a->harness.spool, SECOND, tokens[1]);
    spool_postgres_follow(a->harness.spool);
    UNTIL(a->taken_count == taken + 2);
    assert_int_equal(a->taken[taken % 8], SECOND); /* it had less to wait for */
    size_t first_of_second = a->count, last_of_first = 0, of_first = 0;
    for (size_t i = 0; i < a->count; i++) {
        of_first += a->parts[i].share == FIRST;
        last_of_first = a->parts[i].share == FIRST ? i : last_of_first;
        first_of_second = a->parts[i].share == SECOND && i < first_of_second ? i : first_of_second;
    }
    assert_int_equal(of_first, MANY);
    assert_true(first_of_second < last_of_first);
    assert_non_null(part_with(a, 12));
    assert_int_equal(part_with(a, 12)->taken_count, taken);
    follow_past(a, 6);
    assert_int_equal(a->count, MANY + MANY / 2 + 2);
}

enum { DEALT = 200, DEALT_SHARES = 12 };

/* Among so many shares in turn, each with a note; one in five has its fate. Nobody takes the last
 * share. What is returned is of the others, and has none. */
static size_t deal_out(struct node *node, size_t count)
{
    static const uint64_t far = 48000000000; /* its id is weeks from the others', in no range */
    accept_many(node, 600, count, DEALT);
    run(BEGIN "SELECT pg_current_xact_id()");
    accept_at(node, far, 10);
    run("UPDATE holdfast.kept_parts SET share = %d; COMMIT", DEALT);
    run("UPDATE holdfast.parts p SET share = %d + r.n %% %d FROM (SELECT id, row_number() OVER"
        " (ORDER BY seq) AS n FROM holdfast.parts WHERE share = %d) r WHERE p.id = r.id",
        DEALT, DEALT_SHARES, DEALT);
    run("INSERT INTO holdfast.notes (id, delivery, share, kind, payload)"
        " SELECT id, 0, share, 5, 'x' FROM holdfast.parts WHERE share >= %d",
        DEALT);
    run("INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 0, 1 FROM (SELECT id,"
        " row_number() OVER (ORDER BY seq) AS n FROM holdfast.parts) r WHERE n %% 5 = 0");
    return (size_t)ask("SELECT count(*) FROM (SELECT * FROM holdfast.parts UNION ALL SELECT * FROM"
                       " holdfast.kept_parts) p WHERE share >= %d AND share < %d AND NOT EXISTS"
                       " (SELECT FROM holdfast.fates f WHERE f.id = p.id)",
                       DEALT, DEALT + DEALT_SHARES - 1);
}

static void take_dealt(struct node *node)
{
    for (int32_t i = 0; i + 1 < DEALT_SHARES; i++) {
        spool_postgres_take(node->harness.spool, DEALT + i, 1);
    }
}

/* Once the first of each are here. */
static void many_shares_are_read_as_one_in_the_order_of_their_parts(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    size_t held = deal_out(a, 3000), taken = a->taken_count, notes = 0;
    uint64_t last[DEALT_SHARES] = {0};
    take_dealt(a);
    UNTIL(a->taken_count == taken + DEALT_SHARES - 1);
    assert_int_equal(a->count, held);
    for (size_t i = 0; i < a->count; i++) {
        const struct part *part = &a->parts[i];
        assert_in_range(part->share, DEALT, DEALT + DEALT_SHARES - 2);
        assert_true(part->sequence > last[part->share - DEALT]);
        last[part->share - DEALT] = part->sequence;
        if (i > (size_t)PG_PAGE_FIRST * DEALT_SHARES) {
            assert_true(part->sequence > a->parts[i - 1].sequence);
        }
        notes += part->notes;
    }
    assert_int_equal(notes, held - 1);
    assert_int_equal(parts_with(a, 48000000000 & 0xffffffff), 1);
    follow_past(a, 6);
    assert_int_equal(a->count, held + 1);
}

static void one_of_many_may_be_left_before_all_of_it_is_here(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    size_t held = deal_out(a, 3000), taken = a->taken_count;
    a->leaves = DEALT + 4;
    take_dealt(a);
    UNTIL(a->left_count == 1 && a->taken_count == taken + DEALT_SHARES - 2);
    assert_in_range(a->left_at, 1, held / 2);
}

static void what_cannot_be_read_as_one_is_read_share_by_share(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    size_t held = deal_out(a, 500), taken = a->taken_count;
    struct pg_spool *pg = spool_of(a);
    pg->one_by_one = true;
    take_dealt(a);
    UNTIL(a->taken_count == taken + DEALT_SHARES - 1);
    assert_int_equal(a->count, held);
    assert_false(pg->one_by_one);
}

static void two_parts_of_a_message_have_their_own_notes(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    struct told told[2] = {0};
    int64_t tokens[2];
    accept_at(a, 4, 10); /* a recipient in each share */
    UNTIL(a->count == 1 && b->count == 1);
    note(a, a->parts[0].handle, 0, "first", &told[0]);
    note(b, b->parts[0].handle, 1, "second", &told[1]);
    UNTIL(told[0].done && told[1].done);
    spool_postgres_leave(a->harness.spool, world->share[0]);
    UNTIL(a->left_count == 1);
    for (int i = 0; i < 2; i++) {
        tokens[i] = own(a, world->share[i]);
    }
    a->count = 0;
    spool_postgres_take(a->harness.spool, AWAY, 1); /* while that is read the others gather */
    for (int i = 0; i < 2; i++) {
        spool_postgres_take(a->harness.spool, world->share[i], tokens[i]);
    }
    UNTIL(a->count == 2);
    for (size_t i = 0; i < 2; i++) {
        bool first = a->parts[i].share == world->share[0];
        assert_int_equal(a->parts[i].notes, 1);
        assert_string_equal(a->parts[i].last_note, first ? "first" : "second");
        assert_int_equal(a->parts[i].elsewhere, first ? 2 : 1);
    }
    assert_int_not_equal(a->parts[0].share, a->parts[1].share);
}

static void a_share_may_be_left_before_all_of_it_is_here(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    enum { MANY = 2000, SHARE = 100 };
    run("INSERT INTO holdfast.shares (share, name, family, part) VALUES (100, 'in:2', 'in', 2)");
    accept_many(a, 600, MANY, SHARE);
    size_t taken = a->taken_count;
    a->leaves = SHARE;
    spool_postgres_take(a->harness.spool, SHARE, own(a, SHARE));
    UNTIL(a->left_count == 1);
    assert_int_equal(a->taken_count, taken);
    assert_true(a->count < MANY);
    a->count = 0;
    take(a, SHARE);
    assert_int_equal(a->count, MANY);
}

/* More than a page has. */
static void much_that_comes_late_is_kept_once(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    const struct pg_spool *pg = spool_of(a);
    enum { MANY = 3 * PG_PAGE + 1, SHARE = 100 };
    run("INSERT INTO holdfast.shares (share, name, family, part) VALUES (100, 'in:2', 'in', 2)");
    accept_many(a, 600, MANY, SHARE);
    take(a, SHARE);
    assert_int_equal(a->count, MANY);
    run("INSERT INTO holdfast.late_fates (share, id, delivery, fate)"
        " SELECT share, id, 0, 1 FROM holdfast.parts WHERE share = %d",
        SHARE);
    for (size_t i = 0; i < MANY; i++) {
        UNTIL(a->parts[i].late == 1);
    }
    end_sessions(); /* all of it is read again */
    follow_past(a, 6);
    assert_int_equal(pg->lates.length / sizeof(struct pg_late), MANY);
    spool_batch_begin(a->harness.spool);
    for (size_t i = 0; i < MANY; i++) {
        spool_batch_taken(a->harness.spool, a->parts[i].handle, 0, SPOOL_DELIVERED, 1,
                          SLICE_LITERAL("m1"));
    }
    assert_int_equal(harness_submit(&a->harness, SPOOL_SYNCED), ERROR_NONE);
    UNTIL(pg->lates.length == 0);
}

/* A crash of the database in the middle of a take, when nothing has been followed yet: what was
 * lost may have been counted, and those numbers be used again. */
static void lose_the_sessions(struct node *node)
{
    node->heard = NULL;
    run(BEGIN "LOCK TABLE holdfast.notes"); /* the next page does not end */
    end_sessions();
}

static void a_take_on_another_connection_begins_anew(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    enum { MANY = PG_PAGE_FIRST + 10, SHARE = 100 };
    run("INSERT INTO holdfast.shares (share, name, family, part) VALUES (100, 'in:2', 'in', 2)");
    accept_unheard(a, 12);
    accept_many(a, 600, MANY, SHARE);
    spool_close(a->harness.spool);
    a->count = 0;
    node_open(a, 1);
    a->heard = lose_the_sessions;
    int64_t token = own(a, SHARE);
    size_t taken = a->taken_count;
    spool_postgres_take(a->harness.spool, SHARE, token);
    UNTIL(a->count == PG_PAGE_FIRST);
    run("UPDATE holdfast.parts SET share = %d WHERE share = %d; COMMIT", SHARE, AWAY);
    UNTIL(a->taken_count == taken + 1);
    assert_int_equal(a->count, MANY + 1);
    assert_non_null(part_with(a, 12));
}

/* ---- the journal ----------------------------------------------------------------------------- */

static void what_somebody_else_has_delivered_leaves_the_journal(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    spool_of(a)->spare.keep_ms = 0;
    run(BEGIN "SELECT pg_current_xact_id()");
    accept_at(a, 3, 10);
    assert_int_equal(in_journal(a), 1);
    run("INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 0, 1 FROM holdfast.messages;"
        " COMMIT");
    follow_past(a, 6);
    assert_null(part_with(a, 3));
    UNTIL(in_journal(a) == 1);
    deliver(a, part_with(a, 6)->handle, 0);
    UNTIL(in_journal(a) == 0);
}

static void what_is_left_leaves_the_journal(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    spool_of(a)->spare.keep_ms = 0;
    run(BEGIN "SELECT pg_current_xact_id()");
    accept_at(a, 3, 10);
    spool_postgres_leave(a->harness.spool, world->share[0]);
    UNTIL(a->left_count == 1);
    UNTIL(in_journal(a) == 0);
    run("COMMIT");
    take(a, world->share[0]);
    assert_int_equal(a->count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_server_of_older_transactions_is_read_from_the_start),
        CASE(what_goes_while_it_is_read_is_no_damage),
        CASE(who_reads_rows_holds_up_who_detaches),
        CASE(on_a_new_connection_following_goes_back),
        CASE(a_mark_that_is_gone_is_made_anew),
        CASE(what_ends_while_it_is_read_again_stays_so),
        CASE(a_share_has_the_number_that_the_database_says_now),
        CASE(the_next_owner_hears_of_a_late_fact),
        CASE(an_owner_hears_of_a_fact_about_its_part),
        CASE(what_a_dead_owners_journal_says_is_heard_by_the_next),
        CASE(what_the_own_journal_says_is_known_before_the_database_has_it),
        CASE(of_another_server_what_came_late_is_read_from_the_start),
        CASE(shares_are_taken_side_by_side_and_the_others_are_followed),
        CASE(many_shares_are_read_as_one_in_the_order_of_their_parts),
        CASE(one_of_many_may_be_left_before_all_of_it_is_here),
        CASE(what_cannot_be_read_as_one_is_read_share_by_share),
        CASE(two_parts_of_a_message_have_their_own_notes),
        CASE(a_share_may_be_left_before_all_of_it_is_here),
        CASE(much_that_comes_late_is_kept_once),
        CASE(a_take_on_another_connection_begins_anew),
        CASE(what_somebody_else_has_delivered_leaves_the_journal),
        CASE(what_is_left_leaves_the_journal),
    };
    return HARNESS_RUN("reading again on PostgreSQL", tests);
}
