/* SPDX-License-Identifier: Apache-2.0
 *
 * The log back-end: why it keeps its promises. (The bytes are in log_format.c.)
 *
 * The files. Segments in ascending numbers, the last of which is the head; only the head is
 * appended to, by one committer, group after group. A closed segment gets an index and a seal from
 * the janitor. Spares are segments prepared or recycled. Large contents have files of their own.
 *
 * States of a segment
 *   head --next group does not fit--> closed --index and seal synced--> sealed
 *   head --write or sync failed-----> failed: valid as far as it was synced; never written again.
 *                                     If not even its header was synced it is void: nothing in it.
 *   closed, sealed, failed --nothing needs it (I6)--> gone: renamed to a spare or to a safety copy
 *                                     (log_copies.h), which no start reads, or unlinked
 * States of a message
 *   gathered --its group is on stable storage--> held --each delivery has a fate--> finished
 *   held --compaction's copy is on stable storage--> held, elsewhere
 *
 * Invariants
 *  I1  A SYNCED batch is told done only after: its content files and the directory were synced; the
 *      segment's header was written and the directory synced, if the segment is new; its group was
 *      written; and fdatasync of the segment returned. (write_run, sync_run: the only place.)
 *  I2  Batches stand in the journal in the order of submission: one group is written at a time, and
 *      groups that must be written again go before newer ones. A group is loaded whole or not at
 *      all, and none after a group that is not complete (log_scan.c), so a later batch is never
 *      loaded without the earlier ones.
 *  I3  Before the first group of a segment is written, the one before it is synced whole. So what a
 *      header says of older segments (its open ends) was true and durable when it was written.
 *  I4  How far a segment is valid is said by its seal; else by the open ends in the newest valid
 *      header; else, only for the newest itself, by a scan. A failed segment has no seal, is an
 *      open end in every later header while it exists, and so its refused group stays refused.
 *  I5  No descriptor is synced again after a failed write or sync. What was not synced is kept in
 *      memory (retained groups) and written elsewhere under the same ids; what cannot be is told to
 *      have failed. Twice failed: new mail is refused, in whatever group it waits, and content
 *      under way fails; fates, notes and our own DSNs wait for spool_tick().
 *  I6  A segment goes only when
 *        - it is not the head, and a newer one durably repeats the notes about no message;
 *        - each message in it is finished, or its copy elsewhere is on stable storage, and the
 *          groups that made it so are;
 *        - no message elsewhere has content in it;
 *        - each older segment about whose messages it holds fates, notes or copies is durably gone:
 *          directory synced in an earlier round (references);
 *        - nobody has pinned a message in it, or one that was in it when it was pinned.
 *      Therefore: if a message can be read at a start, so can each of its fates that is not in a
 *      later copy of it. Proof: let a copy C of the message and not its fate F be there. F stood in
 *      a segment S, which referred to the message's segment at that time, T >= that of any copy
 *      before F. S went after T was durably gone, and T, if it held a later copy, after those of
 *      the earlier ones. So C came after F, and compaction writes all known fates with a copy.
 *  I7  Compaction may drop the references of a segment because it has written, synced, each fate in
 *      it about a message that an older segment may still hold, and described anew the notes about
 *      messages that live in older segments. A fate says at least how new the newest copy of its
 *      message was (`home`); it is carried while any segment as old as that is there.
 *  I8  A content file is removed only after the last fate of its message is on stable storage, or
 *      at a start that found no damage and no message that names it.
 *
 * What a crash leaves, and what the start makes of it
 *   - before the write, or during it: a torn group after the last complete one: cut.
 *   - after the write, before the sync: any part of it: taken if complete, else cut. Nobody was
 *     told but those who asked for SPOOL_WRITTEN only.
 *   - while a segment is begun: a file without a valid header of its own number, or with a header
 *     and no complete group: nothing in it was told; an empty segment, or removed if it shows that
 *     it was not begun (the header of a former life, no group), else set aside: it looks like a
 *     head whose headers are damaged.
 *   - while an index or seal is written: no valid seal: the segment is an open end of the next
 *     header, or was the head; it is scanned, and sealed once all is loaded.
 *   - after the copy of a survivor, before its old segment goes: both are there; the later place
 *     counts, fates are joined, notes before the copy are void.
 *   - while segments go: some are gone, some not; any subset is right, because those of one round
 *     do not refer to each other.
 *   - content files without a message: removed, or kept beside safety copies; set aside if
 *     anything was damaged.
 *   - "new-" files: removed. Spares: used.
 *   - after the sync, before it was told: a group as any other, the last of all, for the next one
 *     is written when it has been told. Its ids are kept, whatever becomes of its messages:
 *     somebody may ask for them (spool_was_stored()).
 * A start never appends to an older segment: it begins a new one. What an earlier process had
 * written and not synced is synced before the new header calls it valid.
 *
 * What a damaged disk costs, each time with a word to the operator
 *   - a record: itself; its octets are set aside.
 *   - an index: nothing; the segment is scanned.
 *   - both copies of a header: nothing, if a seal or the newest header vouches for the segment;
 *     else its file is set aside.
 *   - a block that cannot be read: what it held. The segment gets no seal, so that each start tries
 *     again, and its file is set aside when it would go. If no header of any segment can be read,
 *     nothing is touched and nothing opened: it may be the cable.
 *
 * Several writers. Two machines may share the disk, one of them at work (docs/decisions/0047). Each
 * that takes over has a higher token than any before it, and the names of its segments and spares
 * begin with it. The other may not know yet, or wake from a write that hung. So:
 *  W1  Nobody but the writer of its token creates, writes, renames or removes a segment or spare,
 *      until that writer and all before it are known to have ended (journal_is_others()): it cannot
 *      meet ours, and we do not take from under it what it writes to.
 *  W2  A writer's segments are judged (I4) by the newest header of that writer, if it says anything
 *      of them: what it has refused itself stays refused. Of its last one no header of its own
 *      says anything; the newest one of all says that it is another's, and is valid as far as there
 *      are complete groups, today and at each later start, until it has a seal.
 *  W3  So what it brings to its end late is loaded as if it had always stood there, in place: by
 *      us within a second or, after groups that can never be complete, some more (log_adopt.c); by
 *      each later start at once. A message known by its id is not loaded again.
 *  W4  I6 holds across writers, for the order of the journal is that of the numbers, and nothing of
 *      the other goes, nor anything older, which it may still move: as long as a copy of a message
 *      may come, each fate of it here is kept (I6), and one that comes late is loaded with them all
 *      (log_load.c). What it removes itself late, it had settled durably, and we find that.
 *  W5  Content files have no token. While others may be at work, none is removed that no message
 *      names.
 *  W6  A file is used again (a segment as a spare, a spare as a segment) by a writer of the same
 *      token only. That a writer has ended says nothing of what the kernel of its machine has still
 *      to write: that goes to a file that has gone, or to one where nothing is added but a seal.
 *
 * After a double failure followed by a crash a refused group may be found complete, because nothing
 * could be written to refuse it durably: its sender was told to keep the mail, so it may come
 * twice.
 */
