/* SPDX-License-Identifier: Apache-2.0
 *
 * The spool on PostgreSQL for the harness: one server a program, empty tables for each test.
 */
#ifndef HOLDFAST_TESTS_SPOOL_HARNESS_POSTGRES_H
#define HOLDFAST_TESTS_SPOOL_HARNESS_POSTGRES_H

#include "spool/postgres.h"
#include "tests/spool/harness.h"

enum { PATIENCE_MS = 60000, STEP_MS = 10 };

/* The server of this program, started on first use; NULL: there is none here. */
struct postgres *harness_server(void);
void harness_server_done(void); /* at the end of main() */
/* What main() returns: 77 where there is no server. */
#define HARNESS_RUN(name, tests)                                                                   \
    (harness_server() == NULL                                                                      \
         ? 77                                                                                      \
         : harness_ended(cmocka_run_group_tests_name(name, tests, NULL, NULL)))
int harness_ended(int failed); /* stops it; `failed` */
/* What the tests ask of it by themselves. */
struct database *harness_database(void);
/* Fresh tables, with partitions for the ids of harness_id(). */
void harness_tables(void);
/* For what is opened from now on: as that user (NULL: the superuser), and whether it defers mail
 * while the database is away. */
void harness_user(const char *user);
void harness_defer(bool defer);
/* Opens harness->spool on `journal`; `node` and `shares` as spool_postgres_settings has them. */
enum error harness_open_postgres(struct harness *harness, struct disk *journal, uint16_t node,
                                 const struct spool_shares *shares);
struct spool_postgres_state harness_state(const struct harness *harness);
/* The number that the database gives; `sql` is a constant. */
int64_t harness_count(const char *sql);

/* The loop runs until then, for PATIENCE_MS at most. */
#define HARNESS_UNTIL(harness, condition)                                                          \
    do {                                                                                           \
        for (int waited = 0; waited < PATIENCE_MS / STEP_MS && !(condition); waited++) {           \
            harness_pass(harness, STEP_MS);                                                        \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (false)

#endif
