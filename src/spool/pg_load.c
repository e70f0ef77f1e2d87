/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading and following, on the loop: pages of the reader become parts that the owner knows.
 */
#include "base/crc32c.h"
#include "spool/pg_page.h"
#include "sys/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- one part ---------------------------------------------------------------------------- */

static void damage(struct pg_spool *pg, struct message_id id)
{
    char text[80], name[ID_TEXT_LENGTH + 1];
    id_to_text(id, name);
    snprintf(text, sizeof(text), "the envelope of %s in the database is damaged", name);
    pg->quarantined++;
    if (pg->loader.damage != NULL) {
        pg->loader.damage(pg->loader.context, text);
    }
}

enum error pg_envelope_open(struct slice stored, struct message_id id, struct arena *arena,
                            struct log_message *ret_message)
{
    struct reader reader = reader_make(stored);
    uint32_t crc = reader_u32(&reader);
    if (reader.failed || crc32c(0, reader.rest) != crc) {
        return ERROR_CORRUPT;
    }
    enum error error = log_get_message(reader.rest, arena, ret_message);
    if (error == ERROR_NONE && !id_equal(ret_message->message.id, id)) {
        error = ERROR_CORRUPT;
    }
    return error;
}

/* The deliveries that are not in this part, then the fates of those that are. */
static enum error take_fates(struct stored *stored, const struct pg_row *row)
{
    for (uint32_t i = 0; i < stored->recipients && row->deliveries != NULL; i++) {
        stored_set_fate(stored, i, PG_FATE_ELSEWHERE);
    }
    for (size_t i = 0; i < row->delivery_count && row->deliveries != NULL; i++) {
        if ((uint32_t)row->deliveries[i] >= stored->recipients) {
            return ERROR_CORRUPT;
        }
        stored_set_fate(stored, (uint32_t)row->deliveries[i], 0);
    }
    for (const struct pg_item *item = row->first; item != NULL; item = item->next) {
        if (!item->is_note && (item->delivery >= stored->recipients || item->fate == 0 ||
                               item->fate > SPOOL_PULLED)) {
            return ERROR_CORRUPT;
        }
        if (!item->is_note) {
            stored_set_fate(stored, item->delivery, item->fate);
        }
    }
    stored->left = 0;
    for (uint32_t i = 0; i < stored->recipients; i++) {
        stored->left += stored_fate(stored, i) == 0;
    }
    return ERROR_NONE;
}

static void hand_over(struct pg_spool *pg, uint32_t part, const struct pg_row *row,
                      struct spool_message *message)
{
    const struct spool_loader *loader = &pg->loader;
    const struct stored *stored = table_at(&pg->table, part);
    struct spool_handle handle = {part};
    message->sequence = (uint64_t)row->sequence;
    message->envelope_id = message->message_id_header = SLICE_EMPTY;
    message->origin.helo = message->origin.protocol = message->origin.tls = SLICE_EMPTY;
    message->origin.verdicts = message->origin.forwarded = SLICE_EMPTY;
    if (loader->message != NULL) {
        loader->message(loader->context, handle, message);
    }
    for (uint32_t i = 0; i < stored->recipients; i++) {
        unsigned fate = stored_fate(stored, i);
        if (fate == PG_FATE_ELSEWHERE && loader->elsewhere != NULL) {
            loader->elsewhere(loader->context, handle, i);
        } else if (fate != 0 && fate != PG_FATE_ELSEWHERE && loader->fate != NULL) {
            loader->fate(loader->context, handle, i, (enum spool_fate)fate);
        }
    }
    for (const struct pg_item *item = row->first; item != NULL; item = item->next) {
        if (item->is_note && loader->note != NULL) {
            loader->note(loader->context, handle, item->delivery, item->kind, item->payload);
        }
    }
}

