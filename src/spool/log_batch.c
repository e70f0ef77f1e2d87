/* SPDX-License-Identifier: Apache-2.0
 *
 * Batches: records are encoded straight into the gathering group, and what they do to the table is
 * kept beside them until the group is written (apply) or given up (undo).
 */
#include "base/crc32c.h"
#include "spool/log_internal.h"

#include <assert.h>
#include <stdlib.h>

static void batch_fail(struct journal *journal, enum error error)
{
    if (journal->batch_error == ERROR_NONE) {
        journal->batch_error = error;
    }
}

void log_batch_begin(struct spool *spool)
{
    struct journal *journal = journal_of(spool);
    assert(!journal->batch_open);
    struct group *gather = journal->gather;
    journal->batch_open = true;
    journal->batch_error = ERROR_NONE;
    journal->open = (struct batch){
        .bytes_from = gather->bytes.length,
        .index_from = gather->index.length,
        .news_from = gather->news.length / sizeof(struct new_message),
        .changes_from = gather->changes.length / sizeof(struct change),
    };
    journal->open_files = gather->files.length;
}

static void open_end(struct journal *journal)
{
    const struct group *gather = journal->gather;
    journal->open.bytes_to = gather->bytes.length;
    journal->open.index_to = gather->index.length;
    journal->open.news_to = gather->news.length / sizeof(struct new_message);
    journal->open.changes_to = gather->changes.length / sizeof(struct change);
}

/* Segments that hold content of a message on its way must not go meanwhile. */
static void hold_foreign(struct journal *journal, const struct stored *stored, int by)
{
    if ((stored->flags & STORED_EXTRA) != 0) {
        for (uint32_t i = 0; i < stored->extra->foreign_count; i++) {
            journal->slots[stored->extra->foreign[i]]->pins += (uint32_t)by;
        }
    }
}

static struct stored *changed(struct journal *journal, const struct change *change)
{
    if (change->home != 0) {
        return NULL; /* its message may have left the table */
    }
    struct stored *stored = table_at(&journal->table, change->stored);
    return id_equal(stored->id, change->id) ? stored : NULL;
}

void batch_undo(struct journal *journal, struct group *group, const struct batch *batch)
{
    for (size_t i = batch->changes_from; i < batch->changes_to; i++) {
        struct change *change = &group_changes(group)[i];
        struct stored *stored = changed(journal, change);
        if (change->fate != 0 && stored != NULL) {
            stored_set_fate(stored, change->delivery, 0);
        }
    }
    for (size_t i = batch->news_from; i < batch->news_to; i++) {
        const struct new_message *news = &group_news(group)[i];
        struct stored *stored = table_at(&journal->table, news->stored);
        if (news->copy) {
            if (id_equal(stored->id, news->id)) {
                stored->flags &= (uint8_t)~STORED_MOVING;
            }
            continue;
        }
        hold_foreign(journal, stored, -1);
        table_hide(&journal->table, news->stored);
        table_free(&journal->table, news->stored);
    }
}

/* The gathering group as it was when the batch began. */
static void rewind_gather(struct journal *journal)
{
    struct group *gather = journal->gather;
    const struct batch *open = &journal->open;
    open_end(journal);
    batch_undo(journal, gather, open);
    struct group_file *files = (void *)gather->files.data;
    for (size_t i = journal->open_files / sizeof(*files); i < gather->files.length / sizeof(*files);
         i++) {
        content_file_discard(files[i].file);
    }
    gather->bytes.length = open->bytes_from;
    gather->index.length = open->index_from;
    gather->news.length = open->news_from * sizeof(struct new_message);
    gather->changes.length = open->changes_from * sizeof(struct change);
    gather->files.length = journal->open_files;
    gather->bytes.failed = gather->index.failed = false;
    gather->handles.length = open->news_from * sizeof(struct spool_handle);
    gather->news.failed = gather->changes.failed = gather->files.failed = false;
    gather->handles.failed = false;
}

