/* SPDX-License-Identifier: Apache-2.0
 *
 * At the open: which segments there are, how far each is valid, and what is rubbish. Reads headers
 * and seals, and the last segment from end to end if it has no seal; the rest is log_load.c's.
 */
#include "spool/log_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct found {
    uint64_t number;
    uint64_t size;
    struct log_header header;
    struct log_seal seal;
    bool has_header, has_seal;
};

struct listing {
    struct journal *journal;
    struct buffer segments; /* struct found */
    struct buffer rubbish;  /* char[LOG_NAME_SIZE] */
};

static void take_spare(struct journal *journal, uint64_t number, uint64_t size,
                       struct listing *listing, const char name[LOG_NAME_SIZE])
{
    journal->next_spare = number >= journal->next_spare ? number + 1 : journal->next_spare;
    if (size == journal->settings.segment_bytes) {
        buffer_append(&journal->spares, slice_make(&number, sizeof(number)));
    } else {
        buffer_append(&listing->rubbish, slice_make(name, LOG_NAME_SIZE));
    }
}

static void list_one(void *context, const char *file, uint64_t size)
{
    struct listing *listing = context;
    struct journal *journal = listing->journal;
    enum log_name kind;
    uint64_t number;
    if (!log_name_parse(file, &kind, &number)) {
        return;
    }
    char name[LOG_NAME_SIZE];
    log_name_make(kind, number, name);
    struct found found = {.number = number, .size = size};
    switch (kind) {
    case LOG_NAME_SEGMENT:
        buffer_append(&listing->segments, slice_make(&found, sizeof(found)));
        break;
    case LOG_NAME_SPARE:
        take_spare(journal, number, size, listing, name);
        break;
    case LOG_NAME_NEW:
        journal->next_spare = number >= journal->next_spare ? number + 1 : journal->next_spare;
        buffer_append(&listing->rubbish, slice_make(name, sizeof(name)));
        break;
    case LOG_NAME_CONTENT:
        loading_keep_file(journal, number, size);
        break;
    case LOG_NAME_SET_ASIDE:
        break;
    }
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = ((const struct found *)a)->number, right = ((const struct found *)b)->number;
    return (left > right) - (left < right);
}

/* ---- headers ----------------------------------------------------------------------------- */

static enum error read_blocks(struct journal *journal, struct found *found)
{
    uint8_t blocks[LOG_DATA_AT];
    if (found->size < sizeof(blocks)) {
        return ERROR_NONE; /* it was being made */
    }
    enum error error = log_files_read(&journal->files, found->number, 0, blocks, sizeof(blocks));
    if (error != ERROR_NONE) {
        return error;
    }
    for (int copy = 0; copy < 2 && !found->has_header; copy++) {
        error = log_header_decode(blocks + (size_t)copy * LOG_BLOCK, &found->header);
        if (error == ERROR_NEWER) {
            return error;
        }
        /* A recycled file still has the header of its former life. */
        found->has_header = error == ERROR_NONE && found->header.number == found->number;
    }
    error = log_seal_decode(blocks + LOG_SEAL_AT, &found->seal);
    if (error == ERROR_NEWER && found->has_header) {
        return error;
    }
    found->has_seal = error == ERROR_NONE && found->seal.number == found->number &&
                      (!found->has_header || found->seal.nonce == found->header.nonce);
    return ERROR_NONE;
}

static const struct log_open_end *open_end_of(const struct found *newest, uint64_t number)
{
    for (uint32_t i = 0; newest != NULL && i < newest->header.open_end_count; i++) {
        if (newest->header.open_ends[i].number == number) {
            return &newest->header.open_ends[i];
        }
    }
    return NULL;
}

/* ---- scanning ---------------------------------------------------------------------------- */

struct scanning {
    struct journal *journal;
    struct segment *segment;
    struct slice bytes;
};

