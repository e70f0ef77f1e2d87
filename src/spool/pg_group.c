/* SPDX-License-Identifier: Apache-2.0
 *
 * From batches to groups and back: what is sent to the database together, what becomes of it, and
 * what is kept in the journal when the database does not take it in time.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void pg_pump_later(struct pg_spool *pg)
{
    if (!pg->ending) {
        loop_later_ask(pg->later);
    }
}

/* ---- is it there? ------------------------------------------------------------------------ */

void pg_set_up(struct pg_spool *pg, bool up, const char *reason)
{
    snprintf(pg->reason, sizeof(pg->reason), "%s", up ? "" : reason);
    if (pg->up == up) {
        return;
    }
    pg->up = up;
    pg->since_ms = clock_steady_ms();
    if (pg->owner.state_changed != NULL && pg->opened && !pg->ending) {
        pg->owner.state_changed(pg->owner.context);
    }
}

bool pg_is_away(const struct pg_spool *pg)
{
    return !pg->up || (pg->group_running && clock_steady_ms() - pg->group->began_ms >= PG_SLOW_MS);
}

/* ---- the end of a batch ------------------------------------------------------------------ */

static void tell(struct pg_batch *batch, enum error error)
{
    if (batch->told) {
        return;
    }
    batch->told = true;
    if (batch->refused && error == ERROR_NONE) {
        error = ERROR_DENIED;
    }
    if (batch->fn != NULL) {
        batch->fn(batch->context, error, (const void *)batch->handles.data,
                  error == ERROR_NONE ? batch->handles.length / sizeof(struct spool_handle) : 0);
    }
}

static void fail(struct pg_batch *batch, enum error error)
{
    struct pg_spool *pg = batch->pg;
    for (size_t i = 0; i < batch_new_count(batch); i++) {
        uint32_t journal = batch_news(batch)[i].journal;
        if (!batch->grouped && pg_local_at(pg, journal) != NULL) {
            pg_local_drop(pg, journal);
        }
    }
    pg_batch_undo(batch);
    tell(batch, error);
}

static void let_go(struct pg_batch *batch)
{
    if (batch->told && !batch->grouped && !batch->diverting) {
        pg_batch_free(batch);
    }
}

static void fail_broken(struct pg_spool *pg)
{
    LIST_EACH(&pg->queue, at, after)
    {
        struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        if (batch->error != ERROR_NONE && batch->journalled && !batch->told) {
            fail(batch, batch->error);
            let_go(batch);
            after = pg->queue.next; /* it may have submitted, or what follows may be gone */
        }
    }
}

/* ---- into the journal -------------------------------------------------------------------- */

/* What the journal has of the message; also if the part is not here (spool_batch_fact()). */
static struct pg_local *local_of(const struct pg_spool *pg, const struct pg_operation *operation,
                                 uint32_t *ret_journal)
{
    const struct stored *stored = pg_part_of(pg, operation->part, operation->id);
    bool elsewhere = operation->part == STORED_NONE && operation->of_new == STORED_NONE;
    if (stored == NULL && !elsewhere) {
        return NULL;
    }
    *ret_journal = elsewhere ? spool_find(pg->journal, operation->id).index : stored->offset;
    struct pg_local *local = pg_local_at(pg, *ret_journal);
    return local != NULL && !local->ending ? local : NULL;
}

/* False: it must wait for the database. */
static bool note_operation(struct pg_batch *batch, struct pg_operation *operation)
{
    struct pg_spool *pg = batch->pg;
    uint64_t group = batch->grouped ? pg->group->number : 0;
    if (operation->kind == PG_GLOBAL) {
        operation->noted = pg_global_set(pg, operation->key, operation->payload, true);
        pg_global_group(pg, operation->key, group);
        return operation->noted;
    }
    if (operation->of_new != STORED_NONE) {
        operation->noted = true; /* with the message */
        return true;
    }
    uint32_t journal;
    struct pg_local *local = operation->fact ? local_of(pg, operation, &journal) : NULL;
    const struct pg_pending pending = {.group = group,
                                       .untold = true,
                                       .fate = operation->fate,
                                       .delivery = operation->delivery,
                                       .when_ms = operation->when_ms};
    if (local == NULL || pg_local_add(pg, local, &pending, operation->payload) != ERROR_NONE) {
        return false;
    }
    operation->noted = true;
    pg_pending_put_last(pg, journal);
    return true;
}

