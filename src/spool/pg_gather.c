/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes to the database together.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

#include <stdlib.h>

static void send_message(struct pg_group *group, uint32_t journal, int64_t received_ms,
                         struct pg_new_part *parts, uint32_t part_count, bool late)
{
    struct pg_spool *pg = group->pg;
    struct spool_handle handle = {journal};
    struct pg_send_message send = {.id = pg_local_at(pg, journal)->id,
                                   .received_ms = received_ms,
                                   .bytes = pg_local_at(pg, journal)->bytes,
                                   .journal = journal,
                                   .parts = parts,
                                   .part_count = part_count,
                                   .late = late};
    uint8_t ticket[SPOOL_TICKET_MAX];
    size_t length;
    spool_pin(pg->journal, handle);
    if (spool_ticket(pg->journal, handle, ticket, &length) != ERROR_NONE ||
        !log_ticket_decode(slice_make(ticket, length), &send.ticket)) {
        abort(); /* our own journal gives them to whoever asks */
    }
    buffer_append(&group->messages, slice_make(&send, sizeof(send)));
    if (group->messages.failed) {
        abort();
    }
}

static void send_check(struct pg_group *group, const struct pg_operation *operation)
{
    struct pg_check *checks = (void *)group->checks.data;
    size_t count = group->checks.length / sizeof(*checks);
    for (size_t i = 0; i < count; i++) {
        if (checks[i].share == operation->share && checks[i].token == operation->token) {
            return;
        }
    }
    const struct pg_check check = {
        .share = operation->share, .number = operation->share->number, .token = operation->token};
    buffer_append(&group->checks, slice_make(&check, sizeof(check)));
}

static void send_fate(struct pg_group *group, const struct pg_send_fate *send)
{
    buffer_append(&group->fates, slice_make(send, sizeof(*send)));
}

static void send_note(struct pg_group *group, struct message_id id, struct pg_share *share,
                      uint32_t delivery, uint16_t kind, struct slice payload, bool with_message)
{
    const struct pg_send_note send = {id, share, delivery, kind, with_message, payload};
    buffer_append(&group->notes, slice_make(&send, sizeof(send)));
}

static void send_operation(struct pg_group *group, const struct pg_operation *operation)
{
    if (operation->done) {
        return;
    }
    if (operation->kind == PG_GLOBAL) {
        const struct pg_send_global send = {operation->key, operation->payload,
                                            pg_is_common(group->pg, operation->key)};
        buffer_append(&group->globals, slice_make(&send, sizeof(send)));
    } else if (operation->kind == PG_FATE) {
        const struct pg_send_fate send = {.id = operation->id,
                                          .share = operation->fact ? operation->share : NULL,
                                          .unplaced = operation->part == STORED_NONE &&
                                                      operation->of_new == STORED_NONE,
                                          .token = operation->token,
                                          .delivery = operation->delivery,
                                          .fate = operation->fate,
                                          .when_ms = operation->when_ms,
                                          .server = operation->payload};
        send_fate(group, &send);
    } else {
        send_note(group, operation->id, operation->share, operation->delivery, operation->note,
                  operation->payload, false);
    }
    if (group->pg->shared && operation->kind != PG_GLOBAL && !operation->fact) {
        send_check(group, operation);
    }
}

static void send_batch(struct pg_group *group, struct pg_batch *batch)
{
    for (size_t i = 0; i < batch_new_count(batch); i++) {
        struct pg_new *fresh = &batch_news(batch)[i];
        send_message(group, fresh->journal, fresh->received_ms, fresh->parts, fresh->part_count,
                     batch->diverted);
        pg_pending_claim(pg_local_at(group->pg, fresh->journal), group->number);
    }
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        send_operation(group, &batch_operations(batch)[i]);
    }
    group->lazy &= batch->durability != SPOOL_SYNCED && batch_new_count(batch) == 0;
    group->company += batch->durability != SPOOL_LAZY;
    batch->grouped = true;
    list_remove(&batch->link);
    list_append(&group->batches, &batch->link);
}

static struct pg_share *share_with(const struct pg_new *fresh, uint32_t delivery)
{
    for (uint32_t p = 0; p < fresh->part_count; p++) {
        if (pg_new_part_has(&fresh->parts[p], delivery)) {
            return fresh->parts[p].share;
        }
    }
    return NULL;
}