/* Nothing is thrown away that may be somebody's mail. */
static void set_aside(const struct scanning *scanning, uint32_t from, uint32_t to)
{
    struct disk *disk = scanning->journal->disk;
    char name[LOG_NAME_SIZE];
    struct disk_file *file;
    log_name_make(LOG_NAME_SET_ASIDE, scanning->segment->number << 32 | from, name);
    to = to < scanning->bytes.length ? to : (uint32_t)scanning->bytes.length;
    if (to <= from || disk->ops->open(disk, name, DISK_WRITE | DISK_CREATE, &file) != ERROR_NONE) {
        return; /* set aside before */
    }
    if (disk->ops->write(file, 0, slice_make(scanning->bytes.data + from, to - from)) ==
        ERROR_NONE) {
        (void)!disk->ops->sync(file);
    }
    disk->ops->close(file);
}

static void scan_damage(void *context, uint32_t from, uint32_t to, bool cut, const char *what)
{
    struct scanning *scanning = context;
    char text[160];
    if (cut) {
        snprintf(text, sizeof(text), "segment %llu: unfinished groups after %u dropped: %s",
                 (unsigned long long)scanning->segment->number, from, what);
    } else {
        snprintf(text, sizeof(text), "segment %llu: %u bytes at %u set aside: %s",
                 (unsigned long long)scanning->segment->number, to - from, from, what);
        set_aside(scanning, from, to);
        scanning->journal->quarantined++;
    }
    loading_keep_damage(scanning->journal, text);
}

enum error segment_scan(struct journal *journal, struct segment *segment, uint32_t known_end,
                        struct buffer *ret_index)
{
    uint64_t length = known_end != 0 && known_end < segment->size ? known_end : segment->size;
    uint8_t *bytes = malloc(length + 1);
    if (bytes == NULL) {
        return ERROR_MEMORY;
    }
    enum error error = log_files_read(&journal->files, segment->number, 0, bytes, (size_t)length);
    struct scanning scanning = {journal, segment, slice_make(bytes, (size_t)length)};
    struct log_scan scan = {.nonce = segment->nonce,
                            .known_end = known_end,
                            .context = &scanning,
                            .damage = scan_damage,
                            .index = ret_index};
    buffer_init(ret_index, 0);
    if (error == ERROR_NONE) {
        error = log_scan(&scan, scanning.bytes);
    }
    free(bytes);
    if (error == ERROR_NONE && known_end == 0) {
        segment->end = segment->synced_end = scan.end;
    }
    if (error == ERROR_NONE && scan.next_sequence > journal->next_sequence) {
        journal->next_sequence = scan.next_sequence;
    }
    return error;
}

/* What a process that was killed had written may still be in the page cache only: before a new
 * header calls it valid it must be on stable storage. */
static void sync_tail(struct journal *journal, struct segment *segment)
{
    struct disk_file *file;
    char name[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_SEGMENT, segment->number, name);
    if (journal->disk->ops->open(journal->disk, name, DISK_READ | DISK_WRITE, &file) !=
        ERROR_NONE) {
        return; /* a read-only world writes no header either */
    }
    segment->failed = journal->disk->ops->sync(file) != ERROR_NONE;
    journal->disk->ops->close(file);
}

/* ---- judging ----------------------------------------------------------------------------- */

static void add_rubbish(struct listing *listing, uint64_t number)
{
    char name[LOG_NAME_SIZE] = {0};
    log_name_make(LOG_NAME_SEGMENT, number, name);
    buffer_append(&listing->rubbish, slice_make(name, sizeof(name)));
}

static enum error add_segment(struct journal *journal, const struct found *found, uint64_t nonce,
                              uint32_t end)
{
    struct segment *segment = segment_new(journal, found->number, nonce);
    if (segment == NULL) {
        return ERROR_MEMORY;
    }
    segment->size = found->size;
    segment->durable = true;
    if (found->has_seal) {
        segment->sealed = true;
        segment->index_at = found->seal.index_at;
        segment->index_length = found->seal.index_length;
        segment->index_crc = found->seal.index_crc;
    }
    if (end != 0) {
        segment->end = segment->synced_end = end;
        return ERROR_NONE;
    }
    sync_tail(journal, segment);
    enum error error = segment_scan(journal, segment, 0, &segment->index);
    segment->index_known = error == ERROR_NONE;
    return error;
}