/* What must be atomic with a decision waits with it; facts do not. */
static bool is_free(const struct pg_batch *batch)
{
    return !batch->decides || batch_new_count(batch) == 0;
}

static void tell_diverted(struct pg_batch *batch)
{
    struct pg_spool *pg = batch->pg;
    bool all = true;
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        struct pg_operation *operation = &batch_operations(batch)[i];
        uint32_t journal;
        if (!operation->noted && !operation->done) {
            all = false;
        } else if (!operation->done && operation->kind == PG_FATE &&
                   local_of(pg, operation, &journal) != NULL && !batch->grouped) {
            pg_local_queue(pg, journal);
        }
    }
    pg_batch_apply_noted(batch);
    if (!is_free(batch)) {
        return;
    }
    for (size_t i = 0; i < batch_new_count(batch); i++) {
        struct pg_local *local = pg_local_at(pg, batch_news(batch)[i].journal);
        assert(local != NULL);
        pg_local_count(pg, local);
        if (!batch->grouped) {
            local->queued = false;
            pg_local_queue(pg, batch_news(batch)[i].journal);
        }
    }
    if (!batch->grouped) {
        buffer_clear(&batch->news);
        batch->bytes = 0;
    }
    if (all) {
        tell(batch, ERROR_NONE);
    }
}

static void tell_unfit(struct pg_spool *pg, struct message_id id, const char *reason)
{
    char text[sizeof(pg->reason) + 100], name[ID_TEXT_LENGTH + 1];
    id_to_text(id, name);
    snprintf(text, sizeof(text), "the database refuses %s: %s", name, reason);
    pg_damage(pg, text);
}

static void void_unfit(struct pg_batch *batch, const char *reason)
{
    if (!batch->told) {
        const struct pg_operation *operations = batch_operations(batch);
        bool any = batch_operation_count(batch) > 0;
        tell_unfit(batch->pg, any ? operations[0].id : (struct message_id){0}, reason);
        fail(batch, ERROR_DENIED);
    }
}

/* Facts that were noted in the journal: the database has them by that group; 0: it has not. */
static void each_noted(struct pg_batch *batch, uint64_t group)
{
    struct pg_spool *pg = batch->pg;
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        const struct pg_operation *operation = &batch_operations(batch)[i];
        if (!operation->noted || operation->kind != PG_FATE || operation->of_new != STORED_NONE) {
            continue;
        }
        struct spool_handle journal = spool_find(pg->journal, operation->id);
        if (pg_local_at(pg, journal.index) == NULL) {
            continue;
        }
        if (group != 0) {
            pg_local_settle(pg, journal.index, group);
        } else {
            pg_local_queue(pg, journal.index);
        }
    }
}

static void diverted(void *context, enum error error, const struct spool_handle *handles,
                     size_t count)
{
    (void)handles;
    (void)count;
    struct pg_batch *batch = context;
    struct pg_spool *pg = batch->pg;
    batch->diverting = false;
    if (!batch->told) {
        if (error != ERROR_NONE) {
            each_noted(batch, 0); /* they are facts all the same */
            fail(batch, error);
        } else {
            batch->diverted = true;
            tell_diverted(batch);
            if (batch->unfit) {
                void_unfit(batch, "only a part of it is kept");
            }
        }
    }
    let_go(batch);
    pg_pump_later(pg);
}

static void divert(struct pg_batch *batch)
{
    struct pg_spool *pg = batch->pg;
    bool whole = is_free(batch);
    bool any = whole && (batch_new_count(batch) > 0 || batch_operation_count(batch) == 0);
    spool_batch_begin(pg->journal);
    for (size_t i = 0; i < batch_operation_count(batch); i++) {
        struct pg_operation *operation = &batch_operations(batch)[i];
        if (!operation->done && !operation->noted &&
            (whole || (operation->fact && operation->of_new == STORED_NONE))) {
            any |= note_operation(batch, operation);
        }
    }
    if (!any) {
        spool_batch_cancel(pg->journal);
        return;
    }
    batch->diverting = true;
    spool_batch_submit(pg->journal, SPOOL_SYNCED, diverted, batch);
}

