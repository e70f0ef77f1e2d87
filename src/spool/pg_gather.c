/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes to the database together.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

#include <stdlib.h>

static void need_numbers(struct pg_group *group, const struct pg_new_part *parts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct pg_share *const *names = (const void *)group->names.data;
        size_t known = group->names.length / sizeof(*names);
        bool asked = parts[i].share->number >= 0;
        for (size_t n = 0; n < known && !asked; n++) {
            asked = names[n] == parts[i].share;
        }
        if (!asked) {
            buffer_append(&group->names, slice_make(&parts[i].share, sizeof(parts[i].share)));
        }
    }
}

static void send_message(struct pg_group *group, uint32_t journal, int64_t received_ms,
                         struct pg_new_part *parts, uint32_t part_count, bool late)
{
    struct pg_spool *pg = group->pg;
    struct spool_handle handle = {journal};
    struct pg_send_message send = {.id = pg_local_at(pg, journal)->id,
                                   .received_ms = received_ms,
                                   .behind = pg_local_at(pg, journal)->behind,
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
    need_numbers(group, parts, part_count);
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

static void send_fate(struct pg_group *group, struct message_id id, uint32_t delivery, uint8_t fate,
                      int64_t when_ms, struct slice server)
{
    const struct pg_send_fate send = {id, delivery, fate, when_ms, server};
    buffer_append(&group->fates, slice_make(&send, sizeof(send)));
}

static void send_note(struct pg_group *group, struct message_id id, struct pg_share *share,
                      uint32_t delivery, uint16_t kind, struct slice payload)
{
    const struct pg_send_note send = {id, share, delivery, kind, payload};
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
        send_fate(group, operation->id, operation->delivery, operation->fate, operation->when_ms,
                  operation->payload);
    } else {
        send_note(group, operation->id, operation->share, operation->delivery, operation->note,
                  operation->payload);
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
                     false);
        pg_pending_claim(pg_local_at(group->pg, fresh->journal), group->number);
    }
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        send_operation(group, &batch_operations(batch)[i]);
    }
    group->lazy &= batch->durability != SPOOL_SYNCED && batch_new_count(batch) == 0;
    batch->grouped = true;
    list_remove(&batch->link);
    list_append(&group->batches, &batch->link);
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
        return false; /* it stays in the journal, and is tried after the next start */
    }
    if (!local->stored) {
        send_message(group, journal, message.received_ms, fresh.parts, fresh.part_count, true);
        group->lazy = false;
    }
    for (struct pg_pending *at = local->pending; at != NULL; at = at->next) {
        struct slice bytes = slice_make(at->bytes, at->length);
        if (!at->is_note) {
            send_fate(group, local->id, at->delivery, at->fate, at->when_ms, bytes);
            group->lazy = false;
        }
        for (uint32_t p = 0; p < fresh.part_count && at->is_note; p++) {
            if (pg_new_part_has(&fresh.parts[p], at->delivery)) {
                send_note(group, local->id, fresh.parts[p].share, at->delivery, at->kind, bytes);
            }
        }
    }
    pg_pending_claim(local, group->number);
    return true;
}

static void gather_forward(struct pg_group *group)
{
    struct pg_spool *pg = group->pg;
    const uint32_t *waiting = (const void *)(pg->forward.data);
    size_t count = pg->forward.length / sizeof(*waiting), at = pg->forward_at;
    uint64_t bytes = 0;
    while (at < count && at - pg->forward_at < PG_GROUP_MESSAGES / 2 &&
           bytes < PG_GROUP_BYTES / 2) {
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
    size_t messages = 0, operations = 0;
    bool lease = pg_lease_holds(pg);
    LIST_EACH(&pg->queue, at, after)
    {
        struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        if (!batch->journalled) {
            break; /* order is kept */
        }
        if (batch->error != ERROR_NONE || (batch->decides && !lease)) {
            continue;
        }
        size_t news = batch_new_count(batch);
        if (messages > 0 &&
            (messages + news > PG_GROUP_MESSAGES || bytes + batch->bytes > PG_GROUP_BYTES)) {
            break;
        }
        messages += news;
        bytes += batch->bytes;
        operations += batch_operation_count(batch);
        send_batch(group, batch);
        if (operations > PG_GROUP_OPERATIONS) {
            break;
        }
    }
}

static bool is_watermark_due(const struct pg_spool *pg)
{
    return pg->now_ms != 0 && pg->journal_loaded &&
           clock_steady_ms() - pg->watermarked_ms >= PG_WATERMARK_MS;
}

bool pg_is_wanted(const struct pg_spool *pg)
{
    if (!pg_has_joined(pg)) {
        return false;
    }
    if (pg->forward_at * sizeof(uint32_t) < pg->forward.length || !list_is_empty(&pg->globals)) {
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
        if (batch->error == ERROR_NONE && (!batch->decides || lease) &&
            (batch->durability != SPOOL_LAZY || pg->flush_lazy)) {
            return true;
        }
    }
    return false;
}

static void lower(struct message_id *below, struct message_id id)
{
    if (id.high < below->high || (id.high == below->high && id.low < below->low)) {
        *below = id;
    }
}

/* All that is not in this group, and not in the database. */
static void gather_watermark(struct pg_group *group)
{
    struct pg_spool *pg = group->pg;
    struct message_id below = {(uint64_t)(pg->now_ms - PG_MARGIN_MS) << 16, 0};
    const uint32_t *waiting = (const void *)pg->forward.data;
    size_t count = pg->forward.length / sizeof(*waiting);
    for (size_t i = pg->forward_at + pg->group_forwards; i < count; i++) {
        const struct pg_local *local = pg_local_at(pg, waiting[i]);
        if (local != NULL && !local->stored) {
            lower(&below, local->id);
        }
    }
    LIST_EACH(&pg->queue, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        for (size_t i = 0; i < batch_new_count(batch); i++) {
            lower(&below, batch_news(batch)[i].id);
        }
    }
    group->below = below;
    group->has_below = true;
    pg->watermarked_ms = clock_steady_ms();
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
    group->inline_bytes = pg->settings.inline_bytes;
    group->chunk_bytes = pg->settings.chunk_bytes;
    group->lazy = true;
    pg->group = group;
    if (pg->journal_loaded) {
        gather_globals(group);
        gather_forward(group);
    }
    gather_batches(group);
    if (is_watermark_due(pg)) {
        gather_watermark(group);
    }
    return group;
}
