/* SPDX-License-Identifier: Apache-2.0
 *
 * The spool: the only place where "we have it" becomes true. Messages, their fates, and notes, in a
 * journal; content beside them. Three back-ends stand behind this header: log (segments on a disk),
 * memory (the model for tests), and PostgreSQL with a journal beside it (spool/postgres.h). Nothing
 * above may assume files.
 *
 * What it promises
 *   - When a batch submitted with SPOOL_SYNCED completes without error, all of it is on stable
 *     storage, and after any crash all of it is loaded again. A batch is atomic: all or nothing.
 *   - Batches take effect in the order of submission, also after a crash: a later one is never
 *     loaded without the earlier ones.
 *   - A message is kept until every delivery of it has a fate; its fates are kept until nothing
 *     can bring the message back.
 *   - Mail that was handed over may be kept for a while (spool_keep_copies()), as far as there is
 *     room: it takes no memory, is never loaded, and is found again by spool/copies.h alone.
 * What it does not know: routes, accounts, SMTP, clocks, logs. It draws its nonces from sys/random.
 *
 * One thread (the loop's) calls everything here; completions come on the same loop, never from
 * inside the call that asked.
 */
#ifndef HOLDFAST_SPOOL_SPOOL_H
#define HOLDFAST_SPOOL_SPOOL_H

#include "base/arena.h"
#include "base/error.h"
#include "base/id.h"
#include "base/network.h"
#include "base/slice.h"
#include "sys/disk.h"
#include "sys/loop.h"

struct spool;

/* ---- what is stored ---------------------------------------------------------------------- */

enum {
    SPOOL_RECIPIENTS_MAX = 10000, /* deliveries of one message */
    SPOOL_ENVELOPE_MAX = 4 << 20, /* bytes of one encoded message record without content */
    SPOOL_NOTE_MAX = 4096,        /* bytes of one note's payload */
    SPOOL_KEY_MAX = 128,          /* bytes of the key of a note about no message */
    SPOOL_SERVER_MAX = 255,       /* bytes of the name of who took a delivery */
};

enum spool_fate {
    SPOOL_DELIVERED = 1,
    SPOOL_BOUNCED = 2,
    SPOOL_DISCARDED = 3, /* by operator, policy or age */
    SPOOL_PULLED = 4,
};

/* Flags of a message. */
enum {
    SPOOL_8BIT = 1 << 0,            /* BODY=8BITMIME, or content with bytes above 127 */
    SPOOL_SMTPUTF8 = 1 << 1,        /* RFC 6531: the envelope or header needs it */
    SPOOL_RET_FULL = 1 << 2,        /* RFC 3461 RET */
    SPOOL_RET_HEADERS = 1 << 3,     /* RFC 3461 RET */
    SPOOL_SENDER_VERIFIED = 1 << 4, /* R8: authenticated, from a relay network, or aligned */
    SPOOL_OWN_DSN = 1 << 5,         /* made by us */
    SPOOL_DRILL = 1 << 6,           /* a marked message of a fire drill */
    SPOOL_IMPORTED = 1 << 7,
    SPOOL_ENVELOPE_ONLY =
        1 << 8,                  /* a fire drill's: it ends behind RCPT, its content never leaves */
    SPOOL_BY_RETURN = 1 << 9,    /* RFC 2852 by-mode R, beside deliver_by_ms; else N */
    SPOOL_BY_TRACE = 1 << 10,    /* RFC 2852 by-trace T */
    SPOOL_REQUIRE_TLS = 1 << 11, /* RFC 8689 REQUIRETLS */
    SPOOL_TLS_OPTIONAL = 1 << 12, /* RFC 8689 "TLS-Required: No", and not REQUIRETLS */
};

/* RFC 3461 NOTIFY; 0 means not given. */
enum {
    SPOOL_NOTIFY_NEVER = 1,
    SPOOL_NOTIFY_SUCCESS = 2,
    SPOOL_NOTIFY_FAILURE = 4,
    SPOOL_NOTIFY_DELAY = 8
};