void log_batch_cancel(struct spool *spool)
{
    struct journal *journal = journal_of(spool);
    assert(journal->batch_open);
    rewind_gather(journal);
    journal->batch_open = false;
}

/* ---- messages ---------------------------------------------------------------------------- */

/* The other segments that hold content of it, each once. */
static enum error note_places(struct journal *journal, struct stored *stored, uint32_t index,
                              const struct spool_message *message, const struct buffer *pieces,
                              uint64_t *numbers, struct log_message_place *place)
{
    const struct log_piece *piece = (const void *)pieces->data;
    *place = (struct log_message_place){.foreign = numbers};
    for (size_t i = 0; i < pieces->length / sizeof(*piece); i++) {
        if (piece[i].kind == LOG_FILE) {
            place->file = piece[i].where;
        } else if (piece[i].kind == LOG_FAR &&
                   (place->foreign_count == 0 ||
                    numbers[place->foreign_count - 1] != piece[i].where)) {
            numbers[place->foreign_count++] = piece[i].where;
        }
    }
    enum error error =
        stored_prepare(stored, index, message->recipient_count, place->foreign_count, place->file);
    if (error == ERROR_NONE && place->foreign_count > 0) {
        for (uint32_t i = 0; i < place->foreign_count; i++) {
            stored->extra->foreign[i] = segment_by_number(journal, numbers[i])->slot;
        }
    }
    return error;
}

static void encode_message(struct group *gather, const struct spool_message *message,
                           struct buffer *pieces, const struct log_message_place *place,
                           uint8_t flags, uint32_t *ret_offset)
{
    size_t at = log_record_begin(&gather->bytes);
    struct log_piece *piece = (void *)pieces->data;
    size_t count = pieces->length / sizeof(*piece);
    for (size_t i = 0; i < count; i++) {
        if (piece[i].kind == LOG_NEAR) {
            piece[i].offset = at - piece[i].offset;
        }
    }
    log_put_message(&gather->bytes, message, piece, count);
    log_record_end(&gather->bytes, at, LOG_MESSAGE, flags);
    size_t entry = log_entry_begin(&gather->index);
    log_put_message_index(&gather->index, message, place);
    log_entry_end(&gather->index, entry, LOG_MESSAGE, flags, (uint32_t)at);
    *ret_offset = (uint32_t)at;
}

static enum error add_record(struct journal *journal, uint32_t index,
                             const struct spool_message *message, struct buffer *pieces,
                             const struct log_message_place *place, bool copy)
{
    struct group *gather = journal->gather;
    struct new_message news = {
        .id = message->id, .stored = index, .sequence = message->sequence, .copy = copy};
    struct spool_handle handle = {index};
    size_t before = gather->bytes.length;
    encode_message(gather, message, pieces, place, copy ? LOG_COPY : 0, &news.offset);
    buffer_append(&gather->handles, slice_make(&handle, sizeof(handle)));
    if (!gather->handles.failed) {
        buffer_append(&gather->news, slice_make(&news, sizeof(news)));
    }
    if (gather->bytes.failed || gather->index.failed || gather->news.failed ||
        gather->handles.failed) {
        return ERROR_MEMORY;
    }
    bool too_long = gather->bytes.length - before > SPOOL_ENVELOPE_MAX && !copy;
    return too_long ? ERROR_LIMIT : ERROR_NONE;
}

static enum error add_message(struct journal *journal, struct stored *stored, uint32_t index,
                              const struct spool_message *message, struct log_content *content,
                              struct slice tail)
{
    struct buffer pieces;
    buffer_init(&pieces, 0);
    uint64_t needs_group = 0;
    enum error error = content_store(content, tail, &pieces, &needs_group);
    uint64_t *numbers = malloc(pieces.length / sizeof(struct log_piece) * 8 + 8);
    struct log_message_place place;
    if (error == ERROR_NONE && numbers == NULL) {
        error = ERROR_MEMORY;
    }
    if (error == ERROR_NONE) {
        error = note_places(journal, stored, index, message, &pieces, numbers, &place);
    }
    if (error == ERROR_NONE) {
        error = add_record(journal, index, message, &pieces, &place, false);
    }
    if (needs_group > journal->open.needs_group) {
        journal->open.needs_group = needs_group;
    }
    buffer_done(&pieces);
    free(numbers);
    return error;
}

