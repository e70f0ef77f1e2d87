/* SPDX-License-Identifier: Apache-2.0
 *
 * Batches: what is asked for, until the committer has it, and what it makes of the table.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

#include <assert.h>
#include <stdlib.h>

void pg_batch_begin(struct spool *spool)
{
    struct pg_spool *pg = pg_of(spool);
    assert(pg->open == NULL);
    pg->open = calloc(1, sizeof(*pg->open));
    if (pg->open == NULL) {
        abort(); /* spool.h lets nothing fail here */
    }
    pg->open->pg = pg;
    arena_init(&pg->open->arena);
    list_init(&pg->open->link);
    pg->batches++;
}

void pg_batch_free(struct pg_batch *batch)
{
    batch->pg->batches--;
    list_remove(&batch->link);
    arena_done(&batch->arena);
    buffer_done(&batch->news);
    buffer_done(&batch->operations);
    buffer_done(&batch->handles);
    free(batch);
}

/* Where it came from, the fate of a delivery is open again. */
static void undo_operation(struct pg_spool *pg, const struct pg_operation *operation)
{
    struct stored *stored = pg_part_of(pg, operation->part, operation->id);
    if (operation->kind == PG_FATE && stored != NULL && !operation->done) {
        stored_set_fate(stored, operation->delivery, 0);
    }
}

void pg_batch_undo(struct pg_batch *batch)
{
    struct pg_spool *pg = batch->pg;
    for (size_t i = batch_operation_count(batch); i-- > 0;) {
        undo_operation(pg, &batch_operations(batch)[i]);
    }
    for (size_t i = batch_new_count(batch); i-- > 0 && !batch->applied;) {
        const struct pg_new *fresh = &batch_news(batch)[i];
        if (fresh->part_count > 0 && fresh->parts[0].part != STORED_NONE) {
            pg_part_forget(pg, fresh->parts[0].part);
        }
    }
    buffer_clear(&batch->operations);
    buffer_clear(&batch->news);
    buffer_clear(&batch->handles);
}

void pg_batch_cancel(struct spool *spool)
{
    struct pg_spool *pg = pg_of(spool);
    struct pg_batch *batch = pg->open;
    pg->open = NULL;
    if (pg->journal_open) {
        spool_batch_cancel(pg->journal);
        pg->journal_open = false;
    }
    pg_batch_undo(batch);
    pg_batch_free(batch);
}

/* ---- messages ---------------------------------------------------------------------------- */

static enum error may_accept(const struct pg_spool *pg, const struct spool_message *message)
{
    if (table_find(&pg->table, message->id) != STORED_NONE) {
        return ERROR_EXISTS;
    }
    bool refuses = pg->settings.defer_when_away && pg_is_away(pg);
    return refuses && (message->flags & SPOOL_OWN_DSN) == 0 ? ERROR_IO : ERROR_NONE;
}

