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
#include "spool/pg_spare.h"
#include "spool/postgres.h"
#include "spool/spool_internal.h"
#include "sys/worker.h"

enum {
    PG_SLOW_MS = 2000,    /* a group that takes longer does not keep anybody waiting */
    PG_CLOCKS_MS = 20,    /* the nodes know the database's clock better than that */
    PG_SLOWEST = 1000,    /* bytes a ms that a group is waited for */
    PG_CALL_MS = 10000,   /* then the connection counts as lost */
    PG_AT_ONCE_MS = 1000, /* for what the loop waits for */
    PG_CONNECT_AT_ONCE_MS = PG_AT_ONCE_MS / 2, /* of which connecting may take */
    PG_AGAIN_MS = 500,                         /* between tries while the database is away */
    PG_ASIDE_MS = 5000, /* what cannot be read is tried again then, and then later each time, */
    PG_ASIDE_MAX_MS = 600000, /* up to so much */
    PG_WATERMARK_MS = 5000,   /* between what we say of how far we have forwarded */
    PG_MARGIN_MS = 60000,     /* ids of what is accepted now are no older */
    PG_BEHIND_MS = 750,       /* what takes longer than this is told to the others */
    PG_BEHIND_LOOK = 1000,    /* for the oldest message: so far they may be out of order */
    PG_PACE_MS = 40,          /* between notifications, and looks for what is new */
    PG_GLOBALS_MS = 15000,    /* between looks at the notes that other nodes write */
    PG_POLL_MS = 1000,        /* following, when nobody says that there is something */
    PG_GROUP_MESSAGES = 1000, /* of one transaction */
    PG_GROUP_BYTES = 8 << 20, /* of content in one transaction, about; held in memory */
    PG_GROUP_OPERATIONS = 20000,
    PG_FORWARD_MOST = PG_GROUP_MESSAGES / 2, /* of what the journal alone had, in a group; */
    PG_FORWARD_LEAST = 16, /* as few beside new mail, where they take longer than the rest */
    PG_FORWARD_US = 20000, /* and than this */
    PG_COMPANY_US = 1000,  /* a group waits so long for as many batches as the one before had, */
    PG_COMPANY_MAX_US = 10000,    /* where groups take longer up to so long */
    PG_COMPANY_LEAST = 2,         /* if that were so many */
    PG_COMPANY_MANY = 16,         /* so many in step are parted */
    PG_COMPANY_BYTES = 512 << 10, /* so much content takes its time anyway */
    PG_PAGE = 500,                /* parts looked at by one query */
    PG_PAGE_FIRST = 10,           /* of each, by the first of several shares that are taken */
    PG_TOGETHER = 8,     /* so many shares are read as one, by time; fewer one after the other */
    PG_NEAR_MS = 600000, /* ids that are no farther apart are looked for together */
    PG_TRAIL_MS = 10000, /* what is followed is read again from so far back (pg_follow.c) */
    PG_AHEAD = 256,      /* envelopes read at once */
    PG_NO_JOURNAL = UINT32_MAX, /* a part whose content is in the database alone */
    PG_FATE_ELSEWHERE = 7,      /* of a delivery that is in another part of the message */
};

/* ---- shares ------------------------------------------------------------------------------ */

/* In the order in which parts are read. */
struct pg_place {
    uint64_t xid;
    int64_t sequence;
    struct message_id id;
};

struct pg_share {
    struct pg_share *next; /* with the same hash of its name */
    int32_t number;        /* of one with a name the committer's, and good while `asked` is */
    uint32_t asked;        /* on which of the committer's connections the number was asked for */
    bool owned;
    bool taking;  /* what it holds is being loaded */
    bool anew;    /* ours, and what it holds is being looked through once more */
    bool begun;   /* the first page of that is here */
    bool leaving; /* `left` is to be called */
    bool stale;   /* because the database says so */
    bool telling; /* `stale` is to be called */
    int64_t token;
    uint64_t from_xid;  /* parts of earlier transactions have been loaded, or given up */
    struct pg_place at; /* so far it has been loaded */
    size_t length;
    char name[];
};

/* What a writer that did not own the share any more has told of one of its deliveries. In the order
 * in which it is read, the share last. */
struct pg_late {
    uint64_t xid;
    struct message_id id;
    uint32_t delivery;
    int32_t share;
    uint8_t fate;
};