static void link_local(struct pg_spool *pg, uint32_t part, struct message_id id)
{
    struct spool_handle journal = spool_find(pg->journal, id);
    struct pg_local *local =
        journal.index == SPOOL_NO_HANDLE.index ? NULL : pg_local_at(pg, journal.index);
    if (local != NULL && !local->ending) {
        pg_part_link(pg, part, journal.index);
        local->awaited--;
    }
}

static void load_row(struct pg_spool *pg, struct pg_share *share, const struct pg_row *row)
{
    if (!pg->shared && table_find(&pg->table, row->id) != STORED_NONE) {
        return; /* accepted since the open */
    }
    struct arena arena;
    struct log_message message;
    uint32_t part;
    arena_init(&arena);
    enum error error = pg_envelope_open(row->envelope, row->id, &arena, &message);
    if (error == ERROR_NONE) {
        error =
            pg_part_add(pg, row->id, message.message.recipient_count,
                        message.message.header_length + message.message.body_length, share, &part);
        if (error == ERROR_NONE) {
            struct stored *stored = table_at(&pg->table, part);
            stored->sequence = (uint64_t)row->sequence;
            error = take_fates(stored, row);
            if (error != ERROR_NONE || stored->left == 0) {
                pg_part_forget(pg, part);
            } else {
                link_local(pg, part, row->id);
                pg_part_appear(pg, part);
                hand_over(pg, part, row, &message.message);
            }
        }
    }
    arena_done(&arena);
    if (error == ERROR_MEMORY) {
        abort(); /* what is in the queue must not be overlooked */
    }
    if (error != ERROR_NONE) {
        damage(pg, row->id);
    }
}

/* ---- pages ------------------------------------------------------------------------------- */

static void load_globals(struct pg_spool *pg, struct pg_page *page)
{
    const struct spool_loader *loader = &pg->loader;
    struct reader reader = reader_make(buffer_slice(&page->globals));
    while (reader.rest.length > 0 && !reader.failed) {
        struct slice key = reader_bytes(&reader), payload = reader_bytes(&reader);
        if (loader->global_note != NULL && !pg_global_is_pending(pg, key)) {
            loader->global_note(loader->context, key, payload);
        }
    }
    LIST_EACH(&pg->globals, at, after)
    {
        struct pg_global *global = LIST_ENTRY(at, struct pg_global, link);
        if (loader->global_note != NULL && global->payload.length > 1) {
            loader->global_note(loader->context, global->key, slice_skip(global->payload, 1));
        }
    }
    pg->globals_loaded = true;
    pg->globals_ms = clock_steady_ms();
    if (pg->shared && pg->shares.notes_loaded != NULL) {
        pg->shares.notes_loaded(pg->shares.context);
    }
}

static void share_taken(struct pg_spool *pg, struct pg_share *share)
{
    pg_page_free(pg->keys);
    pg->keys = NULL;
    if (!pg->shared) {
        pg->load_complete = true;
        return;
    }
    buffer_consume(&pg->takes, sizeof(share));
    if (pg->followed_xid == 0 || pg->followed_xid > share->from_xid) {
        pg->followed_xid = share->from_xid;
    }
    share->taking = false;
    share->owned = true;
    pg->shares.taken(pg->shares.context, share->number);
}

static void keys_loaded(struct pg_spool *pg, struct pg_page *page)
{
    page->owner->from_xid = page->until_xid;
    pg->keys = page;
    pg->keys_at = 0;
    if (page->rows.length == 0) {
        share_taken(pg, page->owner);
    }
}

static void share_loaded(struct pg_spool *pg, struct pg_page *page)
{
    const struct pg_row *rows = (const void *)page->rows.data;
    size_t count = page->rows.length / sizeof(*rows);
    for (size_t i = 0; i < count; i++) {
        load_row(pg, page->owner, &rows[i]);
    }
    pg->keys_at += count;
    if (pg->keys_at * sizeof(*rows) == pg->keys->rows.length) {
        share_taken(pg, page->owner);
    }
}