struct spool_recipient {
    struct slice address; /* forward-path without <>, never empty */
    struct slice orcpt;   /* RFC 3461, as received (xtext), or empty */
    uint8_t notify;
};

struct spool_origin {
    struct ip_endpoint client;
    struct slice helo;
    struct slice listener;  /* its name, or "dsn", "import", "drill" */
    struct slice protocol;  /* RFC 3848: SMTP, ESMTP, ESMTPS, ESMTPA ... */
    struct slice tls;       /* protocol and cipher, or empty */
    struct slice user;      /* AUTH identity, or empty */
    struct slice verdicts;  /* results of our own filters, or empty */
    struct slice forwarded; /* whose the client says it was at first: XFORWARD's words, or empty */
};

struct spool_message {
    struct message_id id;
    uint64_t sequence;   /* acceptance order; given by the spool, kept for ever (R6) */
    int64_t received_ms; /* Unix time */
    uint32_t odometer_s; /* R7: the chain's odometer at acceptance */
    uint32_t elapsed_s;  /* R7: seconds carried along from an earlier lane or node */
    uint32_t flags;
    int8_t priority;        /* RFC 6710, 0 by default */
    int64_t deliver_by_ms;  /* RFC 2852, Unix time; 0: not given */
    uint64_t header_length; /* content = header block (with the empty line) then body */
    uint64_t body_length;
    struct slice sender;            /* reverse-path without <>; empty: null */
    struct slice envelope_id;       /* RFC 3461 ENVID as received (xtext), or empty */
    struct slice message_id_header; /* the Message-ID field's value, or empty; at most 998 bytes */
    struct spool_origin origin;
    const struct spool_recipient *recipients;
    uint32_t recipient_count;
    struct message_id copy_of; /* the message that it sends again (spool_copies_find()), or null */
};

/* A message while it lives in this process: small, stable, reused after the message has gone. */
struct spool_handle {
    uint32_t index;
};
#define SPOOL_NO_HANDLE ((struct spool_handle){UINT32_MAX})
#define SPOOL_ALL_DELIVERIES UINT32_MAX

/* ---- opening and loading ----------------------------------------------------------------- */

struct spool_settings {
    uint32_t segment_bytes;  /* 64 MB; tests use little ones */
    uint64_t large_bytes;    /* contents beyond this go to files of their own */
    uint64_t reserve_bytes;  /* acceptance stops when less than this is free; 0: the default */
    uint32_t ready_segments; /* how many prepared segments are kept ready at most */
    /* Where two machines may share the disk (docs/decisions/0047): this writer's token, higher than
     * that of each before it, at most SPOOL_TOKEN_MAX; and that of the last one who is known, as
     * are all before it, to write no more. What the others have written is read, and what they may
     * yet write looked for; nothing of theirs is changed. Token 0: nobody else writes. */
    uint32_t token, ended_token;
};
enum { SPOOL_TOKEN_MAX = (1 << 24) - 1 };
void spool_settings_default(struct spool_settings *settings);
/* The highest token of a writer whose files are in the spool of that directory; 0: none. Any
 * thread. */
enum error spool_newest_token(struct disk *disk, uint32_t *ret_token) MUST_CHECK;

/* What is loaded, in acceptance order; a fate or note comes after its message. Slices are valid
 * during the call. Any member may be NULL. */
