/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading stored messages in this process, and what a reader in another one is given.
 */
#include "spool/log_internal.h"
#include "spool/log_reading.h"

#include <assert.h>

static struct log_ticket ticket_of(const struct journal *journal, uint32_t index)
{
    const struct stored *stored = table_at(&journal->table, index);
    const struct segment *segment = journal->slots[stored->slot];
    return (struct log_ticket){segment->number, segment->nonce, stored->offset, stored->id};
}

enum error stored_read(struct journal *journal, uint32_t index, struct arena *arena,
                       struct log_message *ret_message)
{
    struct log_ticket at = ticket_of(journal, index);
    return log_files_message(&journal->files, &at, arena, ret_message);
}

enum error log_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                             struct spool_message *ret_message)
{
    struct log_message message;
    enum error error = stored_read(journal_of(spool), handle.index, arena, &message);
    if (error == ERROR_NONE) {
        *ret_message = message.message;
    }
    return error;
}

enum error stored_read_piece(struct journal *journal, const struct stored *stored,
                             const struct log_piece *piece, uint8_t *ret_bytes)
{
    struct log_reading reading;
    log_reading_init(&reading, &journal->files, journal->slots[stored->slot]->number,
                     stored->offset, piece, 1);
    enum error error = log_reading_piece(&reading, piece, ret_bytes);
    log_reading_done(&reading);
    return error;
}

/* Each call stands for itself, so the piece that it ends in is read to its end. */
enum error journal_read_content(struct journal *journal, const struct log_ticket *at,
                                uint64_t offset, void *ret_bytes, size_t size, size_t *ret_length)
{
    struct log_message message;
    struct log_reading reading;
    struct arena arena;
    arena_init(&arena);
    *ret_length = 0;
    enum error error = log_files_message(&journal->files, at, &arena, &message);
    if (error == ERROR_NONE) {
        log_reading_init(&reading, &journal->files, at->segment, at->offset, message.pieces,
                         message.piece_count);
        error = log_reading_read(&reading, offset, ret_bytes, size, ret_length);
        if (error == ERROR_NONE) {
            error = log_reading_verify(&reading);
        }
        log_reading_done(&reading);
    }
    arena_done(&arena);
    *ret_length = error == ERROR_NONE ? *ret_length : 0;
    return error;
}

enum error log_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                            void *ret_bytes, size_t size, size_t *ret_length)
{
    struct log_ticket at = ticket_of(journal_of(spool), handle.index);
    return journal_read_content(journal_of(spool), &at, offset, ret_bytes, size, ret_length);
}

/* ---- handles ----------------------------------------------------------------------------- */

struct spool_handle log_find(const struct spool *spool, struct message_id id)
{
    const struct journal *journal = journal_of(spool);
    uint32_t index = table_find(&journal->table, id);
    if (index == STORED_NONE ||
        (table_at(&journal->table, index)->flags & (STORED_PENDING | STORED_LOADING)) != 0) {
        return SPOOL_NO_HANDLE;
    }
    return (struct spool_handle){index};
}

bool log_was_stored(const struct spool *spool, struct message_id id)
{
    const struct journal *journal = journal_of(spool);
    uint32_t index = log_find(spool, id).index;
    if (index != STORED_NONE) {
        return !journal->slots[table_at(&journal->table, index)->slot]->failed;
    }
    const struct message_id *last = (const void *)journal->last_ids.data;
    for (size_t i = 0; i < journal->last_ids.length / sizeof(*last); i++) {
        if (id_equal(last[i], id)) {
            return true;
        }
    }
    return false;
}

struct message_id log_id(const struct spool *spool, struct spool_handle handle)
{
    return table_at(&journal_of(spool)->table, handle.index)->id;
}

uint64_t log_sequence(const struct spool *spool, struct spool_handle handle)
{
    return table_at(&journal_of(spool)->table, handle.index)->sequence;
}

unsigned log_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery)
{
    const struct stored *stored = table_at(&journal_of(spool)->table, handle.index);
    return stored_fate(stored, delivery) & (STORED_FATE_UNDERWAY - 1);
}

static void pin_segments(struct journal *journal, const struct stored *stored, int by)
{
    journal->slots[stored->slot]->pins += (uint32_t)by;
    if ((stored->flags & STORED_EXTRA) != 0) {
        for (uint32_t i = 0; i < stored->extra->foreign_count; i++) {
            journal->slots[stored->extra->foreign[i]]->pins += (uint32_t)by;
        }
    }
}

/* Its tickets name the places that it leaves. Without memory to remember them they stay until the
 * next start. */
void stored_leave_pinned(struct journal *journal, uint32_t index)
{
    const struct stored *stored = table_at(&journal->table, index);
    if (stored->pins == 0) {
        return;
    }
    pin_segments(journal, stored, 1);
    uint32_t count = (stored->flags & STORED_EXTRA) != 0 ? stored->extra->foreign_count : 0;
    for (uint32_t i = 0; i <= count; i++) {
        struct left_place left = {index, i == count ? stored->slot : stored->extra->foreign[i]};
        buffer_append(&journal->left, slice_make(&left, sizeof(left)));
    }
    journal->left.failed = false;
}

static void unpin_left(struct journal *journal, uint32_t index)
{
    struct left_place *left = (void *)journal->left.data;
    size_t count = journal->left.length / sizeof(*left), kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (left[i].stored == index) {
            journal->slots[left[i].slot]->pins--;
        } else {
            left[kept++] = left[i];
        }
    }
    journal->left.length = kept * sizeof(*left);
}

void log_pin(struct spool *spool, struct spool_handle handle)
{
    struct journal *journal = journal_of(spool);
    struct stored *stored = table_at(&journal->table, handle.index);
    assert(stored->pins < UINT16_MAX);
    if (stored->pins++ == 0) {
        pin_segments(journal, stored, 1);
    }
}

void log_unpin(struct spool *spool, struct spool_handle handle)
{
    struct journal *journal = journal_of(spool);
    struct stored *stored = table_at(&journal->table, handle.index);
    assert(stored->pins > 0);
    if (--stored->pins > 0) {
        return;
    }
    pin_segments(journal, stored, -1);
    unpin_left(journal, handle.index);
    if ((stored->flags & STORED_FINISHED) != 0) {
        stored_release(journal, handle.index, journal->slots[stored->slot]->settled_group);
    }
}

enum error log_ticket(struct spool *spool, struct spool_handle handle, uint8_t *ret_ticket,
                      size_t *ret_length)
{
    struct log_ticket ticket = ticket_of(journal_of(spool), handle.index);
    log_ticket_encode(&ticket, ret_ticket);
    *ret_length = LOG_TICKET_BYTES;
    return ERROR_NONE;
}
