/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection to PostgreSQL (libpq, docs/decisions/0044), for worker threads: each call blocks,
 * but none longer than the time it is given; only the lookup of a host's name may (getaddrinfo(3)),
 * so a conninfo that has `hostaddr` is better. One thread uses a connection; only
 * database_interrupt() is for others. Nothing is logged.
 *
 * After DATABASE_LOST nothing is known of what was under way (a commit: it may have happened); the
 * connection is closed and the next call with it fails at once, until database_connect() again.
 * After any other failure inside a transaction the transaction stands failed: database_run() a
 * ROLLBACK before anything else.
 *
 * The server is asked to end a session that stays idle in a transaction for 3 s, and to look
 * whether we are still there: locks of a node that has gone hold nobody up for long.
 */
#ifndef HOLDFAST_SYS_DATABASE_H
#define HOLDFAST_SYS_DATABASE_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/id.h"
#include "base/slice.h"

struct database;

enum {
    DATABASE_HOSTS_MAX = 16,
    DATABASE_ERROR_SIZE = 480,
    DATABASE_VALUES_MAX = 64,       /* parameters of one statement */
    DATABASE_STATEMENTS_MAX = 1024, /* prepared on one connection */
};

/* What became of a call. */
enum database_outcome {
    DATABASE_DONE,
    DATABASE_WARNED,   /* done, with a warning (SQLSTATE class 01): a commit that no standby has
                          confirmed (01000) */
    DATABASE_AGAIN,    /* serialisation, deadlock, lock_timeout, a cancel: the transaction may be
                          tried again */
    DATABASE_REFUSED,  /* the server says no, and always will: see database_error() */
    DATABASE_FULL,     /* 53xxx, 58xxx: disk full, too many connections, out of memory there, a disk
                          that fails: may go by */
    DATABASE_READONLY, /* 25006: a standby, or switched so: connect again */
    DATABASE_LOST,     /* connection lost, or no answer within the time */
    DATABASE_MEMORY,   /* ours; the connection is closed */
};

struct database_settings {
    struct slice conninfo; /* libpq; several hosts; target_session_attrs=read-write is added */
    struct slice password; /* not in conninfo; may be empty */
    struct slice name;     /* application_name */
    int connect_timeout_ms;
};

/* Opens libpq for good: before a process gives up opening libraries. NULL, or what is wrong. */
const char *database_load_library(void);
/* Whether libpq takes that for an address, without asking anybody. False: ret_problem says why not,
 * in its words, but for what it quotes, which may be a password. ret_set has a bit for each of
 * `options` (NULL ends them) that it sets. Where libpq is missing all is well. */
bool database_check_conninfo(const char *conninfo, const char *const *options, unsigned *ret_set,
                             char ret_problem[DATABASE_ERROR_SIZE]);
/* Opens libpq, so before the process confines itself. NULL: memory. Copies. */
struct database *database_new(const struct database_settings *settings);
void database_free(struct database *database); /* NULL is allowed */
/* Tries all hosts at once and takes the first that can be written to; closes what was open. Where
 * none answers so: DATABASE_LOST; DATABASE_REFUSED if each of them refuses us (or conninfo is wrong
 * or has a password, or libpq is missing), DATABASE_FULL if one has no connection left for us. */
enum database_outcome database_connect(struct database *database) MUST_CHECK;
/* Connects, unless it is connected, and then runs `session`, what is to hold on this connection;
 * may be NULL. Without that nothing stays connected. */
enum database_outcome database_ensure(struct database *database, const char *session,
                                      int timeout_ms) MUST_CHECK;
bool database_is_connected(const struct database *database);
/* As after DATABASE_LOST. */
void database_disconnect(struct database *database);
/* From any thread: what waits there ends with DATABASE_LOST; where nothing waits the next call
 * does, database_connect() too. One interrupt ends one call. */
void database_interrupt(struct database *database);
/* One line for the operator; no secret is in it. Good until the next call. */
const char *database_error(const struct database *database);
const char *database_state_code(const struct database *database); /* SQLSTATE, or "" */
/* E.g. 150020; 0 when not connected. */
int database_server_version(const struct database *database);

/* ---- values --------------------------------------------------------------------------------- */

/* Parameters and results are binary. */
enum database_type { /* pg_type.oid */
                     DATABASE_BOOL = 16,
                     DATABASE_BYTEA = 17,
                     DATABASE_INT8 = 20,
                     DATABASE_INT2 = 21,
                     DATABASE_INT4 = 23,
                     DATABASE_TEXT = 25,
                     DATABASE_BOOL_ARRAY = 1000,
                     DATABASE_BYTEA_ARRAY = 1001,
                     DATABASE_INT2_ARRAY = 1005,
                     DATABASE_INT4_ARRAY = 1007,
                     DATABASE_TEXT_ARRAY = 1009,
                     DATABASE_INT8_ARRAY = 1016,
                     DATABASE_UUID = 2950,
                     DATABASE_UUID_ARRAY = 2951,
                     DATABASE_XID8 = 5069,
};

struct database_value {
    const void *bytes;
    int length; /* -1: null */
    uint32_t type;
};

