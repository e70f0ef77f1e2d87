/* SPDX-License-Identifier: Apache-2.0
 *
 * The offline check: every segment from end to end, then every piece of content of the messages
 * that are not finished; last the safety copies, for damage alone. It judges segments as a start
 * does, but changes nothing.
 */
#include "spool/verify.h"

#include "base/crc32c.h"
#include "spool/log_copies.h"
#include "spool/log_found.h"
#include "spool/log_scan.h"
#include "spool/log_table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A piece of content that some message names. */
struct named_piece {
    uint32_t message; /* in the table */
    uint64_t segment; /* 0: a file */
    struct log_piece piece;
};

struct checking {
    struct disk *disk;
    struct log_files open;
    struct log_copies copies;
    void (*line)(void *context, const char *text);
    void (*progress)(void *context, uint64_t done, uint64_t all);
    void *context;
    struct spool_verify_report *report;
    struct buffer segments; /* struct log_found */
    struct buffer files;    /* uint64_t */
    struct buffer pieces;   /* struct named_piece */
    struct table table;
    uint64_t done, all;
    const struct log_found *segment; /* the one being scanned */
    enum error error;
};

static void say(struct checking *checking, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct checking *checking, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (checking->line != NULL) {
        checking->line(checking->context, text);
    }
}

static void advance(struct checking *checking, uint64_t bytes)
{
    checking->done += bytes;
    if (checking->progress != NULL) {
        checking->progress(checking->context, checking->done, checking->all);
    }
}

/* ---- what there is ----------------------------------------------------------------------- */

static bool list_copy(struct checking *checking, const char *name, uint64_t size)
{
    struct log_copy copy = {.bytes = size};
    uint64_t time_s;
    if (!log_pair_parse(name, &copy.kind, &copy.number, &time_s)) {
        return false;
    }
    checking->report->copy_bytes += size;
    if (copy.kind == LOG_PAIR_COPY) {
        copy.time_s = (int64_t)time_s;
        buffer_append(&checking->copies.all, slice_make(&copy, sizeof(copy)));
        checking->report->copies++;
        checking->all += size;
    }
    return true;
}

static void list_one(void *context, const char *name, uint64_t size)
{
    struct checking *checking = context;
    enum log_name kind;
    uint64_t number;
    if (list_copy(checking, name, size)) {
        return;
    }
    if (!log_name_parse(name, &kind, &number)) {
        return;
    }
    if (kind == LOG_NAME_SEGMENT) {
        struct log_found segment = {.number = number, .size = size};
        buffer_append(&checking->segments, slice_make(&segment, sizeof(segment)));
        checking->all += size;
    } else if (kind == LOG_NAME_CONTENT) {
        buffer_append(&checking->files, slice_make(&number, sizeof(number)));
        checking->report->content_files++;
    } else if (kind == LOG_NAME_SET_ASIDE) {
        say(checking, "%s: set aside earlier", name);
    }
}

static enum error read_part(struct checking *checking, enum log_name kind, uint64_t number,
                            uint64_t offset, void *bytes, size_t length)
{
    char name[LOG_NAME_SIZE];
    struct disk_file *file;
    log_name_make(kind, number, name);
    enum error error = checking->disk->ops->open(checking->disk, name, DISK_READ, &file);
    if (error == ERROR_NONE) {
        error = checking->disk->ops->read(file, offset, bytes, length);
        checking->disk->ops->close(file);
    }
    return error;
}

/* ---- records ----------------------------------------------------------------------------- */

static void damage(void *context, uint32_t from, uint32_t to, bool cut, const char *what)
{
    struct checking *checking = context;
    unsigned long long number = checking->segment->number;
    if (cut) {
        say(checking, "segment %llu at %u: unfinished groups would be dropped", number, from);
        checking->report->recovered_tails++;
    } else {
        say(checking, "segment %llu at %u: %u bytes damaged: %s", number, from, to - from, what);
        checking->report->damaged_records++;
    }
}

static void name_pieces(struct checking *checking, uint32_t index, uint32_t offset,
                        const struct log_message *message)
{
    for (size_t i = 0; i < message->piece_count; i++) {
        struct named_piece named = {index, 0, message->pieces[i]};
        if (named.piece.kind == LOG_NEAR) {
            named.segment = checking->segment->number;
            named.piece.offset =
                named.piece.offset > offset ? UINT64_MAX : offset - named.piece.offset;
        } else if (named.piece.kind == LOG_FAR) {
            named.segment = named.piece.where;
        }
        buffer_append(&checking->pieces, slice_make(&named, sizeof(named)));
    }
}

