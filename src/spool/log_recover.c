/* SPDX-License-Identifier: Apache-2.0
 *
 * At the open: which segments there are, how far each is valid, and what is rubbish. Reads headers
 * and seals, and the last segment from end to end if it has no seal; the rest is log_load.c's.
 */
#include "spool/log_found.h"
#include "spool/log_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct listing {
    struct journal *journal;
    struct buffer segments; /* struct log_found */
    struct buffer rubbish;  /* char[LOG_NAME_SIZE] */
};

/* Numbers that another writer has drawn, or may yet draw, are not in our range. */
static void raise_number(const struct journal *journal, uint64_t *next, uint64_t number)
{
    bool ours = journal->settings.token == 0 || log_token(number) == journal->settings.token;
    *next = ours && number >= *next ? number + 1 : *next;
}

static void take_spare(struct journal *journal, uint64_t number, uint64_t size,
                       struct listing *listing, const char name[LOG_NAME_SIZE])
{
    raise_number(journal, &journal->next_spare, number);
    /* One of another token may be written to by that writer's kernel yet (W6). */
    if (size == journal->settings.segment_bytes && log_token(number) == journal->settings.token) {
        buffer_append(&journal->spares, slice_make(&number, sizeof(number)));
    } else {
        buffer_append(&listing->rubbish, slice_make(name, LOG_NAME_SIZE));
    }
}

/* All that a start does about copies: it takes down their names. */
static bool list_copy(struct journal *journal, const char *file, uint64_t size)
{
    uint64_t time_s;
    struct log_copy copy = {.bytes = size};
    if (!log_pair_parse(file, &copy.kind, &copy.number, &time_s)) {
        return false;
    }
    copy.time_s = (int64_t)(time_s & INT64_MAX);
    copies_add(journal, &copy);
    if (copy.kind == LOG_PAIR_COPY) {
        raise_number(journal, &journal->next_number, copy.number);
    }
    return true;
}

