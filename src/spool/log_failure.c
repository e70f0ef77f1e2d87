/* SPDX-License-Identifier: Apache-2.0
 *
 * When a group cannot be written: what is left of its segment, what is written again elsewhere, and
 * what must be told to have failed. No descriptor is used again after a failed write or sync.
 */
#include "spool/log_internal.h"

#include <stdio.h>

/* Its records stay where they are, so that the distances between others hold, but mean nothing. */
static void void_batch(struct group *group, struct batch *batch)
{
    for (size_t at = batch->bytes_from; at < batch->bytes_to;) {
        uint8_t *header = group->bytes.data + at;
        size_t length = header[20] | (size_t)header[21] << 8 | (size_t)header[22] << 16 |
                        (size_t)header[23] << 24;
        header[28] = 0;
        at += log_record_space(length);
    }
    size_t entry_at = batch->index_from;
    struct slice index = slice_take(buffer_slice(&group->index), batch->index_to);
    struct log_entry entry;
    bool sound;
    while (log_entry_next(index, &entry_at, &entry, &sound)) {
        group->index.data[entry.at + 8] = 0;
    }
    batch->dropped = true;
}

void group_give_up(struct journal *journal, struct group *group, size_t i, enum error error)
{
    struct batch *batch = group_batch(group, i);
    if (batch->completed || batch->dropped) {
        return;
    }
    void_batch(group, batch);
    batch_undo(journal, group, batch);
    struct group_file *files = (void *)group->files.data;
    size_t kept = 0;
    for (size_t f = 0; f < group->files.length / sizeof(*files); f++) {
        if (files[f].batch == i) {
            content_file_discard(files[f].file);
        } else {
            files[kept++] = files[f];
        }
    }
    group->files.length = kept * sizeof(*files);
    group_tell(group, batch, error);
}

/* What cannot be written again: content that lay in the failed segment, and work of our own. */
static void give_up_lost(struct journal *journal, struct group *group, enum error error)
{
    for (size_t i = 0; i < group_batch_count(group); i++) {
        struct batch *batch = group_batch(group, i);
        if (batch->once || batch->needs_group > journal->synced_group) {
            group_give_up(journal, group, i, error);
        }
    }
}

/* Those told may submit again: what they do is not looked at. */
static void give_up_mail(struct journal *journal, struct group *group, enum error error)
{
    size_t count = group_batch_count(group);
    for (size_t i = 0; i < count; i++) {
        if (group_batch(group, i)->mail || group_batch(group, i)->once) {
            group_give_up(journal, group, i, error);
        }
    }
}

/* New mail is kept by its sender, who must hear of it now, in whatever group it stands (R1). Fates,
 * notes and our own DSNs are facts: they wait. */
void journal_in_trouble(struct journal *journal, enum error trouble, const char *reason)
{
    journal_set_state(journal, trouble, journal->space_low, reason);
    contents_fail(journal, journal_accepting(journal));
    LIST_EACH(&journal->waiting, at, after)
    {
        give_up_mail(journal, group_of(at), trouble);
    }
    give_up_mail(journal, journal->gather, trouble);
}

static void give_up_files(struct journal *journal, struct group *group)
{
    for (size_t i = 0; i < group_batch_count(group); i++) {
        enum error error = ERROR_NONE;
        struct group_file *files = (void *)group->files.data;
        for (size_t f = 0; f < group->files.length / sizeof(*files); f++) {
            if (files[f].batch == i && files[f].file->error != ERROR_NONE) {
                error = files[f].file->error;
            }
        }
        if (error != ERROR_NONE) {
            group_give_up(journal, group, i, error);
        }
    }
}

/* Back to before the group was placed: nothing of it has been written. */
static void unplace(struct journal *journal, struct group *group)
{
    uint64_t spare = group->spare != 0 ? group->spare : group->emergency;
    if (spare != 0) {
        buffer_append(&journal->spares, slice_make(&spare, sizeof(spare)));
        journal->spares.failed = false;
    }
    journal->repeat_globals |= group->globals.length > 0 && !group->fresh;
    if (group->fresh) {
        journal->head = group->old;
        if (journal->head != NULL) {
            journal->head->head = true;
        }
        contents_unplaced(journal, group);
        segment_free(journal, group->segment);
    } else {
        struct segment *segment = group->segment;
        segment->end = group->globals.length > 0 ? group->globals_at : group->base;
        if (segment->index.failed) {
            segment->index_known = segment->index.failed = false;
        } else if (group->globals.length > 0) {
            segment->index.length -= group->globals_index.length;
        }
    }
    group->segment = NULL;
}

