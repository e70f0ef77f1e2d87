/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands between spool.h and its back-ends: one table of functions for each (dispatch.c calls
 * through it). A back-end embeds `struct spool` and `struct spool_content` as first members.
 */
#ifndef HOLDFAST_SPOOL_SPOOL_INTERNAL_H
#define HOLDFAST_SPOOL_SPOOL_INTERNAL_H

#include "spool/copies.h"

struct spool_ops {
    enum error (*load)(struct spool *, const struct spool_loader *, bool *ret_complete);
    void (*close)(struct spool *);

    struct spool_content *(*content_new)(struct spool *, uint64_t expected);
    enum error (*content_append)(struct spool_content *, struct slice bytes);
    enum error (*content_replace_header)(struct spool_content *, uint64_t old_length,
                                         struct slice header);
    enum error (*content_replace_body)(struct spool_content *, uint64_t header_length,
                                       struct slice body);
    void (*content_abort)(struct spool_content *);
    size_t (*content_pending)(const struct spool *);
    void (*content_relieve)(struct spool *);

    void (*batch_begin)(struct spool *);
    void (*batch_cancel)(struct spool *);
    enum error (*batch_message)(struct spool *, const struct spool_message *,
                                struct spool_content *, struct slice tail);
    /* NULL: nothing is ever refused. */
    void (*batch_about)(struct spool *, struct spool_handle);
    void (*batch_new_fate)(struct spool *, uint32_t delivery, enum spool_fate);
    void (*batch_new_note)(struct spool *, uint32_t delivery, uint16_t kind, struct slice payload);
    void (*batch_fate)(struct spool *, struct spool_handle, uint32_t delivery, enum spool_fate);
    void (*batch_taken)(struct spool *, struct spool_handle, uint32_t delivery, enum spool_fate,
                        int64_t when_ms, struct slice server);
    /* About what is not here. NULL: nothing is elsewhere. */
    void (*batch_fact)(struct spool *, struct message_id, uint32_t delivery, enum spool_fate,
                       int64_t when_ms, struct slice server);
    void (*batch_note)(struct spool *, struct spool_handle, uint32_t delivery, uint16_t kind,
                       struct slice payload);
    void (*batch_global_note)(struct spool *, struct slice key, struct slice payload);
    void (*batch_submit)(struct spool *, enum spool_durability, spool_done_fn *, void *context);

    struct spool_handle (*find)(const struct spool *, struct message_id);
    /* NULL: there are no parts. */
    struct spool_handle (*find_delivery)(const struct spool *, struct message_id,
                                         uint32_t delivery);
    bool (*was_stored)(const struct spool *, struct message_id);
    struct message_id (*id)(const struct spool *, struct spool_handle);
    uint64_t (*sequence)(const struct spool *, struct spool_handle);
    unsigned (*fate_of)(const struct spool *, struct spool_handle, uint32_t delivery);
    enum error (*read_envelope)(struct spool *, struct spool_handle, struct arena *,
                                struct spool_message *);
    enum error (*read_content)(struct spool *, struct spool_handle, uint64_t offset, void *,
                               size_t size, size_t *ret_length);
    void (*pin)(struct spool *, struct spool_handle);
    void (*unpin)(struct spool *, struct spool_handle);
    /* NULL: nothing is to be done. */
    bool (*prepare)(struct spool *, struct spool_handle, spool_prepared_fn *, void *context);
    enum error (*ticket)(struct spool *, struct spool_handle, uint8_t *, size_t *ret_length);

    void (*set_reserve)(struct spool *, uint64_t reserve_bytes);
    void (*keep_copies)(struct spool *, int64_t keep_ms, int64_t now_ms);
    enum error (*copies_find)(struct spool *, const struct spool_copies_query *,
                              struct spool_copies **);
    void (*copies_progress)(const struct spool_copies *, uint64_t *, uint64_t *);
    void (*copies_counts)(const struct spool_copies *, struct spool_copies_counts *);
    void (*copies_get)(struct spool_copies *, size_t, struct spool_copy *);
    enum error (*copies_read_envelope)(struct spool_copies *, size_t, struct arena *,
                                       struct spool_message *);
    enum error (*copies_read_content)(struct spool_copies *, size_t, uint64_t offset, void *,
                                      size_t size, size_t *ret_length);
    void (*copies_free)(struct spool_copies *);
    void (*status)(const struct spool *, struct spool_state *);
    void (*tick)(struct spool *);
    void (*others_ended)(struct spool *, uint32_t token); /* NULL: there are no others */
};

struct spool {
    const struct spool_ops *ops;
};

struct spool_content {
    struct spool *spool;
};

struct spool_copies {
    struct spool *spool;
};

/* Of each delivery that was handed over: what a search is about. */
struct spool_taken {
    struct message_id id;
    int64_t when_ms;
    const struct slice *server;
    uint32_t delivery;
    uint32_t row; /* of the first delivery of a message: where it was found */
    bool chosen;
};
/* Since when it may be, so that what is found does not hang on what happens to be there still. */
int64_t spool_copies_since(const struct spool_copies_query *query, int64_t keep_ms, int64_t now_ms);
/* Whether that is so, as far as its fate tells. */
bool spool_copies_in_window(const struct spool_copies_query *query, enum spool_fate fate,
                            int64_t when_ms, struct slice server);
/* Whether the message may be sent again at all. */
bool spool_copies_may_go(const struct spool_copies_query *query,
                         const struct spool_message *message);

/* The bounds of spool.h; a caller that breaks them has a bug, so back-ends assert it. */
bool spool_message_is_sound(const struct spool_message *message);

#endif