static void list_one(void *context, const char *file, uint64_t size)
{
    struct listing *listing = context;
    struct journal *journal = listing->journal;
    enum log_name kind;
    uint64_t number;
    if (list_copy(journal, file, size)) {
        return;
    }
    if (!log_name_parse(file, &kind, &number)) {
        return;
    }
    bool prepared = kind == LOG_NAME_SPARE || kind == LOG_NAME_NEW;
    if (prepared && journal_is_others(journal, number)) {
        return;
    }
    char name[LOG_NAME_SIZE];
    log_name_make(kind, number, name);
    struct log_found found = {.number = number, .size = size};
    switch (kind) {
    case LOG_NAME_SEGMENT:
        buffer_append(&listing->segments, slice_make(&found, sizeof(found)));
        break;
    case LOG_NAME_SPARE:
        take_spare(journal, number, size, listing, name);
        break;
    case LOG_NAME_NEW:
        raise_number(journal, &journal->next_spare, number);
        buffer_append(&listing->rubbish, slice_make(name, sizeof(name)));
        break;
    case LOG_NAME_CONTENT:
        loading_keep_file(journal, number, size);
        break;
    case LOG_NAME_SET_ASIDE:
        break;
    }
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
    /* Unlike any other for 2^24 segments of each of 256 writers. */
    uint64_t number = scanning->segment->number;
    uint64_t aside = (uint64_t)log_token(number) << 56 | (number & 0xffffff) << 32 | from;
    log_name_make(LOG_NAME_SET_ASIDE, aside, name);
    to = to < scanning->bytes.length ? to : (uint32_t)scanning->bytes.length;
    if (scanning->segment->unreadable) {
        return; /* its whole file is kept */
    }
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

static void scan_unreadable(void *context, uint32_t from, uint32_t to)
{
    struct scanning *scanning = context;
    char text[160];
    snprintf(text, sizeof(text), "segment %llu: the disk cannot read %u bytes at %u",
             (unsigned long long)scanning->segment->number, to - from, from);
    scanning->segment->unreadable = true;
    scanning->journal->quarantined++;
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
    struct scanning scanning = {journal, segment, slice_make(bytes, (size_t)length)};
    enum error error = log_found_bytes(&journal->files, segment->number, bytes, (size_t)length,
                                       scan_unreadable, &scanning);
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
    segment->last_group = scan.last_group;
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

static enum error add_segment(struct journal *journal, const struct log_found *found,
                              const struct log_judged *judged)
{
    struct segment *segment = segment_new(journal, found->number, judged->nonce);
    if (segment == NULL) {
        return ERROR_MEMORY;
    }
    segment->size = found->size;
    segment->durable = true;
    segment->others = judged->judgement == LOG_HEAD && journal_is_others(journal, found->number);
    if (found->has_seal) {
        segment->sealed = true;
        segment->index_at = found->seal.index_at;
        segment->index_length = found->seal.index_length;
        segment->index_crc = found->seal.index_crc;
        if (found->seal.next_sequence > journal->next_sequence) {
            journal->next_sequence = found->seal.next_sequence;
        }
    }
    if (judged->judgement == LOG_VALID) {
        segment->end = segment->synced_end = judged->end;
        return ERROR_NONE;
    }
    sync_tail(journal, segment);
    enum error error = segment_scan(journal, segment, 0, &segment->index);
    segment->index_known = error == ERROR_NONE;
    return error;
}

/* It may hold somebody's mail, but nothing vouches for any of it. */
static void set_segment_aside(struct journal *journal, const struct log_found *found)
{
    char from[LOG_NAME_SIZE], to[LOG_NAME_SIZE], text[128];
    log_name_make(LOG_NAME_SEGMENT, found->number, from);
    log_name_make(LOG_NAME_SET_ASIDE, found->number, to);
    log_files_forget(&journal->files, found->number);
    (void)!journal->disk->ops->rename(journal->disk, from, to);
    snprintf(text, sizeof(text), "segment %llu has no %s header: set aside as %s",
             (unsigned long long)found->number, found->unreadable ? "readable" : "valid", to);
    loading_keep_damage(journal, text);
    journal->quarantined++;
}

static enum error act_on(struct listing *listing, const struct log_found *found,
                         const struct log_found *own, const struct log_found *newest)
{
    struct journal *journal = listing->journal;
    struct log_judged judged = log_found_judge(found, own, newest);
    char text[128];
    bool readable = judged.judgement != LOG_NOT_BEGUN && judged.judgement != LOG_LOST;
    if (!readable && journal_is_others(journal, found->number)) {
        return ERROR_NONE; /* it may be about to be begun: log_adopt.c goes on looking */
    }
    switch (judged.judgement) {
    case LOG_NOT_BEGUN:
        add_rubbish(listing, found->number);
        return ERROR_NONE;
    case LOG_LOST:
        set_segment_aside(journal, found);
        return ERROR_NONE;
    case LOG_SEAL_DAMAGED:
        snprintf(text, sizeof(text), "segment %llu: its seal is damaged, it is read as it stands",
                 (unsigned long long)found->number);
        loading_keep_damage(journal, text);
        break;
    case LOG_VALID:
    case LOG_HEAD:
        break;
    }
    return add_segment(journal, found, &judged);
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
    struct log_found *found = (void *)listing->segments.data;
    size_t count = listing->segments.length / sizeof(*found);
    enum error error = ERROR_NONE;
    bool unreadable = false;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = log_found_read(&journal->files, &found[i]);
        unreadable |= found[i].unreadable;
    }
    const struct log_found *newest = log_found_sort(found, count), *own = NULL;
    if (error == ERROR_NONE && newest == NULL && unreadable) {
        error = ERROR_IO; /* rather the whole disk than one segment: nothing is judged by that */
    }
    if (count > 0) {
        uint64_t last = found[count - 1].number;
        raise_number(journal, &journal->next_number, last);
        if (journal->settings.token != 0 && log_token(last) > journal->settings.token) {
            error = ERROR_DENIED; /* a later writer has begun: it is not ours any more */
        }
    }
    if (error == ERROR_NONE && newest != NULL) {
        journal->next_sequence = newest->header.next_sequence;
    }
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        bool first = i == 0 || log_token(found[i].number) != log_token(found[i - 1].number);
        own = first ? log_found_newest_of(found, count, i) : own;
        error = act_on(listing, &found[i], own, newest);
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
