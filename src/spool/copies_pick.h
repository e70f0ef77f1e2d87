/* SPDX-License-Identifier: Apache-2.0
 *
 * What a search for copies (spool/copies.h) makes of the fates and messages that a back-end shows
 * it, in two passes: first all fates, and of all messages whose copies they are; then, after
 * copies_pick_between(), the messages that the fates are of. In what order, and how often, does not
 * matter: of a message the place that was shown last counts. On any one thread at a time.
 */
#ifndef HOLDFAST_SPOOL_COPIES_PICK_H
#define HOLDFAST_SPOOL_COPIES_PICK_H

#include "base/buffer.h"
#include "base/hash.h"
#include "base/map.h"
#include "spool/log_format.h"
#include "spool/spool_internal.h"

struct copies_pick {
    struct spool_copies_query query;
    struct hash_key key;
    struct arena names;  /* of servers */
    struct map servers;  /* hash -> struct slice */
    struct buffer taken; /* struct spool_taken; sorted by id and delivery after the first pass */
    struct buffer sent;  /* struct sent; sorted then */
    struct buffer
        found; /* struct found; those with a chosen delivery, in order, after the second */
    struct buffer deliveries; /* of the last copies_pick_get() */
    struct spool_copies_counts counts;
};

/* Copies `query`, with `since_ms` moved up to what is kept (spool_copies_since()). ERROR_MEMORY:
 * the choice is still the caller's. */
enum error copies_pick_init(struct copies_pick *pick, const struct spool_copies_query *query,
                            int64_t keep_ms, int64_t now_ms) MUST_CHECK;
/* What is due to a caller's choice when no search comes of its query. */
void copies_give_back(const struct spool_copies_query *query);
/* Gives the choice back. */
void copies_pick_done(struct copies_pick *pick);

/* ERROR_LIMIT: more than SPOOL_COPIES_MAX; ERROR_MEMORY. */
enum error copies_pick_fate(struct copies_pick *pick, struct message_id id, uint32_t delivery,
                            enum spool_fate fate, int64_t when_ms, struct slice server) MUST_CHECK;
enum error copies_pick_sent(struct copies_pick *pick,
                            const struct spool_message *message) MUST_CHECK;
void copies_pick_between(struct copies_pick *pick);
/* Up to `max` ids, in order, of messages that the second pass is to be shown; from `*at` on, which
 * is 0 at first and moves on. */
size_t copies_pick_wanted(const struct copies_pick *pick, size_t *at, struct message_id *ret_ids,
                          size_t max);
/* Its sequence, size and envelope as a loader gets them; `place` is for copies_pick_place(). */
enum error copies_pick_message(struct copies_pick *pick, const struct log_ticket *place,
                               const struct spool_message *message) MUST_CHECK;
void copies_pick_after(struct copies_pick *pick);

/* Of the i-th that was found, in acceptance order; the first is good until the next call. */
void copies_pick_get(struct copies_pick *pick, size_t i, struct spool_copy *ret_copy);
const struct log_ticket *copies_pick_place(const struct copies_pick *pick, size_t i);

#endif