static void divert_list(struct pg_spool *pg, struct link *list)
{
    int64_t now_ms = clock_steady_ms();
    bool away = pg_is_away(pg);
    LIST_EACH(list, at, after)
    {
        struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        bool waits = batch->journalled && !batch->told && !batch->diverting && !batch->diverted &&
                     batch->error == ERROR_NONE && !batch->refused && !batch->stuck;
        bool due = away && pg_may_divert(batch, now_ms);
        if (waits && (due || now_ms - batch->submitted_ms >= PG_SLOW_MS)) {
            divert(batch);
            batch->stuck = !batch->diverting;
        }
    }
}

void pg_divert_due(struct pg_spool *pg)
{
    if (pg->group != NULL) {
        divert_list(pg, &pg->group->batches);
    }
    divert_list(pg, &pg->queue);
}

/* ---- the lease --------------------------------------------------------------------------- */

void pg_tell_held(struct pg_spool *pg)
{
    while (!list_is_empty(&pg->held) && (pg_lease_holds(pg) || pg->ending)) {
        struct pg_batch *batch = LIST_ENTRY(pg->held.next, struct pg_batch, link);
        list_remove(&batch->link);
        tell(batch, ERROR_NONE);
        let_go(batch);
    }
}

void pg_refuse_held(struct pg_spool *pg, const struct pg_share *share)
{
    LIST_EACH(&pg->held, at, after)
    {
        struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        for (size_t i = 0; i < batch_operation_count(batch); i++) {
            batch->refused |= batch_operations(batch)[i].share == share;
        }
        if (batch->refused) {
            list_remove(&batch->link);
            tell(batch, ERROR_NONE);
            let_go(batch);
            after = pg->held.next;
        }
    }
}

/* ---- the outcome ------------------------------------------------------------------------- */

void pg_group_free(struct pg_group *group)
{
    if (group == NULL) {
        return;
    }
    arena_done(&group->arena);
    buffer_done(&group->messages);
    buffer_done(&group->fates);
    buffer_done(&group->notes);
    buffer_done(&group->globals);
    buffer_done(&group->checks);
    buffer_done(&group->names);
    buffer_done(&group->spares);
    free(group);
}

static void unpin_all(struct pg_group *group)
{
    const struct pg_send_message *messages = (const void *)group->messages.data;
    for (size_t i = 0; i < group->messages.length / sizeof(*messages); i++) {
        spool_unpin(group->pg->journal, (struct spool_handle){messages[i].journal});
    }
}

static void await_parts(struct pg_spool *pg, const struct pg_send_message *message, uint64_t xid)
{
    bool ours = false;
    for (uint32_t i = 0; i < message->part_count && pg->shared; i++) {
        const struct pg_share *share =
            map_get(&pg->numbers, (uint64_t)message->parts[i].share->number);
        ours |= share != NULL && (share->owned || share->taking);
    }
    if (ours) {
        pg_local_await(pg, message->journal, xid);
    }
}

/* It stays in the journal, and is tried again: if somebody was told that we have it, nobody else
 * does. */
static void tell_unreadable(struct pg_spool *pg, struct pg_local *local)
{
    char text[120], name[ID_TEXT_LENGTH + 1];
    if (local->warned) {
        return;
    }
    local->warned = true;
    id_to_text(local->id, name);
    snprintf(text, sizeof(text), "%s cannot be read from the journal, so the database lacks %s",
             name, local->stored ? "what became of it" : "it");
    pg_damage(pg, text);
}

/* Some of its mail could not be read: it waits by itself, or was never accepted. */
static void leave_unread(struct pg_batch *batch, uint64_t group)
{
    struct pg_spool *pg = batch->pg;
    bool any = false;
    for (size_t i = 0; i < batch_new_count(batch); i++) {
        struct pg_local *local = pg_local_at(pg, batch_news(batch)[i].journal);
        if (local != NULL && !local->stored && local->unread == group) {
            tell_unreadable(pg, local);
            any = true;
            if (batch->told) {
                pg_local_set_aside(pg, batch_news(batch)[i].journal);
            }
        }
    }
    if (any && !batch->told) {
        fail(batch, ERROR_IO); /* the journal does not give back what it took */
    }
}