/* A message that was kept in the journal, or what is pending about one. */
static bool send_forward(struct pg_group *group, uint32_t journal)
{
    struct pg_spool *pg = group->pg;
    struct pg_local *local = pg_local_at(pg, journal);
    if (local == NULL || !local->queued) {
        return false;
    }
    struct pg_new fresh = {.id = local->id};
    struct spool_message message;
    enum error error =
        spool_read_envelope(pg->journal, (struct spool_handle){journal}, &group->arena, &message);
    if (error == ERROR_NONE) {
        error = pg_share_out(pg, &message, &group->arena, &fresh);
    }
    if (error != ERROR_NONE) {
        local->unread = group->number;
        return false;
    }
    if (!local->stored) {
        send_message(group, journal, message.received_ms, fresh.parts, fresh.part_count, true);
        group->lazy = false;
    }
    for (struct pg_pending *at = local->pending; at != NULL; at = at->next) {
        struct slice bytes = slice_make(at->bytes, at->length);
        if (!at->is_note) {
            /* Whose the share was then is not known any more. */
            const struct pg_send_fate send = {
                .id = local->id,
                .share = local->stored ? share_with(&fresh, at->delivery) : NULL,
                .token = -1,
                .delivery = at->delivery,
                .fate = at->fate,
                .when_ms = at->when_ms,
                .server = bytes};
            send_fate(group, &send);
            group->lazy = false;
        }
        for (uint32_t p = 0; p < fresh.part_count && at->is_note; p++) {
            if (pg_new_part_has(&fresh.parts[p], at->delivery)) {
                send_note(group, local->id, fresh.parts[p].share, at->delivery, at->kind, bytes,
                          true);
            }
        }
    }
    pg_pending_claim(local, group->number);
    return true;
}

static bool is_awaited(const struct pg_spool *pg)
{
    LIST_EACH(&pg->queue, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        if (!batch->told && batch->durability != SPOOL_LAZY) {
            return true;
        }
    }
    return pg->company > 0;
}

/* New mail is not kept waiting for it: the owners keep the order, whichever comes first
 * (pg_behind.c). */
static void gather_forward(struct pg_group *group)
{
    struct pg_spool *pg = group->pg;
    const uint32_t *waiting = (const void *)(pg->forward.data);
    size_t count = pg->forward.length / sizeof(*waiting), at = pg->forward_at;
    uint64_t bytes = 0;
    size_t most = pg->split > 0 ? pg->split : is_awaited(pg) ? pg->forward_most : PG_FORWARD_MOST;
    while (at < count && at - pg->forward_at < most && bytes < PG_GROUP_BYTES / 2) {
        bytes += send_forward(group, waiting[at]) ? pg_local_at(pg, waiting[at])->bytes : 0;
        at++;
    }
    pg->group_forwards = at - pg->forward_at;
}

static void gather_globals(struct pg_group *group)
{
    LIST_EACH(&group->pg->globals, at, after)
    {
        struct pg_global *global = LIST_ENTRY(at, struct pg_global, link);
        const struct pg_send_global send = {
            arena_copy(&group->arena, global->key),
            arena_copy(&group->arena, slice_skip(global->payload, 1)),
            pg_is_common(group->pg, global->key)};
        buffer_append(&group->globals, slice_make(&send, sizeof(send)));
        global->group = group->number;
        group->lazy = false;
    }
}

static void gather_batches(struct pg_group *group)
{
    struct pg_spool *pg = group->pg;
    uint64_t bytes = 0;
    size_t messages = 0, operations = 0, units = pg->group_forwards;
    bool lease = pg_lease_holds(pg);
    LIST_EACH(&pg->queue, at, after)
    {
        struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        if (!batch->journalled || (pg->split > 0 && units >= pg->split)) {
            break; /* order is kept */
        }
        if (batch->error != ERROR_NONE || batch->unfit || (batch->decides && !lease)) {
            continue;
        }
        size_t news = batch_new_count(batch);
        if (pg->parts && group->company >= pg->company) {
            break;
        }
        if (messages > 0 &&
            (messages + news > PG_GROUP_MESSAGES || bytes + batch->bytes > PG_GROUP_BYTES)) {
            break;
        }
        messages += news;
        bytes += batch->bytes;
        operations += batch_operation_count(batch);
        send_batch(group, batch);
        units++;
        if (operations > PG_GROUP_OPERATIONS) {
            break;
        }
    }
}

static bool is_watermark_due(const struct pg_spool *pg)
{
    return pg->journal_loaded && clock_steady_ms() - pg->watermarked_ms >= PG_WATERMARK_MS;
}

bool pg_is_wanted(const struct pg_spool *pg)
{
    if (!pg_has_joined(pg)) {
        return false;
    }
    if (pg_is_forwarding(pg) || !list_is_empty(&pg->globals) || pg_spare_is_due(&pg->spare)) {
        return true;
    }
    if (is_watermark_due(pg)) {
        return true;
    }
    bool lease = pg_lease_holds(pg);
    LIST_EACH(&pg->queue, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        if (!batch->journalled) {
            return false;
        }
        if (batch->error == ERROR_NONE && !batch->unfit && (!batch->decides || lease) &&
            (batch->durability != SPOOL_LAZY || pg->flush_lazy)) {
            return true;
        }
    }
    return false;
}

