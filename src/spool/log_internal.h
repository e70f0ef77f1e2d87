/* SPDX-License-Identifier: Apache-2.0
 *
 * The log back-end from inside. log.c argues why it is right. All of it runs on the loop's thread
 * but the functions named *_run, which are jobs of a worker and touch only their own job.
 */
#ifndef HOLDFAST_SPOOL_LOG_INTERNAL_H
#define HOLDFAST_SPOOL_LOG_INTERNAL_H

#include "base/list.h"
#include "spool/log_copies.h"
#include "spool/log_files.h"
#include "spool/log_format.h"
#include "spool/log_scan.h"
#include "spool/log_table.h"
#include "spool/spool_internal.h"
#include "sys/worker.h"

enum {
    LOG_GATHER_BYTES = 256 << 10, /* gathered content beyond this starts a group by itself */
    LOG_RETAIN_BYTES = 1 << 20,   /* unsynced groups are kept until then, then a sync is forced */
    LOG_BACKLOG_BYTES = 64 << 20, /* of a storage that fails; then batches fail at once */
    LOG_ERRORS_READY = 256,       /* room for errors to be told when memory is out */
};

/* ---- segments ---------------------------------------------------------------------------- */

struct log_reference {
    uint64_t number; /* of an older segment about whose messages this one holds fates or notes */
    uint32_t count;
    bool copies; /* it also holds copies of its messages */
};

struct segment {
    struct link link; /* journal.segments, ascending */
    uint32_t rank;    /* in it, when the present load began */
    uint32_t slot;
    uint64_t number, nonce;
    uint64_t size;
    uint32_t end;        /* of the last group given a place */
    uint32_t synced_end; /* of the last group on stable storage */
    uint32_t last_group; /* where it starts, of one that was scanned; else 0 */
    uint64_t live_messages;
    uint64_t live_bytes;   /* about: content and record of messages here, extents of others */
    uint32_t live_extents; /* messages elsewhere that have content here */
    uint32_t pins;
    uint64_t spare;         /* which it becomes when it goes; 0: none */
    int64_t copy_s;         /* it becomes a copy of that time; 0: none */
    uint64_t settled_group; /* what made its messages end is durable when this group is */
    uint32_t index_at, index_length, index_crc; /* where its seal says */
    struct log_reference *references;
    size_t reference_count, reference_capacity;
    struct buffer index;    /* while nothing of it is on disk */
    bool index_known;       /* `index` is whole */
    struct disk_file *file; /* the writer's */
    bool head;
    bool durable; /* its header is on stable storage */
    bool sealed;  /* its seal is */
    bool failed;  /* a write or sync failed: its descriptor is not trusted */
    bool seal_failed;
    bool from_before;     /* of an earlier life: to be loaded */
    bool others;          /* another writer's last one, which may grow: log_adopt.c */
    bool unreadable;      /* the disk does not give all of it: the file is kept when it goes */
    bool stuck;           /* something in it cannot be read, so it cannot be moved */
    bool references_lost; /* memory was out: it stays until the next start */
    bool emptying;        /* by compaction */
    bool busy;            /* a job of the janitor works on it */
    bool gone;            /* being removed */
    bool tried;           /* its removal, which may have been done: what it becomes stays */
};

/* ---- groups ------------------------------------------------------------------------------ */

struct batch {
    spool_done_fn *fn;
    void *context;
    size_t bytes_from, bytes_to;
    size_t index_from, index_to;
    size_t news_from, news_to;
    size_t changes_from, changes_to;
    uint64_t needs_group; /* content of it was written by groups up to this one */
    uint8_t durability;
    bool globals;   /* holds notes about no message */
    bool mail;      /* holds a message whose sender waits for our answer */
    bool once;      /* never written twice: compaction and other work of our own */
    bool completed; /* has been told */
    bool applied;   /* the table follows where it is now */
    bool dropped;
};

struct new_message {
    struct message_id id;
    uint32_t stored;
    uint32_t offset; /* of its record in the group's bytes */
    uint64_t sequence;
    bool copy;
};

struct change {
    struct message_id id;
    uint32_t stored;
    uint32_t delivery;
    uint8_t fate;  /* 0: a note */
    uint64_t home; /* of a fate carried on: the older segment it is still needed for; else 0 */
};

enum group_stage { STAGE_CONTENT, STAGE_OLD, STAGE_OPEN, STAGE_WRITE, STAGE_SYNC };

