/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading what was stored before the open, in slices, from the indexes of the segments.
 *
 *   1. Collect: every index in the order of the journal. Messages enter the table, fates are marked
 *      in it, global notes are gathered, references between segments are counted. A message met
 *      twice is a survivor that was moved: the later place counts, its fates are joined.
 *   What comes late (log_adopt.c) is looked for in what was there, too: fates of it may be known.
 *   2. Hand over, in acceptance order: the messages that have an unfinished delivery, each with its
 *      fates. Finished ones leave the table.
 *   3. Hand over the notes, in the order of the journal, but only those after the newest copy of
 *      their message and after the last reset of its notes.
 * Nothing is removed or moved before all of this is done.
 */
#include "base/crc32c.h"
#include "spool/log_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    SLICE_MESSAGES = 2000,
    SLICE_ENTRIES = 20000,
    INDEXES_KEPT = 8,
};

struct loaded {
    uint64_t sequence;
    uint32_t stored;
    uint32_t slot; /* of the segment whose index has it, and where there */
    uint32_t at;
};

struct kept_index {
    uint32_t slot;
    struct buffer bytes;
    uint64_t used;
};

struct reset {
    uint32_t stored;
    uint64_t rank;
};

enum load_phase {
    LOAD_COLLECT,
    LOAD_KNOWN_FATES,
    LOAD_SORT,
    LOAD_GLOBALS,
    LOAD_MESSAGES,
    LOAD_NOTES,
    LOAD_LATE_FATES,
    LOAD_DONE
};

/* Of another writer, about a message that was here already. */
struct late_fate {
    struct message_id id;
    uint32_t delivery;
    uint8_t fate;
};

struct log_loading {
    enum load_phase phase;
    bool begun;
    bool late;                /* not what was there at the open: log_adopt.c */
    struct buffer late_fates; /* struct late_fate */
    struct buffer segments;   /* struct late_part, in order */
    struct buffer known;      /* likewise, of what was there before what is late */
    size_t segment;           /* the one at work, and how far */
    size_t at;
    struct buffer loaded;  /* struct loaded */
    struct buffer resets;  /* struct reset */
    uint64_t *reset_ranks; /* by entry of the table; NULL: no resets */
    uint32_t reset_count;
    size_t next;
    struct kept_index indexes[INDEXES_KEPT];
    uint64_t clock;
    struct buffer files;  /* struct content_garbage, `group` 1: a message names it */
    struct buffer damage; /* texts, NUL-terminated */
    struct arena arena;
};

void loading_keep_damage(struct journal *journal, const char *text)
{
    if (journal->loading != NULL) {
        buffer_append(&journal->loading->damage, slice_make(text, strlen(text) + 1));
        journal->loading->damage.failed = false;
    }
}

void loading_keep_file(struct journal *journal, uint64_t number, uint64_t size)
{
    struct content_garbage found = {.file = number};
    journal->content_bytes += size;
    buffer_append(&journal->loading->files, slice_make(&found, sizeof(found)));
    journal->loading->files.failed = false; /* then it stays until another start */
}

enum error loading_start(struct journal *journal)
{
    struct log_loading *loading = calloc(1, sizeof(*loading));
    if (loading == NULL) {
        return ERROR_MEMORY;
    }
    arena_init(&loading->arena);
    journal->loading = loading;
    return ERROR_NONE;
}

enum error loading_start_late(struct journal *journal, struct buffer *parts)
{
    enum error error = loading_start(journal);
    if (error == ERROR_NONE) {
        journal->loading->late = true;
        journal->loading->segments = *parts;
        buffer_init(parts, 0);
    }
    return error;
}

void loading_free(struct log_loading *loading)
{
    if (loading == NULL) {
        return;
    }
    for (size_t i = 0; i < INDEXES_KEPT; i++) {
        buffer_done(&loading->indexes[i].bytes);
    }
    buffer_done(&loading->late_fates);
    buffer_done(&loading->segments);
    buffer_done(&loading->known);
    buffer_done(&loading->loaded);
    buffer_done(&loading->resets);
    buffer_done(&loading->files);
    buffer_done(&loading->damage);
    free(loading->reset_ranks);
    arena_done(&loading->arena);
    free(loading);
}

/* ---- indexes ----------------------------------------------------------------------------- */