static void commit_batch(struct pg_batch *batch, uint64_t group)
{
    struct pg_spool *pg = batch->pg;
    batch->grouped = false;
    list_remove(&batch->link);
    each_noted(batch, group);
    leave_unread(batch, group);
    pg_batch_apply(batch);
    if (batch->decides && !batch->told && !pg_lease_holds(pg) && !pg->ending) {
        list_append(&pg->held, &batch->link);
        return;
    }
    tell(batch, ERROR_NONE);
    let_go(batch);
}

/* How much of the group's time the forwards took is seen by how long the one before took with more
 * or fewer messages; where it is the commit that takes long, many of them cost nobody any. */
static void weigh_forwards(struct pg_spool *pg, const struct pg_group *group, int64_t took_us)
{
    int64_t messages = (int64_t)(group->messages.length / sizeof(struct pg_send_message));
    int64_t more = messages - pg->weighed_messages, longer_us = took_us - pg->weighed_us;
    if (pg->group_forwards == 0 || pg->group_forwards > pg->forward_most) {
        return; /* nobody waited for these */
    }
    int64_t each_us = more == 0                       ? took_us / (messages + 1)
                      : (more > 0) == (longer_us > 0) ? longer_us / more
                                                      : 0;
    int64_t forwards_us = each_us * (int64_t)pg->group_forwards;
    size_t half = pg->forward_most / 2, twice = pg->forward_most * 2;
    if (forwards_us > PG_FORWARD_US && forwards_us > took_us / 2) {
        pg->forward_most = half > PG_FORWARD_LEAST ? half : PG_FORWARD_LEAST;
    } else {
        pg->forward_most = twice < PG_FORWARD_MOST ? twice : PG_FORWARD_MOST;
    }
    pg->weighed_messages = messages;
    pg->weighed_us = took_us;
}

static void group_committed(struct pg_spool *pg, struct pg_group *group)
{
    weigh_forwards(pg, group, group->took_ns / 1000);
    pg_spare_fates(pg, group);
    const struct pg_send_message *messages = (const void *)group->messages.data;
    for (size_t i = 0; i < group->messages.length / sizeof(*messages); i++) {
        if (messages[i].error != ERROR_NONE) {
            pg_local_at(pg, messages[i].journal)->unread = group->number;
        } else {
            await_parts(pg, &messages[i], group->xid);
            pg_spare_message(pg, messages[i].journal);
            pg_local_stored(pg, messages[i].journal, group->number);
        }
    }
    const uint32_t *forwards = (const void *)pg->forward.data;
    for (size_t i = 0; i < pg->group_forwards; i++) {
        uint32_t journal = forwards[pg->forward_at + i];
        struct pg_local *local = pg_local_at(pg, journal);
        if (local != NULL && local->queued && local->unread == group->number) {
            tell_unreadable(pg, local);
            pg_local_set_aside(pg, journal);
        } else if (local != NULL && local->queued && local->stored) {
            pg_local_stored(pg, journal, group->number); /* what was pending */
        }
    }
    pg->forward_at += pg->group_forwards;
    if (pg->forward_at * sizeof(*forwards) > pg->forward.length / 2) {
        buffer_consume(&pg->forward, pg->forward_at * sizeof(*forwards));
        pg->forward_at = 0;
    }
    if (id_before(pg->said, group->said)) {
        pg->said = group->said;
    }
    pg_globals_stored(pg, group->number);
    while (!list_is_empty(&group->batches)) {
        commit_batch(LIST_ENTRY(group->batches.next, struct pg_batch, link), group->number);
    }
    uint32_t took_us = (uint32_t)(group->took_ns / 1000);
    pg->commit_us = pg->commit_us == 0 ? took_us : (pg->commit_us * 7 + took_us) / 8;
    pg_spare_expire(pg);
    pg->groups++;
    pg->split = pg->split * 2 < PG_GROUP_MESSAGES ? pg->split * 2 : 0;
}

/* Nothing of it was done: what it carries waits again, where it was. */
static void group_dissolve(struct pg_spool *pg, struct pg_group *group)
{
    while (!list_is_empty(&group->batches)) {
        struct pg_batch *batch = LIST_ENTRY(group->batches.previous, struct pg_batch, link);
        batch->grouped = false;
        list_remove(&batch->link);
        list_insert_before(pg->queue.next, &batch->link);
        each_noted(batch, 0);
    }
}

