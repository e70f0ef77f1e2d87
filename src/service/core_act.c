/* SPDX-License-Identifier: Apache-2.0
 *
 * relay's actions. Those that write (fates, notes, notices) are gathered, all of one input, and go
 * to the spool as one batch.
 *
 * What is to be written is kept in memory until the spool has it. A batch that the spool refuses
 * is put at the end of `unwritten` and given to it again every second, oldest first: so a delivery
 * whose fate could not be stored is neither forgotten nor, while we live, handed over again (relay
 * knows its fate already). Nothing overtakes: while `unwritten` holds anything, new writes queue up
 * behind it.
 */
#include "service/core_internal.h"

#include <assert.h>
#include <stdlib.h>

enum {
    ITEMS_KEPT_BYTES = 4096,
    ITEM_FATE = 1,
    ITEM_NOTE,
    ITEM_GLOBAL,
    ITEM_TAKEN,
};

/* ---- gathering ------------------------------------------------------------------------------- */

static struct writes *writes_new(struct core *core)
{
    struct writes *writes;
    if (list_is_empty(&core->writes_free)) {
        writes = calloc(1, sizeof(*writes));
        if (writes == NULL) {
            core_out_of_memory();
        }
        list_init(&writes->link);
        writes->core = core;
        buffer_init(&writes->items, 0);
    } else {
        writes = LIST_ENTRY(core->writes_free.next, struct writes, link);
        list_remove(&writes->link);
    }
    writes->durability = SPOOL_LAZY;
    writes->after = CORE_NOTHING_AFTER;
    writes->failed_before = false;
    writes->serial = ++core->writes_made;
    return writes;
}

static void free_notices(struct notice **list)
{
    while (*list != NULL) {
        struct notice *notice = *list;
        *list = notice->next;
        notice_free(notice);
    }
}

static void writes_free(struct writes *writes)
{
    free_notices(&writes->notices);
    list_remove(&writes->link);
    buffer_clear(&writes->items);
    if (writes->items.capacity > ITEMS_KEPT_BYTES) {
        buffer_done(&writes->items);
    }
    list_append(&writes->core->writes_free, &writes->link);
}

static struct buffer *gather(struct core *core)
{
    if (core->gathering == NULL) {
        core->gathering = writes_new(core);
    }
    return &core->gathering->items;
}

static void gather_fate(struct core *core, struct spool_handle handle, uint32_t delivery,
                        enum spool_fate fate)
{
    struct buffer *items = gather(core);
    buffer_put_u8(items, ITEM_FATE);
    buffer_put_u32(items, handle.index);
    buffer_put_u32(items, delivery);
    buffer_put_u8(items, (uint8_t)fate);
}

/* With when and by whom, for whoever looks for it later (spool/copies.h). */
static void gather_taken(struct core *core, const struct relay_action *action)
{
    struct buffer *items = gather(core);
    buffer_put_u8(items, ITEM_TAKEN);
    buffer_put_u32(items, action->handle.index);
    buffer_put_u32(items, action->delivery);
    buffer_put_u8(items, (uint8_t)action->fate);
    buffer_put_u64(items, (uint64_t)core_now(core).wall_ms);
    buffer_put_bytes(items, core_server_name(core, action->server));
}

static void gather_note(struct core *core, const struct relay_action *action)
{
    struct buffer *items = gather(core);
    buffer_put_u8(items, ITEM_NOTE);
    buffer_put_u32(items, action->handle.index);
    buffer_put_u32(items, action->delivery);
    buffer_put_u16(items, action->note);
    buffer_put_bytes(items, action->payload);
}

static void gather_global(struct core *core, const struct relay_action *action)
{
    struct buffer *items = gather(core);
    buffer_put_u8(items, ITEM_GLOBAL);
    buffer_put_bytes(items, action->key);
    buffer_put_bytes(items, action->payload);
}

static void gather_notice(struct core *core, struct notice *notice)
{
    gather(core);
    struct notice **end = &core->gathering->notices;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = notice;
}

/* Its fates are facts, with or without it; and who is not told of a delay may hear of it later. */
static void gather_told(struct core *core, const struct relay_action *action)
{
    struct notice *notice = NULL;
    enum error error = notice_new(core, action, &notice);
    if (error == ERROR_NONE) {
        gather_notice(core, notice);
        if (action->kind == RELAY_DELAYED) {
            counter_add(core->counters, COUNTER_DELAY_NOTICES, 1);
        }
    } else {
        report_problem(action->kind == RELAY_DELAYED ? "no notice of a delay could be made"
                                                     : "no notice of a delivery could be made",
                       error);
    }
}

