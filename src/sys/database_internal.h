/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of sys/database share: the connection, and the one place where its calls wait.
 */
#ifndef HOLDFAST_SYS_DATABASE_INTERNAL_H
#define HOLDFAST_SYS_DATABASE_INTERNAL_H

#include "sys/database.h"

#include <libpq-fe.h>

/* What is used of the library, all of it in libpq 14 and later. */
#define DATABASE_CALLS(X)                                                                          \
    X(PQclear)                                                                                     \
    X(PQcmdTuples)                                                                                 \
    X(PQconnectPoll)                                                                               \
    X(PQconnectStartParams)                                                                        \
    X(PQconninfoFree)                                                                              \
    X(PQconninfoParse)                                                                             \
    X(PQconsumeInput)                                                                              \
    X(PQenterPipelineMode)                                                                         \
    X(PQerrorMessage)                                                                              \
    X(PQexitPipelineMode)                                                                          \
    X(PQfinish)                                                                                    \
    X(PQflush)                                                                                     \
    X(PQfreemem)                                                                                   \
    X(PQgetResult)                                                                                 \
    X(PQgetisnull)                                                                                 \
    X(PQgetlength)                                                                                 \
    X(PQgetvalue)                                                                                  \
    X(PQisBusy)                                                                                    \
    X(PQnotifies)                                                                                  \
    X(PQntuples)                                                                                   \
    X(PQpipelineSync)                                                                              \
    X(PQputCopyData)                                                                               \
    X(PQputCopyEnd)                                                                                \
    X(PQresultErrorField)                                                                          \
    X(PQresultStatus)                                                                              \
    X(PQsendPrepare)                                                                               \
    X(PQsendQuery)                                                                                 \
    X(PQsendQueryPrepared)                                                                         \
    X(PQserverVersion)                                                                             \
    X(PQsetErrorVerbosity)                                                                         \
    X(PQsetNoticeReceiver)                                                                         \
    X(PQsetnonblocking)                                                                            \
    X(PQsocket)                                                                                    \
    X(PQstatus)

struct database_calls {
#define CALL_MEMBER(name) __typeof__(&name) name;
    DATABASE_CALLS(CALL_MEMBER)
#undef CALL_MEMBER
};

struct database_rows {
    const struct database_calls *calls;
    PGresult *result; /* NULL: not executed */
};

enum statement_state {
    STATEMENT_NEW,    /* not known there */
    STATEMENT_ASKED,  /* its preparation is in the pipeline */
    STATEMENT_STANDS, /* prepared before this pipeline */
};

struct statement {
    const char *sql;
    enum statement_state state;
    unsigned generation; /* of its name: a stale one's is not used again */
};

struct queued {
    size_t statement;
    bool prepares;
};

struct database {
    struct database_calls calls;
    const char *trouble; /* why there is no library, or NULL */
    char *conninfo, *password, *name;
    int connect_timeout_ms;
    int interrupt; /* eventfd(2) */
    PGconn *connection;
    bool warned, copying, queueing;
    uint64_t copied;
    char state[6];
    char error[DATABASE_ERROR_SIZE];

    struct statement *statements;
    size_t statement_count, statement_room;
    struct queued *queue; /* of the pipeline that is being made */
    struct database_rows *rows;
    size_t queue_count, queue_room; /* room of both arrays */
    size_t row_count;
};

/* ---- database_error.c ------------------------------------------------------------------------ */

/* By the SQLSTATE alone. */
enum database_outcome database_outcome_of(const char *state);
/* Keeps the text, up to its first line break, without control characters. */
void database_keep_error(struct database *database, const char *state, const char *text);
/* Finds the SQLSTATE in what PQERRORS_VERBOSE makes of a server's error; "" if there is none. */
void database_state_in(const char *text, char ret_state[6]);

/* ---- database.c ------------------------------------------------------------------------------ */

/* NULL, or what is wrong. */
const char *database_open_library(struct database_calls *calls);

/* Closes, keeps error and state, says DATABASE_LOST. */
enum database_outcome database_lose(struct database *database, const char *text);
/* Out of memory of ours: closes. */
enum database_outcome database_lack(struct database *database);
/* Begins a call: forgets the last one's results and error. False: there is no connection. */
bool database_enter(struct database *database);

/* ---- database_connect.c ---------------------------------------------------------------------- */

/* poll(2) on `count` of `ready`, whose first is for the interrupt and is set here. */
enum wait_result { WAIT_READY, WAIT_LATE, WAIT_INTERRUPTED };
struct pollfd;
enum wait_result database_poll(const struct database *database, struct pollfd *ready, size_t count,
                               int64_t deadline_ms);

#endif
