/* SPDX-License-Identifier: Apache-2.0
 *
 * The one set of errors that the world can cause. A bug asserts; the world returns one of these.
 * Mapping to SMTP or HTTP codes happens once, in service/.
 */
#ifndef HOLDFAST_BASE_ERROR_H
#define HOLDFAST_BASE_ERROR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum error {
    ERROR_NONE = 0,
    ERROR_MEMORY,  /* allocation failed */
    ERROR_SPACE,   /* disk full, quota or reserve reached */
    ERROR_IO,      /* read, write or sync failed; the descriptor is not to be trusted */
    ERROR_INVALID, /* input breaks its grammar */
    ERROR_LIMIT,   /* input is well formed but larger than a configured bound */
    ERROR_MISSING, /* no such thing */
    ERROR_EXISTS,  /* there already */
    ERROR_AGAIN,   /* not now: would block, or a queue is full */
    ERROR_CLOSED,  /* the other side has gone */
    ERROR_TIMEOUT, /* a deadline has passed */
    ERROR_CORRUPT, /* a checksum or structure on disk is wrong */
    ERROR_LOOP,    /* what was given away has come back */
    ERROR_NEWER,   /* written by a newer version of this program */
    ERROR_DENIED,  /* permission */
};

/* A short lower-case phrase for logs, e.g. "no space". Static, never NULL. */
const char *error_text(enum error error);

/* The closest enum error of an errno value. */
enum error error_from_errno(int number) MUST_CHECK;

#endif
