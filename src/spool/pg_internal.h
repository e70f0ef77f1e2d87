/* SPDX-License-Identifier: Apache-2.0
 *
 * The PostgreSQL back-end from inside. pg.c argues why it is right. All of it runs on the loop's
 * thread but the functions named *_run, which are jobs of a worker: they touch only their own job
 * and the connection of their worker.
 */
#ifndef HOLDFAST_SPOOL_PG_INTERNAL_H
#define HOLDFAST_SPOOL_PG_INTERNAL_H

#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "spool/log_files.h"
#include "spool/log_format.h"
#include "spool/log_table.h"
#include "spool/postgres.h"
#include "spool/spool_internal.h"
#include "sys/worker.h"

enum {
    PG_SLOW_MS = 2000,        /* a group that takes longer does not keep anybody waiting */
    PG_SLOWEST = 1000,        /* bytes a ms that a group is waited for */
    PG_CALL_MS = 10000,       /* then the connection counts as lost */
    PG_AT_ONCE_MS = 1000,     /* for what the loop waits for */
    PG_AGAIN_MS = 500,        /* between tries while the database is away */
    PG_WATERMARK_MS = 5000,   /* between what we say of how far we have forwarded */
    PG_MARGIN_MS = 60000,     /* ids of what is accepted now are no older */
    PG_PACE_MS = 10,          /* between notifications, and looks for what is new */
    PG_GLOBALS_MS = 15000,    /* between looks at the notes that other nodes write */
    PG_POLL_MS = 1000,        /* following, when nobody says that there is something */
    PG_GROUP_MESSAGES = 1000, /* of one transaction */
    PG_GROUP_BYTES = 8 << 20, /* of content in one transaction, about; held in memory */
    PG_GROUP_OPERATIONS = 20000,
    PG_PAGE = 500,              /* parts loaded by one query */
    PG_AHEAD = 256,             /* envelopes read at once */
    PG_NO_JOURNAL = UINT32_MAX, /* a part whose content is in the database alone */
    PG_FATE_ELSEWHERE = 7,      /* of a delivery that is in another part of the message */
};

/* ---- shares ------------------------------------------------------------------------------ */

struct pg_share {
    struct pg_share *next; /* with the same hash of its name */
    int32_t number;        /* -1: the database has not been asked for it yet */
    bool owned;
    bool taking;  /* what it holds is being loaded */
    bool leaving; /* `left` is to be called */
    bool stale;   /* because the database says so */
    bool telling; /* `stale` is to be called */
    int64_t token;
    uint64_t from_xid; /* parts of earlier transactions have been loaded, or given up */
    size_t length;
    char name[];
};

/* ---- the journal's messages ---------------------------------------------------------------- */

/* What is to be said to the database of a message that it does not know yet, or of its fates. */
struct pg_pending {
    struct pg_pending *next;
    uint64_t group; /* that carries it; 0: none yet */
    bool is_note;
    uint8_t fate;
    uint16_t kind;
    uint32_t delivery;
    int64_t when_ms;
    size_t length; /* of the server's name, or of the note's payload */
    uint8_t bytes[];
};

/* A message in the journal. Notes in the journal about it: PG_NOTE_STORED, the database has it and
 * all that was pending before; PG_NOTE_FATE, and PG_NOTE_FIRST and above: pending. */
enum { PG_NOTE_STORED = 1, PG_NOTE_FATE = 2, PG_NOTE_FIRST = 16 };
struct pg_local {
    struct message_id id;
    struct pg_pending *pending;
    int64_t behind;  /* the last part committed here when it was accepted; 0: not known */
    uint64_t bytes;  /* of content */
    int32_t awaited; /* parts of it that we own and have not heard of yet; below 0: we have early */
    uint16_t refs;   /* parts that are here */
    uint16_t recipients;
    bool stored;  /* the database has it */
    bool counted; /* in `one_copy` */
    bool queued;  /* in `forward`, or in a batch or group */
    bool ending;
};

/* ---- batches ----------------------------------------------------------------------------- */

enum pg_kind { PG_FATE, PG_NOTE, PG_GLOBAL };