struct group {
    struct link link;
    struct journal *journal;
    struct buffer bytes;   /* records; the commit record once closed */
    struct buffer index;   /* entries, offsets relative to the group until rebased */
    struct buffer batches; /* struct batch */
    struct buffer news;    /* struct new_message */
    struct buffer handles; /* struct spool_handle, one for each of `news` */
    struct buffer changes; /* struct change */
    struct buffer files;   /* struct group_file */
    size_t loose_bytes;    /* content in it that belongs to no batch yet */
    uint64_t number;
    struct segment *segment;
    uint32_t base;
    bool closed;
    bool needs_sync, tells_written;
    unsigned tries;
    /* How it is written. */
    bool sync, two_jobs, sync_missed;
    struct buffer globals_index;
    struct buffer globals; /* a group with all notes about no message, written in front of it */
    uint32_t globals_at;
    struct segment *old; /* to be synced and left for a fresh one, or NULL */
    bool fresh;
    uint64_t fresh_size;
    uint64_t fresh_least;      /* what the group itself needs */
    uint64_t spare, emergency; /* what a fresh segment may be made of; 0: nothing */
    uint8_t header[LOG_BLOCK];
    /* The outcome, set by the committer. */
    bool created, used_emergency;
    enum error write_error; /* of the first job, when there are two */
    enum error error;
    enum group_stage stage;
};

static inline struct group *group_of(struct link *link)
{
    return LIST_ENTRY(link, struct group, link);
}

static inline struct batch *group_batch(struct group *group, size_t i)
{
    return (struct batch *)(void *)group->batches.data + i;
}

static inline size_t group_batch_count(const struct group *group)
{
    return group->batches.length / sizeof(struct batch);
}

static inline struct new_message *group_news(struct group *group)
{
    return (struct new_message *)(void *)group->news.data;
}

static inline struct change *group_changes(struct group *group)
{
    return (struct change *)(void *)group->changes.data;
}

/* ---- content ----------------------------------------------------------------------------- */

/* A large content's own file. `handle`, `error` and `unsynced` are the committer's. */
struct content_file {
    struct journal *journal;
    uint64_t number;
    struct disk_file *handle;
    enum error error;
    uint64_t unsynced;
    enum error told_error; /* the loop's view */
    uint64_t length;
    uint32_t writes; /* given to the committer, and not back yet */
    bool discarded;  /* to be removed when they are */
};

/* Of a group: to be synced before it is written. */
struct group_file {
    struct content_file *file;
    size_t batch;
};

struct content_run {
    bool in_memory;
    struct buffer memory;
    struct log_piece piece; /* otherwise; LOG_NEAR until its group has a place */
    uint64_t group;         /* that carries it; 0: a file */
    size_t group_at;        /* where its payload stands in that group's bytes */
};

struct log_content {
    struct spool_content content;
    struct journal *journal;
    struct link link; /* journal.contents */
    struct content_run *runs;
    size_t run_count, run_capacity;
    uint64_t length;
    enum error error;
    bool large;
    struct content_file *file;
};

/* ---- global notes ------------------------------------------------------------------------ */

struct global {
    struct slice key, payload; /* owned */
    bool fresh;                /* set since the open: wins over what is loaded */
};

/* ---- the journal ------------------------------------------------------------------------- */

struct error_told {
    spool_done_fn *fn;
    void *context;
    enum error error;
};

struct log_loading;
struct log_compaction;

struct journal {
    struct spool spool;
    struct loop *loop;
    struct disk *disk;
    struct spool_settings settings;
    struct spool_owner owner;
    struct worker *committer; /* writes and syncs groups and content files */
    struct worker *janitor;   /* prepares, seals and removes segments */
    struct loop_later *later;
    struct loop_alarm *alarm; /* ends a group's wait for company */
    bool alarm_set;
    uint32_t company; /* batches of the group before that asked to be told */
    struct table table;

    struct link segments;
    uint32_t segment_count;
    struct segment **slots;
    uint32_t slot_count;
    struct segment *head;
    uint64_t next_number, next_sequence, next_group, synced_group;
    uint64_t globals_number; /* the newest segment whose repetition of them is durable */

    struct group *gather;  /* what is being collected */
    struct group *writing; /* what the committer has */
    struct link retained;  /* written, not synced: kept to be written again */
    size_t retained_bytes;
    struct link waiting; /* to be written before `gather`, after a failure */
    struct link idle;    /* group objects for use again */
    bool sync_asked;

    bool batch_open;
    enum error batch_error;
    struct batch open;
    size_t open_files;     /* of the group when the batch began */
    uint64_t moving_group; /* the group that carries copies under way */

    struct buffer errors; /* struct error_told: of batches that never got into a group */

