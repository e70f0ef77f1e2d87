/* SPDX-License-Identifier: Apache-2.0
 *
 * The model from inside: memory.c, and memory_copies.c for what has ended.
 */
#ifndef HOLDFAST_SPOOL_MEMORY_INTERNAL_H
#define HOLDFAST_SPOOL_MEMORY_INTERNAL_H

#include "base/buffer.h"
#include "base/list.h"
#include "spool/log_table.h"
#include "spool/spool_internal.h"

struct model_message {
    struct arena arena; /* holds what `message` points to */
    struct spool_message message;
    struct buffer content;
    struct buffer notes;
    struct model_taken *taken; /* by recipient; NULL: nobody has it */
    int64_t ended_ms;
    bool loaded; /* handed to the present spool, or made by it */
};

struct model_taken {
    enum spool_fate fate;
    int64_t when_ms;
    struct slice server;
};

struct model_note {
    struct link link;
    struct slice key, payload;
};

struct spool_memory_store {
    struct table table;
    struct model_message **messages; /* by the table's index */
    uint32_t capacity;
    struct link globals;
    uint64_t next_sequence;
    struct buffer kept; /* struct model_message *: ended, in the order of their ends */
    unsigned searches;
};

struct memory_spool {
    struct spool spool;
    struct spool_owner owner;
    struct spool_memory_store *store;
    bool owns_store;
    struct loop *loop;
    struct loop_later *later;
    struct model_batch *open;
    struct link submitted;
    struct buffer to_load; /* uint32_t, in acceptance order */
    size_t load_next;
    bool load_begun, load_done;
    uint64_t messages, live_bytes, groups;
    int64_t keep_ms, now_ms; /* of copies */
};

static inline struct memory_spool *memory_of(const struct spool *spool)
{
    return (struct memory_spool *)(uintptr_t)spool;
}

/* memory.c */
void model_copy_message(struct arena *arena, struct spool_message *to,
                        const struct spool_message *from);
void model_message_free(struct model_message *message);

/* memory_copies.c */
void memory_taken(struct model_message *message, uint32_t delivery, enum spool_fate fate,
                  int64_t when_ms, struct slice server);
/* Takes the message over. */
void memory_ended(struct memory_spool *memory, struct model_message *message);
void memory_copies_tick(struct memory_spool *memory);
void memory_copies_status(const struct memory_spool *memory, struct spool_state *state);
void memory_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms);
enum error memory_copies_find(struct spool *spool, const struct spool_copies_query *query,
                              struct spool_copies **ret_copies);
void memory_copies_progress(const struct spool_copies *copies, uint64_t *ret_done,
                            uint64_t *ret_all);
void memory_copies_counts(const struct spool_copies *copies,
                          struct spool_copies_counts *ret_counts);
void memory_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy);
enum error memory_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                       struct spool_message *ret_message);
enum error memory_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                      void *ret_bytes, size_t size, size_t *ret_length);
void memory_copies_free(struct spool_copies *copies);

#endif