/* The journal has it: what fails from here on fails the batch. */
static enum error add_message(struct pg_spool *pg, const struct spool_message *message)
{
    struct pg_batch *batch = pg->open;
    struct pg_new fresh = {.id = message->id, .journal = PG_NO_JOURNAL};
    fresh.bytes = message->header_length + message->body_length;
    fresh.recipients = message->recipient_count;
    fresh.received_ms = message->received_ms;
    enum error error = pg_share_out(pg, message, &batch->arena, &fresh);
    if (error == ERROR_NONE && !pg->shared) {
        error = pg_part_add(pg, message->id, message->recipient_count, fresh.bytes, pg->only,
                            &fresh.parts[0].part);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    buffer_append(&batch->news, slice_make(&fresh, sizeof(fresh)));
    if (!pg->shared) {
        struct spool_handle handle = {fresh.parts[0].part};
        buffer_append(&batch->handles, slice_make(&handle, sizeof(handle)));
    }
    batch->bytes += fresh.bytes;
    if (batch->news.failed) {
        if (!pg->shared) {
            pg_part_forget(pg, fresh.parts[0].part);
        }
        return ERROR_MEMORY;
    }
    return batch->handles.failed ? ERROR_MEMORY : ERROR_NONE;
}

enum error pg_batch_message(struct spool *spool, const struct spool_message *message,
                            struct spool_content *content, struct slice tail)
{
    struct pg_spool *pg = pg_of(spool);
    assert(pg->open != NULL && spool_message_is_sound(message));
    enum error error = may_accept(pg, message);
    if (error != ERROR_NONE) {
        spool_content_abort(content);
        return error;
    }
    if (!pg->journal_open) {
        spool_batch_begin(pg->journal);
        pg->journal_open = true;
    }
    error = spool_batch_message(pg->journal, message, content, tail);
    if (error != ERROR_NONE) {
        return error;
    }
    error = add_message(pg, message);
    if (error != ERROR_NONE) {
        pg->open->error = error;
    }
    return error;
}

void pg_batch_about(struct spool *spool, struct spool_handle handle)
{
    const struct pg_spool *pg = pg_of(spool);
    size_t count = batch_new_count(pg->open);
    if (pg->open->error != ERROR_NONE) {
        return; /* the message may be missing */
    }
    assert(count > 0);
    struct pg_new *fresh = &batch_news(pg->open)[count - 1];
    fresh->about = pg->owners[handle.index];
    fresh->about_token = fresh->about->token;
}

/* ---- fates and notes --------------------------------------------------------------------- */

static void add(struct pg_spool *pg, const struct pg_operation *operation)
{
    struct pg_batch *batch = pg->open;
    assert(batch != NULL);
    struct pg_operation copy = *operation;
    copy.key = arena_copy(&batch->arena, operation->key);
    copy.payload = arena_copy(&batch->arena, operation->payload);
    if ((copy.key.data == NULL && operation->key.length > 0) ||
        (copy.payload.data == NULL && operation->payload.length > 0)) {
        batch->error = ERROR_MEMORY;
        return;
    }
    buffer_append(&batch->operations, slice_make(&copy, sizeof(copy)));
    if (batch->operations.failed) {
        batch->error = ERROR_MEMORY;
        undo_operation(pg, &copy);
        return;
    }
    batch->decides |= copy.kind != PG_GLOBAL && !copy.fact;
}

static void set_underway(struct pg_spool *pg, uint32_t part, uint32_t delivery,
                         enum spool_fate fate)
{
    struct stored *stored = table_at(&pg->table, part);
    assert((stored->flags & STORED_FINISHED) == 0 && stored_fate(stored, delivery) == 0);
    stored_set_fate(stored, delivery, (unsigned)fate | STORED_FATE_UNDERWAY);
}

void pg_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate, int64_t when_ms, struct slice server)
{
    struct pg_spool *pg = pg_of(spool);
    struct pg_share *share = pg->owners[handle.index];
    set_underway(pg, handle.index, delivery, fate);
    add(pg, &(struct pg_operation){.kind = PG_FATE,
                                   .part = handle.index,
                                   .id = table_at(&pg->table, handle.index)->id,
                                   .share = share,
                                   .token = share->token,
                                   .delivery = delivery,
                                   .fate = (uint8_t)fate,
                                   .fact = fate == SPOOL_DELIVERED || fate == SPOOL_PULLED,
                                   .of_new = STORED_NONE,
                                   .when_ms = when_ms,
                                   .payload = server});
}

void pg_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                   enum spool_fate fate)
{
    pg_batch_taken(spool, handle, delivery, fate, 0, SLICE_EMPTY);
}

/* Its part is another's, or not loaded yet: a fact needs neither. */
void pg_batch_fact(struct spool *spool, struct message_id id, uint32_t delivery,
                   enum spool_fate fate, int64_t when_ms, struct slice server)
{
    assert(fate == SPOOL_DELIVERED || fate == SPOOL_PULLED);
    pg_batch_again(pg_of(spool), id, delivery, (uint8_t)fate, when_ms, server);
}

void pg_batch_again(struct pg_spool *pg, struct message_id id, uint32_t delivery, uint8_t fate,
                    int64_t when_ms, struct slice server)
{
    add(pg, &(struct pg_operation){.kind = PG_FATE,
                                   .part = STORED_NONE,
                                   .id = id,
                                   .delivery = delivery,
                                   .fate = fate,
                                   .fact = true,
                                   .of_new = STORED_NONE,
                                   .when_ms = when_ms,
                                   .payload = server});
}

void pg_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                   uint16_t kind, struct slice payload)
{
    struct pg_spool *pg = pg_of(spool);
    struct pg_share *share = pg->owners[handle.index];
    assert(payload.length <= SPOOL_NOTE_MAX);
    add(pg, &(struct pg_operation){.kind = PG_NOTE,
                                   .part = handle.index,
                                   .id = table_at(&pg->table, handle.index)->id,
                                   .share = share,
                                   .token = share->token,
                                   .delivery = delivery,
                                   .note = kind,
                                   .of_new = STORED_NONE,
                                   .payload = payload});
}

static const struct pg_new *newest(const struct pg_batch *batch, uint32_t *ret_index)
{
    size_t count = batch_new_count(batch);
    assert(count > 0);
    *ret_index = (uint32_t)count - 1;
    return &batch_news(batch)[count - 1];
}