struct pg_operation {
    enum pg_kind kind;
    uint32_t part; /* index in the table; STORED_NONE: of a message of this batch */
    struct message_id id;
    struct pg_share *share;
    int64_t token;
    uint32_t delivery;
    uint16_t note;
    uint8_t fate;
    bool fact;
    bool noted;      /* the journal has been told, or is being */
    bool done;       /* it has taken effect, or is dropped */
    uint32_t of_new; /* which of the batch's messages it came with; STORED_NONE: none */
    int64_t when_ms;
    struct slice key, payload; /* in the batch's arena; the server's name is payload */
};

/* A part of a new message. The committer writes its sequence. */
struct pg_new_part {
    struct pg_share *share;
    uint32_t part;             /* in the table, without shares */
    const int32_t *deliveries; /* NULL: all */
    uint32_t count;
    int64_t sequence; /* as the database has given it; 0: not known */
};

struct pg_new {
    struct message_id id;
    uint32_t journal; /* known when the journal has it */
    uint32_t recipients;
    uint64_t bytes;
    int64_t received_ms;
    struct pg_new_part *parts;
    uint32_t part_count;
};

struct pg_batch {
    struct link link;
    struct arena arena;
    struct buffer news;       /* struct pg_new */
    struct buffer operations; /* struct pg_operation */
    struct buffer handles;    /* struct spool_handle, without shares */
    struct pg_spool *pg;
    spool_done_fn *fn;
    void *context;
    enum spool_durability durability;
    enum error error; /* told at the end */
    int64_t submitted_ms;
    uint64_t bytes;
    bool journalled; /* its messages are written there */
    bool diverting;  /* being made durable in the journal */
    bool diverted;   /* it is */
    bool grouped;    /* the committer has it */
    bool applied;    /* the table has its messages */
    bool stuck;      /* nothing of it can be made durable in the journal */
    bool told;
    bool decides; /* something of it depends on a share being ours */
    bool refused; /* because it is not */
};

static inline struct pg_new *batch_news(const struct pg_batch *batch)
{
    return (struct pg_new *)(void *)batch->news.data;
}

static inline size_t batch_new_count(const struct pg_batch *batch)
{
    return batch->news.length / sizeof(struct pg_new);
}

static inline struct pg_operation *batch_operations(const struct pg_batch *batch)
{
    return (struct pg_operation *)(void *)batch->operations.data;
}

static inline size_t batch_operation_count(const struct pg_batch *batch)
{
    return batch->operations.length / sizeof(struct pg_operation);
}

/* ---- groups ------------------------------------------------------------------------------ */

struct pg_send_message {
    struct log_ticket ticket;
    struct message_id id;
    int64_t received_ms;
    int64_t behind; /* as of the journal's message */
    uint64_t bytes; /* of content */
    uint32_t journal;
    struct pg_new_part *parts;
    uint32_t part_count;
    bool late;        /* sorts by its own time, and behind that */
    enum error error; /* it cannot be read */
};

struct pg_send_fate {
    struct message_id id;
    uint32_t delivery;
    uint8_t fate;
    int64_t when_ms;
    struct slice server;
};

struct pg_send_note {
    struct message_id id;
    struct pg_share *share;
    uint32_t delivery; /* SPOOL_ALL_DELIVERIES: -1 there */
    uint16_t kind;
    struct slice payload;
};

struct pg_send_global {
    struct slice key, payload;
    bool is_common; /* to all nodes */
};

struct pg_check {
    struct pg_share *share;
    int32_t number;
    int64_t token;
    bool stale;
};

enum pg_stage { PG_STAGE_NEW, PG_STAGE_UNKNOWN, PG_STAGE_COMMITTED };

/* What the committer keeps between groups; nobody else's. */
struct pg_writer {
    struct database *database;
    int64_t routed_until_ms; /* new mail asks whether there is a partition */
    int64_t marked_ms;       /* the last mark of order */
};

/* One transaction. It is tried until it is done, or is known not to be (then it is dissolved). */
struct pg_group {
    struct pg_spool *pg;
    struct pg_writer *writer;
    struct disk *disk;
    struct arena arena;
    uint64_t number;
    uint16_t node;
    uint32_t inline_bytes, chunk_bytes;
    struct link batches;
    struct buffer messages; /* struct pg_send_message */
    struct buffer fates, notes, globals, checks;
    struct buffer names; /* struct pg_share *: to be asked for their numbers, which it sets */
    bool lazy;
    bool has_below; /* all our mail below that id is in the database when this is committed */
    struct message_id below;
    enum pg_stage stage;
    /* The outcome, set by the committer. */
    enum database_outcome outcome;
    bool stale;         /* some of `checks` are: nothing was done */
    bool unpartitioned; /* new mail found no partition */
    bool again;         /* tried before: its mail sorts by its own time now */
    char reason[200];
    int64_t began_ns, took_ns;
    int64_t began_ms;
};