/* ---- the journal's messages ---------------------------------------------------------------- */

/* What is to be said to the database of a message that it does not know yet, or of its fates. */
struct pg_pending {
    struct pg_pending *next;
    uint64_t group; /* that carries it; 0: none yet */
    bool is_note;
    bool untold; /* a fact that somebody was told to be durable, or will be */
    uint8_t fate;
    uint16_t kind;
    uint32_t delivery;
    int64_t when_ms;
    size_t length; /* of the server's name, or of the note's payload */
    uint8_t bytes[];
};

/* A message in the journal. Notes in the journal about it: PG_NOTE_STORED, the database has it and
 * all that was pending before; PG_NOTE_SPARE, so it has said, and it will be asked once more;
 * PG_NOTE_FATE, and PG_NOTE_FIRST and above: pending. */
enum { PG_NOTE_STORED = 1, PG_NOTE_FATE = 2, PG_NOTE_SPARE = 3, PG_NOTE_FIRST = 16 };
struct pg_local {
    struct message_id id;
    struct pg_pending *pending;
    struct pg_pending *history; /* what has come with it, of one that is spare and stored */
    uint64_t bytes;             /* of content */
    uint64_t awaited; /* of the transaction whose parts we own and may not have heard of; 0: none */
    uint64_t unread;  /* the last group that could not read it from the journal; 0: none */
    uint16_t refs;    /* parts that are here */
    uint16_t recipients;
    uint16_t spare; /* entries of `spare.messages` */
    bool stored;    /* the database has it */
    bool counted;   /* in `one_copy` */
    bool queued;    /* in `forward` or `aside`, or in a batch or group */
    bool warned;    /* it was told that it cannot be read */
    bool ending;
};

/* ---- batches ----------------------------------------------------------------------------- */

enum pg_kind { PG_FATE, PG_NOTE, PG_GLOBAL };

struct pg_operation {
    enum pg_kind kind;
    uint32_t part; /* index in the table; STORED_NONE: of a message of this batch, or not here */
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
    const struct pg_share *about; /* it falls with what is decided of that; NULL: of any */
    int64_t about_token;
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
    bool unfit;      /* the database refuses it, alone */
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

/* Which server answers: another one, or the same with an older state of its disk, is another
 * postmaster. */
#define PG_SERVER "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8"

/* ---- groups ------------------------------------------------------------------------------ */

struct pg_send_message {
    struct log_ticket ticket;
    struct message_id id;
    int64_t received_ms;
    uint64_t bytes; /* of content */
    uint32_t journal;
    struct pg_new_part *parts;
    uint32_t part_count;
    bool late;        /* sorts by its own time */
    enum error error; /* it cannot be read */
};

struct pg_send_fate {
    struct message_id id;
    struct pg_share *share; /* NULL: nobody knows the part yet, or the share is known to be ours */
    bool unplaced;          /* somebody may have the part, and we do not know who */
    int64_t token;          /* with which it was ours, -1: not known */
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
    bool with_message; /* of a message that is forwarded: it may have been written with it before */
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
    uint32_t connections; /* made so far */
    int64_t server;       /* when its postmaster was started: which one it is */
    uint64_t mark;        /* what our row has since our last commit */
    bool fenced;          /* so that nothing of an earlier connection can be committed any more */
    int64_t routed_until_ms; /* new mail asks whether there is a partition */
};

/* One transaction. It is tried until it is done, or is known not to be (then it is dissolved). */
struct pg_group {
    struct pg_spool *pg;
    struct pg_writer *writer;
    struct disk *disk;
    struct arena arena;
    uint64_t number;
    uint16_t node;
    int64_t time_ahead_ms; /* the database's clock, of the steady one */
    uint32_t inline_bytes, chunk_bytes;
    struct link batches;
    size_t company;         /* of them that somebody waits for */
    struct buffer messages; /* struct pg_send_message */
    struct buffer fates, notes, globals, checks;
    struct buffer names;   /* the committer's: struct pg_share * to be asked for their numbers */
    struct buffer spares;  /* struct pg_send_spare; the group has nothing else then */
    uint64_t spares_round; /* and these were asked for in that, */
    struct pg_spare_place spares_upto; /* up to there */
    bool lazy;
    bool has_below; /* all our mail below that id is in the database when this is committed, and the
                       journal knows it for good */
    struct message_id below, said; /* as asked; as the database has written it */
    enum pg_stage stage;
    /* The outcome, set by the committer. */
    enum database_outcome outcome;
    bool stale;     /* some of `checks` are: nothing was done */
    bool refused;   /* because of a row in it: nothing was done */
    bool surprised; /* new mail found no partition, or itself */
    bool routed;    /* its mail was sent as what may be there already */
    bool again;     /* tried before: its mail sorts by its own time now */
    uint64_t xid;   /* of the transaction that brought its messages; 0: not known */
    int64_t server; /* that it was given to, or would have been */
    bool old;       /* some of its mail may belong where no partition is any more */
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
    int64_t told_ms;       /* spool_postgres_told() */
    int64_t time_ahead_ms; /* the database's clock, of the steady one */