static enum error refusal(const struct journal *journal, const struct spool_message *message)
{
    if ((message->flags & SPOOL_OWN_DSN) != 0) {
        return ERROR_NONE;
    }
    return journal_accepting(journal);
}

static enum error check_message(struct journal *journal, const struct spool_message *message,
                                const struct log_content *content, struct slice tail)
{
    enum error error = refusal(journal, message);
    if (error != ERROR_NONE) {
        return error;
    }
    uint64_t length = tail.length;
    if (content != NULL) {
        if (content->error != ERROR_NONE) {
            return content->error;
        }
        length += content->length;
    }
    uint64_t stated;
    if (__builtin_add_overflow(message->header_length, message->body_length, &stated) ||
        stated != length) {
        return ERROR_INVALID;
    }
    if (table_find(&journal->table, message->id) != STORED_NONE) {
        return ERROR_EXISTS;
    }
    return ERROR_NONE;
}

static enum error new_message(struct journal *journal, const struct spool_message *message,
                              struct log_content *content, struct slice tail)
{
    uint32_t index;
    enum error error = table_add(&journal->table, message->id, &index);
    if (error != ERROR_NONE) {
        return error;
    }
    struct stored *stored = table_at(&journal->table, index);
    stored->flags = STORED_PENDING;
    stored->sequence = journal->next_sequence++;
    uint64_t length = message->header_length + message->body_length;
    stored->content_low = (uint32_t)length;
    stored->content_high = (uint8_t)(length >> 32);
    struct spool_message sequenced = *message;
    sequenced.sequence = stored->sequence;
    size_t news_before = journal->gather->news.length;
    error = add_message(journal, stored, index, &sequenced, content, tail);
    if (error != ERROR_NONE && journal->gather->news.length == news_before) {
        table_hide(&journal->table, index);
        table_free(&journal->table, index);
        return error;
    }
    journal->open.mail |= (message->flags & SPOOL_OWN_DSN) == 0;
    hold_foreign(journal, stored, 1);
    content_give_file(content, group_batch_count(journal->gather));
    return error;
}

/* A long message in one piece takes the way of streamed content. */
static enum error make_content(struct journal *journal, struct log_content **content,
                               struct slice *tail)
{
    if (*content == NULL) {
        *content = (struct log_content *)log_content_new(&journal->spool, tail->length);
        if (*content == NULL) {
            return ERROR_MEMORY;
        }
    }
    if ((*content)->large || (*content)->length + tail->length > journal->settings.large_bytes) {
        struct slice bytes = *tail;
        *tail = SLICE_EMPTY;
        return log_content_append(&(*content)->content, bytes);
    }
    return ERROR_NONE;
}

enum error log_batch_message(struct spool *spool, const struct spool_message *message,
                             struct spool_content *given, struct slice tail)
{
    struct journal *journal = journal_of(spool);
    struct log_content *content = (struct log_content *)given;
    assert(journal->batch_open && spool_message_is_sound(message));
    enum error error = check_message(journal, message, content, tail);
    if (error == ERROR_NONE) {
        error = make_content(journal, &content, &tail);
    }
    if (error == ERROR_NONE) {
        error = new_message(journal, message, content, tail);
        if (error != ERROR_NONE) {
            /* Half of it may stand in the group: the whole batch is given up. */
            batch_fail(journal, error);
        }
    }
    if (content != NULL) {
        content_free(content);
    }
    return error;
}

