/* SPDX-License-Identifier: Apache-2.0
 *
 * What the loop waits for: all calls of one read have one limit, whatever each of them takes. The
 * clock goes on by what a call is given, as if it took all of that.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/pg_internal.h"
#include "tests/spool/nodes.h"

#include <pthread.h>
#include <stdatomic.h>

/* Of calls on the loop's thread, while it is set. */
static struct {
    pthread_t thread;
    _Atomic bool armed;
    bool was_idle;
    int queries, connects;
    int connect_ms; /* of who connects on the loop */
    _Atomic int64_t ahead_ms;
} calls;

int64_t __real_clock_steady_ms(void);
int64_t __wrap_clock_steady_ms(void);
int64_t __wrap_clock_steady_ms(void)
{
    return __real_clock_steady_ms() + atomic_load(&calls.ahead_ms);
}

struct database *__real_database_new(const struct database_settings *settings);
struct database *__wrap_database_new(const struct database_settings *settings);
struct database *__wrap_database_new(const struct database_settings *settings)
{
    if (settings->connect_timeout_ms < 30000) {
        calls.connect_ms = settings->connect_timeout_ms;
    }
    return __real_database_new(settings);
}

static bool is_counted(void)
{
    return calls.armed && pthread_equal(pthread_self(), calls.thread);
}

bool __real_database_is_connected(const struct database *database);
bool __wrap_database_is_connected(const struct database *database);
bool __wrap_database_is_connected(const struct database *database)
{
    return is_counted() ? calls.was_idle : __real_database_is_connected(database);
}

enum database_outcome __real_database_connect(struct database *database);
enum database_outcome __wrap_database_connect(struct database *database);
enum database_outcome __wrap_database_connect(struct database *database)
{
    if (!is_counted()) {
        return __real_database_connect(database);
    }
    calls.connects++;
    atomic_fetch_add(&calls.ahead_ms, calls.connect_ms);
    return DATABASE_DONE;
}

enum database_outcome __real_database_query(struct database *database, const char *sql,
                                            const struct database_value *values, int count,
                                            int timeout_ms, const struct database_rows **ret_rows);
enum database_outcome __wrap_database_query(struct database *database, const char *sql,
                                            const struct database_value *values, int count,
                                            int timeout_ms, const struct database_rows **ret_rows);
enum database_outcome __wrap_database_query(struct database *database, const char *sql,
                                            const struct database_value *values, int count,
                                            int timeout_ms, const struct database_rows **ret_rows)
{
    if (!is_counted()) {
        return __real_database_query(database, sql, values, count, timeout_ms, ret_rows);
    }
    /* What was idle is found closed at once. */
    atomic_fetch_add(&calls.ahead_ms, calls.was_idle && calls.queries == 0 ? 1 : timeout_ms);
    calls.queries++;
    return DATABASE_LOST;
}

static void read_of(bool idle)
{
    struct node *b = &world->nodes[1];
    struct arena arena;
    struct spool_message message;
    int64_t before_ms = atomic_load(&calls.ahead_ms);
    calls.queries = calls.connects = 0;
    calls.was_idle = idle;
    calls.thread = pthread_self();
    calls.armed = true;
    arena_init(&arena);
    enum error error =
        spool_read_envelope(b->harness.spool, part_with(b, 4)->handle, &arena, &message);
    calls.armed = false;
    arena_done(&arena);
    assert_int_equal(error, ERROR_AGAIN);
    assert_in_range(atomic_load(&calls.ahead_ms) - before_ms, 1, PG_AT_ONCE_MS);
}

static void one_read_waits_for_one_time(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(a, 4, 10); /* two recipients, of which the second is b's: only the database has it */
    UNTIL(part_with(b, 4) != NULL);
    read_of(false);
    assert_int_equal(calls.connects, 1);
    assert_int_equal(calls.queries, 1);
    pg_of(b->harness.spool)->ask_failed = false;
    read_of(true);
    assert_int_equal(calls.connects, 1);
    assert_int_equal(calls.queries, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(one_read_waits_for_one_time)};
    return HARNESS_RUN("reading at once from PostgreSQL", tests);
}
