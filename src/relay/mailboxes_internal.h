/* SPDX-License-Identifier: Apache-2.0
 *
 * What the table (mailboxes.c), its lists (mailboxes_list.c) and its file (mailboxes_file.c) share.
 */
#ifndef HOLDFAST_RELAY_MAILBOXES_INTERNAL_H
#define HOLDFAST_RELAY_MAILBOXES_INTERNAL_H

#include "relay/mailboxes.h"

enum { NO_ENTRY = UINT32_MAX };

enum {                 /* struct entry, flags. Beyond the first three they stand in files */
       ENTRY_FREE = 1, /* on the free list; `name` is the next */
       ENTRY_IN_LIST = 2,
       ENTRY_IN_NEXT = 4, /* in the list that is being read */
       ENTRY_BAD = 8,     /* its refusals have come to that */
};

/* 24 bytes. Times are Unix seconds, 0: never; 2106 is far. */
struct entry {
    uint32_t name;     /* where it begins: a byte of length, then its bytes */
    uint32_t good_s;   /* it was good then */
    uint32_t first_s;  /* the first of the refusals since */
    uint32_t last_s;   /* and the last */
    uint32_t accepted; /* how often anybody had been accepted at the first */
    uint8_t flags;
    uint8_t source; /* of the last that was learned */
};

struct mailboxes {
    struct hash_key key;
    struct entry *entries;
    uint32_t used, room; /* entries ever used, allocated */
    uint32_t free;       /* the first free one, or NO_ENTRY */
    uint8_t *names;
    size_t names_used, names_room, names_dead;
    uint32_t *index; /* entry number + 1; 0: free */
    uint32_t index_room;
    uint32_t accepted; /* how often anybody was; wraps */
    uint32_t clean_at;
    struct mailboxes_count count;
    uint64_t serial;
    uint64_t doubts;
    uint64_t random_server;
    int64_t random_ms; /* 0: never */
    bool random_refused;
    int64_t list_ms; /* when the list was read; 0: there is none */
    bool list_everybody;
    bool reading;
    uint64_t restored; /* records of the file so far */
    bool has_head;     /* its first block has been read */
};

/* The entry of a name, made if there is none. */
enum error mailboxes_take(struct mailboxes *mailboxes, struct slice name,
                          struct entry **ret_entry) MUST_CHECK;
/* To be called around each change of an entry. The second one drops it if it says nothing. */
void mailboxes_change_begin(struct mailboxes *mailboxes, const struct entry *entry);
void mailboxes_change_end(struct mailboxes *mailboxes, struct entry *entry);
struct slice mailboxes_name_of(const struct mailboxes *mailboxes, const struct entry *entry);

static inline uint32_t mailboxes_seconds(int64_t ms)
{
    return ms < 1000 ? 1 : ms / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ms / 1000);
}

#endif