bool batch_put_extent(struct journal *journal, struct slice bytes, struct log_piece *ret_piece)
{
    struct buffer *out = &journal->gather->bytes;
    size_t at = out->length;
    log_record_put(out, LOG_EXTENT, 0, bytes);
    *ret_piece = (struct log_piece){.kind = LOG_NEAR,
                                    .stored = (uint32_t)bytes.length,
                                    .take = (uint32_t)bytes.length,
                                    .crc = crc32c(0, bytes),
                                    .offset = at + LOG_RECORD_HEADER};
    return !out->failed;
}

enum error batch_copy(struct journal *journal, uint32_t index, const struct spool_message *message,
                      struct buffer *pieces)
{
    struct stored *stored = table_at(&journal->table, index);
    struct log_message_place place = {0};
    if ((stored->flags & STORED_EXTRA) != 0) {
        place.file = stored->extra->file;
    }
    enum error error = add_record(journal, index, message, pieces, &place, true);
    if (error == ERROR_NONE) {
        stored->flags |= STORED_MOVING;
    } else {
        batch_fail(journal, error);
    }
    return error;
}

/* ---- fates and notes --------------------------------------------------------------------- */

static void put_entry(struct journal *journal, size_t at, enum log_type type)
{
    struct group *gather = journal->gather;
    if (gather->bytes.failed) {
        return;
    }
    struct slice payload = slice_make(gather->bytes.data + at + LOG_RECORD_HEADER,
                                      gather->bytes.length - at - LOG_RECORD_HEADER);
    log_entry_put(&gather->index, type, 0, (uint32_t)at, payload);
    log_record_end(&gather->bytes, at, type, 0);
}

/* Never less than where its newest copy is: a fate is kept while any copy before it may be. */
static uint64_t home_of(const struct journal *journal, const struct stored *stored)
{
    if ((stored->flags & STORED_PENDING) != 0) {
        return 0; /* this very group */
    }
    if ((stored->flags & STORED_MOVING) == 0) {
        return journal->slots[stored->slot]->number;
    }
    return journal->moving_group == journal->gather->number ? 0 : journal->head->number;
}

static void add_change(struct journal *journal, uint32_t index, uint32_t delivery, uint8_t fate)
{
    struct change change = {table_at(&journal->table, index)->id, index, delivery, fate, 0};
    buffer_append(&journal->gather->changes, slice_make(&change, sizeof(change)));
}

static void add_fate(struct journal *journal, uint32_t index, uint32_t delivery,
                     enum spool_fate fate, int64_t when_ms, struct slice server)
{
    struct stored *stored = table_at(&journal->table, index);
    assert(journal->batch_open);
    assert((stored->flags & STORED_FINISHED) == 0 && stored_fate(stored, delivery) == 0);
    size_t at = log_record_begin(&journal->gather->bytes);
    struct log_fate record = {
        stored->id, home_of(journal, stored), delivery, (uint8_t)fate, when_ms, server};
    log_put_fate(&journal->gather->bytes, &record);
    put_entry(journal, at, LOG_FATE);
    add_change(journal, index, delivery, (uint8_t)fate);
    if (!journal->gather->changes.failed) {
        stored_set_fate(stored, delivery, (unsigned)fate | STORED_FATE_UNDERWAY);
    }
}

static void add_note(struct journal *journal, uint32_t index, uint32_t delivery, uint16_t kind,
                     struct slice payload)
{
    assert(journal->batch_open && payload.length <= SPOOL_NOTE_MAX);
    size_t at = log_record_begin(&journal->gather->bytes);
    struct log_note note = {table_at(&journal->table, index)->id, delivery, kind, payload};
    log_put_note(&journal->gather->bytes, &note);
    put_entry(journal, at, LOG_NOTE);
    add_change(journal, index, delivery, 0);
}

/* A message refused for want of memory leaves none in the batch: it will fail as a whole. */
static bool newest(const struct journal *journal, uint32_t *ret_index)
{
    size_t count = journal->gather->news.length / sizeof(struct new_message);
    if (count == journal->open.news_from) {
        assert(journal->batch_error != ERROR_NONE);
        return false;
    }
    *ret_index = group_news(journal->gather)[count - 1].stored;
    return true;
}