    struct link contents;
    size_t content_pending; /* not on disk yet */
    size_t content_held;    /* of that: in runs that wait to be full */
    struct buffer garbage;  /* struct content_garbage: files to remove once their fate is durable */

    struct buffer left; /* struct left_place: where pinned messages were before they were moved */
    struct link spread; /* stored_extra with content in other segments */
    struct global *globals;
    size_t global_count, global_capacity;

    struct buffer spares; /* uint64_t: prepared segments */
    uint64_t next_spare;
    bool preparing, removing, ending;
    bool opened;
    bool globals_lost;   /* memory was out: segments stay until the next start */
    bool reclaim_hint;   /* a segment may have become free */
    bool compact_next;   /* compaction has a step to do */
    bool repeat_globals; /* before the next group: what was loaded has not been repeated yet */
    uint64_t group_bytes_mean;

    uint32_t ended_token;  /* writers with tokens up to this one are at work no more */
    uint32_t ending_token; /* so will these, once what they wrote last is loaded */
    uint32_t looked_token; /* when this was so, all was there that the last look has found */
    bool adopting;         /* the janitor looks for what others have written */
    uint32_t adopt_wait;   /* ticks before it looks again: the last looks were for nothing */
    uint32_t adopt_vain;

    struct log_loading *loading; /* NULL: complete */
    struct buffer last_ids;      /* struct message_id: of the last group before the open */
    struct log_compaction *compaction;

    struct log_files files; /* open for reading */
    struct log_copies copies;

    enum error trouble;  /* storage fails: only spool_tick() tries again */
    bool emergency_used; /* the last prepared segment is in use: only fates, notes and DSNs */
    bool space_low;      /* less than the reserve is free */
    char reason[160];
    uint64_t available_bytes, reserve_bytes;
    uint64_t live_bytes, messages, groups, syncs, quarantined, content_bytes;
};

struct left_place {
    uint32_t stored;
    uint32_t slot;
};

struct content_garbage {
    uint64_t file;
    uint64_t group;
    bool ended; /* its message did; else there is none */
};

static inline struct journal *journal_of(const struct spool *spool)
{
    return (struct journal *)(uintptr_t)spool;
}

static inline struct segment *segment_of(struct link *link)
{
    return LIST_ENTRY(link, struct segment, link);
}

/* Its writer may still be at work, and it alone may change this segment or spare. */
static inline bool journal_is_others(const struct journal *journal, uint64_t number)
{
    uint32_t token = log_token(number);
    return token > journal->ended_token && token < journal->settings.token;
}

/* Another writer may still move what lives in this segment: it or an older one of theirs. */
static inline bool journal_may_be_copied(const struct journal *journal, uint64_t number)
{
    return journal->ended_token + 1 < journal->settings.token &&
           log_token(number) < journal->settings.token;
}

/* ERROR_DENIED: another writer may have taken over. Of any thread. */
static inline enum error journal_may_write(const struct journal *journal)
{
    bool may = journal->owner.may_write == NULL ||
               journal->owner.may_write(journal->owner.may_write_context);
    return may ? ERROR_NONE : ERROR_DENIED;
}

/* log.c */
enum error journal_accepting(const struct journal *journal);
/* Sets both, and tells the owner of a change. */
void journal_set_state(struct journal *journal, enum error trouble, bool space_low,
                       const char *reason);

/* So much more is on the disk. */
void journal_wrote(struct journal *journal, uint64_t bytes);

/* log_segment.c */
struct segment *segment_new(struct journal *journal, uint64_t number, uint64_t nonce);
void segment_free(struct journal *journal, struct segment *segment);
struct segment *segment_by_number(const struct journal *journal, uint64_t number);
enum error segment_refer(struct segment *segment, uint64_t number, bool copies);
/* Something in it must stay, or be written elsewhere, before it may go. */
bool segment_is_needed(const struct segment *segment);
/* Live accounting: where a message's record and content lie. */
void stored_settle(struct journal *journal, struct stored *stored, uint32_t slot, uint32_t offset);
void stored_unsettle(struct journal *journal, struct stored *stored, uint64_t group);
/* Its last delivery has a fate, written by `group`. */
void stored_finish(struct journal *journal, uint32_t index, uint64_t group);
/* Neither unfinished nor pinned any more. */
void stored_release(struct journal *journal, uint32_t index, uint64_t group);
/* False: too many segments are without a seal. */
bool segments_take_header(struct journal *journal, struct segment *head,
                          struct log_header *ret_header);
void segments_seal(struct journal *journal);       /* starts what there is to do */
void segments_seal_again(struct journal *journal); /* what failed too */
void segments_reclaim(struct journal *journal);
void segments_prepare(struct journal *journal);
enum error segment_write_seal(struct disk *disk, struct disk_file *file,
                              const struct segment *segment, struct slice index,
                              uint64_t next_sequence);
