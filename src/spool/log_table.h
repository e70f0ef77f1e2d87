/* SPDX-License-Identifier: Apache-2.0
 *
 * The messages that are here: 56 bytes each and 4 to 8 for finding them by id. Grows by chunks and
 * splits one bucket at a time (linear hashing), so there is never a moment of double size.
 */
#ifndef HOLDFAST_SPOOL_LOG_TABLE_H
#define HOLDFAST_SPOOL_LOG_TABLE_H

#include "base/error.h"
#include "base/hash.h"
#include "base/id.h"
#include "base/list.h"
#include "spool/spool.h"

enum { STORED_NONE = UINT32_MAX };

enum {
    STORED_PENDING = 1 << 0,   /* its batch is not complete: not to be found */
    STORED_LOADING = 1 << 1,   /* not handed to the loader yet: not to be found */
    STORED_MOVING = 1 << 2,    /* a copy of it is on its way */
    STORED_EXTRA = 1 << 3,     /* `extra` is in force instead of `fates` */
    STORED_DESCRIBED = 1 << 5, /* its notes have been told anew for the present compaction */
    STORED_FINISHED = 1 << 4,  /* each delivery has a fate; here only because it is pinned */
};

enum { STORED_INLINE_FATES = 16, STORED_FATE_UNDERWAY = 8 };

/* For messages of many recipients, or with content in several segments or in a file. */
struct stored_extra {
    struct link link; /* in journal.spread while foreign_count > 0 */
    uint32_t stored;
    uint32_t foreign_count;
    uint64_t file;
    uint32_t *foreign; /* slots */
    uint8_t fates[];   /* 4 bits each */
};

struct stored {
    struct message_id id;
    uint64_t sequence;
    union {
        uint64_t fates; /* 4 bits each: 0 none, else the fate; +8 while it is being written */
        struct stored_extra *extra;
    };
    uint32_t slot;   /* of its segment */
    uint32_t offset; /* of its record there */
    uint32_t next;   /* in its bucket, or in the list of free ones */
    uint32_t content_low;
    uint16_t pins;
    uint16_t recipients, left;
    uint8_t content_high;
    uint8_t flags;
};
_Static_assert(sizeof(struct stored) == 56, "the memory of a held message is promised");

struct table {
    struct stored **chunks;
    uint32_t chunk_count, chunk_capacity;
    uint32_t **buckets; /* in chunks of their own */
    uint32_t bucket_chunks, bucket_capacity;
    uint32_t bucket_count, mask; /* linear hashing */
    uint32_t used, free;
    uint64_t count;
    struct hash_key key;
};

enum error table_init(struct table *table) MUST_CHECK;
void table_done(struct table *table);
struct stored *table_at(const struct table *table, uint32_t index);
uint32_t table_find(const struct table *table, struct message_id id);
/* Another one with the same id, behind that; STORED_NONE: none. */
uint32_t table_find_next(const struct table *table, uint32_t index);
/* Zeroed but for the id. ERROR_MEMORY. */
enum error table_add(struct table *table, struct message_id id, uint32_t *ret_index) MUST_CHECK;
/* Not to be found any more; the entry stays. */
void table_hide(struct table *table, uint32_t index);
/* Frees a hidden entry. */
void table_free(struct table *table, uint32_t index);
/* Whether `index` was ever handed out and may be looked at. */
bool table_holds(const struct table *table, uint32_t index);

static inline uint64_t stored_content(const struct stored *stored)
{
    return (uint64_t)stored->content_high << 32 | stored->content_low;
}

/* Room for the fates of `recipients` and, when either is given, for foreign segments or a file. */
enum error stored_prepare(struct stored *stored, uint32_t index, uint32_t recipients,
                          uint32_t foreign_count, uint64_t file) MUST_CHECK;
void stored_done(struct stored *stored);
unsigned stored_fate(const struct stored *stored, uint32_t delivery);
void stored_set_fate(struct stored *stored, uint32_t delivery, unsigned fate);
bool stored_fates_underway(const struct stored *stored);

#endif
