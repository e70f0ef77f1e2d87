/* SPDX-License-Identifier: Apache-2.0
 *
 * A PostgreSQL server of a test's own: in a temporary directory, on a Unix socket, as an ordinary
 * user (`postgres` where the test is root). initdb(1) runs once a program; each server is a copy of
 * what it made. Everything asserts (cmocka) that it succeeds.
 *
 * The database is `postgres`, its superuser too; who comes by the socket is believed. Also there,
 * to be refused by: a user `guarded`, who must give the password `open sesame`.
 */
#ifndef HOLDFAST_TESTS_SYS_POSTGRES_H
#define HOLDFAST_TESTS_SYS_POSTGRES_H

#include <stdbool.h>

struct postgres;

/* NULL, and a line on stderr: there is no server program here; else it is started and answers.
 * `configuration` is added to postgresql.conf (may be NULL). */
struct postgres *postgres_new(const char *configuration);
/* Kills, removes. NULL is allowed. */
void postgres_free(struct postgres *postgres);
void postgres_start(struct postgres *postgres);
void postgres_stop(struct postgres *postgres); /* fast: who is connected is sent away */
void postgres_kill(struct postgres *postgres); /* SIGKILL, with all its processes */
/* All its processes stand still, and go on. */
void postgres_pause(struct postgres *postgres);
void postgres_resume(struct postgres *postgres);
/* The directory of its socket, for conninfo's `host`. */
const char *postgres_host(const struct postgres *postgres);
/* "host=... user=postgres dbname=postgres" */
const char *postgres_conninfo(const struct postgres *postgres);
/* Its data directory. */
const char *postgres_directory(const struct postgres *postgres);

#endif