/* A file whose header is gone, and that no other header or seal of its own vouches for. */
static void set_segment_aside(struct journal *journal, const struct found *found)
{
    char from[LOG_NAME_SIZE], to[LOG_NAME_SIZE], text[128];
    log_name_make(LOG_NAME_SEGMENT, found->number, from);
    log_name_make(LOG_NAME_SET_ASIDE, found->number, to);
    (void)!journal->disk->ops->rename(journal->disk, from, to);
    snprintf(text, sizeof(text), "segment %llu has no valid header: set aside as %s",
             (unsigned long long)found->number, to);
    loading_keep_damage(journal, text);
    journal->quarantined++;
}

static enum error judge(struct listing *listing, const struct found *found,
                        const struct found *newest)
{
    struct journal *journal = listing->journal;
    const struct log_open_end *end = open_end_of(newest, found->number);
    if (found->has_seal) {
        if (found->seal.next_sequence > journal->next_sequence) {
            journal->next_sequence = found->seal.next_sequence;
        }
        return add_segment(journal, found, found->seal.nonce, found->seal.end);
    }
    if (end != NULL && end->end != 0) {
        return add_segment(journal, found, end->nonce, end->end);
    }
    if (end != NULL || newest == NULL || found->number > newest->number) {
        /* Void, or its first group was never synced. */
        add_rubbish(listing, found->number);
        return ERROR_NONE;
    }
    if (!found->has_header) {
        set_segment_aside(journal, found);
        return ERROR_NONE;
    }
    if (found != newest) {
        char text[128];
        snprintf(text, sizeof(text), "segment %llu: its seal is damaged, it is read as it stands",
                 (unsigned long long)found->number);
        loading_keep_damage(journal, text);
    }
    return add_segment(journal, found, found->header.nonce, 0);
}

static void remove_rubbish(struct journal *journal, const struct buffer *rubbish)
{
    for (size_t at = 0; at < rubbish->length; at += LOG_NAME_SIZE) {
        (void)!journal->disk->ops->unlink(journal->disk, (const char *)rubbish->data + at);
    }
}

static enum error judge_all(struct listing *listing)
{
    struct journal *journal = listing->journal;
    struct found *found = (void *)listing->segments.data;
    size_t count = listing->segments.length / sizeof(*found);
    const struct found *newest = NULL;
    enum error error = ERROR_NONE;
    if (count > 0) {
        qsort(found, count, sizeof(*found), by_number);
    }
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = read_blocks(journal, &found[i]);
        newest = found[i].has_header ? &found[i] : newest;
        journal->next_number = found[i].number + 1;
    }
    if (error == ERROR_NONE && newest != NULL) {
        journal->next_sequence = newest->header.next_sequence;
    }
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = judge(listing, &found[i], newest);
    }
    return error;
}

enum error journal_recover(struct journal *journal)
{
    struct listing listing = {.journal = journal};
    buffer_init(&listing.segments, 0);
    buffer_init(&listing.rubbish, 0);
    enum error error = journal->disk->ops->list(journal->disk, list_one, &listing);
    if (error == ERROR_NONE &&
        (listing.segments.failed || listing.rubbish.failed || journal->spares.failed)) {
        error = ERROR_MEMORY;
    }
    if (error == ERROR_NONE) {
        error = judge_all(&listing);
    }
    if (error == ERROR_NONE) {
        remove_rubbish(journal, &listing.rubbish);
    }
    buffer_done(&listing.segments);
    buffer_done(&listing.rubbish);
    return error;
}