/* ---- loading ----------------------------------------------------------------------------- */

struct pg_envelope {
    uint32_t part;
    struct message_id id;
    struct slice bytes; /* allocated; without its checksum, which is right */
    enum error error;
};

struct pg_spool {
    struct spool spool;
    struct loop *loop;
    struct spool *journal;
    struct disk *disk; /* the journal's */
    struct spool_owner owner;
    struct spool_postgres_settings settings;
    struct spool_shares shares;
    bool shared;
    struct hash_key key;
    struct map names, numbers; /* struct pg_share */
    struct pg_share *only;     /* without shares */
    int64_t lease_until_ms;

    int64_t now_ms;         /* as the owner says, Unix time; 0: not said */
    int64_t watermarked_ms; /* on the steady clock */
    struct worker *committer, *reader, *listener;
    struct pg_writer writer;
    struct database *reading, *asking, *listening;
    struct loop_later *later;
    struct loop_timer *timer, *retry, *follow, *listen;

    struct table table;       /* parts: slot is nothing, offset the journal's index */
    struct pg_share **owners; /* of each part, by its index */
    uint32_t owner_capacity;
    struct pg_local **locals; /* by the journal's index */
    uint32_t local_capacity;
    uint64_t last_sequence;

    struct pg_batch *open;
    bool journal_open;     /* a batch of the journal, for `open` */
    struct link queue;     /* submitted, in order */
    struct link held;      /* committed, and waiting for the lease to be told */
    size_t batches;        /* all of them */
    struct buffer forward; /* uint32_t, journal's indexes in order */
    size_t forward_at;
    uint64_t one_copy;
    int64_t committed; /* the highest sequence that a group of ours has got */
    struct pg_group *group;
    bool group_running, flush_lazy;
    size_t group_forwards; /* of `forward`, from `forward_at` on */
    uint64_t next_group;
    struct buffer marks; /* struct pg_mark: what the journal is to be told */
    struct link globals; /* struct pg_global: pending */

    bool up;
    int64_t since_ms;
    char reason[200];
    uint32_t commit_us;
    bool ask_failed; /* until the database answers again */
    int64_t ask_failed_ms;

    /* Loading. */
    struct spool_loader loader;
    bool journal_loaded, globals_loaded, load_complete, opened, ending;
    struct pg_page *page; /* under way */
    int64_t globals_ms;   /* when they were last read */
    bool page_failed;     /* until the timer tries again */
    struct buffer loaded; /* uint32_t: messages of the journal, in order */
    struct buffer takes;  /* struct pg_share * waiting to be loaded */
    struct pg_page *keys; /* of the share that is being loaded */
    size_t keys_at;
    int64_t cursor_follow_sequence; /* how far the following is */
    struct message_id cursor_follow_id;
    uint64_t followed_xid, follow_until_xid, follow_after_xid;
    bool follow_asked, notify_asked;
    int64_t looked_ms;          /* on the steady clock: when following began last */
    struct pg_listening *heard; /* under way */

    struct pg_envelope *ahead;
    size_t ahead_count;
    uint32_t ahead_next; /* who reads in order reads this next */
    struct link fetches; /* struct pg_fetch */
    uint64_t messages, live_bytes, groups, quarantined;
};

struct pg_mark {
    uint32_t journal;
    bool end; /* else it is stored */
};

/* A note about no message that the database has not got yet. */
struct pg_global {
    struct link link;
    struct slice key, payload; /* behind it; the payload as in the journal */
    uint64_t group;            /* that carries it */
};

static inline bool pg_has_joined(const struct pg_spool *pg)
{
    return !pg->shared || pg->settings.node != 0;
}

static inline bool pg_is_common(const struct pg_spool *pg, struct slice key)
{
    return pg->shared && pg->shares.is_common != NULL &&
           pg->shares.is_common(pg->shares.context, key);
}