static enum error read_index(struct journal *journal, struct segment *segment,
                             struct buffer *ret_index)
{
    buffer_init(ret_index, 0);
    if (segment->index_at + (uint64_t)segment->index_length >
        segment->size + segment->index_length + LOG_GROUP_ALIGN) {
        return ERROR_CORRUPT;
    }
    enum error error = buffer_reserve(ret_index, (size_t)segment->index_length + 1);
    if (error != ERROR_NONE) {
        return error;
    }
    error = log_files_read(&journal->files, segment->number, segment->index_at, ret_index->data,
                           segment->index_length);
    ret_index->length = segment->index_length;
    if (error == ERROR_NONE && crc32c(0, buffer_slice(ret_index)) != segment->index_crc) {
        error = ERROR_CORRUPT;
    }
    return error;
}

/* It was closed and not sealed, or died as the head: the janitor makes up for it, so that it is not
 * scanned at every start and may be emptied. */
static void keep_for_seal(struct segment *segment, struct slice index)
{
    buffer_clear(&segment->index);
    buffer_append(&segment->index, index);
    segment->index_known = !segment->index.failed;
    segment->index.failed = false; /* then at another start */
}

enum error segment_index(struct journal *journal, struct segment *segment, struct buffer *ret_index)
{
    buffer_init(ret_index, 0);
    if (segment->index_known) {
        buffer_append(ret_index, buffer_slice(&segment->index));
        return ret_index->failed ? ERROR_MEMORY : ERROR_NONE;
    }
    if (segment->sealed) {
        enum error error = read_index(journal, segment, ret_index);
        if (error != ERROR_CORRUPT && error != ERROR_IO) {
            return error;
        }
        buffer_done(ret_index);
    }
    /* What was synced and no more, if it failed. */
    enum error error = segment_scan(
        journal, segment, segment->failed ? segment->synced_end : segment->end, ret_index);
    if (error == ERROR_NONE && !segment->sealed && !segment->failed && !segment->head) {
        keep_for_seal(segment, buffer_slice(ret_index));
    }
    return error;
}

static enum error keep_index(struct journal *journal, uint32_t slot, struct slice *ret_index)
{
    struct log_loading *loading = journal->loading;
    struct kept_index *oldest = &loading->indexes[0];
    for (size_t i = 0; i < INDEXES_KEPT; i++) {
        struct kept_index *kept = &loading->indexes[i];
        if (kept->used != 0 && kept->slot == slot) {
            kept->used = ++loading->clock;
            *ret_index = buffer_slice(&kept->bytes);
            return ERROR_NONE;
        }
        oldest = kept->used < oldest->used ? kept : oldest;
    }
    buffer_done(&oldest->bytes);
    oldest->used = 0;
    enum error error = segment_index(journal, journal->slots[slot], &oldest->bytes);
    if (error == ERROR_NONE) {
        oldest->slot = slot;
        oldest->used = ++loading->clock;
        *ret_index = buffer_slice(&oldest->bytes);
    }
    return error;
}

/* ---- 1: collect -------------------------------------------------------------------------- */

static bool is_loading(const struct journal *journal, uint32_t index)
{
    return index != STORED_NONE && (table_at(&journal->table, index)->flags & STORED_LOADING) != 0;
}

static enum error prepare_foreign(struct journal *journal, struct stored *stored, uint32_t index,
                                  const struct log_message *message)
{
    const struct log_message_place *place = &message->place;
    enum error error = stored_prepare(stored, index, message->message.recipient_count,
                                      place->foreign_count, place->file);
    if (error != ERROR_NONE || place->foreign_count == 0) {
        return error;
    }
    uint32_t known = 0;
    for (uint32_t i = 0; i < place->foreign_count; i++) {
        struct segment *segment = segment_by_number(journal, place->foreign[i]);
        if (segment != NULL) {
            stored->extra->foreign[known++] = segment->slot;
        }
    }
    stored->extra->foreign_count = known; /* reading will say that content is missing */
    return ERROR_NONE;
}

/* Another writer has moved it, and may remove where it was. */
static bool is_moved_late(const struct journal *journal, const struct segment *segment,
                          uint32_t index)
{
    const struct stored *stored = table_at(&journal->table, index);
    return journal->loading->late && (stored->flags & (STORED_PENDING | STORED_FINISHED)) == 0 &&
           journal->slots[stored->slot]->number < segment->number;
}