void log_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate)
{
    uint32_t index;
    if (newest(journal_of(spool), &index)) {
        add_fate(journal_of(spool), index, delivery, fate, 0, SLICE_EMPTY);
    }
}

void log_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind, struct slice payload)
{
    uint32_t index;
    if (newest(journal_of(spool), &index)) {
        add_note(journal_of(spool), index, delivery, kind, payload);
    }
}

void log_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate)
{
    add_fate(journal_of(spool), handle.index, delivery, fate, 0, SLICE_EMPTY);
}

void log_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                     enum spool_fate fate, int64_t when_ms, struct slice server)
{
    assert(when_ms > 0);
    add_fate(journal_of(spool), handle.index, delivery, fate, when_ms, server);
}

void log_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                    uint16_t kind, struct slice payload)
{
    add_note(journal_of(spool), handle.index, delivery, kind, payload);
}

void log_batch_global_note(struct spool *spool, struct slice key, struct slice payload)
{
    struct journal *journal = journal_of(spool);
    assert(journal->batch_open && key.length > 0 && key.length <= SPOOL_KEY_MAX);
    size_t at = log_record_begin(&journal->gather->bytes);
    log_put_global(&journal->gather->bytes, key, payload);
    put_entry(journal, at, LOG_GLOBAL);
    journal->open.globals = true;
}

void batch_carry_fate(struct journal *journal, const struct log_fate *fate)
{
    size_t at = log_record_begin(&journal->gather->bytes);
    log_put_fate(&journal->gather->bytes, fate);
    put_entry(journal, at, LOG_FATE);
    if (fate->home != 0) {
        struct change change = {fate->id, STORED_NONE, fate->delivery, 0, fate->home};
        buffer_append(&journal->gather->changes, slice_make(&change, sizeof(change)));
    }
}

void batch_reset_notes(struct journal *journal, uint32_t index)
{
    size_t at = log_record_begin(&journal->gather->bytes);
    log_put_id(&journal->gather->bytes, table_at(&journal->table, index)->id);
    put_entry(journal, at, LOG_NOTES_RESET);
    add_change(journal, index, 0, 0);
}

/* ---- the end of a batch ------------------------------------------------------------------ */

static void tell_error_later(struct journal *journal, spool_done_fn *fn, void *context,
                             enum error error)
{
    if (fn != NULL) {
        struct error_told told = {fn, context, error};
        buffer_append(&journal->errors, slice_make(&told, sizeof(told)));
        if (journal->errors.failed) {
            abort(); /* hundreds of failures in one turn of the loop, and no byte to note one */
        }
        loop_later_ask(journal->later);
    }
}

void log_batch_submit(struct spool *spool, enum spool_durability durability, spool_done_fn *fn,
                      void *context)
{
    struct journal *journal = journal_of(spool);
    struct group *gather = journal->gather;
    assert(journal->batch_open);
    open_end(journal);
    journal->open.fn = fn;
    journal->open.context = context;
    journal->open.durability = (uint8_t)durability;
    if (gather->bytes.failed || gather->index.failed || gather->news.failed ||
        gather->changes.failed || gather->files.failed || gather->handles.failed) {
        batch_fail(journal, ERROR_MEMORY);
    }
    if (journal->batch_error == ERROR_NONE && journal->trouble != ERROR_NONE &&
        gather->bytes.length > LOG_BACKLOG_BYTES) {
        batch_fail(journal, journal->trouble);
    }
    if (journal->batch_error == ERROR_NONE) {
        buffer_append(&gather->batches, slice_make(&journal->open, sizeof(journal->open)));
        if (gather->batches.failed) {
            gather->batches.failed = false;
            batch_fail(journal, ERROR_MEMORY);
        }
    }
    journal->batch_open = false;
    if (journal->batch_error != ERROR_NONE) {
        rewind_gather(journal);
        tell_error_later(journal, fn, context, journal->batch_error);
        return;
    }
    gather->needs_sync |= durability == SPOOL_SYNCED;
    gather->tells_written |= durability != SPOOL_SYNCED && fn != NULL;
    if (durability != SPOOL_LAZY || gather->bytes.length >= LOG_GATHER_BYTES) {
        journal_flush_later(journal);
    }
}

