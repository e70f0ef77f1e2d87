/* SPDX-License-Identifier: Apache-2.0
 *
 * The spool of a cluster: PostgreSQL holds the mail, and a journal of the node's own (the log
 * back-end) what the database cannot take now (docs/decisions/0043). Behind spool.h; here is what
 * only a cluster needs.
 *
 * What is accepted goes into the journal first (written, not synced), from there into the database,
 * with all that gathered meanwhile in one transaction. So what comes in large is never in memory as
 * a whole, what we deliver ourselves is not read back, and there is one way into the database,
 * whether it is there or comes back tomorrow. A batch completes
 *   - when that has committed; or
 *   - when its messages and facts are on stable storage in the journal: if the database is away, or
 *     has not committed 2 s after the submission, or has warned that no standby has the commit.
 *     They are forwarded in order when it is back, once, also across a crash.
 * A fact is that a delivery was handed over (spool_batch_taken()). All other fates and notes are
 * decisions. These, and notes about no message, are never in the journal alone: a batch that has
 * some waits for the database, and is given up only when the share is not ours any more.
 *
 * For a minute after the commit the node keeps messages and facts itself, in case that the database
 * loses what it has confirmed: another server that it meets is asked for them, and gets what it
 * lacks.
 *
 * What spool.h says holds, but for this: the batches of a node take effect in order only as long as
 * the database takes them. Mail that was forwarded stands behind what others sent meanwhile, and is
 * sorted in among it by its own time, to the second.
 *
 * Mail that was handed over stays in the tables for as long as whoever retires their ranges says
 * (pg_partition_settings.keep_ms): spool_copies_find() finds what any node handed over, and
 * spool_keep_copies() only says how far back it may look.
 */
#ifndef HOLDFAST_SPOOL_POSTGRES_H
#define HOLDFAST_SPOOL_POSTGRES_H

#include "spool/spool.h"
#include "sys/database.h"

enum {
    SPOOL_SHARE_MAX = 500, /* bytes of a share's name */
    SPOOL_LEASE_MS =
        2000, /* so much of it must be left when something is done that depends on it */
};

/* Who has which part of the mail. Without it everything is one share that is always ours, and what
 * spool.h says of handles at completion and of loading holds. With it:
 *   - completions give no handles: whoever owns the part hears of it by following;
 *   - spool_load() is complete at once. All comes by its loader, which must stay good until
 *     spool_close(), at any time later and never from inside a call: once the node's number is
 * known the notes about no message, then all that a share holds after spool_postgres_take(), then
 * what follows;
 *   - a handle stands for a part: the deliveries of one message that are in one share. Two parts of
 *     a message may be here; spool_find() gives one of them. */
struct spool_shares {
    void *context;
    /* The name of the share of this delivery, put into `buffer`; a pure function of the address. */
    struct slice (*name)(void *context, const struct spool_message *message, uint32_t delivery,
                         uint8_t buffer[SPOOL_SHARE_MAX]);
    /* Whether a note about no message is about the whole cluster: it is kept once for all nodes,
     * and what another has written is handed over again and again, also that it was forgotten, by
     * an empty payload. One that begins with an octet of 2 or more
     * replaces only what is less, octet by octet: what was noted during an outage undoes nothing
     * later. NULL: none is. */
    bool (*is_common)(void *context, struct slice key);
    /* The notes about no message have been handed over: all of them, and later those. May be NULL.
     */
    void (*notes_loaded)(void *context);
    /* All that was in it has been loaded. */
    void (*taken)(void *context, int32_t share);
    /* The database has refused a decision because somebody else has the share now: it is to be
     * left, as soon as nothing of it is under way. NULL: it is left at once. */
    void (*stale)(void *context, int32_t share);
    /* Its parts will be gone when this returns: their handles are invalid then. `stale`: that was
     * why. */
    void (*left)(void *context, int32_t share, bool stale);
};

struct spool_postgres_settings {
    struct database_settings database;
    uint16_t node;        /* whose notes about no message these are; with shares 0: not known yet */
    bool defer_when_away; /* accept nothing then (ERROR_IO) */
    uint32_t inline_bytes; /* contents beyond this are cut into chunks */
    uint32_t chunk_bytes;
    const struct spool_shares *shares; /* copied; NULL: one share */
};
/* All but the database and the node. */
void spool_postgres_settings_default(struct spool_postgres_settings *settings);