#include "spool/log_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- state ------------------------------------------------------------------------------- */

enum error journal_accepting(const struct journal *journal)
{
    if (journal->trouble != ERROR_NONE) {
        return journal->trouble == ERROR_SPACE ? ERROR_SPACE : ERROR_IO;
    }
    return journal->space_low ? ERROR_SPACE : ERROR_NONE;
}

void journal_set_state(struct journal *journal, enum error trouble, bool space_low,
                       const char *reason)
{
    enum error before = journal_accepting(journal);
    journal->trouble = trouble;
    journal->space_low = space_low;
    enum error now = journal_accepting(journal);
    if (now == ERROR_NONE) {
        journal->reason[0] = '\0';
    } else if (reason != NULL) {
        snprintf(journal->reason, sizeof(journal->reason), "%s", reason);
    }
    if (now != before && journal->owner.state_changed != NULL && !journal->ending &&
        journal->opened) {
        journal->owner.state_changed(journal->owner.context);
    }
}

/* The larger of 1 GB and 5 %, at most a tenth of the file system. */
static uint64_t default_reserve(uint64_t total)
{
    const uint64_t gigabyte = 1 << 30;
    uint64_t reserve = total / 20 > gigabyte ? total / 20 : gigabyte;
    return reserve < total / 10 ? reserve : total / 10;
}

/* Fewer files than that may still be made: segments and large contents need some. */
enum { FILES_LEAST = 100 };

static void look_at_space(struct journal *journal)
{
    struct disk_space space;
    if (journal->disk->ops->space(journal->disk, &space) != ERROR_NONE) {
        return;
    }
    journal->available_bytes = space.available_bytes;
    journal->reserve_bytes = journal->settings.reserve_bytes != 0
                                 ? journal->settings.reserve_bytes
                                 : default_reserve(space.total_bytes);
    char reason[sizeof(journal->reason)];
    bool few_files = space.available_files < FILES_LEAST;
    if (few_files) {
        snprintf(reason, sizeof(reason),
                 "there is room for %llu more files, %d are kept in reserve",
                 (unsigned long long)space.available_files, FILES_LEAST);
    } else {
        snprintf(reason, sizeof(reason), "%llu MB free, %llu MB are kept in reserve",
                 (unsigned long long)(space.available_bytes >> 20),
                 (unsigned long long)(journal->reserve_bytes >> 20));
    }
    if (journal->spares.length > 0) {
        journal->emergency_used = false;
    }
    bool low =
        space.available_bytes < journal->reserve_bytes || few_files || journal->emergency_used;
    journal_set_state(journal, journal->trouble, low,
                      journal->trouble == ERROR_NONE ? reason : NULL);
}