static void followed(struct pg_spool *pg, struct pg_page *page)
{
    const struct pg_row *rows = (const void *)page->rows.data;
    size_t count = page->rows.length / sizeof(*rows);
    for (size_t i = 0; i < count; i++) {
        struct pg_share *share = map_get(&pg->numbers, (uint64_t)rows[i].share);
        if (share != NULL && share->owned && rows[i].xid >= share->from_xid) {
            load_row(pg, share, &rows[i]);
        }
    }
    if (count == PG_PAGE) {
        pg->follow_until_xid = page->until_xid;
        pg->follow_after_xid = rows[count - 1].xid;
        pg->cursor_follow_sequence = rows[count - 1].sequence;
        pg->cursor_follow_id = rows[count - 1].id;
        pg->follow_asked = true;
        return;
    }
    pg->followed_xid = page->until_xid;
    pg->follow_until_xid = pg->follow_after_xid = 0;
    pg->cursor_follow_sequence = INT64_MIN;
    pg->cursor_follow_id = (struct message_id){0};
}

static void page_done(void *context)
{
    struct pg_page *page = context;
    struct pg_spool *pg = page->pg;
    pg->page = NULL;
    if (page->outcome != DATABASE_DONE) {
        pg->page_failed = true;
        pg->follow_asked |= page->kind == PG_PAGE_FOLLOW;
        loop_timer_set(pg->follow, PG_AGAIN_MS);
        pg_page_free(page);
        return;
    }
    pg->page_failed = pg->ask_failed = false;
    if (pg->ending) {
        /* Nobody wants to hear of it. */
    } else if (page->kind == PG_PAGE_GLOBALS) {
        load_globals(pg, page);
    } else if (page->kind == PG_PAGE_KEYS) {
        keys_loaded(pg, page);
        page = NULL; /* kept */
    } else if (page->kind == PG_PAGE_NOTIFY) {
        /* That is all. */
    } else if (page->kind == PG_PAGE_SHARE) {
        share_loaded(pg, page);
    } else {
        followed(pg, page);
    }
    pg_page_free(page);
    if (pg->shared && !pg->ending) {
        pg_load_next(pg);
    }
}

static bool submit(struct pg_spool *pg, struct pg_page *page)
{
    if (page == NULL || page->shares.failed ||
        worker_submit(pg->reader, pg_page_run, page_done, page) != ERROR_NONE) {
        pg_page_free(page);
        return false;
    }
    pg->page = page;
    return true;
}

static struct pg_page *share_page(struct pg_spool *pg, struct pg_share *share)
{
    struct pg_page *page = pg_page_new(pg, pg->keys == NULL ? PG_PAGE_KEYS : PG_PAGE_SHARE);
    if (page == NULL) {
        return NULL;
    }
    page->share = share->number;
    page->owner = share;
    if (pg->keys != NULL) {
        struct slice rest =
            slice_skip(buffer_slice(&pg->keys->rows), pg->keys_at * sizeof(struct pg_row));
        buffer_append(&page->rows, slice_take(rest, PG_PAGE * sizeof(struct pg_row)));
        if (page->rows.failed) {
            pg_page_free(page);
            return NULL;
        }
    }
    return page;
}

static struct pg_page *follow_page(struct pg_spool *pg)
{
    struct pg_page *page = pg_page_new(pg, PG_PAGE_FOLLOW);
    size_t cursor = 0;
    struct pg_share *share;
    while (page != NULL && (share = map_next(&pg->numbers, &cursor)) != NULL) {
        if (share->owned) {
            buffer_append(&page->shares, slice_make(&share->number, sizeof(share->number)));
        }
    }
    if (page != NULL && page->shares.length == 0) {
        pg_page_free(page);
        return NULL;
    }
    if (page != NULL) {
        page->from_xid = pg->followed_xid;
        page->until_xid = pg->follow_until_xid;
        page->after_xid = pg->follow_after_xid;
        page->after_sequence = pg->cursor_follow_sequence;
        page->after_id = pg->cursor_follow_id;
    }
    return page;
}