struct spool_loader {
    void *context;
    /* With id, sequence, received_ms, odometer_s, elapsed_s, flags, priority, deliver_by_ms,
     * lengths, sender, origin.client, origin.user, origin.listener and the recipients' addresses
     * and notify; all other fields are empty: spool_read_envelope() has them. */
    void (*message)(void *context, struct spool_handle handle, const struct spool_message *message);
    void (*fate)(void *context, struct spool_handle handle, uint32_t delivery,
                 enum spool_fate fate);
    void (*note)(void *context, struct spool_handle handle, uint32_t delivery, uint16_t kind,
                 struct slice payload);
    void (*global_note)(void *context, struct slice key, struct slice payload);
    /* Something was cut, skipped or put into quarantine. `text` is for the operator. */
    void (*damage)(void *context, const char *text);
    /* Behind its message: this delivery is in another part of it (spool/postgres.h), and not ours.
     */
    void (*elsewhere)(void *context, struct spool_handle handle, uint32_t delivery);
    /* Another writer, who has been taken over from, had ended a delivery when it was already ours:
     * what it wrote came to light late. The handle is SPOOL_NO_HANDLE if the message has ended here
     * meanwhile; else, unless spool_fate_of() knows one, a fate is to be written. In a cluster it
     * is told only if none is known, and again each second until one is: what is in flight may be
     * waited for. */
    void (*late_fate)(void *context, struct message_id id, struct spool_handle handle,
                      uint32_t delivery, enum spool_fate fate);
};

/* Asked back by the spool. */
struct spool_owner {
    void *context;
    /* The message is being moved (compaction): put the notes about it that are still needed into
     * the batch with spool_batch_note(). Fates the spool moves by itself. */
    void (*describe)(void *context, struct spool_handle handle);
    /* Acceptance has stopped or begun again: see spool_status(). */
    void (*state_changed)(void *context);
    /* False: another writer may have taken over, and nothing may be written any more. Asked before
     * each piece of work on the disk, by the thread that does it, with may_write_context, which
     * outlives the spool. NULL: nobody else writes. */
    bool (*may_write)(void *context);
    void *may_write_context;
};

/* The log back-end on `disk` (taken over): finds the end of the journal and opens a new segment, so
 * that messages can be accepted; loads nothing yet. ERROR_NEWER: a newer version wrote it; nothing
 * was touched. ERROR_DENIED, ERROR_IO, ERROR_SPACE: the world; ERROR_DENIED also when a later
 * writer's token is found. */
enum error spool_open_log(struct loop *loop, struct disk *disk,
                          const struct spool_settings *settings, const struct spool_owner *owner,
                          struct spool **ret_spool) MUST_CHECK;
/* The model. `disk` plays no part; two opens with the same non-NULL `store` see the same mail. */
struct spool_memory_store;
struct spool_memory_store *spool_memory_store_new(void);
void spool_memory_store_free(struct spool_memory_store *store);
enum error spool_open_memory(struct loop *loop, struct spool_memory_store *store,
                             const struct spool_owner *owner, struct spool **ret_spool) MUST_CHECK;

/* Loads a part of what was stored before the open (about 2,000 messages a call), to be called until
 * *ret_complete. New batches may be submitted between calls; they are not loaded. Where others may
 * write, to be called after each spool_tick(), too: what they have written since is loaded then,
 * its messages with the places in the order of acceptance that they had got. */
enum error spool_load(struct spool *spool, const struct spool_loader *loader,
                      bool *ret_complete) MUST_CHECK;
/* Completes what has been submitted, writes the footer, closes. NULL is allowed. */
void spool_close(struct spool *spool);

/* ---- content ----------------------------------------------------------------------------- */

/* One message's content on its way in. Uncommitted content is garbage after a restart. */
struct spool_content;
/* `expected` bytes if known, else 0: only a hint where to put it. NULL: memory. */
struct spool_content *spool_content_new(struct spool *spool, uint64_t expected);
/* Copies. Errors are sticky: the commit will fail with the same. Complete on return to the caller's
 * view; storing goes on behind. ERROR_SPACE, ERROR_IO, ERROR_MEMORY. */
enum error spool_content_append(struct spool_content *content, struct slice bytes) MUST_CHECK;
/* Replaces the header block (`old_length` bytes at the front) or all that follows it. */
enum error spool_content_replace_header(struct spool_content *content, uint64_t old_length,
                                        struct slice header) MUST_CHECK;
enum error spool_content_replace_body(struct spool_content *content, uint64_t header_length,
                                      struct slice body) MUST_CHECK;