bool pg_new_part_has(const struct pg_new_part *part, uint32_t delivery)
{
    for (uint32_t i = 0; part->deliveries != NULL && i < part->count; i++) {
        if ((uint32_t)part->deliveries[i] == delivery) {
            return true;
        }
    }
    return part->deliveries == NULL || delivery == SPOOL_ALL_DELIVERIES;
}

/* What comes with a message is written with it, in the journal too, and depends on no share. */
void pg_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate)
{
    struct pg_spool *pg = pg_of(spool);
    if (pg->open->error != ERROR_NONE) {
        return; /* the message may be missing */
    }
    uint32_t of_new;
    const struct pg_new *fresh = newest(pg->open, &of_new);
    if (fresh->parts[0].part != STORED_NONE) {
        set_underway(pg, fresh->parts[0].part, delivery, fate);
    }
    const struct pg_pending pending = {.fate = (uint8_t)fate, .delivery = delivery};
    pg_pending_put_new(pg->journal, &pending, SLICE_EMPTY);
    add(pg, &(struct pg_operation){.kind = PG_FATE,
                                   .part = fresh->parts[0].part,
                                   .id = fresh->id,
                                   .delivery = delivery,
                                   .fate = (uint8_t)fate,
                                   .fact = true,
                                   .of_new = of_new});
}

void pg_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind, struct slice payload)
{
    struct pg_spool *pg = pg_of(spool);
    if (pg->open->error != ERROR_NONE) {
        return;
    }
    uint32_t of_new;
    const struct pg_new *fresh = newest(pg->open, &of_new);
    const struct pg_pending pending = {.is_note = true, .kind = kind, .delivery = delivery};
    pg_pending_put_new(pg->journal, &pending, payload);
    for (uint32_t p = 0; p < fresh->part_count; p++) {
        if (pg_new_part_has(&fresh->parts[p], delivery)) {
            add(pg, &(struct pg_operation){.kind = PG_NOTE,
                                           .part = fresh->parts[p].part,
                                           .id = fresh->id,
                                           .share = fresh->parts[p].share,
                                           .delivery = delivery,
                                           .note = kind,
                                           .fact = true,
                                           .of_new = of_new,
                                           .payload = payload});
        }
    }
}

void pg_batch_global_note(struct spool *spool, struct slice key, struct slice payload)
{
    assert(key.length > 0 && key.length <= SPOOL_KEY_MAX);
    add(pg_of(spool), &(struct pg_operation){.kind = PG_GLOBAL,
                                             .part = STORED_NONE,
                                             .of_new = STORED_NONE,
                                             .key = key,
                                             .payload = payload});
}

/* ---- submission -------------------------------------------------------------------------- */

static enum error keep_local(struct pg_batch *batch, size_t i, uint32_t journal)
{
    struct pg_spool *pg = batch->pg;
    struct pg_new *fresh = &batch_news(batch)[i];
    struct pg_local *local = pg_local_new(pg, journal, fresh->id, fresh->recipients, fresh->bytes);
    if (local == NULL) {
        return ERROR_MEMORY;
    }
    fresh->journal = journal;
    local->queued = true;
    if (!pg->shared) {
        pg_part_link(pg, fresh->parts[0].part, journal);
    }
    return ERROR_NONE;
}

/* What came with a message, in case that it goes on from the journal. */
static enum error keep_history(struct pg_batch *batch)
{
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        struct pg_operation *operation = &batch_operations(batch)[i];
        if (operation->of_new == STORED_NONE) {
            continue;
        }
        const struct pg_new *fresh = &batch_news(batch)[operation->of_new];
        const struct pg_pending pending = {.is_note = operation->kind == PG_NOTE,
                                           .fate = operation->fate,
                                           .kind = operation->note,
                                           .delivery = operation->delivery};
        if (pg_local_add(batch->pg, pg_local_at(batch->pg, fresh->journal), &pending,
                         operation->payload) != ERROR_NONE) {
            return ERROR_MEMORY;
        }
    }
    return ERROR_NONE;
}

static void journalled(void *context, enum error error, const struct spool_handle *handles,
                       size_t count)
{
    struct pg_batch *batch = context;
    assert(error != ERROR_NONE || count == batch_new_count(batch));
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = keep_local(batch, i, handles[i].index);
    }
    batch->error = error == ERROR_NONE ? keep_history(batch) : error;
    batch->journalled = true;
    pg_pump_later(batch->pg);
}

