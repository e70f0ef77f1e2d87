/* SPDX-License-Identifier: Apache-2.0
 *
 * spool.h's functions, each handed to the back-end that stands behind the spool.
 */
#include "spool/spool_internal.h"

void spool_settings_default(struct spool_settings *settings)
{
    *settings = (struct spool_settings){
        .segment_bytes = 64 << 20,
        .large_bytes = 4 << 20,
        .reserve_bytes = 0,
        .ready_segments = 2,
    };
}

bool spool_message_is_sound(const struct spool_message *message)
{
    if (id_is_null(message->id) || message->recipient_count == 0 ||
        message->recipient_count > SPOOL_RECIPIENTS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (message->recipients[i].address.length == 0 ||
            message->recipients[i].address.length > UINT16_MAX) {
            return false;
        }
    }
    return true;
}

enum error spool_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete)
{
    return spool->ops->load(spool, loader, ret_complete);
}

void spool_close(struct spool *spool)
{
    if (spool != NULL) {
        spool->ops->close(spool);
    }
}

struct spool_content *spool_content_new(struct spool *spool, uint64_t expected)
{
    return spool->ops->content_new(spool, expected);
}

enum error spool_content_append(struct spool_content *content, struct slice bytes)
{
    return content->spool->ops->content_append(content, bytes);
}

enum error spool_content_replace_header(struct spool_content *content, uint64_t old_length,
                                        struct slice header)
{
    return content->spool->ops->content_replace_header(content, old_length, header);
}

enum error spool_content_replace_body(struct spool_content *content, uint64_t header_length,
                                      struct slice body)
{
    return content->spool->ops->content_replace_body(content, header_length, body);
}

void spool_content_abort(struct spool_content *content)
{
    if (content != NULL) {
        content->spool->ops->content_abort(content);
    }
}

size_t spool_content_pending(const struct spool *spool)
{
    return spool->ops->content_pending(spool);
}

void spool_content_relieve(struct spool *spool)
{
    spool->ops->content_relieve(spool);
}

void spool_batch_begin(struct spool *spool)
{
    spool->ops->batch_begin(spool);
}

void spool_batch_cancel(struct spool *spool)
{
    spool->ops->batch_cancel(spool);
}

enum error spool_batch_message(struct spool *spool, const struct spool_message *message,
                               struct spool_content *content, struct slice tail)
{
    return spool->ops->batch_message(spool, message, content, tail);
}

void spool_batch_about(struct spool *spool, struct spool_handle handle)
{
    if (spool->ops->batch_about != NULL) {
        spool->ops->batch_about(spool, handle);
    }
}

void spool_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate)
{
    spool->ops->batch_new_fate(spool, delivery, fate);
}

void spool_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind,
                          struct slice payload)
{
    spool->ops->batch_new_note(spool, delivery, kind, payload);
}

void spool_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                      enum spool_fate fate)
{
    spool->ops->batch_fate(spool, handle, delivery, fate);
}

void spool_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                       enum spool_fate fate, int64_t when_ms, struct slice server)
{
    spool->ops->batch_taken(spool, handle, delivery, fate, when_ms,
                            slice_take(server, SPOOL_SERVER_MAX));
}

void spool_batch_fact(struct spool *spool, struct message_id id, uint32_t delivery,
                      enum spool_fate fate, int64_t when_ms, struct slice server)
{
    struct spool_handle handle = spool_find_delivery(spool, id, delivery);
    if (handle.index == SPOOL_NO_HANDLE.index) {
        if (spool->ops->batch_fact != NULL) {
            spool->ops->batch_fact(spool, id, delivery, fate, when_ms,
                                   slice_take(server, SPOOL_SERVER_MAX));
        }
    } else if (spool_fate_of(spool, handle, delivery) == 0) {
        spool_batch_taken(spool, handle, delivery, fate, when_ms, server);
    }
}

void spool_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                      uint16_t kind, struct slice payload)
{
    spool->ops->batch_note(spool, handle, delivery, kind, payload);
}

void spool_batch_global_note(struct spool *spool, struct slice key, struct slice payload)
{
    spool->ops->batch_global_note(spool, key, payload);
}

void spool_batch_submit(struct spool *spool, enum spool_durability durability, spool_done_fn *fn,
                        void *context)
{
    spool->ops->batch_submit(spool, durability, fn, context);
}

struct spool_handle spool_find(const struct spool *spool, struct message_id id)
{
    return spool->ops->find(spool, id);
}

bool spool_was_stored(const struct spool *spool, struct message_id id)
{
    return spool->ops->was_stored(spool, id);
}