void journal_wrote(struct journal *journal, uint64_t bytes)
{
    journal->copies.room_taken += bytes;
    if (copies_ask_for_room(journal)) {
        look_at_space(journal);
        copies_step(journal);
    }
}

static void log_set_reserve(struct spool *spool, uint64_t reserve_bytes)
{
    struct journal *journal = journal_of(spool);
    journal->settings.reserve_bytes = reserve_bytes;
    look_at_space(journal);
}

static void log_status(const struct spool *spool, struct spool_state *ret_state)
{
    const struct journal *journal = journal_of(spool);
    *ret_state = (struct spool_state){.accepting = journal_accepting(journal),
                                      .messages = journal->messages,
                                      .live_bytes = journal->live_bytes,
                                      .disk_bytes = journal_disk_bytes(journal),
                                      .available_bytes = journal->available_bytes,
                                      .reserve_bytes = journal->reserve_bytes,
                                      .segments = journal->segment_count,
                                      .groups = journal->groups,
                                      .syncs = journal->syncs,
                                      .quarantined = journal->quarantined};
    copies_status(journal, ret_state);
    snprintf(ret_state->reason, sizeof(ret_state->reason), "%s", journal->reason);
}

static void log_tick(struct spool *spool)
{
    struct journal *journal = journal_of(spool);
    look_at_space(journal);
    bool unsynced = !list_is_empty(&journal->retained);
    journal_flush_all(journal, unsynced || journal->trouble != ERROR_NONE);
    segments_seal_again(journal);
    copies_step(journal);
    contents_collect(journal);
    segments_reclaim(journal);
    segments_prepare(journal);
    compaction_step(journal);
    adopt_step(journal);
}

/* ---- closing ----------------------------------------------------------------------------- */

static void free_groups(struct link *list)
{
    LIST_EACH(list, at, after)
    {
        list_remove(at);
        group_free(LIST_ENTRY(at, struct group, link));
    }
}

/* The head's index and seal, so that the next start need not scan it; what it did not use goes. */
static void seal_head(struct journal *journal)
{
    struct segment *head = journal->head;
    if (head == NULL || head->failed || head->file == NULL || !head->index_known ||
        head->synced_end != head->end) {
        return;
    }
    struct disk *disk = journal->disk;
    enum error error = segment_write_seal(disk, head->file, head, buffer_slice(&head->index),
                                          journal->next_sequence);
    uint64_t used = log_align(head->end, LOG_GROUP_ALIGN) + head->index.length;
    if (error == ERROR_NONE) {
        (void)!disk->ops->truncate(head->file, log_align(used, LOG_BLOCK));
    }
}

static void journal_free(struct journal *journal)
{
    worker_free(journal->committer);
    worker_free(journal->janitor);
    loop_later_free(journal->later);
    loop_alarm_free(journal->alarm);
    compaction_free(journal);
    loading_free(journal->loading);
    LIST_EACH(&journal->segments, at, after)
    {
        segment_free(journal, segment_of(at));
    }
    group_free(journal->gather);
    free_groups(&journal->waiting);
    free_groups(&journal->retained);
    free_groups(&journal->idle);
    log_files_done(&journal->files);
    globals_clear(journal);
    free(journal->globals);
    buffer_done(&journal->garbage);
    buffer_done(&journal->left);
    buffer_done(&journal->errors);
    buffer_done(&journal->last_ids);
    buffer_done(&journal->spares);
    buffer_done(&journal->copies.all);
    table_done(&journal->table);
    free(journal->slots);
    disk_free(journal->disk);
    free(journal);
}

static void log_close(struct spool *spool)
{
    struct journal *journal = journal_of(spool);
    journal->ending = true;
    LIST_EACH(&journal->contents, at, after)
    {
        content_free(LIST_ENTRY(at, struct log_content, link));
    }
    if (!list_is_empty(&journal->retained)) {
        journal->sync_asked = true;
    }
    journal_drain(journal);
    worker_drain(journal->janitor);
    assert(journal->copies.searches == 0);
    seal_head(journal);
    journal_free(journal);
}