static void abandon(struct journal *journal, struct segment *segment)
{
    segment->failed = true;
    segment->head = false;
    segment->index_known = false;
    buffer_done(&segment->index);
    if (segment->file != NULL) {
        journal->disk->ops->close(segment->file);
        segment->file = NULL;
    }
    if (journal->head == segment) {
        journal->head = NULL;
    }
    contents_poison(journal, journal->synced_group);
    for (size_t i = 0; i < group_batch_count(journal->gather); i++) {
        if (group_batch(journal->gather, i)->needs_group > journal->synced_group) {
            group_give_up(journal, journal->gather, i, ERROR_IO);
        }
    }
    /* Its groups since the last sync are written again before anything else. */
    while (!list_is_empty(&journal->retained)) {
        struct group *group = group_of(journal->retained.previous);
        list_remove(&group->link);
        group->needs_sync = true;
        group_put_back(journal, group);
    }
    journal->retained_bytes = 0;
}

static void leave_segment(struct journal *journal, struct group *group)
{
    if (group->stage == STAGE_CONTENT) {
        unplace(journal, group);
        return;
    }
    if (group->fresh && !group->created) {
        /* The old one could not be synced, or no new one made: no trace of the new one. */
        struct segment *old = group->old;
        bool old_failed = group->stage == STAGE_OLD;
        unplace(journal, group);
        if (old != NULL && (old_failed || old->file == NULL)) {
            old->head = false;
            journal->head = NULL;
            if (old_failed) {
                abandon(journal, old);
            } else {
                old->synced_end = old->end;
                old->durable = true;
            }
        }
        return;
    }
    if (group->fresh && group->old != NULL) {
        group->old->synced_end = group->old->end;
        group->old->durable = true;
    }
    if (group->fresh && group->emergency != 0 && !group->used_emergency) {
        buffer_append(&journal->spares, slice_make(&group->emergency, sizeof(uint64_t)));
        journal->spares.failed = false;
    }
    struct segment *segment = group->segment;
    group->segment = NULL;
    journal->repeat_globals |= group->globals.length > 0;
    abandon(journal, segment);
}

static bool worth_writing(struct group *group)
{
    for (size_t i = 0; i < group_batch_count(group); i++) {
        if (!group_batch(group, i)->dropped) {
            return true;
        }
    }
    return false;
}

void group_failed(struct journal *journal, struct group *group)
{
    enum error error = group->error;
    enum group_stage stage = group->stage;
    journal->writing = NULL;
    if (group->loose_bytes > 0) {
        journal->content_pending -= group->loose_bytes;
        group->loose_bytes = 0;
    }
    leave_segment(journal, group);
    if (stage == STAGE_CONTENT) {
        give_up_files(journal, group);
        group->tries += error == ERROR_DENIED ? 2 : 0; /* nothing may be written at all */
    } else {
        group->tries++;
        /* Its loose extents are written again, but nothing may name them by their old place. */
        contents_poison(journal, journal->synced_group);
        give_up_lost(journal, group, error);
    }
    /* Retained groups, put back by leave_segment(), are older. */
    struct link *before = &journal->waiting;
    LIST_EACH(&journal->waiting, at, after)
    {
        if (group_of(at)->number > group->number) {
            before = at;
            break;
        }
    }
    list_insert_before(before, &group->link);
    if (group->tries >= 2) {
        char reason[sizeof(journal->reason)];
        snprintf(reason, sizeof(reason), "writing the journal: %s", error_text(error));
        journal_in_trouble(journal, error == ERROR_SPACE ? ERROR_SPACE : ERROR_IO, reason);
    }
    if (!worth_writing(group)) {
        group_recycle(journal, group);
    }
}
