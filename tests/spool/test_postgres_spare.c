/* SPDX-License-Identifier: Apache-2.0
 *
 * What the database has lost though it had confirmed it: its nodes give it back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/pg_internal.h"
#include "sys/clock.h"
#include "tests/spool/nodes.h"
#include "tests/sys/postgres.h"

enum { LARGE = 600 << 10 }; /* in chunks */

/* What 3 divides has one recipient, of the first share; what 3 leaves 1 of has one of each. */

static int64_t messages(void)
{
    return ask("SELECT count(*) FROM holdfast.messages");
}

static int64_t fates(void)
{
    return ask("SELECT count(*) FROM (SELECT id FROM holdfast.fates UNION ALL SELECT id FROM"
               " holdfast.kept_fates) f");
}

/* The database answers it again, and has nothing more to be asked. */
static bool is_settled(struct node *node)
{
    struct pg_spool *pg = spool_of(node);
    bool met = pg->server == 0 || pg->server == pg->written_server;
    if (pg->up && !pg->page_failed && !pg_spare_is_due(&pg->spare) && pg->one_copy == 0 && met) {
        return true;
    }
    pg->watermarked_ms = 0; /* it writes at once */
    spool_tick(&pg->spool);
    return false;
}

static void settle(void)
{
    UNTIL(is_settled(&world->nodes[0]) && is_settled(&world->nodes[1]));
}

static void check_content(struct node *node, uint64_t n, size_t length)
{
    struct buffer want, got;
    harness_content(n, length, &want);
    buffer_init(&got, 0);
    assert_int_equal(buffer_reserve(&got, length + 1), ERROR_NONE);
    size_t part = 1;
    while (got.length < length && part > 0) {
        assert_int_equal(spool_read_content(node->harness.spool, part_with(node, n)->handle,
                                            got.length, got.data + got.length, length - got.length,
                                            &part),
                         ERROR_NONE);
        got.length += part;
    }
    assert_true(slice_equal(buffer_slice(&got), buffer_slice(&want)));
    buffer_done(&want);
    buffer_done(&got);
}

/* ---- what comes back --------------------------------------------------------------------- */

static void what_an_older_server_lacks_it_gets_again(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_heard(a, a, 6, 10);
    database_keep();
    accept_heard(a, a, 12, 10);
    accept_heard(a, a, 18, LARGE);
    deliver(a, part_with(a, 12)->handle, 0);
    deliver(a, part_with(a, 6)->handle, 0);
    assert_int_equal(messages(), 3);
    database_put_back();
    assert_int_equal(messages(), 1);
    UNTIL(messages() == 3);
    UNTIL(fates() == 2);
    settle();
    assert_int_equal(ask("SELECT count(*) FROM holdfast.parts"), 3);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates WHERE server = 'm1' AND when_ms = 1"),
                     2);
    assert_int_equal(ask("SELECT sum(length(bytes)) FROM holdfast.chunks"), LARGE);
    accept_heard(a, a, 24, 10);
    assert_int_equal(a->count, 4); /* each of them once */
    check_content(a, 18, LARGE);
    deliver(a, part_with(a, 18)->handle, 0);
    assert_int_equal(fates(), 3);
    const struct spool_postgres_state now = harness_state(&a->harness);
    assert_int_equal(now.messages_missing, 2);
    assert_int_equal(now.fates_missing, 2);
}

struct prepared {
    bool done;
    enum error error;
};

static void on_prepared(void *context, enum error error)
{
    *(struct prepared *)context = (struct prepared){true, error};
}

