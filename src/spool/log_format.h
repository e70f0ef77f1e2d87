/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of the journal: encoding and decoding, no input or output. The byte tables and the
 * validity rules are in log_format.c and in man/holdfast-journal.5. All integers are little-endian.
 */
#ifndef HOLDFAST_SPOOL_LOG_FORMAT_H
#define HOLDFAST_SPOOL_LOG_FORMAT_H

#include "base/buffer.h"
#include "spool/spool.h"

enum {
    LOG_VERSION = 1,
    LOG_BLOCK = 4096,
    LOG_SEAL_AT = 2 * LOG_BLOCK,
    LOG_DATA_AT = 3 * LOG_BLOCK,
    LOG_GROUP_ALIGN = 512,
    LOG_RECORD_ALIGN = 8,
    LOG_RECORD_HEADER = 32,
    LOG_COMMIT_BYTES = LOG_RECORD_HEADER + 16,
    LOG_OPEN_ENDS_MAX = 128,
    LOG_CHUNK = 64 << 10, /* bytes of content in one extent or piece of a file */
    LOG_TOKEN_SHIFT = 40,
};

/* Whose it is: the numbers of segments and spares begin with the token of their writer
 * (spool_settings.token), so a later writer's are higher, and no two ever draw the same. */
static inline uint32_t log_token(uint64_t number)
{
    return (uint32_t)(number >> LOG_TOKEN_SHIFT);
}
static inline uint64_t log_token_first(uint32_t token)
{
    return ((uint64_t)token << LOG_TOKEN_SHIFT) + 1;
}

