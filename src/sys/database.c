/* SPDX-License-Identifier: Apache-2.0
 *
 * libpq is opened with dlopen(3): the processes that have no database have none of the libraries
 * that it brings along either.
 */
#include "sys/database_internal.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

const char *database_open_library(struct database_calls *calls)
{
    /* It stays open: neither it nor OpenSSL lets itself be closed in full. */
    void *handle = dlopen("libpq.so.5", RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return "PostgreSQL's library libpq.so.5 is not there";
    }
#define CALL_FIND(name)                                                                            \
    *(void **)&calls->name = dlsym(handle, #name);                                                 \
    if (calls->name == NULL) {                                                                     \
        return "PostgreSQL's library is too old: it has no " #name;                                \
    }
    DATABASE_CALLS(CALL_FIND)
#undef CALL_FIND
    return NULL;
}

const char *database_load_library(void)
{
    struct database_calls calls;
    return database_open_library(&calls);
}

static char *copy_text(struct slice text)
{
    char *copy = malloc(text.length + 1);
    if (copy != NULL) {
        if (text.length > 0) {
            memcpy(copy, text.data, text.length);
        }
        copy[text.length] = '\0';
    }
    return copy;
}

struct database *database_new(const struct database_settings *settings)
{
    struct database *database = calloc(1, sizeof(*database));
    if (database == NULL) {
        return NULL;
    }
    database->trouble = database_open_library(&database->calls);
    database->conninfo = copy_text(settings->conninfo);
    database->password = copy_text(settings->password);
    database->name = copy_text(settings->name);
    database->connect_timeout_ms = settings->connect_timeout_ms;
    database->interrupt = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (database->conninfo == NULL || database->password == NULL || database->name == NULL ||
        database->interrupt < 0) {
        database_free(database);
        return NULL;
    }
    return database;
}

static void forget_results(struct database *database)
{
    for (size_t i = 0; i < database->row_count; i++) {
        database->calls.PQclear(database->rows[i].result);
    }
    database->row_count = 0;
    database->queue_count = 0;
    database->queueing = false;
    database->warned = false;
}

void database_disconnect(struct database *database)
{
    if (database->connection != NULL) {
        database->calls.PQfinish(database->connection);
        database->connection = NULL;
    }
    database->copying = false;
    database->queueing = false;
    for (size_t i = 0; i < database->statement_count; i++) {
        database->statements[i].state = STATEMENT_NEW;
    }
}

void database_free(struct database *database)
{
    if (database == NULL) {
        return;
    }
    database_disconnect(database);
    forget_results(database);
    if (database->interrupt >= 0) {
        close(database->interrupt);
    }
    if (database->password != NULL) {
        explicit_bzero(database->password, strlen(database->password));
    }
    free(database->conninfo);
    free(database->password);
    free(database->name);
    free(database->statements);
    free(database->queue);
    free(database->rows);
    free(database);
}

enum database_outcome database_ensure(struct database *database, const char *session,
                                      int timeout_ms)
{
    if (database_is_connected(database)) {
        return DATABASE_DONE;
    }
    enum database_outcome outcome = database_connect(database);
    if (outcome == DATABASE_DONE && session != NULL) {
        outcome = database_run(database, session, timeout_ms);
        if (outcome != DATABASE_DONE) {
            database_disconnect(database);
        }
    }
    return outcome;
}

bool database_is_connected(const struct database *database)
{
    return database->connection != NULL;
}

void database_interrupt(struct database *database)
{
    uint64_t one = 1;
    /* It fails only where 2^64 - 2 interrupts wait already. */
    ssize_t written = write(database->interrupt, &one, sizeof(one));
    (void)written;
}

const char *database_error(const struct database *database)
{
    return database->error;
}

const char *database_state_code(const struct database *database)
{
    return database->state;
}

int database_server_version(const struct database *database)
{
    return database->connection == NULL ? 0 : database->calls.PQserverVersion(database->connection);
}

enum database_outcome database_lose(struct database *database, const char *text)
{
    if (text != NULL) {
        database_keep_error(database, "", text);
    }
    database_disconnect(database);
    return DATABASE_LOST;
}

enum database_outcome database_lack(struct database *database)
{
    database_keep_error(database, "", "out of memory");
    database_disconnect(database);
    return DATABASE_MEMORY;
}

bool database_enter(struct database *database)
{
    forget_results(database);
    database_keep_error(database, "", database->connection == NULL ? "not connected" : "");
    return database->connection != NULL;
}