/* `journal` is taken over. The database need not be there. Errors as of spool_open_log(). */
enum error spool_open_postgres(struct loop *loop, struct disk *journal,
                               const struct spool_settings *settings,
                               const struct spool_postgres_settings *postgres,
                               const struct spool_owner *owner,
                               struct spool **ret_spool) MUST_CHECK;

/* ---- shares ------------------------------------------------------------------------------ */

/* It is ours with this token: what it holds is loaded. Taken again with another token: only that
 * changes. */
void spool_postgres_take(struct spool *spool, int32_t share, int64_t token);
/* It is ours no more, and nothing of it is under way. `left` is called, not from inside. */
void spool_postgres_leave(struct spool *spool, int32_t share);
/* Until when what we own is ours, on the steady clock. Without SPOOL_LEASE_MS left decisions wait.
 * Meaningless without shares. */
void spool_postgres_lease(struct spool *spool, int64_t good_until_steady_ms);
/* What time it is by the database's clock, as far as is known, which is kept by the steady clock
 * from then on; before the first it is our own. Told now and then. */
void spool_postgres_time(struct spool *spool, int64_t wall_ms);
/* The node's number. Until it is known nothing is written to the database, as if it were away. */
void spool_postgres_set_node(struct spool *spool, uint16_t node);
/* The share that this part is in; and all parts that are here of one. */
int32_t spool_postgres_share(const struct spool *spool, struct spool_handle handle);
void spool_postgres_parts(const struct spool *spool, int32_t share,
                          void (*fn)(void *context, struct spool_handle handle), void *context);
/* The parts of a message that are here, one after the other: that of the first share behind
 * `share` (-1: all). SPOOL_NO_HANDLE: no more. */
struct spool_handle spool_postgres_next_part(const struct spool *spool, struct message_id id,
                                             int32_t share);
/* This delivery is in another part of the message. From memory. */
bool spool_postgres_is_elsewhere(const struct spool *spool, struct spool_handle handle,
                                 uint32_t delivery);
/* What has become of the deliveries 0 .. count - 1 of a message, here or elsewhere: enum
 * spool_fate, 0 where nothing is known yet. Asked of the database at once; ERROR_AGAIN: it does not
 * answer. */
enum error spool_postgres_fates(struct spool *spool, struct message_id id, uint8_t *ret_fates,
                                uint32_t count) MUST_CHECK;
/* The database has all facts that batches have been told of: nobody who takes what is ours would
 * hand that over once more. What the database refuses, or the journal does not give back, keeps
 * nobody waiting. From memory. */
bool spool_postgres_has_told(const struct spool *spool);
/* Somebody says that there is something new: looks at once. */
void spool_postgres_follow(struct spool *spool);

/* ---- state ------------------------------------------------------------------------------- */

struct spool_postgres_state {
    bool up;                   /* the database takes what we give it */
    int64_t since_ms;          /* on the steady clock */
    uint64_t one_copy;         /* messages in the journal that the database has not got yet */
    uint64_t messages_missing; /* that it had and has lost, and was given once more; counted */
    uint64_t fates_missing;
    uint64_t waiting;   /* batches that wait for it */
    uint32_t commit_us; /* from the beginning of a group to its commit; the mean of the last ones */
    int64_t lag_ms;     /* how old the oldest of what waits is */
    char reason[200];   /* why it is away, or empty */
};
void spool_postgres_status(const struct spool *spool, struct spool_postgres_state *ret_state);

/* ---- order between nodes: docs/decisions/0043 -------------------------------------------- */

/* When the oldest mail was accepted (Unix ms) that was answered 250 here, or may soon be, and that
 * the database has not; INT64_MAX: it has all, but for what was given to it just now. */
int64_t spool_postgres_behind(const struct spool *spool);
/* From when on (Unix ms) mail may be answered 250 from the journal at once while the database is
 * away, for the others wait for what was accepted since then; INT64_MIN, as it begins: any, for
 * nobody does. Earlier mail goes into the database as soon as that is back, or into the journal
 * after 2 s. */
void spool_postgres_told(struct spool *spool, int64_t from_ms);
/* All that was committed by earlier transactions, and is ours, has been handed over. */
bool spool_postgres_has_followed(const struct spool *spool, uint64_t xid);
/* How often reading had to begin anew on another connection: what comes after it may be of another
 * database, which others have not spoken to yet. */
uint64_t spool_postgres_breaks(const struct spool *spool);

#endif