/* Where a number's bytes stay while the value is in use. */
struct database_scalar {
    uint8_t bytes[16];
};
struct database_value database_bool(struct database_scalar *store, bool value);
struct database_value database_int2(struct database_scalar *store, int16_t value);
struct database_value database_int4(struct database_scalar *store, int32_t value);
struct database_value database_int8(struct database_scalar *store, int64_t value);
struct database_value database_xid8(struct database_scalar *store, uint64_t value);
struct database_value database_uuid(struct database_scalar *store, struct message_id id);
struct database_value database_bytea(struct slice bytes); /* borrowed */
struct database_value database_text(struct slice text);   /* borrowed; UTF-8 without NUL */
struct database_value database_null(enum database_type type);

/* A row of binary COPY, and an array, are made of the same fields: database_copy_row() or
 * database_array_begin(), then as many database_put_*() as they were told. */
void database_copy_header(struct buffer *out); /* once, before the first row */
void database_copy_row(struct buffer *out, int fields);
void database_copy_trailer(struct buffer *out); /* once, after the last row */
/* One dimension; `element` is the type of what follows, e.g. DATABASE_INT4. */
void database_array_begin(struct buffer *out, enum database_type element, size_t count);
void database_put_bool(struct buffer *out, bool value);
void database_put_int2(struct buffer *out, int16_t value);
void database_put_int4(struct buffer *out, int32_t value);
void database_put_int8(struct buffer *out, int64_t value);
void database_put_xid8(struct buffer *out, uint64_t value);
void database_put_uuid(struct buffer *out, struct message_id id);
void database_put_bytes(struct buffer *out, struct slice bytes); /* bytea, text */
void database_put_null(struct buffer *out);
/* Null for count 0 would be something else: this is an empty array then. */
void database_put_int4_array(struct buffer *out, const int32_t *values, size_t count);
/* What is in `out` as one array parameter; `type` e.g. DATABASE_INT4_ARRAY. Borrowed. */
struct database_value database_array(const struct buffer *out, enum database_type type);

/* ---- results -------------------------------------------------------------------------------- */

struct database_rows; /* owned by the connection, good until the next call */
size_t database_count(const struct database_rows *rows);
/* Rows that an INSERT, UPDATE or DELETE touched. */
uint64_t database_affected(const struct database_rows *rows);
bool database_is_null(const struct database_rows *rows, size_t row, int column);
/* bool, int2, int4, int8, xid8; 0 for null and for what has another length. */
int64_t database_get_int(const struct database_rows *rows, size_t row, int column);
/* bytea, text: the bytes; empty for null. */
struct slice database_get_slice(const struct database_rows *rows, size_t row, int column);
struct message_id database_get_uuid(const struct database_rows *rows, size_t row, int column);
/* An int4[] without nulls: *ret_count numbers, read with database_element_int4(). False: it is
 * null, or none. */
bool database_get_int4_array(const struct database_rows *rows, size_t row, int column,
                             struct slice *ret_elements, size_t *ret_count);
int32_t database_element_int4(struct slice elements, size_t index);

/* ---- calls ---------------------------------------------------------------------------------- */

/* One or more statements as text, results thrown away. No COPY. The first that fails ends it. */
enum database_outcome database_run(struct database *database, const char *sql,
                                   int timeout_ms) MUST_CHECK;
/* One statement, prepared on first use by the address of `sql`, which must be a constant of the
 * program; again after a reconnect. ret_rows may be NULL. */
enum database_outcome database_query(struct database *database, const char *sql,
                                     const struct database_value *values, int count, int timeout_ms,
                                     const struct database_rows **ret_rows) MUST_CHECK;

/* A pipeline: any number of statements as of database_query(), sent on as they gather, then one
 * flush for all answers. Outside BEGIN they are one transaction. The first that fails ends it: what
 * follows is not executed. Between the first queue and the flush no other call may be made. */
enum database_outcome database_queue(struct database *database, const char *sql,
                                     const struct database_value *values, int count) MUST_CHECK;
/* *ret_failed (may be NULL): the index of what failed, by order of queueing; meaningless when done
 * or lost. Nothing queued: DATABASE_DONE. */
enum database_outcome database_flush(struct database *database, int timeout_ms,
                                     size_t *ret_failed) MUST_CHECK;
/* Of the index-th statement of the last flush; NULL: not executed. */
const struct database_rows *database_result(const struct database *database, size_t index);

/* `sql` is text that has a COPY ... FROM STDIN (FORMAT binary); what stands before it is run first
 * ("BEGIN; COPY a ...; COPY b ...; COMMIT"). After DATABASE_DONE or _WARNED its bytes are wanted.
 */
enum database_outcome database_copy_begin(struct database *database, const char *sql,
                                          int timeout_ms) MUST_CHECK;
/* Header, rows, trailer, cut anywhere. Returns when they are sent. What the server thinks of them
 * is known at database_copy_end(). */
enum database_outcome database_copy_bytes(struct database *database, struct slice bytes,
                                          int timeout_ms) MUST_CHECK;
/* Runs on, to the next COPY of the text, whose bytes are wanted then, or to its end. */
enum database_outcome database_copy_end(struct database *database, int timeout_ms) MUST_CHECK;
/* A COPY is wanting bytes. */
bool database_is_copying(const struct database *database);
/* Rows that the last ended COPY has stored. */
uint64_t database_copied(const struct database *database);

/* Waits for a notification of a channel that is listened to (database_run() a LISTEN); those that
 * came during other calls count. DATABASE_DONE without one after timeout_ms. */
enum database_outcome database_wait(struct database *database, int timeout_ms,
                                    bool *ret_notified) MUST_CHECK;

#endif