bool pg_is_company_due(const struct pg_spool *pg)
{
    size_t count = 0;
    uint64_t bytes = 0;
    LIST_EACH(&pg->queue, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        if (!batch->journalled || count >= pg->company || bytes >= PG_COMPANY_BYTES) {
            break;
        }
        count += batch->durability != SPOOL_LAZY;
        bytes += batch->bytes;
    }
    return count > 0 && count < pg->company && bytes < PG_COMPANY_BYTES;
}

static void lower(struct message_id *below, struct message_id id)
{
    if (id_before(id, *below)) {
        *below = id;
    }
}

/* ---- how far we are ---------------------------------------------------------------------- */

void pg_watermark_hold(struct pg_spool *pg, struct message_id id)
{
    lower(&pg->unsynced, id);
}

static void synced(void *context, enum error error, const struct spool_handle *handles,
                   size_t count)
{
    (void)handles;
    (void)count;
    struct pg_spool *pg = context;
    pg->sync_runs = false;
    if (error != ERROR_NONE) {
        lower(&pg->unsynced, pg->syncing);
    }
    pg->syncing = PG_NO_ID;
}

/* What is synced now is what the next watermark may pass. */
void pg_watermark_sync(struct pg_spool *pg)
{
    if (!pg->sync_wanted || pg->sync_runs || id_equal(pg->unsynced, PG_NO_ID)) {
        return;
    }
    pg->sync_wanted = false;
    pg->syncing = pg->unsynced;
    pg->unsynced = PG_NO_ID;
    pg->sync_runs = true;
    spool_batch_begin(pg->journal);
    spool_batch_submit(pg->journal, SPOOL_SYNCED, synced, pg);
}

/* Beyond what is low, the database says how far: to PG_MARGIN_MS before its present. Low is what
 * the journal would send once more, though it may have been sent: what waits, is in this group, is
 * not marked as sent on stable storage, or is kept in case that the database loses it. So a range
 * goes only when nothing of it can come a second time. */
static void gather_watermark(struct pg_group *group)
{
    struct pg_spool *pg = group->pg;
    struct message_id below = PG_NO_ID;
    const uint32_t *waiting = (const void *)pg->forward.data;
    size_t count = pg->forward.length / sizeof(*waiting);
    for (size_t i = pg->forward_at; i < count; i++) {
        const struct pg_local *local = pg_local_at(pg, waiting[i]);
        if (local != NULL && !local->stored) {
            lower(&below, local->id);
        }
    }
    const struct pg_send_message *messages = (const void *)group->messages.data;
    for (size_t i = 0; i < group->messages.length / sizeof(*messages); i++) {
        lower(&below, messages[i].id);
    }
    LIST_EACH(&pg->queue, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        for (size_t i = 0; i < batch_new_count(batch); i++) {
            lower(&below, batch_news(batch)[i].id);
        }
    }
    lower(&below, pg->unsynced);
    lower(&below, pg->syncing);
    pg_spare_lower(pg, &below);
    group->below = below;
    group->has_below = true;
    pg->watermarked_ms = clock_steady_ms();
    pg->sync_wanted = true;
}

/* New mail below what we have said is of somebody who was slow to send it. Before we have said
 * anything, what we said before the last start counts. */
static bool is_old(const struct pg_group *group)
{
    const struct pg_spool *pg = group->pg;
    const struct pg_send_message *messages = (const void *)group->messages.data;
    bool old = group->messages.length > 0 && id_is_null(pg->said);
    for (size_t i = 0; i < group->messages.length / sizeof(*messages) && !old; i++) {
        old = messages[i].late || id_before(messages[i].id, pg->said);
    }
    return old;
}

struct pg_group *pg_gather(struct pg_spool *pg)
{
    struct pg_group *group = calloc(1, sizeof(*group));
    if (group == NULL) {
        return NULL;
    }
    arena_init(&group->arena);
    list_init(&group->batches);
    group->pg = pg;
    group->writer = &pg->writer;
    group->disk = pg->disk;
    group->number = pg->next_group++;
    group->node = pg->settings.node;
    group->time_ahead_ms = pg->time_ahead_ms;
    group->inline_bytes = pg->settings.inline_bytes;
    group->chunk_bytes = pg->settings.chunk_bytes;
    group->lazy = true;
    pg->group = group;
    pg_spare_ask(pg, group);
    if (group->spares.length > 0) {
        return group;
    }
    if (pg->journal_loaded) {
        gather_globals(group);
        gather_forward(group);
    }
    gather_batches(group);
    if (is_watermark_due(pg)) {
        gather_watermark(group);
    }
    group->old = is_old(group);
    return group;
}