/* Who has accepted it gives it again, and who has delivered it knows that. */
static void what_another_owns_comes_to_it_once(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    struct prepared prepared = {0};
    database_keep();
    accept_heard(b, a, 6, 10);
    accept_heard(b, a, 12, 10);
    deliver(a, part_with(a, 6)->handle, 0);
    database_put_back();
    UNTIL(messages() == 2 && fates() == 1);
    settle();
    accept_heard(b, a, 18, 10);
    assert_int_equal(a->count, 3);
    if (!spool_prepare(a->harness.spool, part_with(a, 12)->handle, on_prepared, &prepared)) {
        UNTIL(prepared.done);
        assert_int_equal(prepared.error, ERROR_NONE);
    }
    check_content(a, 12, 10);
    take(b, world->share[0]);
    assert_int_equal(parts_with(b, 6), 0);
    assert_int_equal(parts_with(b, 12), 1);
}

static void a_node_that_writes_nothing_hears_of_the_other_server(void **state)
{
    (void)state;
    struct node *b = &world->nodes[1];
    database_keep();
    accept_heard(b, &world->nodes[0], 6, 10);
    spool_of(b)->watermarked_ms = clock_steady_ms() + LONG_MS;
    database_put_back();
    UNTIL(messages() == 1);
}

/* Told once, a notice about it may be on its way. */
static void what_was_decided_stays_so(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_heard(a, a, 6, 10);
    database_keep();
    spool_batch_begin(a->harness.spool);
    spool_batch_fate(a->harness.spool, part_with(a, 6)->handle, 0, SPOOL_BOUNCED);
    assert_int_equal(harness_submit(&a->harness, SPOOL_SYNCED), ERROR_NONE);
    database_put_back();
    UNTIL(fates() == 1);
    settle();
    accept_heard(a, a, 12, 10);
    assert_int_equal(a->count, 2);
    assert_int_equal(ask("SELECT fate FROM holdfast.fates"), SPOOL_BOUNCED);
}

static void accept_with_history(struct node *node, uint64_t n)
{
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(n, &arena, &message); /* three recipients */
    message.body_length = 3;
    spool_batch_begin(node->harness.spool);
    assert_int_equal(spool_batch_message(node->harness.spool, &message, NULL, SLICE_LITERAL("abc")),
                     ERROR_NONE);
    spool_batch_new_note(node->harness.spool, 2, 5, SLICE_LITERAL("held"));
    spool_batch_new_fate(node->harness.spool, 0, SPOOL_DELIVERED);
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
    arena_done(&arena);
}

/* The database that is kept does not have it. */
static void accept_what_is_lost(struct node *node, struct node *owner)
{
    database_keep();
    accept_with_history(node, 5);
    UNTIL(part_with(owner, 5) != NULL);
}

static void check_history(struct node *node)
{
    UNTIL(messages() == 1 && fates() == 1);
    settle();
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes WHERE payload = 'held'"), 1);
    take(node, world->share[0]);
    assert_int_equal(part_with(node, 5)->notes, 1);
    assert_int_equal(part_with(node, 5)->fates, 1);
}

static void what_came_with_it_comes_again(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_what_is_lost(b, a);
    for (int i = 0; i < 2; i++) {
        database_put_back();
        UNTIL(messages() == 1 && fates() == 1);
        settle();
        assert_int_equal(parts_with(a, 5), 1);
    }
    check_history(b);
}

/* Its node was not there when the other server came. */
static void after_a_start_it_is_asked_for_too(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_what_is_lost(b, a);
    spool_close(b->harness.spool);
    b->harness.spool = NULL;
    database_put_back();
    node_open(b, 2);
    check_history(b);
    assert_int_equal(harness_state(&b->harness).messages_missing, 1);
}

static void what_a_server_has_is_not_sent_again(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_heard(a, a, 6, 10);
    deliver(a, part_with(a, 6)->handle, 0);
    accept_heard(a, a, 12, 10);
    postgres_stop(harness_server());
    postgres_start(harness_server());
    settle();
    accept_heard(a, a, 18, 10);
    const struct spool_postgres_state now = harness_state(&a->harness);
    assert_int_equal(now.messages_missing, 0);
    assert_int_equal(now.fates_missing, 0);
    assert_int_equal(a->count, 3);
}