enum { SEQUENCES_LEFT = 1 << 20 };

/* ---- opening ----------------------------------------------------------------------------- */

static const struct spool_ops log_ops = {
    .load = log_load,
    .close = log_close,
    .content_new = log_content_new,
    .content_append = log_content_append,
    .content_replace_header = log_content_replace_header,
    .content_replace_body = log_content_replace_body,
    .content_abort = log_content_abort,
    .content_pending = log_content_pending,
    .content_relieve = log_content_relieve,
    .batch_begin = log_batch_begin,
    .batch_cancel = log_batch_cancel,
    .batch_message = log_batch_message,
    .batch_new_fate = log_batch_new_fate,
    .batch_new_note = log_batch_new_note,
    .batch_fate = log_batch_fate,
    .batch_taken = log_batch_taken,
    .batch_note = log_batch_note,
    .batch_global_note = log_batch_global_note,
    .batch_submit = log_batch_submit,
    .find = log_find,
    .was_stored = log_was_stored,
    .id = log_id,
    .sequence = log_sequence,
    .fate_of = log_fate_of,
    .read_envelope = log_read_envelope,
    .read_content = log_read_content,
    .pin = log_pin,
    .unpin = log_unpin,
    .ticket = log_ticket,
    .set_reserve = log_set_reserve,
    .keep_copies = log_keep_copies,
    .copies_find = log_copies_find,
    .copies_progress = log_copies_progress,
    .copies_counts = log_copies_counts,
    .copies_get = log_copies_get,
    .copies_read_envelope = log_copies_read_envelope,
    .copies_read_content = log_copies_read_content,
    .copies_free = log_copies_free,
    .status = log_status,
    .tick = log_tick,
    .others_ended = log_others_ended,
};

static enum error journal_start(struct journal *journal)
{
    enum error error = table_init(&journal->table);
    if (error != ERROR_NONE) {
        return error;
    }
    journal->committer = worker_new(journal->loop, "spool-commit");
    journal->janitor = worker_new(journal->loop, "spool-janitor");
    journal->later = loop_later_new(journal->loop, journal_flush, journal);
    journal->alarm = loop_alarm_new(journal->loop, journal_alarm, journal);
    journal->gather = group_new(journal);
    if (journal->committer == NULL || journal->janitor == NULL || journal->later == NULL ||
        journal->alarm == NULL || journal->gather == NULL ||
        buffer_reserve(&journal->errors, LOG_ERRORS_READY * sizeof(struct error_told)) !=
            ERROR_NONE) {
        return ERROR_MEMORY;
    }
    error = loading_start(journal);
    return error == ERROR_NONE ? journal_recover(journal) : error;
}

/* A new segment at once: nothing is ever appended to one of an earlier life. If the world does not
 * let us, what is stored can still be delivered, and spool_tick() tries again. */
static void begin_head(struct journal *journal)
{
    LIST_EACH(&journal->segments, at, after)
    {
        segment_of(at)->from_before = true;
    }
    journal_flush_all(journal, true);
    worker_drain(journal->committer);
    while (journal->writing != NULL) {
        worker_drain(journal->committer);
    }
}

enum error spool_open_log(struct loop *loop, struct disk *disk,
                          const struct spool_settings *settings, const struct spool_owner *owner,
                          struct spool **ret_spool)
{
    struct journal *journal = calloc(1, sizeof(*journal));
    if (journal == NULL) {
        disk_free(disk);
        return ERROR_MEMORY;
    }
    journal->spool.ops = &log_ops;
    journal->loop = loop;
    journal->disk = disk;
    log_files_init(&journal->files, disk);
    journal->files.copies = &journal->copies;
    journal->settings = *settings;
    journal->owner = *owner;
    journal->next_sequence = journal->next_group = 1;
    journal->next_number = journal->next_spare = log_token_first(settings->token);
    journal->ended_token = settings->ended_token;
    list_init(&journal->segments);
    list_init(&journal->retained);
    list_init(&journal->waiting);
    list_init(&journal->idle);
    list_init(&journal->contents);
    list_init(&journal->spread);
    enum error error = journal_start(journal);
    if (error != ERROR_NONE) {
        journal->ending = true;
        journal_free(journal);
        return error;
    }
    if (journal->ended_token + 1 < settings->token) {
        journal->next_sequence += SEQUENCES_LEFT; /* to what others may yet have accepted before */
    }
    look_at_space(journal);
    begin_head(journal);
    segments_seal(journal);
    segments_prepare(journal);
    journal->opened = true;
    *ret_spool = &journal->spool;
    return ERROR_NONE;
}
