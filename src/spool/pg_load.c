/* SPDX-License-Identifier: Apache-2.0
 *
 * What the reader brings becomes parts that the owner knows, on the loop.
 *
 * The same part may come any number of times: what is here is left alone, and what has ended here
 * stays so, whether the database knew when the page was read or not. So whoever doubts what has
 * been read may read it again (pg_follow.c).
 */
#include "base/crc32c.h"
#include "spool/pg_page.h"
#include "sys/clock.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- one part ---------------------------------------------------------------------------- */

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
    return ERROR_NONE;
}

static void take_fate(struct stored *stored, uint32_t delivery, uint8_t fate)
{
    if (delivery < stored->recipients && stored_fate(stored, delivery) == 0) {
        stored_set_fate(stored, delivery, fate);
    }
}

/* What we know better than the page: what the journal alone has, what the database has got since,
 * and what it had and has lost. */
static void take_own_fates(const struct pg_spool *pg, struct stored *stored)
{
    uint32_t journal;
    const struct pg_local *local = pg_local_of(pg, stored->id, &journal);
    for (const struct pg_pending *at = local != NULL ? local->pending : NULL; at != NULL;
         at = at->next) {
        if (!at->is_note) {
            take_fate(stored, at->delivery, at->fate);
        }
    }
    for (const struct pg_spare_fate *at = pg_spare_fate_of(pg, stored->id, NULL); at != NULL;
         at = pg_spare_fate_of(pg, stored->id, at)) {
        take_fate(stored, at->delivery, at->fate);
    }
    const struct pg_ended *ended = (const void *)pg->ended.data;
    size_t from = 0, count = pg->ended.length / sizeof(*ended), to = count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (id_before(ended[middle].id, stored->id)) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    for (; from < count && id_equal(ended[from].id, stored->id); from++) {
        take_fate(stored, ended[from].delivery, ended[from].fate);
    }
}

static uint32_t count_open(const struct stored *stored)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < stored->recipients; i++) {
        open += stored_fate(stored, i) == 0;
    }
    return open;
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

void pg_load_row(struct pg_spool *pg, struct pg_share *share, const struct pg_row *row)
{
    if (pg_part_find(pg, row->id, share) != STORED_NONE) {
        return;
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
            take_own_fates(pg, stored);
            stored->left = (uint16_t)count_open(stored);
            if (error != ERROR_NONE || stored->left == 0) {
                pg_part_forget(pg, part);
            } else {
                (void)pg_part_link_known(pg, part, row->id);
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
        char text[80], name[ID_TEXT_LENGTH + 1];
        id_to_text(row->id, name);
        snprintf(text, sizeof(text), "the envelope of %s in the database is damaged", name);
        pg_damage(pg, text);
    }
}

/* ---- what has ended meanwhile --------------------------------------------------------------- */

void pg_ended(struct pg_spool *pg, struct message_id id, uint32_t delivery, uint8_t fate)
{
    const struct pg_ended ended = {.id = id, .delivery = delivery, .fate = fate};
    if (pg->page == NULL) {
        return; /* the next one knows */
    }
    buffer_append(&pg->ended, slice_make(&ended, sizeof(ended)));
    if (pg->ended.failed) {
        abort(); /* it would be delivered again */
    }
}

static int by_id(const void *a, const void *b)
{
    const struct pg_ended *left = a, *right = b;
    return id_compare(left->id, right->id);
}

void pg_ended_sort(struct pg_spool *pg)
{
    size_t count = pg->ended.length / sizeof(struct pg_ended);
    if (count > 0) {
        qsort(pg->ended.data, count, sizeof(struct pg_ended), by_id);
    }
}

bool pg_load_late(struct pg_spool *pg, const struct pg_share *share, struct message_id id,
                  uint32_t delivery, uint8_t fate)
{
    uint32_t part = pg_part_find(pg, id, share);
    if (part == STORED_NONE || fate == 0 || fate > SPOOL_PULLED ||
        delivery >= table_at(&pg->table, part)->recipients) {
        return false;
    }
    unsigned ours = stored_fate(table_at(&pg->table, part), delivery);
    if (ours == 0 && pg->loader.late_fate != NULL) {
        pg->loader.late_fate(pg->loader.context, id, (struct spool_handle){part}, delivery,
                             (enum spool_fate)fate);
    }
    return ours == 0 || (ours & STORED_FATE_UNDERWAY) != 0;
}

/* ---- notes about no message ----------------------------------------------------------------- */

void pg_load_globals(struct pg_spool *pg, struct pg_page *page)
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
