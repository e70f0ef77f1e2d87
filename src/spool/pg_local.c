/* SPDX-License-Identifier: Apache-2.0
 *
 * What the node's journal holds, and what the database does not know of it yet.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

#include <assert.h>
#include <stdlib.h>

static struct spool_handle journal_handle(uint32_t journal)
{
    return (struct spool_handle){journal};
}

/* The first of the list. */
static void pending_free_first(struct pg_spool *pg, struct pg_pending **list)
{
    struct pg_pending *first = *list;
    *list = first->next;
    pg->untold -= first->untold;
    free(first);
}

static void pending_free(struct pg_spool *pg, struct pg_pending **list)
{
    while (*list != NULL) {
        pending_free_first(pg, list);
    }
}

static void append(struct pg_pending **list, struct pg_pending *pending)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    pending->next = NULL;
    *list = pending;
}

static void local_free(struct pg_spool *pg, uint32_t journal)
{
    pending_free(pg, &pg->locals[journal]->pending);
    pending_free(pg, &pg->locals[journal]->history);
    free(pg->locals[journal]);
    pg->locals[journal] = NULL;
}

struct pg_local *pg_local_of(const struct pg_spool *pg, struct message_id id, uint32_t *ret_journal)
{
    *ret_journal = spool_find(pg->journal, id).index;
    return pg_local_at(pg, *ret_journal);
}

struct pg_local *pg_local_new(struct pg_spool *pg, uint32_t journal, struct message_id id,
                              uint32_t recipients, uint64_t bytes)
{
    if (journal >= pg->local_capacity) {
        uint32_t capacity = pg->local_capacity == 0 ? 1024 : pg->local_capacity;
        while (capacity <= journal) {
            capacity *= 2;
        }
        struct pg_local **grown = realloc(pg->locals, capacity * sizeof(struct pg_local *));
        if (grown == NULL) {
            return NULL;
        }
        memset(grown + pg->local_capacity, 0,
               (capacity - pg->local_capacity) * sizeof(struct pg_local *));
        pg->locals = grown;
        pg->local_capacity = capacity;
    }
    assert(pg->locals[journal] == NULL);
    struct pg_local *local = calloc(1, sizeof(*local));
    if (local != NULL) {
        local->id = id;
        local->recipients = (uint16_t)recipients;
        local->bytes = bytes;
        pg->locals[journal] = local;
    }
    return local;
}

enum error pg_local_add(struct pg_spool *pg, struct pg_local *local, const struct pg_pending *like,
                        struct slice bytes)
{
    struct pg_pending *pending = malloc(sizeof(*pending) + bytes.length);
    if (pending == NULL) {
        return ERROR_MEMORY;
    }
    *pending = *like;
    pending->length = bytes.length;
    if (bytes.length > 0) {
        memcpy(pending->bytes, bytes.data, bytes.length);
    }
    append(&local->pending, pending);
    pg->untold += pending->untold;
    return ERROR_NONE;
}

void pg_local_excuse(struct pg_spool *pg, struct pg_local *local)
{
    for (struct pg_pending *at = local->pending; at != NULL; at = at->next) {
        pg->untold -= at->untold;
        at->untold = false;
    }
}

bool spool_postgres_has_told(const struct spool *spool)
{
    return pg_of(spool)->untold == 0;
}

/* ---- forwarding -------------------------------------------------------------------------- */

void pg_local_count(struct pg_spool *pg, struct pg_local *local)
{
    if (!local->stored && !local->counted) {
        local->counted = true;
        pg->one_copy++;
    }
}

void pg_local_queue(struct pg_spool *pg, uint32_t journal)
{
    struct pg_local *local = pg->locals[journal];
    if (local->queued || (local->stored && local->pending == NULL)) {
        return;
    }
    pg_local_count(pg, local);
    buffer_append(&pg->forward, slice_make(&journal, sizeof(journal)));
    if (pg->forward.failed) {
        pg->forward.failed = false; /* it is forwarded after the next start */
        return;
    }
    local->queued = true;
}

