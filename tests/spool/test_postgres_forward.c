/* SPDX-License-Identifier: Apache-2.0
 *
 * Much mail that the journal alone had goes to a database that is back, and new mail with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/pg_internal.h"
#include "tests/spool/nodes.h"
#include "tests/sys/postgres.h"

enum { MANY = 2000, TOGETHER = 20, MOST = PG_GROUP_MESSAGES / 2 };

/* In one batch, for while the database is away each waits until the clocks of all have passed it.
 */
static void accept_together(struct node *node, uint64_t first, uint64_t count)
{
    struct arena arena;
    arena_init(&arena);
    spool_batch_begin(node->harness.spool);
    for (uint64_t n = first; n < first + count; n++) {
        struct spool_message message;
        harness_message(n, &arena, &message);
        message.body_length = 3;
        assert_int_equal(
            spool_batch_message(node->harness.spool, &message, NULL, SLICE_LITERAL("a\r\n")),
            ERROR_NONE);
    }
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
    arena_done(&arena);
}

/* The database is back then, and works as `slowly` says. Returns the number of the next message. */
static uint64_t keep_many(struct node *node, const char *slowly)
{
    uint64_t n = 1;
    for (int i = 0; i < 2; i++) { /* nobody reads what comes */
        spool_postgres_leave(world->nodes[i].harness.spool, world->share[i]);
        UNTIL(world->nodes[i].left_count > 0);
    }
    run("CREATE FUNCTION holdfast.dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(TG_ARGV[0]::float8); RETURN NEW; END $$");
    run("CREATE TRIGGER dawdle BEFORE INSERT OR UPDATE ON holdfast.%s", slowly);
    postgres_stop(harness_server());
    for (; n <= MANY; n += TOGETHER) {
        accept_together(node, n, TOGETHER);
    }
    assert_int_equal(spool_of(node)->one_copy, MANY);
    postgres_start(harness_server());
    return n;
}

/* Where each message takes its time. */
static void a_dot_does_not_wait_behind_much_that_is_forwarded(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    const struct pg_spool *pg = spool_of(a);
    uint64_t n = keep_many(a, "messages FOR EACH ROW EXECUTE FUNCTION holdfast.dawdle(0.004)");
    size_t least = MOST;
    while (pg->one_copy > 0) {
        accept_at(a, n++, 10);
        least = pg->forward_most < least ? pg->forward_most : least;
    }
    assert_true(least < MOST / 4);
}

/* Where the commit does, whatever it commits, fewer messages would only make it longer. */
static void much_goes_together_where_it_costs_no_time(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    const struct pg_spool *pg = spool_of(a);
    uint64_t n = keep_many(a, "globals FOR EACH ROW EXECUTE FUNCTION holdfast.dawdle(0.5)");
    while (pg->one_copy > 0) {
        accept_at(a, n++, 10);
    }
    assert_true(pg->forward_most >= MOST / 2); /* fewer are tried now and then */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_dot_does_not_wait_behind_much_that_is_forwarded),
        CASE(much_goes_together_where_it_costs_no_time),
    };
    return HARNESS_RUN("much that is forwarded to PostgreSQL", tests);
}
