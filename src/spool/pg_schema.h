/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of the cluster in PostgreSQL (schema `holdfast`; docs/decisions/0043, 0045) and how
 * they change: by numbered migrations, each applied once, in order, in one transaction of its own,
 * under an advisory lock. The table `migrations` says which have been, with the SHA-256 of their
 * text.
 *
 * Programs one version apart work on the same tables while a cluster is upgraded node by node: the
 * first new node migrates, the old ones go on. So a migration
 *   - only adds: tables, indexes, columns with a default or null, sequences; it never drops,
 * renames or changes the type or meaning of what the program before it reads or writes;
 *   - takes no lock for long: it runs with lock_timeout, touches no row of mail, builds indexes on
 *     empty or small tables only (CREATE INDEX CONCURRENTLY cannot be in a transaction: an index on
 *     mail comes with new partitions, and for those that stand ahead, one by one);
 *   - is never edited once released: another checksum is an error;
 *   - says with `oldest` which program can still work after it: the schema number that it knows.
 * What the program before it needed may go when `oldest` is above that, one release later at the
 *     earliest.
 * A program meets a schema newer than its own with ease as long as none of the migrations that it
 * does not know has an `oldest` above its number; else ERROR_NEWER, and it must not touch anything.
 *
 * SQL stays within what PostgreSQL's wire-compatible relatives offer (0043).
 */
#ifndef HOLDFAST_SPOOL_PG_SCHEMA_H
#define HOLDFAST_SPOOL_PG_SCHEMA_H

#include "base/error.h"
#include "sys/database.h"

#include <stddef.h>

struct pg_migration {
    int oldest; /* number of the schema whose programs can still work after it */
    const char *sql;
    /* NULL, or what is long of it: a query for one statement (text), the next that is to be run
     * before, in a transaction of its own; no row: `sql` follows. It finds by itself what has been
     * done, by whom ever, so that who is cut off goes on there. */
    const char *ahead;
};
/* In order; the first has number 1, the last the number of this program's schema. */
const struct pg_migration *pg_migrations(size_t *ret_count);

/* Applies what is missing, waiting for who does the same; nothing if all is there, in one round
 * trip. *ret_number (may be NULL): the schema's number then. On a connected database; the reason of
 * an error is in ret_problem (a line, for the operator).
 *
 * ERROR_NEWER: see above. ERROR_CORRUPT: a migration of the same number has another text, or one is
 * missing between others. ERROR_DENIED: we may not create. ERROR_AGAIN: locks could not be had, or
 * another is at it for long; try again later. ERROR_CLOSED: the connection is lost. ERROR_SPACE,
 * ERROR_MEMORY; ERROR_IO: anything else that the server refuses. */
enum error pg_schema_apply(struct database *database, const struct pg_migration *migrations,
                           size_t count, int *ret_number,
                           char ret_problem[DATABASE_ERROR_SIZE]) MUST_CHECK;
/* Whether a program with these migrations may work on what stands, as pg_schema_apply() has it, but
 * nothing is applied: ERROR_AGAIN where something is missing yet. For connections that come again
 * by themselves: the schema may have gone on meanwhile. */
enum error pg_schema_check(struct database *database, const struct pg_migration *migrations,
                           size_t count, char ret_problem[DATABASE_ERROR_SIZE]) MUST_CHECK;

/* What is committed on this connection from now on lasts, whatever the role's default is; what is
 * stronger stays. */
enum database_outcome pg_commit_durably(struct database *database) MUST_CHECK;

#endif