void pg_local_set_aside(struct pg_spool *pg, uint32_t journal)
{
    pg_local_count(pg, pg->locals[journal]);
    pg_local_excuse(pg, pg->locals[journal]);
    buffer_append(&pg->aside, slice_make(&journal, sizeof(journal)));
    if (pg->aside.failed) {
        pg->aside.failed = false; /* it is tried after the next start */
        return;
    }
    if (pg->aside_ms == 0) {
        pg->aside_wait_ms = pg->aside_wait_ms == 0 ? PG_ASIDE_MS : pg->aside_wait_ms * 2;
        if (pg->aside_wait_ms > PG_ASIDE_MAX_MS) {
            pg->aside_wait_ms = PG_ASIDE_MAX_MS;
        }
        pg->aside_ms = clock_steady_ms() + pg->aside_wait_ms;
    }
}

void pg_locals_again(struct pg_spool *pg)
{
    if (pg->aside_ms == 0 || clock_steady_ms() < pg->aside_ms) {
        return;
    }
    pg->aside_ms = 0;
    buffer_append(&pg->forward, buffer_slice(&pg->aside));
    pg->forward.failed = false; /* they are tried after the next start */
    buffer_clear(&pg->aside);
}

static void mark(struct pg_spool *pg, uint32_t journal, bool end)
{
    struct pg_mark added = {journal, end};
    pg_watermark_hold(pg, pg->locals[journal]->id);
    buffer_append(&pg->marks, slice_make(&added, sizeof(added)));
    if (pg->marks.failed) {
        pg->marks.failed = false; /* it is said to the database once more after a start */
        return;
    }
    pg->locals[journal]->ending = end;
}

static bool has_come_with_it(const struct pg_pending *pending)
{
    return pending->is_note || pending->when_ms == 0;
}

/* It is said, and would be said again with the message. */
static void remember(struct pg_spool *pg, struct pg_local *local, struct pg_pending *pending)
{
    pg->untold -= pending->untold;
    pending->untold = false;
    append(&local->history, pending);
}

void pg_local_settle(struct pg_spool *pg, uint32_t journal, uint64_t group)
{
    struct pg_local *local = pg->locals[journal];
    for (struct pg_pending **at = &local->pending; *at != NULL;) {
        struct pg_pending *pending = *at;
        if (pending->group == group) {
            if (!pending->is_note) {
                pg_ended(pg, local->id, pending->delivery, pending->fate);
            }
            if (local->spare > 0 && has_come_with_it(pending)) {
                *at = pending->next;
                remember(pg, local, pending);
            } else {
                pending_free_first(pg, at);
            }
        } else {
            at = &pending->next;
        }
    }
    if (!local->stored) {
        return; /* it is on its way, and is said with it */
    }
    if (local->pending != NULL) {
        mark(pg, journal, false);
        pg_local_queue(pg, journal);
        return;
    }
    pg_local_release(pg, journal);
    if (!local->ending) {
        mark(pg, journal, false);
    }
}

void pg_local_stored(struct pg_spool *pg, uint32_t journal, uint64_t group)
{
    struct pg_local *local = pg->locals[journal];
    local->stored = true;
    local->queued = false;
    if (local->warned) {
        local->warned = false;
        pg->aside_wait_ms = 0;
    }
    if (local->counted) {
        local->counted = false;
        pg->one_copy--;
    }
    pg_local_settle(pg, journal, group);
}

void pg_local_release(struct pg_spool *pg, uint32_t journal)
{
    struct pg_local *local = pg->locals[journal];
    if (local->stored && local->pending == NULL && local->refs == 0 && local->awaited == 0 &&
        local->spare == 0 && !local->queued && !local->ending) {
        mark(pg, journal, true);
        pg_pump_later(pg);
    }
}

void pg_local_unspare(struct pg_spool *pg, uint32_t journal)
{
    struct pg_local *local = pg->locals[journal];
    if (--local->spare > 0 || !local->stored) {
        return;
    }
    pending_free(pg, &local->history);
    pg_local_release(pg, journal);
    if (!local->ending) {
        mark(pg, journal, false); /* nobody asks for it after a start */
    }
}