static enum error take_message(struct checking *checking, const struct log_record *record,
                               struct slice payload)
{
    struct arena arena;
    struct log_message message;
    uint32_t index;
    arena_init(&arena);
    enum error error = log_get_message(payload, &arena, &message);
    if (error == ERROR_NONE) {
        index = table_find(&checking->table, message.message.id);
        if (index == STORED_NONE) {
            checking->report->messages++;
            error = table_add(&checking->table, message.message.id, &index);
            if (error == ERROR_NONE) {
                error = stored_prepare(table_at(&checking->table, index), index,
                                       message.message.recipient_count, 0, 0);
            }
        }
    }
    if (error == ERROR_NONE) {
        /* Of several copies the last one's content counts. */
        table_at(&checking->table, index)->sequence = checking->pieces.length;
        name_pieces(checking, index, record->offset, &message);
    }
    arena_done(&arena);
    return error == ERROR_MEMORY ? error : ERROR_NONE; /* its grammar: told by the scan */
}

static void take_fate(struct checking *checking, struct slice payload)
{
    struct log_fate fate;
    checking->report->fates++;
    if (!log_get_fate(payload, &fate)) {
        say(checking, "segment %llu: a fate breaks its grammar",
            (unsigned long long)checking->segment->number);
        checking->report->damaged_records++;
        return;
    }
    uint32_t index = table_find(&checking->table, fate.id);
    if (index == STORED_NONE) {
        return;
    }
    struct stored *stored = table_at(&checking->table, index);
    if (fate.delivery < stored->recipients && stored_fate(stored, fate.delivery) == 0) {
        stored_set_fate(stored, fate.delivery, fate.fate);
        stored->left--;
    }
}

static void take_record(void *context, const struct log_record *record, struct slice payload)
{
    struct checking *checking = context;
    checking->report->records++;
    if (record->type == LOG_MESSAGE) {
        enum error error = take_message(checking, record, payload);
        checking->error = checking->error == ERROR_NONE ? error : checking->error;
    } else if (record->type == LOG_FATE) {
        take_fate(checking, payload);
    } else if (record->type == LOG_NOTE || record->type == LOG_GLOBAL) {
        checking->report->notes++;
    }
}

/* ---- segments ---------------------------------------------------------------------------- */

static void check_index(struct checking *checking, struct slice bytes)
{
    const struct log_seal *seal = &checking->segment->seal;
    struct slice index = slice_take(slice_skip(bytes, seal->index_at), seal->index_length);
    if (index.length != seal->index_length || crc32c(0, index) != seal->index_crc) {
        say(checking, "segment %llu: its index is damaged; a start would scan it",
            (unsigned long long)checking->segment->number);
        checking->report->damaged_records++;
    }
}

static void unreadable(void *context, uint32_t from, uint32_t to)
{
    damage(context, from, to, false, "the disk cannot read them");
}

static enum error scan_segment(struct checking *checking, uint64_t nonce, uint32_t end,
                               log_record_fn *record)
{
    const struct log_found *segment = checking->segment;
    uint8_t *bytes = malloc((size_t)segment->size + 1);
    if (bytes == NULL) {
        return ERROR_MEMORY;
    }
    enum error error = log_found_bytes(&checking->open, segment->number, bytes,
                                       (size_t)segment->size, unreadable, checking);
    struct slice all = slice_make(bytes, (size_t)segment->size);
    struct log_scan scan = {
        .nonce = nonce, .known_end = end, .context = checking, .damage = damage, .record = record};
    if (error == ERROR_NONE) {
        error = log_scan(&scan, all);
    }
    if (error == ERROR_NONE) {
        checking->report->groups += record != NULL ? scan.groups : 0;
        checking->report->bytes += record != NULL ? scan.end : 0;
        if (segment->has_seal) {
            check_index(checking, all);
        }
    }
    free(bytes);
    advance(checking, segment->size);
    return error == ERROR_NONE ? checking->error : error;
}

static enum error check_segment(struct checking *checking, const struct log_found *own,
                                const struct log_found *newest)
{
    const struct log_found *segment = checking->segment;
    unsigned long long number = segment->number;
    struct log_judged judged = log_found_judge(segment, own, newest);
    switch (judged.judgement) {
    case LOG_NOT_BEGUN:
        say(checking, "segment %llu was never begun: it would be removed", number);
        advance(checking, segment->size);
        return ERROR_NONE;
    case LOG_LOST:
        say(checking, "segment %llu has no valid header: it would be set aside", number);
        checking->report->damaged_records++;
        advance(checking, segment->size);
        return ERROR_NONE;
    case LOG_SEAL_DAMAGED:
        say(checking, "segment %llu: its seal is damaged", number);
        checking->report->damaged_records++;
        break;
    case LOG_VALID:
    case LOG_HEAD:
        break;
    }
    checking->report->segments++;
    checking->report->sealed_segments += segment->has_seal;
    return scan_segment(checking, judged.nonce, judged.end, take_record);
}

static enum error check_segments(struct checking *checking)
{
    struct log_found *segments = (void *)checking->segments.data;
    size_t count = checking->segments.length / sizeof(*segments);
    enum error error = count == 0 ? ERROR_MISSING : ERROR_NONE;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = log_found_read(&checking->open, &segments[i]);
    }
    const struct log_found *newest = log_found_sort(segments, count), *own = NULL;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        checking->segment = &segments[i];
        bool first = i == 0 || log_token(segments[i].number) != log_token(segments[i - 1].number);
        own = first ? log_found_newest_of(segments, count, i) : own;
        error = check_segment(checking, own, newest);
    }
    return error;
}