static enum error collect_copy(struct journal *journal, struct segment *segment, uint32_t index,
                               const struct log_entry *entry)
{
    struct stored *stored = table_at(&journal->table, index);
    uint64_t old = journal->slots[stored->slot]->number;
    stored_leave_pinned(journal, index);
    stored_unsettle(journal, stored, 0);
    if ((stored->flags & STORED_EXTRA) != 0) {
        stored->extra->foreign_count = 0; /* a copy holds all its content */
    }
    stored_settle(journal, stored, segment->slot, entry->offset);
    return segment_refer(segment, old, true);
}

/* Another writer's fate or note: about a message that was here already, if not gone. */
static enum error refer_late(const struct journal *journal, struct segment *segment, uint32_t index)
{
    bool known = journal->loading->late && index != STORED_NONE &&
                 (table_at(&journal->table, index)->flags & STORED_PENDING) == 0;
    return known ? segment_refer(segment,
                                 journal->slots[table_at(&journal->table, index)->slot]->number,
                                 false)
                 : ERROR_NONE;
}

/* No failure stays behind: the step is done again. */
static enum error make_room(struct buffer *buffer, size_t length)
{
    enum error error = buffer_reserve(buffer, length);
    buffer->failed = false;
    return error;
}

static enum error keep(struct buffer *buffer, struct slice item)
{
    enum error error = make_room(buffer, item.length);
    if (error == ERROR_NONE) {
        buffer_append(buffer, item);
    }
    return error;
}