void pg_local_again(struct pg_spool *pg, uint32_t journal)
{
    struct pg_local *local = pg->locals[journal];
    local->stored = false;
    while (local->history != NULL) {
        struct pg_pending *first = local->history;
        local->history = first->next;
        first->group = 0;
        append(&local->pending, first);
    }
    pg_local_queue(pg, journal);
}

void pg_local_await(struct pg_spool *pg, uint32_t journal, uint64_t xid)
{
    if (xid == 0) {
        return; /* not known: what comes is fetched */
    }
    buffer_append(&pg->awaiting, slice_make(&journal, sizeof(journal)));
    if (pg->awaiting.failed) {
        pg->awaiting.failed = false;
        return;
    }
    pg->locals[journal]->awaited = xid;
}

void pg_locals_heard(struct pg_spool *pg, uint64_t below_xid)
{
    const uint32_t *waiting = (const void *)pg->awaiting.data;
    size_t count = pg->awaiting.length / sizeof(*waiting);
    for (; pg->awaiting_at < count; pg->awaiting_at++) {
        struct pg_local *local = pg_local_at(pg, waiting[pg->awaiting_at]);
        if (local->awaited >= below_xid) {
            break;
        }
        local->awaited = 0;
        pg_local_release(pg, waiting[pg->awaiting_at]);
    }
    if (pg->awaiting_at > count / 2) {
        buffer_consume(&pg->awaiting, pg->awaiting_at * sizeof(*waiting));
        pg->awaiting_at = 0;
    }
}

/* The journal's kind and payload of it. */
static struct slice encode(const struct pg_pending *pending, struct slice bytes,
                           uint8_t buffer[9 + SPOOL_SERVER_MAX], uint16_t *ret_kind)
{
    if (pending->is_note) {
        *ret_kind = (uint16_t)(PG_NOTE_FIRST + pending->kind);
        return bytes;
    }
    *ret_kind = PG_NOTE_FATE;
    buffer[0] = pending->fate;
    for (int i = 0; i < 8; i++) {
        buffer[1 + i] = (uint8_t)((uint64_t)pending->when_ms >> (8 * i));
    }
    bytes = slice_take(bytes, SPOOL_SERVER_MAX);
    if (bytes.length > 0) {
        memcpy(buffer + 9, bytes.data, bytes.length);
    }
    return slice_make(buffer, 9 + bytes.length);
}

void pg_pending_put(struct spool *journal, struct spool_handle handle,
                    const struct pg_pending *pending)
{
    uint8_t buffer[9 + SPOOL_SERVER_MAX];
    uint16_t kind;
    struct slice payload =
        encode(pending, slice_make(pending->bytes, pending->length), buffer, &kind);
    spool_batch_note(journal, handle, pending->delivery, kind, payload);
}

void pg_pending_put_last(struct pg_spool *pg, uint32_t journal)
{
    const struct pg_pending *last = pg->locals[journal]->pending;
    while (last->next != NULL) {
        last = last->next;
    }
    pg_pending_put(pg->journal, journal_handle(journal), last);
}

void pg_pending_claim(struct pg_local *local, uint64_t group)
{
    for (struct pg_pending *at = local->pending; at != NULL; at = at->next) {
        at->group = group;
    }
}

void pg_pending_put_new(struct spool *journal, const struct pg_pending *pending, struct slice bytes)
{
    uint8_t buffer[9 + SPOOL_SERVER_MAX];
    uint16_t kind;
    struct slice payload = encode(pending, bytes, buffer, &kind);
    spool_batch_new_note(journal, pending->delivery, kind, payload);
}

void pg_local_drop(struct pg_spool *pg, uint32_t journal)
{
    struct pg_local *local = pg->locals[journal];
    pending_free(pg, &local->pending);
    local->stored = true; /* it is not to be */
    local->queued = false;
    pg_local_release(pg, journal);
}

static void put_state(struct pg_spool *pg, uint32_t journal)
{
    const struct pg_local *local = pg->locals[journal];
    if (local->stored) {
        spool_batch_note(pg->journal, journal_handle(journal), SPOOL_ALL_DELIVERIES,
                         local->spare > 0 ? PG_NOTE_SPARE : PG_NOTE_STORED, SLICE_EMPTY);
    }
    for (const struct pg_pending *at = local->pending; at != NULL; at = at->next) {
        pg_pending_put(pg->journal, journal_handle(journal), at);
    }
}