    int64_t now_ms;         /* as the owner says, Unix time; 0: not said */
    int64_t keep_ms;        /* so long what was handed over is to be found (spool/copies.h) */
    int64_t watermarked_ms; /* on the steady clock */
    struct message_id said; /* the highest watermark that the database has got since the start */
    /* The lowest id of which the journal has been told something since its last sync began, and
     * what that sync is about. */
    struct message_id unsynced, syncing;
    bool sync_wanted, sync_runs;
    struct worker *committer, *reader, *listener;
    struct pg_writer writer;
    struct database *reading, *asking, *listening;
    struct loop_later *later;
    struct loop_timer *timer, *retry, *follow, *listen;
    struct loop_alarm *alarm; /* ends a group's wait for company */
    bool alarm_set;

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
    struct buffer aside; /* uint32_t: what could not be read, and is tried again */
    int64_t aside_ms;    /* at this time, on the steady clock; 0: there is none */
    int64_t aside_wait_ms;
    struct pg_spare spare;
    int64_t written_server; /* that the committer has met last; 0: none yet */
    uint64_t one_copy;
    uint64_t untold; /* facts that the journal alone has (struct pg_pending) */
    struct pg_group *group;
    bool group_running, flush_lazy;
    size_t group_forwards;                /* of `forward`, from `forward_at` on */
    size_t forward_most;                  /* so many beside new mail */
    int64_t weighed_messages, weighed_us; /* of the last group by which that was found */
    size_t company;                       /* batches that a group waits for */
    bool parts;                           /* and those alone it takes */
    size_t split; /* so many batches and forwards a group, to find what is refused; 0: all */
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
    struct pg_page *page;   /* under way */
    int64_t globals_ms;     /* when they were last read */
    bool page_failed;       /* until the timer tries again */
    uint64_t breaks;        /* spool_postgres_breaks() */
    struct buffer loaded;   /* uint32_t: messages of the journal, in order */
    struct buffer takes;    /* struct pg_share * that are being loaded, in turn */
    struct buffer lates;    /* struct pg_late, until the fate is known */
    struct buffer ended;    /* struct pg_ended, while `page` is under way */
    struct buffer awaiting; /* uint32_t, journal's indexes in order of `awaited` */
    size_t awaiting_at;
    bool lates_added; /* not sorted in yet */
    bool lates_anew;  /* what came late is to be read from the start */
    struct pg_late follow_after_late;
    struct pg_place follow_after;            /* how far the following is, */
    uint64_t followed_xid, follow_until_xid; /* between these two */
    int64_t server, session;                 /* that the reader has met; 0: none yet */
    uint64_t trail[2];                       /* `followed_xid` of PG_TRAIL_MS ago and more */
    int64_t trail_ms;
    bool follow_asked, notify_asked, follow_next;
    bool one_by_one;            /* a page of several shares has failed */
    int32_t page_limit;         /* how much a page asks for */
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

/* A fate that the database has got, or will, and a page that is under way may not know. */
struct pg_ended {
    struct message_id id;
    uint32_t delivery;
    uint8_t fate;
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

/* What is in the journal alone, and the database is to get, is not all sent. */
static inline bool pg_is_forwarding(const struct pg_spool *pg)
{
    return pg->forward_at * sizeof(uint32_t) < pg->forward.length;
}

/* Above all ids. */
#define PG_NO_ID ((struct message_id){UINT64_MAX, UINT64_MAX})

/* pg.c: something cannot be read, or be written: counted, and told the loader. */
void pg_damage(struct pg_spool *pg, const char *text);

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
void pg_batch_about(struct spool *spool, struct spool_handle handle);
void pg_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate);
void pg_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind, struct slice payload);
void pg_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                   enum spool_fate fate);
void pg_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate, int64_t when_ms, struct slice server);
void pg_batch_fact(struct spool *spool, struct message_id id, uint32_t delivery,
                   enum spool_fate fate, int64_t when_ms, struct slice server);