struct spool_handle spool_find_delivery(const struct spool *spool, struct message_id id,
                                        uint32_t delivery)
{
    return spool->ops->find_delivery != NULL ? spool->ops->find_delivery(spool, id, delivery)
                                             : spool->ops->find(spool, id);
}

struct message_id spool_id(const struct spool *spool, struct spool_handle handle)
{
    return spool->ops->id(spool, handle);
}

uint64_t spool_sequence(const struct spool *spool, struct spool_handle handle)
{
    return spool->ops->sequence(spool, handle);
}

unsigned spool_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery)
{
    return spool->ops->fate_of(spool, handle, delivery);
}

enum error spool_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                               struct spool_message *ret_message)
{
    return spool->ops->read_envelope(spool, handle, arena, ret_message);
}

enum error spool_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                              void *ret_bytes, size_t size, size_t *ret_length)
{
    return spool->ops->read_content(spool, handle, offset, ret_bytes, size, ret_length);
}

void spool_pin(struct spool *spool, struct spool_handle handle)
{
    spool->ops->pin(spool, handle);
}

void spool_unpin(struct spool *spool, struct spool_handle handle)
{
    spool->ops->unpin(spool, handle);
}

bool spool_prepare(struct spool *spool, struct spool_handle handle, spool_prepared_fn *fn,
                   void *context)
{
    return spool->ops->prepare == NULL || spool->ops->prepare(spool, handle, fn, context);
}

enum error spool_ticket(struct spool *spool, struct spool_handle handle,
                        uint8_t ret_ticket[SPOOL_TICKET_MAX], size_t *ret_length)
{
    return spool->ops->ticket(spool, handle, ret_ticket, ret_length);
}

void spool_set_reserve(struct spool *spool, uint64_t reserve_bytes)
{
    spool->ops->set_reserve(spool, reserve_bytes);
}

void spool_status(const struct spool *spool, struct spool_state *ret_state)
{
    spool->ops->status(spool, ret_state);
}

void spool_others_ended(struct spool *spool, uint32_t token)
{
    if (spool->ops->others_ended != NULL) {
        spool->ops->others_ended(spool, token);
    }
}

void spool_tick(struct spool *spool)
{
    spool->ops->tick(spool);
}

/* ---- copies ------------------------------------------------------------------------------ */

void spool_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms)
{
    spool->ops->keep_copies(spool, keep_ms, now_ms);
}

enum error spool_copies_find(struct spool *spool, const struct spool_copies_query *query,
                             struct spool_copies **ret_copies)
{
    return spool->ops->copies_find(spool, query, ret_copies);
}

void spool_copies_progress(const struct spool_copies *copies, uint64_t *ret_done, uint64_t *ret_all)
{
    copies->spool->ops->copies_progress(copies, ret_done, ret_all);
}

void spool_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts)
{
    copies->spool->ops->copies_counts(copies, ret_counts);
}

void spool_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy)
{
    copies->spool->ops->copies_get(copies, i, ret_copy);
}

enum error spool_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                      struct spool_message *ret_message)
{
    return copies->spool->ops->copies_read_envelope(copies, i, arena, ret_message);
}

enum error spool_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                     void *ret_bytes, size_t size, size_t *ret_length)
{
    return copies->spool->ops->copies_read_content(copies, i, offset, ret_bytes, size, ret_length);
}

void spool_copies_free(struct spool_copies *copies)
{
    if (copies != NULL) {
        copies->spool->ops->copies_free(copies);
    }
}

int64_t spool_copies_since(const struct spool_copies_query *query, int64_t keep_ms, int64_t now_ms)
{
    int64_t since_ms = keep_ms == 0 ? INT64_MAX : now_ms - keep_ms;
    return query->since_ms > since_ms ? query->since_ms : since_ms;
}

bool spool_copies_in_window(const struct spool_copies_query *query, enum spool_fate fate,
                            int64_t when_ms, struct slice server)
{
    return (fate == SPOOL_DELIVERED || fate == SPOOL_PULLED) && when_ms >= query->since_ms &&
           when_ms < query->until_ms && when_ms != 0 &&
           (query->server.length == 0 || slice_equal_fold(query->server, server));
}

/* What was sent again is sent again for what it was first. */
bool spool_copies_may_go(const struct spool_copies_query *query,
                         const struct spool_message *message)
{
    return (message->flags & (SPOOL_DRILL | SPOOL_ENVELOPE_ONLY)) == 0 &&
           !(query->again && !id_is_null(message->copy_of));
}