static inline struct pg_spool *pg_of(const struct spool *spool)
{
    return (struct pg_spool *)(uintptr_t)spool;
}

static inline struct pg_local *pg_local_at(const struct pg_spool *pg, uint32_t journal)
{
    return journal < pg->local_capacity ? pg->locals[journal] : NULL;
}

/* pg_share.c */
/* NULL: memory. */
struct pg_share *pg_share_named(struct pg_spool *pg, struct slice name);
struct pg_share *pg_share_numbered(struct pg_spool *pg, int32_t number);
/* The parts of a new message. */
enum error pg_share_out(struct pg_spool *pg, const struct spool_message *message,
                        struct arena *arena, struct pg_new *fresh) MUST_CHECK;
void pg_shares_free(struct pg_spool *pg);
/* Calls `left` for what is to go, when nothing of it is under way. */
void pg_shares_settle(struct pg_spool *pg);
/* The database says that it is not ours. */
void pg_share_lost(struct pg_spool *pg, struct pg_share *share);
/* Decisions may be made: the lease has enough left. */
bool pg_lease_holds(const struct pg_spool *pg);

/* pg_batch.c */
void pg_batch_begin(struct spool *spool);
void pg_batch_cancel(struct spool *spool);
enum error pg_batch_message(struct spool *spool, const struct spool_message *message,
                            struct spool_content *content, struct slice tail);
void pg_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate);
void pg_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind, struct slice payload);
void pg_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                   enum spool_fate fate);
void pg_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate, int64_t when_ms, struct slice server);
void pg_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                   uint16_t kind, struct slice payload);
void pg_batch_global_note(struct spool *spool, struct slice key, struct slice payload);
void pg_batch_submit(struct spool *spool, enum spool_durability durability, spool_done_fn *fn,
                     void *context);
void pg_batch_free(struct pg_batch *batch);
/* What it has put into the table is taken back. */
void pg_batch_undo(struct pg_batch *batch);
/* Its messages, and what of its operations is not done, take effect in the table. */
void pg_batch_apply(struct pg_batch *batch);
/* The messages, and the operations that the journal has. */
void pg_batch_apply_noted(struct pg_batch *batch);
bool pg_new_part_has(const struct pg_new_part *part, uint32_t delivery);
/* Its decisions about that share will not be made, nor what stands or falls with them. */
void pg_batch_refuse(struct pg_batch *batch, const struct pg_share *share, int64_t token);

/* pg_part.c */
enum error pg_part_add(struct pg_spool *pg, struct message_id id, uint32_t recipients,
                       uint64_t content, struct pg_share *share, uint32_t *ret_part) MUST_CHECK;
/* NULL: it has gone. */
struct stored *pg_part_of(const struct pg_spool *pg, uint32_t part, struct message_id id);
/* It counts from now on. */
void pg_part_appear(struct pg_spool *pg, uint32_t part);
void pg_part_fate(struct pg_spool *pg, uint32_t part, uint32_t delivery, uint8_t fate);
/* It has ended, or is somebody else's: its handle goes when nobody has it pinned. */
void pg_part_end(struct pg_spool *pg, uint32_t part);
void pg_part_forget(struct pg_spool *pg, uint32_t part); /* never appeared */
void pg_part_link(struct pg_spool *pg, uint32_t part, uint32_t journal);
struct spool_handle pg_find(const struct spool *spool, struct message_id id);
struct message_id pg_id(const struct spool *spool, struct spool_handle handle);
uint64_t pg_sequence(const struct spool *spool, struct spool_handle handle);
unsigned pg_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery);
void pg_pin(struct spool *spool, struct spool_handle handle);
void pg_unpin(struct spool *spool, struct spool_handle handle);

/* pg_local.c */
struct pg_local *pg_local_new(struct pg_spool *pg, uint32_t journal, struct message_id id,
                              uint32_t recipients, uint64_t bytes); /* NULL: memory */
enum error pg_local_add(struct pg_local *local, const struct pg_pending *like,
                        struct slice bytes) MUST_CHECK;