/* ---- what the database refuses ----------------------------------------------------------- */

/* It stays in the journal, and is tried after the next start. */
static void leave_forward(struct pg_spool *pg, const char *reason)
{
    uint32_t journal = ((const uint32_t *)(const void *)pg->forward.data)[pg->forward_at++];
    struct pg_local *local = pg_local_at(pg, journal);
    if (local != NULL && local->queued) {
        local->queued = false;
        pg_local_excuse(pg, local);
        tell_unfit(pg, local->id, reason);
    }
}

/* What may be in the journal alone goes there, and is refused once more from there; what may not is
 * void. */
static void leave_batch(struct pg_batch *batch, const char *reason)
{
    batch->unfit = true;
    if (batch->diverted) {
        tell_diverted(batch); /* now that it is in no group */
    } else if (!batch->diverting) {
        divert(batch);
    }
    if (!batch->diverting) {
        void_unfit(batch, reason);
        let_go(batch);
    }
}

static size_t units_of(const struct pg_group *group)
{
    size_t count = group->pg->group_forwards;
    LIST_EACH(&group->batches, at, after)
    {
        count++;
    }
    return count;
}

/* One row must not stop all mail: the half of what was refused is tried, until it stands alone. */
static void group_refused(struct pg_spool *pg, struct pg_group *group)
{
    size_t units = units_of(group);
    bool is_forward = pg->group_forwards > 0;
    group_dissolve(pg, group);
    if (units > 1) {
        pg->split = units / 2;
    } else if (is_forward) {
        leave_forward(pg, group->reason);
    } else {
        leave_batch(LIST_ENTRY(pg->queue.next, struct pg_batch, link), group->reason);
    }
}

static void refuse_stale(struct pg_spool *pg, struct pg_group *group)
{
    struct pg_check *checks = (void *)group->checks.data;
    for (size_t i = 0; i < group->checks.length / sizeof(*checks); i++) {
        if (!checks[i].stale) {
            continue;
        }
        LIST_EACH(&pg->queue, at, after)
        {
            pg_batch_refuse(LIST_ENTRY(at, struct pg_batch, link), checks[i].share,
                            checks[i].token);
        }
        if (checks[i].share->token == checks[i].token) {
            pg_share_lost(pg, checks[i].share);
        }
    }
}

static size_t count_awaited(const struct pg_spool *pg)
{
    size_t count = 0;
    LIST_EACH(&pg->queue, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        count += !batch->told && batch->durability != SPOOL_LAZY;
    }
    return count;
}

/* Where all clients are of one group they keep in step: they wait while the database works, and it
 * while they do. Half of them go first, then. */
static void part_company(struct pg_spool *pg)
{
    pg->parts = pg->company >= PG_COMPANY_MANY && count_awaited(pg) < pg->company / 4;
    if (pg->parts) {
        pg->company /= 2;
    }
}

/* What another one has committed, this one may not have. */
static void meet_server(struct pg_spool *pg, struct pg_group *group)
{
    if (group->server != 0 && group->server != pg->written_server) {
        pg->written_server = group->server;
        pg_spare_doubt(pg);
    }
}

static void group_done(void *context)
{
    struct pg_group *group = context;
    struct pg_spool *pg = group->pg;
    pg->group_running = false;
    meet_server(pg, group);
    bool refused = group->refused && units_of(group) > 0;
    if (group->stale || refused || group->stage == PG_STAGE_COMMITTED) {
        pg_set_up(pg, true, "");
        pg->ask_failed = false;
        unpin_all(group);
        pg->group = NULL;
        if (group->stale) {
            group_dissolve(pg, group);
            refuse_stale(pg, group);
        } else if (refused) {
            group_refused(pg, group);
        } else if (group->spares.length > 0) {
            pg_spare_answered(pg, group);
        } else {
            part_company(pg);
            group_committed(pg, group);
        }
        pg->group_forwards = 0;
        if (group->messages.length > 0) {
            pg_notify_soon(pg);
        }
        pg_group_free(group);
    } else {
        pg_set_up(pg, false, group->reason);
        group->again = true;
        loop_timer_set(pg->retry, PG_AGAIN_MS);
    }
    pg_pump_later(pg);
}