static void gather_bounce(struct core *core, const struct relay_action *action)
{
    struct notice *notice = NULL;
    enum error error = notice_new(core, action, &notice);
    relay_bounced(core->relay, action, error == ERROR_NONE);
    if (error != ERROR_NONE) { /* no fate without its notice */
        report_problem("no notice of a refusal could be made: it is a dead letter", error);
        return;
    }
    gather_notice(core, notice);
    for (uint32_t i = 0; i < action->delivery_count; i++) {
        gather_fate(core, action->handle, action->deliveries[i], SPOOL_BOUNCED);
    }
}

static void carry_out(struct core *core, const struct relay_action *action)
{
    switch (action->kind) {
    case RELAY_CONNECT:
    case RELAY_KNOCK:
    case RELAY_CLOSE:
    case RELAY_DELIVER:
        core_out_action(core, action);
        break;
    case RELAY_RESOLVE:
        core_out_resolve(core, action->domain);
        break;
    case RELAY_FATE:
        if (action->fate == SPOOL_DELIVERED || action->fate == SPOOL_PULLED) {
            gather_taken(core, action);
        } else {
            gather_fate(core, action->handle, action->delivery, action->fate);
        }
        break;
    case RELAY_NOTE:
        gather_note(core, action);
        break;
    case RELAY_GLOBAL:
        gather_global(core, action);
        break;
    case RELAY_BOUNCE:
        gather_bounce(core, action);
        break;
    case RELAY_NOTICE:
    case RELAY_DELAYED:
        gather_told(core, action);
        break;
    case RELAY_EVENT:
        report_relay_event(core, action);
        break;
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static void finish(struct core *core, struct core_after after, enum error error)
{
    if (after.request != NULL) {
        core_control_written(after.request, error);
    }
    if (after.has_job && error == ERROR_NONE) {
        core_out_durable(core, after.job);
    }
}

/* Notices that are stored become mail to be delivered; without memory for it now, by the tick. */
static void relay_notices(struct core *core)
{
    while (core->unrelayed_notices != NULL) {
        struct notice *notice = core->unrelayed_notices;
        core->unrelayed_notices = notice->next;
        if (!core_in_relay(core, notice->handle, &notice->message)) {
            notice->next = core->unrelayed_notices;
            core->unrelayed_notices = notice;
            return;
        }
        notice_free(notice);
    }
}

static void take_notices(struct core *core, struct writes *writes,
                         const struct spool_handle *handles, size_t count)
{
    size_t at = 0;
    struct notice **end = &core->unrelayed_notices;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = writes->notices;
    writes->notices = NULL;
    for (struct notice *notice = *end; notice != NULL; notice = notice->next) {
        notice->handle = at < count ? handles[at++] : SPOOL_NO_HANDLE; /* none in a cluster */
        report_accepted(core, &notice->message);
    }
    relay_notices(core);
}

/* It is tried again, behind what failed before it. */
static void not_written(struct writes *writes, enum error error)
{
    struct core *core = writes->core;
    list_remove(&writes->link);
    list_append(&core->unwritten, &writes->link);
    if (!writes->failed_before) {
        writes->failed_before = true;
        report_alert(core, ALERT_JOURNAL, "the journal could not be written; it is tried again");
        finish(core, (struct core_after){.request = writes->after.request}, error);
        writes->after.request = NULL;
    }
    core_check_stopped(core);
}

static void written(void *context, enum error error, const struct spool_handle *handles,
                    size_t count)
{
    struct writes *writes = context;
    struct core *core = writes->core;
    if (error != ERROR_NONE && error != ERROR_DENIED) {
        not_written(writes, error);
        return;
    }
    list_remove(&writes->link);
    struct core_after after = writes->after;
    if (error == ERROR_NONE) {
        take_notices(core, writes, handles, count);
    } /* else what was decided of another node's mail is void; its facts are stored */
    writes_free(writes);
    finish(core, after, ERROR_NONE);
    core_check_stopped(core);
}

static void put_item(struct core *core, struct reader *reader)
{
    uint8_t kind = reader_u8(reader);
    if (kind == ITEM_GLOBAL) {
        struct slice key = reader_bytes(reader);
        spool_batch_global_note(core->spool, key, reader_bytes(reader));
        return;
    }
    struct spool_handle handle = {reader_u32(reader)};
    uint32_t delivery = reader_u32(reader);
    if (kind == ITEM_FATE) {
        spool_batch_fate(core->spool, handle, delivery, (enum spool_fate)reader_u8(reader));
    } else if (kind == ITEM_TAKEN) {
        enum spool_fate fate = (enum spool_fate)reader_u8(reader);
        int64_t when_ms = (int64_t)reader_u64(reader);
        spool_batch_taken(core->spool, handle, delivery, fate, when_ms > 0 ? when_ms : 1,
                          reader_bytes(reader));
    } else {
        uint16_t note = reader_u16(reader);
        spool_batch_note(core->spool, handle, delivery, note, reader_bytes(reader));
    }
}

/* An error: the spool has refused it at once, and it is where it was. */
static enum error submit(struct writes *writes)
{
    struct core *core = writes->core;
    spool_batch_begin(core->spool);
    for (struct notice *notice = writes->notices; notice != NULL; notice = notice->next) {
        enum error error = spool_batch_message(core->spool, &notice->message, NULL,
                                               buffer_slice(&notice->content));
        if (error != ERROR_NONE) {
            spool_batch_cancel(core->spool);
            return error;
        }
        if (notice->about.index != SPOOL_NO_HANDLE.index) {
            spool_batch_about(core->spool, notice->about);
        }
    }
    struct reader reader = reader_make(buffer_slice(&writes->items));
    while (reader.rest.length > 0) {
        put_item(core, &reader);
    }
    assert(!reader.failed);
    list_remove(&writes->link);
    list_append(&core->writes_under_way, &writes->link);
    spool_batch_submit(core->spool, writes->durability, written, writes);
    return ERROR_NONE;
}

static void flush(struct core *core, enum spool_durability durability, struct core_after after)
{
    struct writes *writes = core->gathering;
    core->gathering = NULL;
    if (writes == NULL) {
        finish(core, after, ERROR_NONE);
        return;
    }
    if (writes->items.failed) {
        core_out_of_memory();
    }
    writes->durability = writes->notices != NULL ? SPOOL_SYNCED : durability;
    writes->after = after;
    if (list_is_empty(&core->unwritten)) {
        enum error error = submit(writes);
        if (error != ERROR_NONE) {
            not_written(writes, error);
        }
        return;
    }
    list_append(&core->unwritten, &writes->link);
    writes->failed_before = true;
    finish(core, (struct core_after){.request = after.request}, ERROR_IO);
    writes->after.request = NULL;
}

/* ---- the pump -------------------------------------------------------------------------------- */

static void arm(struct core *core)
{
    int64_t due = relay_deadline(core->relay);
    if (due >= core->due_at) {
        return; /* the timer is set for something earlier, and will look again */
    }
    core->due_at = due;
    int64_t delay = due - core_now(core).steady_ms;
    loop_timer_set(core->due, delay > 0 ? delay : 0);
}

void core_act(struct core *core, enum spool_durability durability, struct core_after after)
{
    assert(core->gathering == NULL);
    struct relay_action action;
    while (relay_next(core->relay, &action)) {
        carry_out(core, &action);
    }
    arm(core);
    flush(core, durability, after);
}

void core_act_store(struct core *core, struct notice *notice)
{
    assert(core->gathering == NULL);
    gather_notice(core, notice);
    flush(core, SPOOL_SYNCED, CORE_NOTHING_AFTER);
}

bool core_act_is_idle(const struct core *core)
{
    LIST_EACH(&core->writes_under_way, at, after)
    {
        if (LIST_ENTRY(at, struct writes, link)->durability != SPOOL_LAZY) {
            return false; /* lazy ones are completed by spool_close() */
        }
    }
    return true;
}

static uint64_t oldest_of(const struct link *list, uint64_t oldest)
{
    LIST_EACH(list, at, after)
    {
        uint64_t serial = LIST_ENTRY(at, struct writes, link)->serial;
        oldest = serial < oldest ? serial : oldest;
    }
    return oldest;
}

uint64_t core_act_oldest(const struct core *core)
{
    return oldest_of(&core->unwritten, oldest_of(&core->writes_under_way, UINT64_MAX));
}

void core_act_tick(struct core *core)
{
    if (list_is_empty(&core->unwritten)) {
        report_alert_over(core, ALERT_JOURNAL);
    }
    while (!list_is_empty(&core->unwritten) &&
           submit(LIST_ENTRY(core->unwritten.next, struct writes, link)) == ERROR_NONE) {
    }
    relay_notices(core);
}

void core_act_init(struct core *core)
{
    list_init(&core->writes_free);
    list_init(&core->writes_under_way);
    list_init(&core->unwritten);
}

static void free_writes(struct link *list)
{
    LIST_EACH(list, at, after)
    {
        struct writes *writes = LIST_ENTRY(at, struct writes, link);
        writes_free(writes);
        list_remove(&writes->link);
        buffer_done(&writes->items);
        free(writes);
    }
}

void core_act_done(struct core *core)
{
    size_t lost = 0;
    LIST_EACH(&core->unwritten, at, after)
    {
        lost++;
    }
    if (lost > 0) {
        report_problem("stopped with writes that the journal did not take", ERROR_IO);
    }
    free_notices(&core->unrelayed_notices);
    free_writes(&core->unwritten);
    free_writes(&core->writes_under_way);
    free_writes(&core->writes_free);
}