void spool_content_abort(struct spool_content *content); /* NULL is allowed */
/* Bytes in memory that storage has not got yet, over all contents: to stop reading sockets by. */
size_t spool_content_pending(const struct spool *spool);
/* Sends on what contents hold back until it fills an extent. To be called, not during a batch,
 * again and again while too much is pending: then that comes down though nobody appends, commits
 * or aborts. */
void spool_content_relieve(struct spool *spool);

/* ---- batches ----------------------------------------------------------------------------- */

enum spool_durability {
    SPOOL_LAZY,    /* rides on the next group */
    SPOOL_WRITTEN, /* done when written and closed by its commit record: survives our own death */
    SPOOL_SYNCED,  /* done when on stable storage */
};

/* `handles` are those of the batch's new messages in order of spool_batch_message(). On an error
 * nothing of the batch will be loaded, and its messages' handles are invalid. ERROR_DENIED, in a
 * cluster: a decision of it is not ours to make any more. What the batch has decided of that share
 * is given up for good, with the messages that are about it (spool_batch_about()); with a message
 * about nothing all decisions and messages are. The rest is stored, and what is a fact
 * (spool/postgres.h). */
typedef void spool_done_fn(void *context, enum error error, const struct spool_handle *handles,
                           size_t count);

/* One batch is open at a time, from begin to submit or cancel, without returning to the loop. */
void spool_batch_begin(struct spool *spool);
void spool_batch_cancel(struct spool *spool);
/* Content is the concatenation of `content` (consumed in any case; may be NULL) and `tail`.
 * header_length + body_length must equal its length. message->sequence is ignored. Everything is
 * copied. ERROR_EXISTS: the id is known (an import, a retry): nothing was added, the batch goes on;
 * before loading is complete, ids that are only stored are not known: import after it.
 * Refused by ERROR_SPACE or ERROR_IO while spool_status() says so, except SPOOL_OWN_DSN. */
enum error spool_batch_message(struct spool *spool, const struct spool_message *message,
                               struct spool_content *content, struct slice tail) MUST_CHECK;
/* The message that this batch has just added tells of what the batch decides of that one: in a
 * cluster they stand or fall together. */
void spool_batch_about(struct spool *spool, struct spool_handle handle);
/* A fate or note about the message that this batch has just added, whose handle is not known yet
 * (an import with a history). Its handle is valid at completion unless all its deliveries have one.
 */
void spool_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate);
void spool_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind,
                          struct slice payload);
/* Exactly one fate a delivery; a second one is a bug. The last one frees the handle when done. */
void spool_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                      enum spool_fate fate);
/* A fate of who was handed over: SPOOL_DELIVERED or SPOOL_PULLED, and when (Unix ms, above 0) and
 * which server took it; a name beyond SPOOL_SERVER_MAX is cut. */
void spool_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                       enum spool_fate fate, int64_t when_ms, struct slice server);
/* The same of a message by its id, whoever has it: unless it has a fate, or is in a part that is
 * not here (spool/postgres.h), it is spool_batch_taken(). In a part that is not here the delivery
 * has this fate for whoever loads it when the batch is done, or it keeps one that it got before;
 * who has loaded it is told (late_fate).
 * Without parts, once loading is complete, a message that is not here has ended, and nothing is
 * written. */
void spool_batch_fact(struct spool *spool, struct message_id id, uint32_t delivery,
                      enum spool_fate fate, int64_t when_ms, struct slice server);
void spool_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                      uint16_t kind, struct slice payload);
/* The last payload under a key is kept for ever; an empty payload forgets the key. */
void spool_batch_global_note(struct spool *spool, struct slice key, struct slice payload);
/* `fn` may be NULL. Never fails here: an error arrives at `fn`. */
void spool_batch_submit(struct spool *spool, enum spool_durability durability, spool_done_fn *fn,
                        void *context);

/* ---- reading ----------------------------------------------------------------------------- */

/* SPOOL_NO_HANDLE: not here (or not loaded yet). */
struct spool_handle spool_find(const struct spool *spool, struct message_id id);
/* The same, of several parts (spool/postgres.h) the one in which this delivery is. */
struct spool_handle spool_find_delivery(const struct spool *spool, struct message_id id,
                                        uint32_t delivery);