static inline uint64_t log_align(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* ---- the segment's header and seal ------------------------------------------------------- */

/* An older segment without a seal, and what is valid of it; end 0: nothing (it is void). */
struct log_open_end {
    uint64_t number, nonce;
    uint32_t end;
    bool others; /* another writer may be at work on it: valid at least so far */
};

struct log_header {
    uint64_t number, nonce;
    uint64_t next_sequence; /* every sequence given before this segment is smaller */
    uint32_t open_end_count;
    struct log_open_end open_ends[LOG_OPEN_ENDS_MAX];
};

struct log_seal {
    uint64_t number, nonce;
    uint64_t next_sequence;
    uint32_t end; /* of the last group */
    uint32_t index_at, index_length, index_crc;
};

void log_header_encode(const struct log_header *header, uint8_t ret_block[LOG_BLOCK]);
/* ERROR_NEWER, ERROR_CORRUPT. */
enum error log_header_decode(const uint8_t block[LOG_BLOCK], struct log_header *ret_header);
void log_seal_encode(const struct log_seal *seal, uint8_t ret_block[LOG_BLOCK]);
enum error log_seal_decode(const uint8_t block[LOG_BLOCK], struct log_seal *ret_seal);

/* ---- records ----------------------------------------------------------------------------- */

enum log_type {
    LOG_EXTENT = 1,
    LOG_MESSAGE = 2,
    LOG_FATE = 3,
    LOG_NOTE = 4,
    LOG_GLOBAL = 5,
    LOG_GLOBALS_RESET = 6,
    LOG_NOTES_RESET = 7,
    LOG_COMMIT = 15,
};
enum { LOG_COPY = 1 }; /* flag of a message record: a survivor, moved here by compaction */

struct log_record {
    uint64_t nonce;
    uint32_t offset; /* its own, in the segment */
    uint32_t group;  /* offset at which its group starts */
    uint32_t length; /* of the payload */
    uint32_t payload_crc;
    uint32_t header_crc;
    uint8_t type, flags;
};

/* Space that a record takes, with its header and padding. */
static inline size_t log_record_space(size_t payload_length)
{
    return log_align(LOG_RECORD_HEADER + payload_length, LOG_RECORD_ALIGN);
}

/* A record is begun with room for its header, its payload appended, then closed: length and
 * checksum of the payload are set. `at` is what log_record_begin returned. */
size_t log_record_begin(struct buffer *group);
void log_record_end(struct buffer *group, size_t at, enum log_type type, uint8_t flags);
void log_record_put(struct buffer *group, enum log_type type, uint8_t flags, struct slice payload);
/* The group's records get their place: nonce, offsets and header checksums are set, the commit
 * record is written over the room that log_group_close() has left. */
void log_group_close(struct buffer *group);
void log_group_place(struct buffer *group, uint64_t nonce, uint32_t offset, uint32_t synced_end);
/* False: no valid record header of that segment at that offset. */
bool log_record_decode(const uint8_t *header, uint64_t nonce, uint32_t offset,
                       struct log_record *ret_record);

struct log_commit {
    uint32_t group, count, crc;
    uint32_t synced_end; /* what lay before it was on stable storage when this was written */
};
bool log_commit_decode(struct slice payload, struct log_commit *ret_commit);

/* ---- payloads ---------------------------------------------------------------------------- */

enum log_piece_kind {
    LOG_NEAR = 1, /* `offset` bytes before the message record, in its segment */
    LOG_FAR = 2,  /* in segment `where` at `offset` */
    LOG_FILE = 3, /* in content file `where` at `offset` */
};

/* A stored run of content with one checksum; the message uses `take` bytes after `skip`. */
struct log_piece {
    uint32_t kind;
    uint32_t stored, crc;
    uint32_t skip, take;
    uint64_t where, offset;
};

struct log_fate {
    struct message_id id;
    uint64_t home; /* the segment of the message then; 0: not known, may be any */
    uint32_t delivery;
    uint8_t fate;
    int64_t when_ms;     /* it was handed over; 0: not said */
    struct slice server; /* that took it then */
};

struct log_note {
    struct message_id id;
    uint32_t delivery;
    uint16_t kind;
    struct slice payload;
};

/* What only the index says about a message. */
struct log_message_place {
    const uint64_t *foreign; /* numbers of other segments that hold content of it */
    uint32_t foreign_count;
    uint64_t file; /* its content file, or 0 */
};

void log_put_message(struct buffer *out, const struct spool_message *message,
                     const struct log_piece *pieces, size_t piece_count);
/* The subset that loading needs (spool_loader.message), for the index. */
void log_put_message_index(struct buffer *out, const struct spool_message *message,
                           const struct log_message_place *place);
/* Recipients and pieces are put into the arena; slices point into the payload. Either form.
 * ERROR_CORRUPT, ERROR_MEMORY. */
struct log_message {
    struct spool_message message;
    struct log_piece *pieces;
    size_t piece_count;
    struct log_message_place place;
};
enum error log_get_message(struct slice payload, struct arena *arena,
                           struct log_message *ret_message) MUST_CHECK;
void log_put_fate(struct buffer *out, const struct log_fate *fate);
bool log_get_fate(struct slice payload, struct log_fate *ret_fate);
void log_put_note(struct buffer *out, const struct log_note *note);
bool log_get_note(struct slice payload, struct log_note *ret_note);
void log_put_global(struct buffer *out, struct slice key, struct slice payload);
bool log_get_global(struct slice payload, struct slice *ret_key, struct slice *ret_payload);
void log_put_id(struct buffer *out, struct message_id id);
bool log_get_id(struct slice payload, struct message_id *ret_id);

/* What spool/reader.h is given: where the message record is. */
enum { LOG_TICKET_BYTES = 40 };
struct log_ticket {
    uint64_t segment, nonce;
    uint32_t offset;
    struct message_id id;
};
void log_ticket_encode(const struct log_ticket *ticket, uint8_t ret_bytes[LOG_TICKET_BYTES]);
bool log_ticket_decode(struct slice bytes, struct log_ticket *ret_ticket);

/* ---- the index --------------------------------------------------------------------------- */

/* What a segment holds, without contents: entries in the order of its records. */
struct log_entry {
    uint8_t type, flags;
    uint32_t offset; /* of the record in the segment */
    struct slice payload;
    size_t at; /* where the entry starts in the index */
};
size_t log_entry_begin(struct buffer *index);
void log_entry_end(struct buffer *index, size_t at, enum log_type type, uint8_t flags,
                   uint32_t offset);
void log_entry_put(struct buffer *index, enum log_type type, uint8_t flags, uint32_t offset,
                   struct slice payload);
/* Adds `base` to the offset of every entry from `from` on. */
void log_index_rebase(struct buffer *index, size_t from, uint32_t base);
/* Advances *at. False: at the end, or the index breaks its grammar (*ret_sound false). */
bool log_entry_next(struct slice index, size_t *at, struct log_entry *ret_entry, bool *ret_sound);

/* ---- names ------------------------------------------------------------------------------- */

enum { LOG_NAME_SIZE = 40 };
enum log_name {
    LOG_NAME_SEGMENT,
    LOG_NAME_SPARE,
    LOG_NAME_NEW,
    LOG_NAME_CONTENT,
    LOG_NAME_SET_ASIDE
};
void log_name_make(enum log_name kind, uint64_t number, char ret_name[LOG_NAME_SIZE]);
/* False: none of ours. */
bool log_name_parse(const char *name, enum log_name *ret_kind, uint64_t *ret_number);
/* Names with two numbers (log_copies.h). */
enum log_pair { LOG_PAIR_COPY, LOG_PAIR_LARGE };
void log_pair_make(enum log_pair kind, uint64_t number, uint64_t time_s,
                   char ret_name[LOG_NAME_SIZE]);
bool log_pair_parse(const char *name, enum log_pair *ret_kind, uint64_t *ret_number,
                    uint64_t *ret_time_s);

#endif
