/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding mail that was handed over and is still kept (spool_keep_copies()), so that it can be
 * accepted again: its server may have been restored from an old backup and know nothing of it.
 *
 * A search looks at everything that is kept, and at mail that still waits for other recipients; it
 * works in the background and keeps what it has found in memory (about 50 bytes a delivery) until
 * it is freed. What it has found stays readable meanwhile, unless room gets short.
 *
 * A message that sends another one again says so (spool_message.copy_of), and that is what marks
 * the other: a later search leaves out the recipients that it names. So nothing is sent twice, be a
 * run interrupted wherever it may.
 */
#ifndef HOLDFAST_SPOOL_COPIES_H
#define HOLDFAST_SPOOL_COPIES_H

#include "spool/spool.h"

enum { SPOOL_COPIES_MAX = 1000000 }; /* deliveries of one search: it is kept in memory */

struct spool_copies;

struct spool_copies_query {
    /* Handed over then: since <= when < until, Unix ms, and not before copies are kept for. */
    int64_t since_ms, until_ms;
    struct slice server; /* that took it, case folded; empty: any. Copied */
    bool again;          /* also what was sent again; not the copies that it was sent as */
    /* Whether this delivery is meant. Of the message the fields that a loader gets are set. Called
     * on another thread: it may look at `choice` alone, which the search takes over (also on
     * failure) and gives back to `choice_free`. NULL: each is. */
    bool (*wants)(const void *choice, const struct spool_message *message, uint32_t delivery);
    void *choice;
    void (*choice_free)(void *choice);
    /* The search is over; on the loop, never from inside spool_copies_find(). ERROR_LIMIT: more
     * than SPOOL_COPIES_MAX. */
    void (*done)(void *context, enum error error);
    void *context;
};

struct spool_copies_counts {
    size_t messages, deliveries; /* found */
    size_t sent;                 /* deliveries left out: they were sent again before */
    size_t unreadable;           /* parts of the journal that were kept and cannot be read */
};

/* One message and those of its deliveries that were found. */
struct spool_copy {
    struct message_id id;
    int64_t when_ms;     /* the last of them was handed over */
    struct slice server; /* which took that */
    const uint32_t *deliveries;
    uint32_t count;
};

/* ERROR_AGAIN: not all is loaded yet. ERROR_MEMORY. */
enum error spool_copies_find(struct spool *spool, const struct spool_copies_query *query,
                             struct spool_copies **ret_copies) MUST_CHECK;
void spool_copies_progress(const struct spool_copies *copies, uint64_t *ret_done,
                           uint64_t *ret_all);
/* Once it is done: */
void spool_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts);
/* The i-th message in acceptance order; good until the next call. */
void spool_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy);
/* As spool_read_envelope() and spool_read_content(). ERROR_MISSING: it has gone meanwhile. */
enum error spool_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                      struct spool_message *ret_message) MUST_CHECK;
enum error spool_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                     void *ret_bytes, size_t size, size_t *ret_length) MUST_CHECK;
/* At any time; `done` is not called any more. Before spool_close(). NULL is allowed. */
void spool_copies_free(struct spool_copies *copies);

#endif