static enum error collect_message(struct journal *journal, struct segment *segment,
                                  const struct log_entry *entry)
{
    struct log_loading *loading = journal->loading;
    struct log_message message;
    arena_reset(&loading->arena);
    enum error error = log_get_message(entry->payload, &loading->arena, &message);
    if (error != ERROR_NONE) {
        return error;
    }
    if (segment->last_group != 0 && entry->offset >= segment->last_group) {
        error =
            keep(&journal->last_ids, slice_make(&message.message.id, sizeof(message.message.id)));
        if (error != ERROR_NONE) {
            return error;
        }
    }
    uint32_t index = table_find(&journal->table, message.message.id);
    if (index != STORED_NONE) {
        return is_loading(journal, index) || is_moved_late(journal, segment, index)
                   ? collect_copy(journal, segment, index, entry)
                   : ERROR_NONE;
    }
    error = make_room(&loading->loaded, sizeof(struct loaded)); /* then it is known whole */
    if (error == ERROR_NONE) {
        error = table_add(&journal->table, message.message.id, &index);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    struct stored *stored = table_at(&journal->table, index);
    uint64_t length = message.message.header_length + message.message.body_length;
    stored->flags = STORED_LOADING;
    stored->sequence = message.message.sequence;
    stored->content_low = (uint32_t)length;
    stored->content_high = (uint8_t)(length >> 32);
    error = prepare_foreign(journal, stored, index, &message);
    if (error != ERROR_NONE) {
        table_hide(&journal->table, index);
        table_free(&journal->table, index);
        return error;
    }
    stored_settle(journal, stored, segment->slot, entry->offset);
    journal->messages++;
    journal->live_bytes += length;
    struct loaded loaded = {stored->sequence, index, segment->slot, (uint32_t)entry->at};
    buffer_append(&loading->loaded, slice_make(&loaded, sizeof(loaded)));
    return ERROR_NONE;
}

/* One that is only carried along says nothing new. */
static enum error keep_late_fate(struct journal *journal, const struct log_fate *fate, bool known)
{
    const struct late_fate late = {fate->id, fate->delivery, fate->fate};
    if (!journal->loading->late || (!known && fate->when_ms == 0)) {
        return ERROR_NONE; /* no copy of it is left */
    }
    return keep(&journal->loading->late_fates, slice_make(&late, sizeof(late)));
}

static enum error mark_fate(struct journal *journal, struct segment *segment, uint32_t index,
                            const struct log_fate *fate)
{
    struct stored *stored = table_at(&journal->table, index);
    if (fate->delivery < stored->recipients && stored_fate(stored, fate->delivery) == 0) {
        stored_set_fate(stored, fate->delivery, fate->fate);
        stored->left--;
    }
    return segment_refer(segment, journal->slots[stored->slot]->number, false);
}

static enum error collect_fate(struct journal *journal, struct segment *segment,
                               struct slice payload)
{
    struct log_fate fate;
    if (!log_get_fate(payload, &fate)) {
        return ERROR_CORRUPT;
    }
    uint32_t index = table_find(&journal->table, fate.id);
    if (!is_loading(journal, index)) {
        enum error error = keep_late_fate(journal, &fate, index != STORED_NONE);
        return error == ERROR_NONE ? refer_late(journal, segment, index) : error;
    }
    return mark_fate(journal, segment, index, &fate);
}

/* What is already known of a message that came late: it was here before, it has been delivered and
 * forgotten, and the other writer has moved it since. */
static enum error collect_known_fate(struct journal *journal, struct segment *segment,
                                     const struct log_entry *entry)
{
    struct log_fate fate;
    if (entry->type != LOG_FATE) {
        return ERROR_NONE;
    }
    if (!log_get_fate(entry->payload, &fate)) {
        return ERROR_CORRUPT;
    }
    uint32_t index = table_find(&journal->table, fate.id);
    return is_loading(journal, index) ? mark_fate(journal, segment, index, &fate) : ERROR_NONE;
}

/* The order of the journal as a number: segments keep their order while we load. */
static uint64_t rank_of(const struct journal *journal, uint32_t slot, uint32_t offset)
{
    return (uint64_t)journal->slots[slot]->rank << 32 | offset;
}

static enum error collect_about(struct journal *journal, struct segment *segment,
                                const struct log_entry *entry)
{
    struct log_loading *loading = journal->loading;
    struct message_id id;
    if (!log_get_id(entry->payload, &id)) {
        return ERROR_CORRUPT;
    }
    uint32_t index = table_find(&journal->table, id);
    if (!is_loading(journal, index)) {
        return refer_late(journal, segment, index);
    }
    if (entry->type == LOG_NOTES_RESET) {
        struct reset reset = {index, rank_of(journal, segment->slot, entry->offset)};
        enum error error = keep(&loading->resets, slice_make(&reset, sizeof(reset)));
        if (error != ERROR_NONE) {
            return error;
        }
    }
    const struct stored *stored = table_at(&journal->table, index);
    return segment_refer(segment, journal->slots[stored->slot]->number, false);
}

static enum error collect(struct journal *journal, struct segment *segment,
                          const struct log_entry *entry)
{
    struct slice key, payload;
    switch (entry->type) {
    case LOG_MESSAGE:
        return collect_message(journal, segment, entry);
    case LOG_FATE:
        return collect_fate(journal, segment, entry->payload);
    case LOG_NOTE:
    case LOG_NOTES_RESET:
        return collect_about(journal, segment, entry);
    case LOG_GLOBALS_RESET:
        if (!journal->loading->late) {
            globals_clear(journal);
        }
        return ERROR_NONE;
    case LOG_GLOBAL:
        if (journal->loading->late) {
            return ERROR_NONE; /* ours are newer */
        }
        return log_get_global(entry->payload, &key, &payload)
                   ? globals_set(journal, key, payload, false)
                   : ERROR_CORRUPT;
    default:
        return ERROR_NONE;
    }
}

static enum error hand_note(struct journal *journal, const struct spool_loader *loader,
                            const struct segment *segment, const struct log_entry *entry);

/* A part of the entries of all segments, for collecting or for the notes. */
static enum error walk_entries(struct journal *journal, const struct spool_loader *loader,
                               bool *ret_end)
{
    struct log_loading *loading = journal->loading;
    bool known = loading->phase == LOAD_KNOWN_FATES;
    const struct buffer *walked = known ? &loading->known : &loading->segments;
    const struct late_part *parts = (const void *)walked->data;
    size_t count = walked->length / sizeof(*parts);
    *ret_end = false;
    for (unsigned done = 0; done < SLICE_ENTRIES;) {
        if (loading->segment == count) {
            *ret_end = true;
            return ERROR_NONE;
        }
        struct segment *segment = journal->slots[parts[loading->segment].slot];
        loading->at =
            loading->at > parts[loading->segment].from ? loading->at : parts[loading->segment].from;
        struct slice index;
        enum error error = keep_index(journal, segment->slot, &index);
        struct log_entry entry;
        bool sound = true;
        size_t before = loading->at;
        while (error == ERROR_NONE && done++ < SLICE_ENTRIES) {
            before = loading->at;
            if (before >= parts[loading->segment].to ||
                !log_entry_next(index, &loading->at, &entry, &sound)) {
                loading->segment++;
                loading->at = 0;
                break;
            }
            if (loading->phase == LOAD_COLLECT) {
                error = collect(journal, segment, &entry);
            } else if (known) {
                error = collect_known_fate(journal, segment, &entry);
            } else {
                error = hand_note(journal, loader, segment, &entry);
            }
        }
        if (error == ERROR_CORRUPT || !sound) {
            loading_keep_damage(journal, "an entry of an index breaks its grammar: skipped");
            error = ERROR_NONE;
        }
        if (error != ERROR_NONE) {
            loading->at = before; /* nothing is left out */
            return error;
        }
    }
    return ERROR_NONE;
}

/* ---- 2: sort, and hand over -------------------------------------------------------------- */

static int by_sequence(const void *a, const void *b)
{
    uint64_t left = ((const struct loaded *)a)->sequence;
    uint64_t right = ((const struct loaded *)b)->sequence;
    return (left > right) - (left < right);
}

static void drop_finished(struct journal *journal)
{
    struct log_loading *loading = journal->loading;
    struct loaded *loaded = (void *)loading->loaded.data;
    size_t count = loading->loaded.length / sizeof(*loaded), kept = 0;
    bool sorted = true;
    for (size_t i = 0; i < count; i++) {
        if (table_at(&journal->table, loaded[i].stored)->left == 0) {
            stored_finish(journal, loaded[i].stored, 0);
        } else {
            sorted &= kept == 0 || loaded[kept - 1].sequence < loaded[i].sequence;
            loaded[kept++] = loaded[i];
        }
    }
    loading->loaded.length = kept * sizeof(*loaded);
    if (!sorted) {
        qsort(loaded, kept, sizeof(*loaded), by_sequence);
    }
}

static enum error rank_resets(struct journal *journal)
{
    struct log_loading *loading = journal->loading;
    const struct reset *resets = (const void *)loading->resets.data;
    size_t count = loading->resets.length / sizeof(*resets);
    if (count == 0) {
        return ERROR_NONE;
    }
    loading->reset_count = journal->table.used;
    loading->reset_ranks = calloc(loading->reset_count, sizeof(uint64_t));
    if (loading->reset_ranks == NULL) {
        return ERROR_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        loading->reset_ranks[resets[i].stored] = resets[i].rank;
    }
    return ERROR_NONE;
}

static void hand_globals(struct journal *journal, const struct spool_loader *loader)
{
    for (size_t i = 0; i < journal->global_count; i++) {
        const struct global *global = &journal->globals[i];
        if (!global->fresh && global->payload.length > 0 && loader->global_note != NULL) {
            loader->global_note(loader->context, global->key, global->payload);
        }
    }
}

static void hand_fates(const struct spool_loader *loader, uint32_t index,
                       const struct stored *stored)
{
    if (stored->left == stored->recipients || loader->fate == NULL) {
        return;
    }
    for (uint32_t i = 0; i < stored->recipients; i++) {
        unsigned fate = stored_fate(stored, i);
        if (fate != 0) {
            loader->fate(loader->context, (struct spool_handle){index}, i, (enum spool_fate)fate);
        }
    }
}

static enum error hand_message(struct journal *journal, const struct spool_loader *loader,
                               const struct loaded *loaded)
{
    struct log_loading *loading = journal->loading;
    struct slice index;
    enum error error = keep_index(journal, loaded->slot, &index);
    if (error != ERROR_NONE) {
        return error;
    }
    struct log_entry entry;
    struct log_message message;
    size_t at = loaded->at;
    bool sound;
    arena_reset(&loading->arena);
    if (!log_entry_next(index, &at, &entry, &sound)) {
        return ERROR_CORRUPT;
    }
    error = log_get_message(entry.payload, &loading->arena, &message);
    if (error != ERROR_NONE) {
        return error;
    }
    struct stored *stored = table_at(&journal->table, loaded->stored);
    stored->flags &= (uint8_t)~STORED_LOADING;
    struct spool_handle handle = {loaded->stored};
    if (loader->message != NULL) {
        loader->message(loader->context, handle, &message.message);
    }
    hand_fates(loader, loaded->stored, stored);
    return ERROR_NONE;
}

static enum error hand_messages(struct journal *journal, const struct spool_loader *loader,
                                bool *ret_end)
{
    struct log_loading *loading = journal->loading;
    const struct loaded *loaded = (const void *)loading->loaded.data;
    size_t count = loading->loaded.length / sizeof(*loaded);
    for (unsigned i = 0; i < SLICE_MESSAGES && loading->next < count; i++) {
        enum error error = hand_message(journal, loader, &loaded[loading->next]);
        if (error != ERROR_NONE) {
            return error;
        }
        loading->next++;
    }
    *ret_end = loading->next == count;
    return ERROR_NONE;
}

/* ---- 3: notes ---------------------------------------------------------------------------- */

static bool is_of_this_load(const struct log_loading *loading, uint32_t index)
{
    const struct loaded *loaded = (const void *)loading->loaded.data;
    for (size_t i = 0; i < loading->loaded.length / sizeof(*loaded); i++) {
        if (loaded[i].stored == index) {
            return true;
        }
    }
    return false;
}

static enum error hand_note(struct journal *journal, const struct spool_loader *loader,
                            const struct segment *segment, const struct log_entry *entry)
{
    struct log_loading *loading = journal->loading;
    struct log_note note;
    if (entry->type != LOG_NOTE) {
        return ERROR_NONE;
    }
    if (!log_get_note(entry->payload, &note)) {
        return ERROR_CORRUPT;
    }
    uint32_t index = table_find(&journal->table, note.id);
    if (index == STORED_NONE) {
        return ERROR_NONE;
    }
    if (loading->late && !is_of_this_load(loading, index)) {
        return ERROR_NONE; /* what came of its tries here counts */
    }
    const struct stored *stored = table_at(&journal->table, index);
    uint64_t rank = rank_of(journal, segment->slot, entry->offset);
    bool is_reset = index < loading->reset_count && rank < loading->reset_ranks[index];
    if ((stored->flags & STORED_PENDING) != 0 || is_reset ||
        rank < rank_of(journal, stored->slot, stored->offset)) {
        return ERROR_NONE;
    }
    if (loader->note != NULL) {
        loader->note(loader->context, (struct spool_handle){index}, note.delivery, note.kind,
                     note.payload);
    }
    return ERROR_NONE;
}

/* ---- the whole --------------------------------------------------------------------------- */

static int by_file(const void *a, const void *b)
{
    uint64_t left = ((const struct content_garbage *)a)->file;
    uint64_t right = ((const struct content_garbage *)b)->file;
    return (left > right) - (left < right);
}

/* Its message may be what was damaged. */
static void set_file_aside(struct journal *journal, uint64_t number)
{
    char from[LOG_NAME_SIZE], to[LOG_NAME_SIZE], text[160];
    log_name_make(LOG_NAME_CONTENT, number, from);
    log_name_make(LOG_NAME_SET_ASIDE, number, to);
    (void)!journal->disk->ops->rename(journal->disk, from, to);
    snprintf(text, sizeof(text), "%s belongs to no message that could be read: set aside as %s",
             from, to);
    loading_keep_damage(journal, text);
}

/* Content files that no message names: their batches never completed, if all could be read. */
static void sort_out_files(struct journal *journal)
{
    struct log_loading *loading = journal->loading;
    struct content_garbage *files = (void *)loading->files.data;
    size_t count = loading->files.length / sizeof(*files);
    if (count == 0 || journal->ended_token + 1 < journal->settings.token) {
        return; /* or their messages are not: they may be others' */
    }
    qsort(files, count, sizeof(*files), by_file);
    const struct loaded *loaded = (const void *)loading->loaded.data;
    for (size_t i = 0; i < loading->loaded.length / sizeof(*loaded); i++) {
        const struct stored *stored = table_at(&journal->table, loaded[i].stored);
        if ((stored->flags & STORED_EXTRA) == 0 || stored->extra->file == 0) {
            continue;
        }
        struct content_garbage key = {.file = stored->extra->file};
        struct content_garbage *named = bsearch(&key, files, count, sizeof(*files), by_file);
        if (named != NULL) {
            named->group = 1;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (files[i].group == 0 && journal->quarantined > 0) {
            set_file_aside(journal, files[i].file);
        } else if (files[i].group == 0) {
            /* Or it is of a copy, and a power cut has undone its new name but not the copy's. */
            files[i].ended = journal->copies.segments > 0;
            buffer_append(&journal->garbage, slice_make(&files[i], sizeof(files[i])));
        }
    }
}

static enum error begin(struct journal *journal)
{
    struct log_loading *loading = journal->loading;
    enum error error = ERROR_NONE;
    uint32_t rank = 0;
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        segment->rank = rank++;
        if (segment->from_before && !loading->late && error == ERROR_NONE) {
            const struct late_part part = {.slot = segment->slot, .to = SIZE_MAX};
            error = keep(&loading->segments, slice_make(&part, sizeof(part)));
        }
    }
    if (loading->late) {
        return ERROR_NONE;
    }
    if (error != ERROR_NONE) {
        buffer_clear(&loading->segments); /* begun again */
    }
    return error;
}

/* Nothing of what is walked goes, or is in another slot, before all is loaded. */
static enum error begin_known(struct journal *journal)
{
    struct log_loading *loading = journal->loading;
    const struct late_part *late = (const void *)loading->segments.data;
    size_t count = loading->segments.length / sizeof(*late);
    buffer_clear(&loading->known);
    enum error error = ERROR_NONE;
    LIST_EACH(&journal->segments, at, after)
    {
        const struct segment *segment = segment_of(at);
        struct late_part part = {.slot = segment->slot, .to = SIZE_MAX};
        for (size_t i = 0; i < count; i++) {
            part.to = late[i].slot == segment->slot ? late[i].from : part.to;
        }
        bool is_void = segment->gone || (segment->failed && !segment->durable);
        if (loading->late && loading->loaded.length > 0 && !is_void && error == ERROR_NONE) {
            error = keep(&loading->known, slice_make(&part, sizeof(part)));
        }
    }
    if (error == ERROR_NONE) {
        loading->segment = loading->at = 0;
    }
    return error;
}

static void hand_late_fates(const struct journal *journal, const struct spool_loader *loader)
{
    const struct late_fate *fates = (const void *)journal->loading->late_fates.data;
    size_t count = journal->loading->late_fates.length / sizeof(*fates);
    for (size_t i = 0; i < count && loader->late_fate != NULL; i++) {
        const struct spool_handle handle = log_find(&journal->spool, fates[i].id);
        loader->late_fate(loader->context, fates[i].id, handle, fates[i].delivery,
                          (enum spool_fate)fates[i].fate);
    }
}

static void say_damage(struct journal *journal, const struct spool_loader *loader)
{
    struct buffer *damage = &journal->loading->damage;
    for (size_t at = 0; at < damage->length && loader->damage != NULL;) {
        const char *text = (const char *)damage->data + at;
        loader->damage(loader->context, text);
        at += strlen(text) + 1;
    }
    buffer_clear(damage);
}

static enum error advance(struct journal *journal, const struct spool_loader *loader)
{
    struct log_loading *loading = journal->loading;
    bool end = false;
    enum error error = ERROR_NONE;
    switch (loading->phase) {
    case LOAD_COLLECT:
        error = loading->begun ? ERROR_NONE : begin(journal);
        loading->begun = error == ERROR_NONE;
        if (error == ERROR_NONE) {
            error = walk_entries(journal, loader, &end);
        }
        if (error == ERROR_NONE && end) {
            error = begin_known(journal);
        }
        break;
    case LOAD_KNOWN_FATES:
        error = walk_entries(journal, loader, &end);
        break;
    case LOAD_SORT:
        drop_finished(journal);
        if (!loading->late) {
            sort_out_files(journal);
        }
        error = rank_resets(journal);
        end = true;
        break;
    case LOAD_GLOBALS:
        if (!loading->late) {
            hand_globals(journal, loader);
        }
        end = true;
        break;
    case LOAD_MESSAGES:
        error = hand_messages(journal, loader, &end);
        loading->segment = loading->at = 0;
        break;
    case LOAD_NOTES:
        error = walk_entries(journal, loader, &end);
        break;
    case LOAD_LATE_FATES:
        hand_late_fates(journal, loader);
        end = true;
        break;
    case LOAD_DONE:
        break;
    }
    if (error == ERROR_NONE && end) {
        loading->phase++;
    }
    return error;
}

enum error log_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete)
{
    struct journal *journal = journal_of(spool);
    *ret_complete = journal->loading == NULL;
    if (*ret_complete) {
        return ERROR_NONE;
    }
    enum error error = advance(journal, loader);
    say_damage(journal, loader);
    if (error != ERROR_NONE || journal->loading->phase != LOAD_DONE) {
        return error;
    }
    loading_free(journal->loading);
    journal->loading = NULL;
    journal->repeat_globals = true;
    *ret_complete = true;
    adopt_loaded(journal);
    journal_flush_later(journal);
    segments_seal(journal);
    return ERROR_NONE;
}
