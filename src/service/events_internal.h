/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of the event journal, all integers little-endian.
 *
 * events-NNNNNNNNNNNNNNNN (hexadecimal, counting up), at most 64 MB:
 *     "HFEVENT1", u64 made (Unix ms), 16 bytes key of the index's hashes
 *     records, each at a multiple of 4:
 *         u32 magic, u32 length of payload, u32 crc32c of length and payload, payload, padding
 *
 * A record is valid if and only if its magic is right, its length is within bounds and the file,
 * and its checksum matches. A reader that meets anything else tries again 4 bytes further, so a
 * torn tail or a hole costs what lies in it.
 *
 * events-NNNNNNNNNNNNNNNN.index, made once when the file is full:
 *     "HFINDEX2", u64 entries, u64 first and u64 last time (Unix ms), u32 crc32c of entries, u32 0
 *     entries, sorted: u64, the upper 40 bits of a key's hash over the record's offset / 4
 * Keys are message ids, addresses, Message-IDs and the networks of clients. An index that does not
 * check is not used: the file is read from end to end instead.
 */
#ifndef HOLDFAST_SERVICE_EVENTS_INTERNAL_H
#define HOLDFAST_SERVICE_EVENTS_INTERNAL_H

#include "base/buffer.h"
#include "base/hash.h"
#include "base/list.h"
#include "service/events.h"
#include "sys/worker.h"

enum {
    EVENTS_NAME_SIZE = 40,
    EVENTS_FILE_HEAD = 32,
    EVENTS_RECORD_HEAD = 12,
    EVENTS_INDEX_HEAD = 40,
    EVENTS_OFFSET_BITS = 24,
    EVENTS_FILE_MAX = 64 << 20, /* 2 ^ (EVENTS_OFFSET_BITS + 2) */
    EVENTS_READ_BYTES = 1 << 20,
};
#define EVENTS_RECORD_MAGIC 0x31765645u /* "EVv1" */

enum index_state {
    INDEX_ABSENT,    /* the active file's, or not made yet: read the file from end to end */
    INDEX_UNCHECKED, /* its head is good */
    INDEX_GOOD,
};

struct events_file {
    uint64_t number;
    uint64_t bytes;
    int64_t last_ms; /* of its events; 0: not known */
    enum index_state index;
};

struct events {
    struct loop *loop;
    struct disk *disk;
    struct worker *worker;
    struct events_settings settings;
    struct events_file *files; /* oldest first; the last one is active if `open` */
    size_t file_count, file_capacity;
    uint64_t next_number;
    struct disk_file *open;
    struct buffer pending; /* encoded, not yet given to the worker */
    int64_t pending_last_ms;
    struct buffer writing; /* with the worker */
    bool write_under_way;
    uint64_t dropped;
    int64_t looked_ms; /* when retention was last looked at */
    int64_t gone_ms;
    unsigned searches;
};

/* events_record.c */
void event_encode(struct buffer *buffer, const struct event *event);
/* Strings point into `payload`; recipients live in `arena`. */
bool event_decode(struct slice payload, struct arena *arena, struct event *ret_event);

/* Reads a file from end to end in pieces, giving each valid record. */
typedef void event_record_fn(void *context, uint64_t offset, struct slice payload);
enum error events_scan(struct disk_file *file, uint64_t offset, uint64_t end, event_record_fn *fn,
                       void *context) MUST_CHECK;
/* The same over bytes in memory. */
void events_scan_memory(struct slice bytes, event_record_fn *fn, void *context);
/* The record at an offset; ERROR_CORRUPT if there is no valid one. `buffer` holds it. */
enum error events_read_record(struct disk_file *file, uint64_t offset, uint64_t end,
                              struct buffer *buffer, struct slice *ret_payload) MUST_CHECK;
enum error events_read_key(struct disk_file *file, struct hash_key *ret_key) MUST_CHECK;

uint64_t events_hash_id(struct hash_key key, struct message_id id);
uint64_t events_hash_client(struct hash_key key, const struct ip_address *client);
uint64_t events_hash_text(struct hash_key key, struct slice text);
static inline uint64_t events_index_entry(uint64_t hash, uint64_t offset)
{
    return (hash & ~((1ULL << EVENTS_OFFSET_BITS) - 1)) | offset / 4;
}
void events_file_name(char ret_name[EVENTS_NAME_SIZE], uint64_t number, bool index);

/* events_index.c; on the worker's thread */
enum error events_index_write(struct disk *disk, uint64_t number, int64_t *ret_last_ms) MUST_CHECK;
/* False: not there or damaged. `whole`: the entries' checksum too. */
bool events_index_check(struct disk *disk, uint64_t number, bool whole, int64_t *ret_last_ms);
/* Gives the offsets of the records that may have one of the keys (upper 40 bits), ascending. */
enum error events_index_find(struct disk *disk, uint64_t number, const uint64_t *hashes,
                             size_t count, uint64_t **ret_offsets, size_t *ret_count) MUST_CHECK;

/* events.c */
void events_flush(struct events *events);

#endif