/* The same, of a fate that the database had. */
void pg_batch_again(struct pg_spool *pg, struct message_id id, uint32_t delivery, uint8_t fate,
                    int64_t when_ms, struct slice server);
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
/* The part that this share has of it; STORED_NONE: none that is not finished. */
uint32_t pg_part_find(const struct pg_spool *pg, struct message_id id,
                      const struct pg_share *share);
/* It counts from now on. */
void pg_part_appear(struct pg_spool *pg, uint32_t part);
void pg_part_fate(struct pg_spool *pg, uint32_t part, uint32_t delivery, uint8_t fate);
/* It has ended, or is somebody else's: its handle goes when nobody has it pinned. */
void pg_part_end(struct pg_spool *pg, uint32_t part);
void pg_part_forget(struct pg_spool *pg, uint32_t part); /* never appeared */
/* As it is in the journal for something else, if it is: false, if not. */
bool pg_part_link_known(struct pg_spool *pg, uint32_t part, struct message_id id);
void pg_part_link(struct pg_spool *pg, uint32_t part, uint32_t journal);
struct spool_handle pg_find(const struct spool *spool, struct message_id id);
bool pg_was_stored(const struct spool *spool, struct message_id id);
struct spool_handle pg_find_delivery(const struct spool *spool, struct message_id id,
                                     uint32_t delivery);
struct message_id pg_id(const struct spool *spool, struct spool_handle handle);
uint64_t pg_sequence(const struct spool *spool, struct spool_handle handle);
unsigned pg_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery);
void pg_pin(struct spool *spool, struct spool_handle handle);
void pg_unpin(struct spool *spool, struct spool_handle handle);

/* pg_local.c */
/* What the journal has under that id; NULL: nothing. */
struct pg_local *pg_local_of(const struct pg_spool *pg, struct message_id id,
                             uint32_t *ret_journal);
struct pg_local *pg_local_new(struct pg_spool *pg, uint32_t journal, struct message_id id,
                              uint32_t recipients, uint64_t bytes); /* NULL: memory */
enum error pg_local_add(struct pg_spool *pg, struct pg_local *local, const struct pg_pending *like,
                        struct slice bytes) MUST_CHECK;
/* The database will not have what is pending soon: nobody waits for that. */
void pg_local_excuse(struct pg_spool *pg, struct pg_local *local);
/* To be forwarded, unless it is on its way already. */
void pg_local_queue(struct pg_spool *pg, uint32_t journal);
/* The database has what that group has carried of its fates and notes. */
void pg_local_settle(struct pg_spool *pg, uint32_t journal, uint64_t group);
/* The database has it, and that. */
void pg_local_stored(struct pg_spool *pg, uint32_t journal, uint64_t group);
/* That transaction has brought parts of it to shares of ours: it stays until they are followed. */
void pg_local_await(struct pg_spool *pg, uint32_t journal, uint64_t xid);
/* All parts of transactions below that one have come. */
void pg_locals_heard(struct pg_spool *pg, uint64_t below_xid);
/* It could not be read. It waits beside `forward`, and is put there again later. */
void pg_local_set_aside(struct pg_spool *pg, uint32_t journal);
/* What waits so is forwarded, if it is time. */
void pg_locals_again(struct pg_spool *pg);
/* Ends it in the journal if nothing needs it any more. */
void pg_local_release(struct pg_spool *pg, uint32_t journal);
/* Of `local->spare` one has gone: with the last it is as if it had never been. */
void pg_local_unspare(struct pg_spool *pg, uint32_t journal);
/* The database has it no more, though it had: it is forwarded. */
void pg_local_again(struct pg_spool *pg, uint32_t journal);
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

/* pg_behind.c */
/* While the database is away: whoever must wait for its mail knows, or nobody does, and what
 * another node takes from now on is later by its clock, too. */