uint64_t journal_disk_bytes(const struct journal *journal);

/* log_group.c */
struct group *group_new(struct journal *journal);
void group_free(struct group *group);
void group_recycle(struct journal *journal, struct group *group);
/* To be written before all others. */
void group_put_back(struct journal *journal, struct group *group);
void group_tell(struct group *group, struct batch *batch, enum error error);
/* At the end of this turn of the loop. */
void journal_flush_later(struct journal *journal);
void journal_flush(void *journal);
void journal_alarm(void *journal);
/* Writes what there is, lazy batches too; tries a failed storage. `sync`: even if nobody asked. */
void journal_flush_all(struct journal *journal, bool sync);
/* Until everything submitted is complete; what a failing storage refuses fails. */
void journal_drain(struct journal *journal);

/* log_failure.c */
/* Storage fails for good, as far as we know: only spool_tick() tries again. */
void journal_in_trouble(struct journal *journal, enum error trouble, const char *reason);
/* `group` has an error: see there. */
void group_failed(struct journal *journal, struct group *group);
/* Batch `i` is not written, and told so, unless it has been told already. */
void group_give_up(struct journal *journal, struct group *group, size_t i, enum error error);

/* log_batch.c */
void log_batch_begin(struct spool *spool);
void log_batch_cancel(struct spool *spool);
enum error log_batch_message(struct spool *spool, const struct spool_message *message,
                             struct spool_content *content, struct slice tail);
void log_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate);
void log_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind,
                        struct slice payload);
void log_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate);
void log_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                     enum spool_fate fate, int64_t when_ms, struct slice server);
void log_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    uint16_t kind, struct slice payload);
void log_batch_global_note(struct spool *spool, struct slice key, struct slice payload);
void log_batch_submit(struct spool *spool, enum spool_durability durability, spool_done_fn *fn,
                      void *context);
/* For compaction: content of a survivor; the survivor, after all its pieces; a fate that is still
 * needed; and the word that its notes are told anew. */
bool batch_put_extent(struct journal *journal, struct slice bytes, struct log_piece *ret_piece);
enum error batch_copy(struct journal *journal, uint32_t index, const struct spool_message *message,
                      struct buffer *pieces);
void batch_carry_fate(struct journal *journal, const struct log_fate *fate);
void batch_reset_notes(struct journal *journal, uint32_t index);
/* Takes back what an uncompleted batch has put into the table. */
void batch_undo(struct journal *journal, struct group *group, const struct batch *batch);
/* The group has its place and is written: the table follows. A completed batch, written again
 * elsewhere, only moves. */
void batch_apply(struct journal *journal, struct group *group, const struct batch *batch);
/* Notes about no message, when the whole group is written: the last one under a key must win, but
 * batches complete in two rounds. */
void batch_apply_globals(struct journal *journal, struct group *group);

/* log_content.c */
struct spool_content *log_content_new(struct spool *spool, uint64_t expected);
enum error log_content_append(struct spool_content *content, struct slice bytes);
enum error log_content_replace_header(struct spool_content *content, uint64_t old_length,
                                      struct slice header);
enum error log_content_replace_body(struct spool_content *content, uint64_t header_length,
                                    struct slice body);
void log_content_abort(struct spool_content *content);
size_t log_content_pending(const struct spool *spool);
void log_content_relieve(struct spool *spool);
/* What is still in memory becomes extents of the open batch; `pieces` gets them all (struct
 * log_piece; LOG_NEAR ones with their offset in the gathering group's bytes). */
enum error content_store(struct log_content *content, struct slice tail, struct buffer *pieces,
                         uint64_t *ret_needs_group) MUST_CHECK;
/* The file becomes the group's. */
void content_give_file(struct log_content *content, size_t batch);
void content_free(struct log_content *content);
void content_file_discard(struct content_file *file); /* NULL is allowed */
void content_file_close(struct content_file *file);   /* it is a message's now */
/* Extents gathered for contents under way have their place. */
void contents_placed(struct journal *journal, const struct group *group);
/* The group's segment is not begun after all. */
void contents_unplaced(struct journal *journal, const struct group *group);
/* The segment failed: extents of groups after the last sync are not to be trusted. */
void contents_poison(struct journal *journal, uint64_t after_group);
/* Storage fails: nothing that is under way can be stored, and it keeps no memory. */
void contents_fail(struct journal *journal, enum error error);
void contents_collect(struct journal *journal); /* removes files whose messages have gone */