static enum error check_copies(struct checking *checking)
{
    const struct log_copy *copies = (const void *)checking->copies.all.data;
    enum error error = ERROR_NONE;
    for (uint64_t i = 0; i < checking->report->copies && error == ERROR_NONE; i++) {
        struct log_found found = {.number = copies[i].number, .size = copies[i].bytes};
        checking->segment = &found;
        error = log_found_read(&checking->open, &found);
        if (error == ERROR_NONE && !found.has_seal) {
            say(checking, "the copy of segment %llu cannot be read: its seal is damaged",
                (unsigned long long)found.number);
            checking->report->damaged_records++;
            advance(checking, found.size);
        } else if (error == ERROR_NONE) {
            error = scan_segment(checking, found.seal.nonce, found.seal.end, NULL);
        }
    }
    return error;
}

/* ---- contents ---------------------------------------------------------------------------- */

static enum error check_piece(struct checking *checking, const struct named_piece *named)
{
    uint8_t *bytes = malloc((size_t)named->piece.stored + 1);
    if (bytes == NULL) {
        return ERROR_MEMORY;
    }
    bool own = named->piece.kind == LOG_FILE;
    enum error error = read_part(checking, own ? LOG_NAME_CONTENT : LOG_NAME_SEGMENT,
                                 own ? named->piece.where : named->segment, named->piece.offset,
                                 bytes, named->piece.stored);
    if (error == ERROR_NONE &&
        crc32c(0, slice_make(bytes, named->piece.stored)) != named->piece.crc) {
        error = ERROR_CORRUPT;
    }
    free(bytes);
    if (error == ERROR_NONE || error == ERROR_MEMORY) {
        return error;
    }
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(table_at(&checking->table, named->message)->id, id);
    say(checking, "message %s: a part of its content: %s", id, error_text(error));
    checking->report->missing_contents++;
    return ERROR_NONE;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left, right;
    memcpy(&left, a, sizeof(left));
    memcpy(&right, b, sizeof(right));
    return (left > right) - (left < right);
}

static enum error check_contents(struct checking *checking)
{
    const struct named_piece *pieces = (const void *)checking->pieces.data;
    size_t count = checking->pieces.length / sizeof(*pieces);
    struct buffer named;
    buffer_init(&named, 0);
    enum error error = ERROR_NONE;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        const struct stored *stored = table_at(&checking->table, pieces[i].message);
        if (stored->left == 0 || i * sizeof(*pieces) < stored->sequence) {
            continue; /* finished, or an older copy */
        }
        error = check_piece(checking, &pieces[i]);
        if (pieces[i].piece.kind == LOG_FILE) {
            buffer_append(&named, slice_make(&pieces[i].piece.where, sizeof(uint64_t)));
        }
    }
    if (named.length > 0) {
        qsort(named.data, named.length / sizeof(uint64_t), sizeof(uint64_t), by_value);
    }
    const uint64_t *files = (const void *)checking->files.data;
    for (size_t i = 0; i < checking->files.length / sizeof(*files); i++) {
        if (named.length == 0 || bsearch(&files[i], named.data, named.length / sizeof(uint64_t),
                                         sizeof(uint64_t), by_value) == NULL) {
            checking->report->orphan_content_files++;
        }
    }
    if (named.failed) {
        error = ERROR_MEMORY;
    }
    buffer_done(&named);
    for (uint32_t i = 0; i < checking->table.used; i++) {
        checking->report->unfinished_messages += table_at(&checking->table, i)->left > 0;
    }
    return error;
}

enum error spool_verify(struct disk *disk, void (*line)(void *context, const char *text),
                        void (*progress)(void *context, uint64_t done, uint64_t all), void *context,
                        struct spool_verify_report *ret_report)
{
    struct checking checking = {
        .disk = disk, .line = line, .progress = progress, .context = context, .report = ret_report};
    *ret_report = (struct spool_verify_report){0};
    log_files_init(&checking.open, disk);
    checking.open.copies = &checking.copies;
    enum error error = table_init(&checking.table);
    if (error == ERROR_NONE) {
        error = disk->ops->list(disk, list_one, &checking);
    }
    if (error == ERROR_NONE) {
        error = check_segments(&checking);
    }
    if (error == ERROR_NONE) {
        error = check_contents(&checking);
    }
    if (error == ERROR_NONE && !checking.copies.all.failed) {
        error = check_copies(&checking);
    }
    if (checking.copies.all.failed || checking.segments.failed || checking.files.failed ||
        checking.pieces.failed) {
        error = ERROR_MEMORY;
    }
    log_files_done(&checking.open);
    table_done(&checking.table);
    buffer_done(&checking.copies.all);
    buffer_done(&checking.segments);
    buffer_done(&checking.files);
    buffer_done(&checking.pieces);
    return error;
}