/* More than one question asks for. */
static void much_is_asked_for_bit_by_bit(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    enum { MANY = PG_SPARE_ASKED + 500, EACH = 500 };
    struct arena arena;
    arena_init(&arena);
    database_keep();
    for (uint64_t n = 0; n < MANY; n += EACH) {
        spool_batch_begin(b->harness.spool);
        for (uint64_t i = n; i < n + EACH; i++) {
            struct spool_message message;
            harness_message(6 * (i + 1), &arena, &message);
            message.body_length = 3;
            assert_int_equal(
                spool_batch_message(b->harness.spool, &message, NULL, SLICE_LITERAL("abc")),
                ERROR_NONE);
        }
        assert_int_equal(harness_submit(&b->harness, SPOOL_SYNCED), ERROR_NONE);
    }
    UNTIL(a->count == MANY);
    spool_batch_begin(a->harness.spool);
    for (size_t i = 0; i < MANY; i++) {
        spool_batch_taken(a->harness.spool, a->parts[i].handle, 0, SPOOL_DELIVERED, 1,
                          SLICE_LITERAL("m1"));
    }
    assert_int_equal(harness_submit(&a->harness, SPOOL_SYNCED), ERROR_NONE);
    database_put_back();
    UNTIL(messages() == MANY && fates() == MANY);
    settle();
    accept_heard(b, a, 6 * (MANY + 1), 3);
    assert_int_equal(a->count, MANY + 1);
    arena_done(&arena);
}

/* ---- what others must know ------------------------------------------------------------------- */

/* No range may go whose mail would be missed, and sent once more. */
static void the_watermark_stays_below_what_is_kept(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    static const char beyond[] = "SELECT count(*) FROM holdfast.watermarks WHERE node = 1 AND"
                                 " below > '%016llx%016llx'";
    struct message_id id = harness_id(6);
    accept_heard(a, a, 6, 10);
    deliver(a, part_with(a, 6)->handle, 0);
    for (uint64_t n = 12; n < 30; n += 6) {
        spool_of(a)->watermarked_ms = 0;
        accept_heard(a, a, n, 10); /* the journal is synced for the next */
        harness_settle(&a->harness);
        assert_int_equal(ask(beyond, (unsigned long long)id.high, (unsigned long long)id.low), 0);
    }
    pg_spare_room(spool_of(a), 0);
    for (uint64_t n = 30; n < 48; n += 6) {
        spool_of(a)->watermarked_ms = 0;
        accept_heard(a, a, n, 10);
        harness_settle(&a->harness);
        pg_spare_room(spool_of(a), 0);
    }
    assert_int_equal(ask(beyond, (unsigned long long)id.high, (unsigned long long)id.low), 1);
}

/* Nobody is to go on with later mail before it is known that nothing is missing. */
static void while_it_is_not_known_the_others_wait(void **state)
{
    (void)state;
    struct node *b = &world->nodes[1];
    accept_heard(b, &world->nodes[0], 6, 10);
    settle();
    assert_true(spool_postgres_behind(b->harness.spool) == INT64_MAX);
    postgres_stop(harness_server());
    UNTIL(spool_postgres_behind(b->harness.spool) == id_time_ms(harness_id(6)));
    postgres_start(harness_server());
    settle();
    assert_true(spool_postgres_behind(b->harness.spool) == INT64_MAX);
}

/* ---- how long it is kept -----------------------------------------------------------------------
 */

static void after_a_while_it_goes(void **state)
{
    (void)state;
    struct node *b = &world->nodes[1];
    accept_heard(b, &world->nodes[0], 6, 10);
    settle();
    spool_tick(b->harness.spool);
    assert_int_equal(in_journal(b), 1);
    postgres_stop(harness_server());
    UNTIL(!spool_of(b)->up || spool_of(b)->page_failed);
    spool_of(b)->spare.keep_ms = 1;
    for (int i = 0; i < 10; i++) {
        pass();
        spool_tick(b->harness.spool);
    }
    assert_int_equal(in_journal(b), 1); /* who knows what comes back */
    postgres_start(harness_server());
    settle();
    spool_tick(b->harness.spool);
    UNTIL(in_journal(b) == 0);
}