bool pg_may_divert(const struct pg_batch *batch, int64_t now_ms);

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
void pg_company_late(void *pg);

/* pg_gather.c */
/* Something waits that may go. */
bool pg_is_wanted(const struct pg_spool *pg);
/* What waits is less than the group before had, and not much: more is to be expected. */
bool pg_is_company_due(const struct pg_spool *pg);
/* Becomes pg->group, with what may go. NULL: memory. */
struct pg_group *pg_gather(struct pg_spool *pg);
/* The journal has been told of this message, not yet for good: the watermark stays below. */
void pg_watermark_hold(struct pg_spool *pg, struct message_id id);
/* Has the journal synced, if the watermark wants it. Behind pg_marks_write(). */
void pg_watermark_sync(struct pg_spool *pg);

/* pg_write.c */
void pg_group_run(void *group);

/* At the end: what was not done is told so. */
void pg_batches_end(struct pg_spool *pg);

/* pg_load.c */
struct pg_page;
/* On the reader's thread, before each of its jobs. */
enum database_outcome pg_reading_ensure(struct database *database) MUST_CHECK;
struct pg_row;
/* A row that is not here yet becomes a part of the share. */
void pg_load_row(struct pg_spool *pg, struct pg_share *share, const struct pg_row *row);
void pg_load_globals(struct pg_spool *pg, struct pg_page *page);
/* Another writer's fate, of a part that is here perhaps. False: nobody need hear of it again. */
bool pg_load_late(struct pg_spool *pg, const struct pg_share *share, struct message_id id,
                  uint32_t delivery, uint8_t fate);
/* The page under way may not know that. */
void pg_ended(struct pg_spool *pg, struct message_id id, uint32_t delivery, uint8_t fate);
void pg_ended_sort(struct pg_spool *pg);
/* The envelope as it is stored: behind its checksum, with the checksums of the content's pieces. */
enum error pg_envelope_open(struct slice stored, struct message_id id, struct arena *arena,
                            struct log_message *ret_message) MUST_CHECK;

/* pg_follow.c */
void pg_follow_now(void *pg);
void pg_follow_soon(struct pg_spool *pg);
/* Something of ours has been committed that others wait for. */
void pg_notify_soon(struct pg_spool *pg);
enum error pg_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete);
void pg_load_next(struct pg_spool *pg); /* takes and following */
void pg_load_free(struct pg_spool *pg);
/* It is to be loaded, from the start. ERROR_MEMORY. */
enum error pg_load_begin(struct pg_spool *pg, struct pg_share *share) MUST_CHECK;
void pg_load_stop(struct pg_spool *pg, struct pg_share *share);
/* Something of it is being read just now. */
bool pg_load_is_at(const struct pg_spool *pg, const struct pg_share *share);

/* pg_listen.c */
void pg_listen(void *pg); /* hears others, and goes on so until the end */

/* pg_read.c */
enum error pg_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                            struct spool_message *ret_message);
enum error pg_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                           void *ret_bytes, size_t size, size_t *ret_length);
/* Of the database's, whether it is known here or not. */
enum error pg_read_stored(struct pg_spool *pg, struct message_id id, struct arena *arena,
                          struct log_message *ret_message);
enum error pg_read_stored_content(struct pg_spool *pg, struct message_id id, uint64_t offset,
                                  void *ret_bytes, size_t size, size_t *ret_length);
enum error pg_ticket(struct spool *spool, struct spool_handle handle, uint8_t *ret_ticket,
                     size_t *ret_length);
void pg_ahead_free(struct pg_spool *pg);

/* pg_fetch.c */
bool pg_prepare(struct spool *spool, struct spool_handle handle, spool_prepared_fn *fn,
                void *context);

/* pg_copies.c */
void pg_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms);
enum error pg_copies_find(struct spool *spool, const struct spool_copies_query *query,
                          struct spool_copies **ret_copies);
void pg_copies_progress(const struct spool_copies *copies, uint64_t *ret_done, uint64_t *ret_all);
void pg_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts);
void pg_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy);
enum error pg_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                   struct spool_message *ret_message);
enum error pg_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                  void *ret_bytes, size_t size, size_t *ret_length);
void pg_copies_free(struct spool_copies *copies);

#endif