/* log_copies.c */
/* It goes when it has a seal, without which it could not be kept. */
bool copies_await_seal(const struct journal *journal, const struct segment *segment);
/* It is to be kept when it goes. */
bool copies_take(const struct journal *journal, const struct segment *segment);
void copies_add(struct journal *journal, const struct log_copy *copy);
/* Content files of messages that have ended are to be kept. */
bool copies_take_content(const struct journal *journal);
/* So much has been written since room was looked at that it may be short by now. */
bool copies_ask_for_room(const struct journal *journal);
/* Removes some that are too old, or as many as there is too little room. */
void copies_step(struct journal *journal);
void log_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms);
void copies_status(const struct journal *journal, struct spool_state *state);

/* log_search.c */
enum error log_copies_find(struct spool *spool, const struct spool_copies_query *query,
                           struct spool_copies **ret_copies);
void log_copies_progress(const struct spool_copies *copies, uint64_t *ret_done, uint64_t *ret_all);
void log_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts);
void log_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy);
enum error log_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                    struct spool_message *ret_message);
enum error log_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                   void *ret_bytes, size_t size, size_t *ret_length);
void log_copies_free(struct spool_copies *copies);

/* log_globals.c */
enum error globals_set(struct journal *journal, struct slice key, struct slice payload, bool fresh);
void globals_clear(struct journal *journal);
void globals_put(const struct journal *journal, struct buffer *group, struct buffer *index);

/* log_recover.c */
enum error journal_recover(struct journal *journal) MUST_CHECK;
/* Reads the segment from end to end: its index, and its end when `known_end` is 0. Damage goes to
 * the loader, or is kept for it. */
enum error segment_scan(struct journal *journal, struct segment *segment, uint32_t known_end,
                        struct buffer *ret_index) MUST_CHECK;

/* log_load.c */
enum error loading_start(struct journal *journal) MUST_CHECK;
void loading_free(struct log_loading *loading);
/* For the loader, once there is one. */
void loading_keep_damage(struct journal *journal, const char *text);
/* A content file found at the open: removed unless a message names it. */
void loading_keep_file(struct journal *journal, uint64_t number, uint64_t size);
enum error log_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete);
/* The whole index of a segment, from memory, its seal, or by a scan. Free with buffer_done(). */
enum error segment_index(struct journal *journal, struct segment *segment,
                         struct buffer *ret_index) MUST_CHECK;

/* The entries of these (struct late_part) are loaded by the next calls of spool_load(). Takes the
 * buffer's bytes over. */
struct late_part {
    uint32_t slot;
    size_t from, to; /* in its index */
};
enum error loading_start_late(struct journal *journal, struct buffer *parts) MUST_CHECK;

/* log_adopt.c */
/* Starts a look for what other writers have written since the last one, if there may be any. */
void adopt_step(struct journal *journal);
/* What the last look found is loaded. */
void adopt_loaded(struct journal *journal);
void log_others_ended(struct spool *spool, uint32_t token);

/* log_read.c */
enum error stored_read(struct journal *journal, uint32_t index, struct arena *arena,
                       struct log_message *ret_message) MUST_CHECK;
/* All stored bytes of a piece of it; with ERROR_CORRUPT what was found. */
enum error stored_read_piece(struct journal *journal, const struct stored *stored,
                             const struct log_piece *piece, uint8_t *ret_bytes) MUST_CHECK;
/* Of the message whose record is `at`. */
enum error journal_read_content(struct journal *journal, const struct log_ticket *at,
                                uint64_t offset, void *ret_bytes, size_t size,
                                size_t *ret_length) MUST_CHECK;
enum error log_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                             struct spool_message *ret_message);
enum error log_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                            void *ret_bytes, size_t size, size_t *ret_length);
struct spool_handle log_find(const struct spool *spool, struct message_id id);
bool log_was_stored(const struct spool *spool, struct message_id id);
struct message_id log_id(const struct spool *spool, struct spool_handle handle);
uint64_t log_sequence(const struct spool *spool, struct spool_handle handle);
unsigned log_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery);
/* Its newest copy stands elsewhere now: if it is pinned, so are the places before, until then. */
void stored_leave_pinned(struct journal *journal, uint32_t index);
void log_pin(struct spool *spool, struct spool_handle handle);
void log_unpin(struct spool *spool, struct spool_handle handle);
enum error log_ticket(struct spool *spool, struct spool_handle handle, uint8_t *ret_ticket,
                      size_t *ret_length);

/* log_compact.c */
void compaction_step(struct journal *journal);
void compaction_free(struct journal *journal);

#endif