/* ---- taking effect ----------------------------------------------------------------------- */

static void apply_copy(struct journal *journal, const struct group *group,
                       const struct new_message *news, struct stored *stored)
{
    uint64_t old = journal->slots[stored->slot]->number;
    stored_leave_pinned(journal, news->stored);
    stored_unsettle(journal, stored, group->number);
    if ((stored->flags & STORED_EXTRA) != 0) {
        stored->extra->foreign_count = news->copy ? 0 : stored->extra->foreign_count;
    }
    stored->flags &= (uint8_t)~STORED_MOVING;
    stored_settle(journal, stored, group->segment->slot, group->base + news->offset);
    if (segment_refer(group->segment, old, true) != ERROR_NONE) {
        group->segment->references_lost = true;
    }
}

static void apply_news(struct journal *journal, const struct group *group,
                       const struct new_message *news, bool again)
{
    struct stored *stored = table_at(&journal->table, news->stored);
    if (again || news->copy) {
        /* Gone or finished meanwhile, or known under another id: nothing to do. */
        if (id_equal(stored->id, news->id) && (stored->flags & STORED_FINISHED) == 0) {
            apply_copy(journal, group, news, stored);
        }
        return;
    }
    hold_foreign(journal, stored, -1);
    stored->flags &= (uint8_t)~STORED_PENDING;
    stored_settle(journal, stored, group->segment->slot, group->base + news->offset);
    journal->messages++;
    journal->live_bytes += stored_content(stored);
}

static void apply_change(struct journal *journal, const struct group *group,
                         const struct change *change, bool again)
{
    if (change->home != 0) {
        /* It stays for as long as the older segment can bring the message back. */
        if (segment_by_number(journal, change->home) != NULL &&
            segment_refer(group->segment, change->home, false) != ERROR_NONE) {
            group->segment->references_lost = true;
        }
        return;
    }
    struct stored *stored = changed(journal, change);
    if (stored == NULL || (stored->flags & STORED_FINISHED) != 0) {
        return;
    }
    uint64_t home = journal->slots[stored->slot]->number;
    if (segment_refer(group->segment, home, false) != ERROR_NONE) {
        group->segment->references_lost = true;
    }
    if (change->fate == 0 || again) {
        return;
    }
    stored_set_fate(stored, change->delivery, change->fate);
    stored->left--;
    if (stored->left == 0) {
        stored_finish(journal, change->stored, group->number);
    }
}

static void apply_globals(struct journal *journal, const struct group *group,
                          const struct batch *batch)
{
    struct slice index = slice_take(buffer_slice(&group->index), batch->index_to);
    size_t at = batch->index_from;
    struct log_entry entry;
    bool sound;
    while (log_entry_next(index, &at, &entry, &sound)) {
        struct slice key, payload;
        if (entry.type == LOG_GLOBAL && log_get_global(entry.payload, &key, &payload)) {
            /* Without memory the next segment repeats what we have; this one has the new. */
            if (globals_set(journal, key, payload, true) != ERROR_NONE) {
                journal->globals_lost = true;
            }
        }
    }
}

void batch_apply(struct journal *journal, struct group *group, const struct batch *batch)
{
    for (size_t i = batch->news_from; i < batch->news_to; i++) {
        apply_news(journal, group, &group_news(group)[i], batch->completed);
    }
    for (size_t i = batch->changes_from; i < batch->changes_to; i++) {
        apply_change(journal, group, &group_changes(group)[i], batch->completed);
    }
}

void batch_apply_globals(struct journal *journal, struct group *group)
{
    for (size_t i = 0; i < group_batch_count(group); i++) {
        const struct batch *batch = group_batch(group, i);
        if (batch->globals && !batch->dropped) {
            apply_globals(journal, group, batch);
        }
    }
}