/* To be forwarded, unless it is on its way already. */
void pg_local_queue(struct pg_spool *pg, uint32_t journal);
/* The database has what that group has carried of its fates and notes. */
void pg_local_settle(struct pg_spool *pg, uint32_t journal, uint64_t group);
/* The database has it, and that. */
void pg_local_stored(struct pg_spool *pg, uint32_t journal, uint64_t group);
/* Ends it in the journal if nothing needs it any more. */
void pg_local_release(struct pg_spool *pg, uint32_t journal);
void pg_locals_free(struct pg_spool *pg);
/* Says in the journal what is to be said there; not while a batch is open. */
void pg_marks_write(struct pg_spool *pg);
void pg_pending_put(struct spool *journal, struct spool_handle handle,
                    const struct pg_pending *pending);
/* The last one of it. */
void pg_pending_put_last(struct pg_spool *pg, uint32_t journal);
/* That group carries all of them. */
void pg_pending_claim(struct pg_local *local, uint64_t group);
/* Of the message that the journal's open batch has just got. */
void pg_pending_put_new(struct spool *journal, const struct pg_pending *pending,
                        struct slice bytes);
/* Somebody was told that we have it. */
void pg_local_count(struct pg_spool *pg, struct pg_local *local);
/* It was never accepted. */
void pg_local_drop(struct pg_spool *pg, uint32_t journal);
void pg_describe(void *context, struct spool_handle handle); /* asked by the journal */
/* Reads what the journal holds. */
/* Pending from now on; `journal`: also said there, in the batch that is open. False: memory. */
bool pg_global_set(struct pg_spool *pg, struct slice key, struct slice payload, bool journal);
bool pg_global_is_pending(struct pg_spool *pg, struct slice key);
/* That group carries it. */
void pg_global_group(struct pg_spool *pg, struct slice key, uint64_t group);
void pg_globals_stored(struct pg_spool *pg, uint64_t group);
void pg_globals_free(struct pg_spool *pg);
enum error pg_local_load(struct pg_spool *pg, bool *ret_complete) MUST_CHECK;

/* pg_group.c */
void pg_pump(void *pg);
void pg_pump_later(struct pg_spool *pg);
/* Makes durable in the journal what may be, if the database does not take it in time. */
void pg_divert_due(struct pg_spool *pg);
bool pg_is_away(const struct pg_spool *pg);
void pg_set_up(struct pg_spool *pg, bool up, const char *reason);
void pg_tell_held(struct pg_spool *pg);
/* The share is left: who waits for the lease because of it waits in vain. */
void pg_refuse_held(struct pg_spool *pg, const struct pg_share *share);
/* Until nothing is left to be done, or the database does not take it. */
void pg_drain(struct pg_spool *pg);
void pg_group_free(struct pg_group *group);
void pg_group_retry(void *pg);

/* pg_gather.c */
/* Something waits that may go. */
bool pg_is_wanted(const struct pg_spool *pg);
/* Becomes pg->group, with what may go. NULL: memory. */
struct pg_group *pg_gather(struct pg_spool *pg);

/* pg_write.c */
void pg_group_run(void *group);

/* At the end: what was not done is told so. */
void pg_batches_end(struct pg_spool *pg);

/* pg_load.c */
/* The envelope as it is stored: behind its checksum, with the checksums of the content's pieces. */
enum error pg_envelope_open(struct slice stored, struct message_id id, struct arena *arena,
                            struct log_message *ret_message) MUST_CHECK;
void pg_follow_now(void *pg);
void pg_follow_soon(struct pg_spool *pg);
/* Something of ours has been committed that others wait for. */
void pg_notify_soon(struct pg_spool *pg);

/* pg_listen.c */
void pg_listen(void *pg); /* hears others, and goes on so until the end */
enum error pg_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete);
void pg_load_next(struct pg_spool *pg); /* takes and following */
void pg_load_free(struct pg_spool *pg);

/* pg_read.c */
enum error pg_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                            struct spool_message *ret_message);
enum error pg_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                           void *ret_bytes, size_t size, size_t *ret_length);
enum error pg_ticket(struct spool *spool, struct spool_handle handle, uint8_t *ret_ticket,
                     size_t *ret_length);
void pg_ahead_free(struct pg_spool *pg);

/* pg_fetch.c */
bool pg_prepare(struct spool *spool, struct spool_handle handle, spool_prepared_fn *fn,
                void *context);

#endif