void pg_batch_submit(struct spool *spool, enum spool_durability durability, spool_done_fn *fn,
                     void *context)
{
    struct pg_spool *pg = pg_of(spool);
    struct pg_batch *batch = pg->open;
    pg->open = NULL;
    batch->fn = fn;
    batch->context = context;
    batch->durability = durability;
    batch->submitted_ms = clock_steady_ms();
    list_append(&pg->queue, &batch->link);
    bool journal = pg->journal_open;
    pg->journal_open = false;
    if (journal && batch->error == ERROR_NONE && batch_new_count(batch) > 0) {
        spool_batch_submit(pg->journal, SPOOL_WRITTEN, journalled, batch);
        return;
    }
    if (journal) {
        spool_batch_cancel(pg->journal);
    }
    batch->journalled = true;
    if (durability != SPOOL_LAZY || batch->error != ERROR_NONE) {
        pg_pump_later(pg);
    }
}

/* ---- taking effect ----------------------------------------------------------------------- */

/* `grouped`: while that group runs, its parts are the committer's to write to. */
static void apply_new(struct pg_spool *pg, const struct pg_new *fresh, bool grouped)
{
    uint32_t part = fresh->parts[0].part;
    if (pg->shared || pg_part_of(pg, part, fresh->id) == NULL) {
        return;
    }
    struct stored *stored = table_at(&pg->table, part);
    int64_t sequence = grouped && pg->group_running ? 0 : fresh->parts[0].sequence;
    stored->sequence = sequence != 0 ? (uint64_t)sequence : pg->last_sequence;
    pg_part_appear(pg, part);
}

static void apply(struct pg_batch *batch, bool noted_only)
{
    struct pg_spool *pg = batch->pg;
    bool messages = !noted_only || !batch->decides;
    for (size_t i = 0; i < batch_new_count(batch) && !batch->applied && messages; i++) {
        apply_new(pg, &batch_news(batch)[i], batch->grouped);
    }
    batch->applied |= messages;
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        struct pg_operation *operation = &batch_operations(batch)[i];
        if (operation->done || (noted_only && !operation->noted)) {
            continue;
        }
        operation->done = true;
        if (operation->kind == PG_FATE && pg_part_of(pg, operation->part, operation->id) != NULL) {
            pg_part_fate(pg, operation->part, operation->delivery, operation->fate);
        }
    }
}

void pg_batch_apply(struct pg_batch *batch)
{
    apply(batch, false);
}

void pg_batch_apply_noted(struct pg_batch *batch)
{
    apply(batch, true);
}

static void drop_new(struct pg_batch *batch, size_t at)
{
    struct pg_spool *pg = batch->pg;
    struct pg_new *fresh = &batch_news(batch)[at];
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        struct pg_operation *operation = &batch_operations(batch)[i];
        if (operation->of_new == at) {
            undo_operation(pg, operation);
            operation->done = true;
        } else if (operation->of_new != STORED_NONE && operation->of_new > at) {
            operation->of_new--;
        }
    }
    if (pg_local_at(pg, fresh->journal) != NULL && !batch->diverted) {
        pg_local_drop(pg, fresh->journal);
    }
    batch->bytes -= fresh->bytes;
    size_t behind = batch_new_count(batch) - at - 1;
    memmove(fresh, fresh + 1, behind * sizeof(*fresh));
    batch->news.length -= sizeof(*fresh);
}

static bool is_decision(const struct pg_operation *operation)
{
    return operation->kind != PG_GLOBAL && !operation->fact && !operation->done;
}

void pg_batch_refuse(struct pg_batch *batch, const struct pg_share *share, int64_t token)
{
    bool refused = false, all = false;
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        const struct pg_operation *operation = &batch_operations(batch)[i];
        refused |= operation->share == share && operation->token == token &&
                   operation->part != STORED_NONE && is_decision(operation);
    }
    if (!refused) {
        return;
    }
    for (size_t i = 0; i < batch_new_count(batch); i++) {
        all |= batch_news(batch)[i].about == NULL; /* nobody knows what it stands for */
    }
    batch->decides = false;
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        struct pg_operation *operation = &batch_operations(batch)[i];
        bool ours = !all && (operation->share != share || operation->token != token);
        if (is_decision(operation) && !ours) {
            undo_operation(batch->pg, operation);
            operation->done = true;
        }
        batch->decides |= is_decision(operation);
    }
    for (size_t i = batch_new_count(batch); i-- > 0;) {
        const struct pg_new *fresh = &batch_news(batch)[i];
        if (all || (fresh->about == share && fresh->about_token == token)) {
            drop_new(batch, i);
        }
    }
    batch->refused = true;
}