void pg_describe(void *context, struct spool_handle handle)
{
    struct pg_spool *pg = context;
    const struct pg_local *local = pg_local_at(pg, handle.index);
    if (local != NULL) {
        for (const struct pg_pending *at = local->history; at != NULL; at = at->next) {
            pg_pending_put(pg->journal, handle, at);
        }
        put_state(pg, handle.index);
    }
}

void pg_marks_write(struct pg_spool *pg)
{
    size_t count = pg->marks.length / sizeof(struct pg_mark);
    if (count == 0) {
        return;
    }
    struct buffer marks = pg->marks;
    buffer_init(&pg->marks, 0);
    const struct pg_mark *each = (const void *)marks.data;
    spool_batch_begin(pg->journal);
    for (size_t i = 0; i < count; i++) {
        struct pg_local *local = pg_local_at(pg, each[i].journal);
        if (local == NULL || (!each[i].end && local->ending)) {
            continue; /* it ended meanwhile */
        }
        if (!each[i].end) {
            put_state(pg, each[i].journal);
            continue;
        }
        for (uint32_t d = 0; d < local->recipients; d++) {
            spool_batch_fate(pg->journal, journal_handle(each[i].journal), d, SPOOL_DISCARDED);
        }
        local_free(pg, each[i].journal);
    }
    spool_batch_submit(pg->journal, SPOOL_LAZY, NULL, NULL);
    buffer_done(&marks);
}

void pg_locals_free(struct pg_spool *pg)
{
    for (uint32_t i = 0; i < pg->local_capacity; i++) {
        if (pg->locals[i] != NULL) {
            local_free(pg, i);
        }
    }
    free(pg->locals);
}

/* ---- loading ----------------------------------------------------------------------------- */

static void load_message(void *context, struct spool_handle handle,
                         const struct spool_message *message)
{
    struct pg_spool *pg = context;
    struct pg_local *local = pg_local_new(pg, handle.index, message->id, message->recipient_count,
                                          message->header_length + message->body_length);
    if (local == NULL) {
        abort(); /* at a start, and what is in the journal must not be overlooked */
    }
    buffer_append(&pg->loaded, slice_make(&handle.index, sizeof(handle.index)));
    if (pg->loaded.failed) {
        abort();
    }
}

/* What was pending is said. */
static void load_stored(struct pg_spool *pg, struct pg_local *local, bool spare)
{
    local->stored = true;
    local->spare = spare;
    while (local->pending != NULL) {
        struct pg_pending *first = local->pending;
        if (spare && has_come_with_it(first)) {
            local->pending = first->next;
            remember(pg, local, first);
        } else {
            pending_free_first(pg, &local->pending);
        }
    }
    if (!spare) {
        pending_free(pg, &local->history);
    }
}

static void load_note(void *context, struct spool_handle handle, uint32_t delivery, uint16_t kind,
                      struct slice payload)
{
    struct pg_spool *pg = context;
    struct pg_local *local = pg_local_at(pg, handle.index);
    if (local == NULL) {
        return;
    }
    if (kind == PG_NOTE_STORED || kind == PG_NOTE_SPARE) {
        load_stored(pg, local, kind == PG_NOTE_SPARE);
        return;
    }
    struct pg_pending pending = {.delivery = delivery, .is_note = kind >= PG_NOTE_FIRST};
    if (pending.is_note) {
        pending.kind = (uint16_t)(kind - PG_NOTE_FIRST);
    } else {
        struct reader reader = reader_make(payload);
        pending.fate = reader_u8(&reader);
        pending.when_ms = (int64_t)reader_u64(&reader);
        payload = reader.rest;
        if (reader.failed || kind != PG_NOTE_FATE) {
            return;
        }
        pending.untold = pending.when_ms != 0; /* else it came with the message */
    }
    if (pg_local_add(pg, local, &pending, payload) != ERROR_NONE) {
        abort();
    }
}

