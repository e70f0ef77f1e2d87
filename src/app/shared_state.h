/* SPDX-License-Identifier: Apache-2.0
 *
 * Is the directory at a path the state that two machines share, or the empty mount point of storage
 * that is not mounted? The shared state has a mark, an id in a file of it, made when it is used
 * first and by nobody again. Each machine remembers the id, and the file system that it was on, in
 * a directory of its own. Where a machine remembers one, it makes none: but for a directory on that
 * very file system, which somebody has emptied. Where it remembers none it makes none on the file
 * system of that directory of its own, for that is not the storage that two machines share. Calls
 * block.
 */
#ifndef HOLDFAST_APP_SHARED_STATE_H
#define HOLDFAST_APP_SHARED_STATE_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>

enum { SHARED_ID = 32, SHARED_PLACE = 64, SHARED_PATH_MAX = 1200 };

enum shared_verdict {
    SHARED_OURS,     /* what is remembered, or nothing is and it has a mark */
    SHARED_NEW,      /* without a mark, and may get one */
    SHARED_OWN,      /* nothing is remembered, and it would be on this machine's own disk */
    SHARED_MISSING,  /* there is no directory, though one is remembered */
    SHARED_UNMARKED, /* another file system than is remembered, without a mark */
    SHARED_OTHER,    /* the same, with the mark of another state */
    SHARED_FAILED,   /* errno says why */
};

struct shared_identity {
    char id[SHARED_ID + 1];       /* hexadecimal; empty: none */
    char place[SHARED_PLACE + 1]; /* of the file system */
};

struct shared_state {
    int fd; /* the directory; the caller closes it; -1: there is none */
    struct shared_identity here, remembered;
    char memory[SHARED_PATH_MAX]; /* the file in which it is remembered */
};

/* The text of a file: the mark, or with a place what is remembered. False: it is neither. */
bool shared_identity_read(struct slice text, bool with_place, struct shared_identity *ret_identity);

/* From what is there and what is remembered; `exists`: a directory is at the path; `own`: it is, or
 * would be, on the file system where this machine remembers. */
enum shared_verdict shared_state_judge(bool exists, bool own, const struct shared_identity *here,
                                       const struct shared_identity *remembered);

/* Changes nothing. `known` is the directory of what this machine remembers, `name` its name. */
enum shared_verdict shared_state_look(const char *state, const char *known, const char *name,
                                      struct shared_state *ret_state);
/* After SHARED_OURS or SHARED_NEW: marks it if it is new, made and opened if it was not there, and
 * remembers it. SHARED_OURS; or SHARED_FAILED. What cannot be remembered is no failure:
 * ret_remembered says so, with errno. */
enum shared_verdict shared_state_settle(const char *state, const char *known,
                                        struct shared_state *shared, bool *ret_remembered);
/* Why not, for people. */
const char *shared_verdict_text(enum shared_verdict verdict);

#endif