static void group_start(struct pg_spool *pg)
{
    struct pg_group *group = pg->group;
    group->began_ms = clock_steady_ms();
    pg->group_running = true;
    if (worker_submit(pg->committer, pg_group_run, group_done, group) != ERROR_NONE) {
        pg->group_running = false;
        loop_timer_set(pg->retry, PG_AGAIN_MS);
    }
}

void pg_group_retry(void *context)
{
    struct pg_spool *pg = context;
    if (pg->group != NULL && !pg->group_running) {
        group_start(pg);
    }
}

static bool is_empty(const struct pg_group *group)
{
    return group->messages.length == 0 && group->fates.length == 0 && group->notes.length == 0 &&
           group->globals.length == 0 && group->spares.length == 0 && !group->has_below;
}

void pg_batches_end(struct pg_spool *pg)
{
    pg_tell_held(pg);
    if (pg->group != NULL) {
        unpin_all(pg->group);
        group_dissolve(pg, pg->group);
        pg_group_free(pg->group);
        pg->group = NULL;
    }
    while (!list_is_empty(&pg->queue)) {
        struct pg_batch *batch = LIST_ENTRY(pg->queue.next, struct pg_batch, link);
        tell(batch, batch->error != ERROR_NONE ? batch->error : ERROR_CLOSED);
        pg_batch_free(batch);
    }
}

/* ---- the pump ---------------------------------------------------------------------------- */

/* A transaction costs the database much the same for five messages as for twenty. While several
 * clients are at work, a group waits for those that the group before has just answered, for as long
 * as a group takes; one alone never waits. */
static bool waits_for_company(struct pg_spool *pg)
{
    if (pg->ending || pg->flush_lazy || pg->company < PG_COMPANY_LEAST || !pg_is_company_due(pg)) {
        return false;
    }
    if (!pg->alarm_set) {
        pg->alarm_set = true;
        uint32_t wait_us = pg->commit_us < PG_COMPANY_MAX_US ? pg->commit_us : PG_COMPANY_MAX_US;
        loop_alarm_set(pg->alarm, wait_us > PG_COMPANY_US ? wait_us : PG_COMPANY_US);
    }
    return true;
}

void pg_company_late(void *context)
{
    struct pg_spool *pg = context;
    pg->alarm_set = false;
    pg->company = 0;
    pg->parts = false;
    pg_pump(pg);
}

static void company_came(struct pg_spool *pg)
{
    if (pg->alarm_set) {
        pg->alarm_set = false;
        loop_alarm_cancel(pg->alarm);
    }
}

void pg_pump(void *context)
{
    struct pg_spool *pg = context;
    assert(pg->open == NULL);
    fail_broken(pg);
    pg_tell_held(pg);
    pg_locals_again(pg);
    if (pg->group == NULL && pg_is_wanted(pg) && !waits_for_company(pg) && pg_gather(pg) != NULL) {
        struct pg_group *group = pg->group;
        if (group->spares.length == 0) {
            company_came(pg);
            pg->company = group->company;
            pg->parts = false;
        }
        if (!is_empty(group)) {
            group_start(pg);
        } else {
            group->stage = PG_STAGE_COMMITTED;
            pg->group = NULL;
            group_committed(pg, group);
            pg->group_forwards = 0;
            pg_group_free(group);
            pg_pump_later(pg);
        }
    }
    pg->flush_lazy = pg->flush_lazy && pg->group == NULL && !list_is_empty(&pg->queue);
    pg_divert_due(pg);
    pg_shares_settle(pg);
    pg_marks_write(pg);
    pg_watermark_sync(pg);
    if (pg->batches > 0 && !pg->ending) {
        bool soon = pg->shared && pg_is_away(pg);
        loop_timer_set(pg->timer, soon ? PG_CLOCKS_MS : PG_SLOW_MS / 20);
    } else if (pg->aside_ms != 0 && !pg->ending) {
        int64_t rest_ms = pg->aside_ms - clock_steady_ms();
        loop_timer_set(pg->timer, rest_ms > 0 ? rest_ms : 0);
    }
}