/* Of a message that was submitted before the open, when its end was told to nobody because we died:
 * whether it is on stable storage, or was and has ended since. If not it may be submitted now, by
 * the same id, and is stored once all the same. Of others nothing follows. Once loading is
 * complete. */
bool spool_was_stored(const struct spool *spool, struct message_id id);
/* Of a valid handle; from memory, cheap. */
struct message_id spool_id(const struct spool *spool, struct spool_handle handle);
uint64_t spool_sequence(const struct spool *spool, struct spool_handle handle);
/* The fate of one of its deliveries, durable or on its way; 0: none. From memory. */
unsigned spool_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery);
/* Everything of struct spool_message, from storage. ERROR_CORRUPT: the record is damaged. */
enum error spool_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                               struct spool_message *ret_message) MUST_CHECK;
/* A part of the content, at most `size` bytes from offset. What is given is checked; nothing is
 * with ERROR_CORRUPT, when it or what shares its checksum is damaged. */
enum error spool_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                              void *ret_bytes, size_t size, size_t *ret_length) MUST_CHECK;
/* Sees to it that spool_ticket() works. True: it does (always in the log and the model). False:
 * `fn` is called when it does or cannot now, by spool_close() at the latest. While the message is
 * pinned it stays so. */
typedef void spool_prepared_fn(void *context, enum error error);
bool spool_prepare(struct spool *spool, struct spool_handle handle, spool_prepared_fn *fn,
                   void *context);
/* While pinned, a ticket for the message stays good: its place is not freed. */
void spool_pin(struct spool *spool, struct spool_handle handle);
void spool_unpin(struct spool *spool, struct spool_handle handle);
/* What spool/reader.h in another process needs to read envelope and content: opaque bytes. */
enum { SPOOL_TICKET_MAX = 2048 };
enum error spool_ticket(struct spool *spool, struct spool_handle handle,
                        uint8_t ret_ticket[SPOOL_TICKET_MAX], size_t *ret_length) MUST_CHECK;

/* ---- state ------------------------------------------------------------------------------- */

struct spool_state {
    enum error accepting;     /* NONE; SPACE: reserve reached; IO: storage fails */
    uint64_t messages;        /* with an unfinished delivery, as far as loaded */
    uint64_t live_bytes;      /* content of those */
    uint64_t disk_bytes;      /* taken by the journal and its files */
    uint64_t available_bytes; /* on the file system */
    uint64_t reserve_bytes;
    uint32_t segments;
    uint64_t copy_bytes;      /* of disk_bytes: kept of mail that was handed over */
    uint32_t copy_segments;   /* in so many files, large contents left out */
    int64_t copies_since_ms;  /* the oldest of these was needed until then; 0: there are none */
    uint64_t copies_given_up; /* files that went before their time, for want of room */
    int64_t copies_gone_ms;   /* the newest of those was needed until then */
    uint64_t groups;          /* written since start; with syncs, the mean group is known */
    uint64_t syncs;
    uint64_t quarantined; /* records set aside since start */
    char reason[160];     /* why acceptance stopped, or empty */
};
/* As spool_settings.reserve_bytes, from now on; acceptance may stop or begin at once. */
void spool_set_reserve(struct spool *spool, uint64_t reserve_bytes);
/* What is not needed any more is kept for so long (0: not at all, and what was kept goes), unless
 * room gets short, which never costs acceptance anything: copies go first, the oldest before the
 * others. To be said after the open, which alone removes no copy, and before each spool_tick(), for
 * the spool has no clock. */
void spool_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms);
void spool_status(const struct spool *spool, struct spool_state *ret_state);
/* The writer of `token` and all before it are known to write no more: what they left is loaded for
 * the last time, and then belongs to us. */
void spool_others_ended(struct spool *spool, uint32_t token);
/* Looks at free space, retries a failed storage, recycles, compacts a bounded part: call about once
 * a second. */
void spool_tick(struct spool *spool);

#endif