/* Taking goes before following, so that a share that is taken misses nothing. */
void pg_load_next(struct pg_spool *pg)
{
    if (pg->page != NULL || pg->page_failed || !pg->shared || pg->ending || !pg->journal_loaded ||
        !pg_has_joined(pg)) {
        return;
    }
    bool asked = true;
    if (!pg->globals_loaded || clock_steady_ms() - pg->globals_ms >= PG_GLOBALS_MS) {
        asked = submit(pg, pg_page_new(pg, PG_PAGE_GLOBALS));
    } else if (pg->notify_asked) {
        pg->notify_asked = false;
        asked = submit(pg, pg_page_new(pg, PG_PAGE_NOTIFY));
    } else if (pg->takes.length > 0) {
        struct pg_share *share;
        memcpy(&share, pg->takes.data, sizeof(share));
        asked = submit(pg, share_page(pg, share));
    } else if (pg->follow_asked && pg->followed_xid != 0) {
        struct pg_page *page = follow_page(pg);
        pg->follow_asked = false;
        pg->looked_ms = clock_steady_ms();
        if (page != NULL) {
            asked = submit(pg, page);
        }
    }
    if (!asked || pg->page == NULL) {
        loop_timer_set(pg->follow, asked ? PG_POLL_MS : PG_AGAIN_MS);
    }
}

void pg_follow_now(void *context)
{
    struct pg_spool *pg = context;
    pg->follow_asked = true;
    pg->page_failed = false;
    pg_load_next(pg);
}

void pg_follow_soon(struct pg_spool *pg)
{
    if (pg->shared && !pg->page_failed && !pg->ending) {
        int64_t rest_ms = pg->looked_ms + PG_PACE_MS - clock_steady_ms();
        loop_timer_set(pg->follow, rest_ms > 0 ? rest_ms : 0);
    }
}

void pg_notify_soon(struct pg_spool *pg)
{
    pg->notify_asked = pg->shared;
    pg_follow_soon(pg);
}

void spool_postgres_follow(struct spool *spool)
{
    pg_follow_soon(pg_of(spool));
}

void pg_load_free(struct pg_spool *pg)
{
    pg_page_free(pg->keys);
    buffer_done(&pg->takes);
    buffer_done(&pg->loaded);
}

/* ---- spool_load() ------------------------------------------------------------------------ */

static enum error page_now(struct pg_spool *pg, struct pg_page *page)
{
    if (!submit(pg, page)) {
        return ERROR_MEMORY;
    }
    worker_drain(pg->reader);
    return pg->page_failed ? ERROR_AGAIN : ERROR_NONE;
}

/* Without shares: what is in the journal alone goes first, so that it stands where it belongs. */
static bool is_forwarding(const struct pg_spool *pg)
{
    return pg->forward_at * sizeof(uint32_t) < pg->forward.length;
}

enum error pg_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete)
{
    struct pg_spool *pg = pg_of(spool);
    enum error error = ERROR_NONE;
    pg->loader = *loader;
    *ret_complete = false;
    if (!pg->journal_loaded) {
        return pg_local_load(pg, &pg->journal_loaded);
    }
    if (!pg->globals_loaded && !pg->shared) {
        return page_now(pg, pg_page_new(pg, PG_PAGE_GLOBALS));
    }
    if (!pg->shared && !pg->load_complete) {
        if (is_forwarding(pg)) {
            pg_drain(pg);
        }
        error = is_forwarding(pg) ? ERROR_AGAIN : page_now(pg, share_page(pg, pg->only));
    }
    pg_load_next(pg);
    *ret_complete = error == ERROR_NONE && (pg->shared || pg->load_complete);
    return error;
}