static void no_more_is_kept_than_there_is_room_for(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    spool_of(b)->spare.messages_max = 2;
    for (uint64_t n = 6; n <= 24; n += 6) {
        accept_heard(b, a, n, 1000);
    }
    UNTIL(in_journal(b) == 2);
    spool_of(b)->spare.bytes_max = 1500;
    accept_heard(b, a, 30, 1000);
    UNTIL(in_journal(b) == 1);
    assert_int_equal(spool_of(b)->spare.bytes, 1000);
    accept_heard(b, a, 36, 1000);
    spool_of(b)->spare.bytes_max = PG_SPARE_BYTES;
    pg_spare_room(spool_of(b), 4000);
    assert_int_equal(spool_of(b)->spare.bytes, 1000);
    spool_set_reserve(b->harness.spool, UINT64_MAX / 2); /* the disk is full */
    spool_tick(b->harness.spool);
    UNTIL(in_journal(b) == 0);
}

/* What its part still needs stays in the journal, and is asked for no more. */
static void what_is_not_delivered_stays(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    database_keep();
    accept_heard(a, a, 6, 10);
    pg_spare_room(spool_of(a), 0);
    harness_settle(&a->harness);
    assert_int_equal(in_journal(a), 1);
    check_content(a, 6, 10);
    spool_close(a->harness.spool);
    a->count = 0;
    database_put_back();
    node_open(a, 1);
    settle();
    assert_int_equal(messages(), 0);
}

static void the_last_fates_are_found(void **state)
{
    (void)state;
    struct pg_spool *pg = spool_of(&world->nodes[0]);
    enum { EACH = 1000, ROUNDS = PG_SPARE_FATES / EACH + 2 };
    struct pg_group group = {.pg = pg};
    buffer_init(&group.fates, 0);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        group.fates.length = 0;
        for (uint64_t i = 0; i < EACH; i++) {
            const struct pg_send_fate fate = {.id = harness_id((round * EACH + i) / 2),
                                              .delivery = (uint32_t)(i % 2),
                                              .fate = SPOOL_DELIVERED};
            buffer_append(&group.fates, slice_make(&fate, sizeof(fate)));
        }
        pg_spare_fates(pg, &group);
    }
    uint64_t count = (uint64_t)ROUNDS * EACH, gone = count - PG_SPARE_FATES;
    for (uint64_t n = 0; n < count / 2; n++) {
        const struct pg_spare_fate *last = pg_spare_fate_of(pg, harness_id(n), NULL);
        assert_true((last != NULL) == (2 * n + 1 >= gone));
        if (last != NULL) {
            const struct pg_spare_fate *first = pg_spare_fate_of(pg, harness_id(n), last);
            assert_int_equal(last->delivery, 1);
            assert_true((first != NULL) == (2 * n >= gone));
        }
    }
    pg->spare.keep_ms = -1;
    pg_spare_expire(pg);
    assert_null(pg_spare_fate_of(pg, harness_id(count / 2 - 1), NULL));
    buffer_done(&group.fates);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_an_older_server_lacks_it_gets_again),
        CASE(what_another_owns_comes_to_it_once),
        CASE(a_node_that_writes_nothing_hears_of_the_other_server),
        CASE(what_was_decided_stays_so),
        CASE(what_came_with_it_comes_again),
        CASE(after_a_start_it_is_asked_for_too),
        CASE(what_a_server_has_is_not_sent_again),
        CASE(much_is_asked_for_bit_by_bit),
        CASE(the_watermark_stays_below_what_is_kept),
        CASE(while_it_is_not_known_the_others_wait),
        CASE(after_a_while_it_goes),
        CASE(no_more_is_kept_than_there_is_room_for),
        CASE(what_is_not_delivered_stays),
        CASE(the_last_fates_are_found),
    };
    return HARNESS_RUN("what PostgreSQL has lost", tests);
}