static void load_global(void *context, struct slice key, struct slice payload)
{
    struct pg_spool *pg = context;
    if (!pg_global_set(pg, key, payload, false)) {
        abort();
    }
}

static void load_damage(void *context, const char *text)
{
    const struct pg_spool *pg = context;
    if (pg->loader.damage != NULL) {
        pg->loader.damage(pg->loader.context, text);
    }
}

enum error pg_local_load(struct pg_spool *pg, bool *ret_complete)
{
    const struct spool_loader loader = {.context = pg,
                                        .message = load_message,
                                        .note = load_note,
                                        .global_note = load_global,
                                        .damage = load_damage};
    enum error error = spool_load(pg->journal, &loader, ret_complete);
    if (error != ERROR_NONE || !*ret_complete) {
        return error;
    }
    const uint32_t *loaded = (const void *)pg->loaded.data;
    for (size_t i = 0; i < pg->loaded.length / sizeof(*loaded); i++) {
        struct pg_local *local = pg_local_at(pg, loaded[i]);
        if (local != NULL) {
            bool spare = local->spare > 0;
            local->spare = 0;
            pg_local_queue(pg, loaded[i]);
            if (spare) {
                pg_spare_message(pg, loaded[i]);
            }
            pg_local_release(pg, loaded[i]);
        }
    }
    buffer_done(&pg->loaded);
    pg_pump_later(pg);
    return ERROR_NONE;
}

/* ---- notes about no message -------------------------------------------------------------- */

static struct pg_global *find_global(struct pg_spool *pg, struct slice key)
{
    LIST_EACH(&pg->globals, at, after)
    {
        struct pg_global *global = LIST_ENTRY(at, struct pg_global, link);
        if (slice_equal(global->key, key)) {
            return global;
        }
    }
    return NULL;
}

static void global_free(struct pg_global *global)
{
    list_remove(&global->link);
    free(global);
}

/* In the journal a payload is behind one octet, because an empty one forgets. */
bool pg_global_set(struct pg_spool *pg, struct slice key, struct slice payload, bool journal)
{
    struct pg_global *old = find_global(pg, key);
    struct pg_global *global = malloc(sizeof(*global) + key.length + payload.length + 2);
    if (global == NULL) {
        return false;
    }
    uint8_t *bytes = (uint8_t *)(global + 1);
    if (payload.length > 0) {
        memcpy(bytes + journal, payload.data, payload.length);
    }
    if (journal) {
        bytes[0] = 'n';
        payload.length++;
    }
    global->payload = slice_make(bytes, payload.length);
    memcpy(bytes + payload.length, key.data, key.length);
    global->key = slice_make(bytes + payload.length, key.length);
    global->group = 0;
    list_init(&global->link);
    if (old != NULL) {
        global_free(old);
    }
    list_append(&pg->globals, &global->link);
    if (journal) {
        spool_batch_global_note(pg->journal, global->key, global->payload);
    }
    return true;
}

bool pg_global_is_pending(struct pg_spool *pg, struct slice key)
{
    return find_global(pg, key) != NULL;
}

void pg_global_group(struct pg_spool *pg, struct slice key, uint64_t group)
{
    struct pg_global *global = find_global(pg, key);
    if (global != NULL) {
        global->group = group;
    }
}

void pg_globals_stored(struct pg_spool *pg, uint64_t group)
{
    bool open = false;
    LIST_EACH(&pg->globals, at, after)
    {
        struct pg_global *global = LIST_ENTRY(at, struct pg_global, link);
        if (global->group != group) {
            continue;
        }
        if (!open) {
            spool_batch_begin(pg->journal);
            open = true;
        }
        spool_batch_global_note(pg->journal, global->key, SLICE_EMPTY);
        global_free(global);
    }
    if (open) {
        spool_batch_submit(pg->journal, SPOOL_LAZY, NULL, NULL);
    }
}

void pg_globals_free(struct pg_spool *pg)
{
    LIST_EACH(&pg->globals, at, after)
    {
        global_free(LIST_ENTRY(at, struct pg_global, link));
    }
}
