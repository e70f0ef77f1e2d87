/* SPDX-License-Identifier: Apache-2.0
 *
 * Compaction: when much of the journal is garbage that cannot go because of little that must stay,
 * the cheapest segment is emptied. What must stay is written again at the head, as ordinary batches
 * through the one committer:
 *   - a survivor: content, record (flag copy), its fates, its notes as the owner describes them;
 *   - a fate about a message that may still stand in an older segment;
 *   - the notes about a message that lives in an older segment: a reset, then described anew.
 * One batch is under way at a time, so it takes no more than a share of the disk, and each is
 * synced before the segment is thought of as emptied. A batch that fails is forgotten; the message
 * is where it was.
 */
#include "base/crc32c.h"
#include "spool/log_internal.h"

#include <assert.h>
#include <stdlib.h>

enum {
    STEP_BYTES = 1 << 20,
    STEP_ENTRIES = 4096,
    FATE_COST = 96, /* bytes to carry one fate or note on */
    SMALL_SEGMENTS_MAX = 32,
};

struct log_compaction {
    uint64_t number; /* of the segment being emptied */
    struct buffer index;
    size_t at;
    bool entries_done;
    bool skipped; /* something could not be moved just now */
    bool under_way;
    struct buffer described; /* uint32_t */
    struct arena arena;
};

/* ---- which ------------------------------------------------------------------------------- */

/* One that nothing needs goes by itself when the janitor comes to it. To empty it once more would
 * write more than goes, and keep it from going. */
static bool is_candidate(const struct journal *journal, const struct segment *segment)
{
    if (journal_is_others(journal, segment->number) || segment->head || segment->busy ||
        segment->gone || segment->stuck || segment->pins > 0 ||
        (!segment->sealed && !segment->failed && !segment->unreadable) || !segment->durable ||
        segment->references_lost || !segment_is_needed(segment)) {
        return false;
    }
    for (size_t i = 0; i < segment->reference_count; i++) {
        if (segment->references[i].copies) {
            return false; /* the older copies go first */
        }
    }
    return true;
}

static uint64_t cost_of(const struct segment *segment)
{
    uint64_t cost = segment->live_bytes;
    for (size_t i = 0; i < segment->reference_count; i++) {
        cost += (uint64_t)segment->references[i].count * FATE_COST;
    }
    return cost;
}

/* Worth it when the garbage that does not go by itself exceeds half of what lives and a few
 * segments, or when the journal has fallen into small pieces (many restarts). */
static bool is_worth_it(const struct journal *journal)
{
    uint64_t total = 0, live = 0;
    unsigned small = 0;
    LIST_EACH(&journal->segments, at, after)
    {
        const struct segment *segment = segment_of(at);
        if (!segment->head && segment_is_needed(segment)) {
            total += segment->size;
            live += segment->live_bytes;
            small += segment->size < journal->settings.segment_bytes / 4;
        }
    }
    uint64_t few = (uint64_t)journal->settings.segment_bytes * (journal->space_low ? 1 : 4);
    return total > live + live / 2 + few || small > SMALL_SEGMENTS_MAX;
}

static struct segment *choose(struct journal *journal)
{
    struct segment *best = NULL;
    uint64_t best_cost = 0;
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        uint64_t cost = cost_of(segment);
        if (is_candidate(journal, segment) && cost < segment->size / 4 * 3 &&
            (best == NULL || cost < best_cost)) {
            best = segment;
            best_cost = cost;
        }
    }
    return best;
}

/* ---- survivors --------------------------------------------------------------------------- */

static enum error copy_piece(struct journal *journal, const struct stored *stored,
                             const struct log_piece *piece, struct buffer *pieces)
{
    if (piece->kind == LOG_FILE) {
        buffer_append(pieces, slice_make(piece, sizeof(*piece)));
        return pieces->failed ? ERROR_MEMORY : ERROR_NONE;
    }
    uint8_t *bytes = calloc(1, (size_t)piece->stored + 1);
    if (bytes == NULL) {
        return ERROR_MEMORY;
    }
    enum error error = stored_read_piece(journal, stored, piece, bytes);
    bool damaged = error == ERROR_CORRUPT;
    if (error == ERROR_NONE || damaged) {
        struct log_piece copied;
        bool put = batch_put_extent(journal, slice_make(bytes + piece->skip, piece->take), &copied);
        copied.crc ^= damaged; /* damage stays damage: nobody delivers it */
        buffer_append(pieces, slice_make(&copied, sizeof(copied)));
        error = put && !pieces->failed ? ERROR_NONE : ERROR_MEMORY;
    }
    free(bytes);
    return error;
}

static enum error copy_message(struct journal *journal, uint32_t index)
{
    struct log_compaction *compaction = journal->compaction;
    struct stored *stored = table_at(&journal->table, index);
    struct log_message message;
    arena_reset(&compaction->arena);
    enum error error = stored_read(journal, index, &compaction->arena, &message);
    struct buffer pieces;
    buffer_init(&pieces, 0);
    for (size_t i = 0; i < message.piece_count && error == ERROR_NONE; i++) {
        error = copy_piece(journal, stored, &message.pieces[i], &pieces);
    }
    if (error == ERROR_NONE) {
        error = batch_copy(journal, index, &message.message, &pieces);
    }
    buffer_done(&pieces);
    return error;
}

static void describe(struct journal *journal, uint32_t index)
{
    if (journal->owner.describe != NULL) {
        journal->owner.describe(journal->owner.context, (struct spool_handle){index});
    }
}

static enum error move(struct journal *journal, uint32_t index)
{
    struct stored *stored = table_at(&journal->table, index);
    if (stored->pins > 0 || (stored->flags & STORED_MOVING) != 0 || stored_fates_underway(stored)) {
        journal->compaction->skipped = true;
        return ERROR_NONE;
    }
    enum error error = copy_message(journal, index);
    if (error != ERROR_NONE) {
        return error;
    }
    for (uint32_t i = 0; i < stored->recipients && stored->left < stored->recipients; i++) {
        unsigned fate = stored_fate(stored, i);
        if (fate != 0) {
            struct log_fate carried = {.id = stored->id, .delivery = i, .fate = (uint8_t)fate};
            batch_carry_fate(journal, &carried);
        }
    }
    describe(journal, index);
    return ERROR_NONE;
}

/* ---- fates and notes --------------------------------------------------------------------- */

static uint64_t oldest_number(const struct journal *journal)
{
    return segment_of(journal->segments.next)->number;
}

static void carry_fate(struct journal *journal, const struct log_fate *fate)
{
    uint64_t here = journal->compaction->number;
    uint32_t index = table_find(&journal->table, fate->id);
    struct log_fate carried = *fate;
    carried.when_ms = 0; /* where it was first written it is told, for as long as it matters */
    if (index != STORED_NONE && (table_at(&journal->table, index)->flags & STORED_PENDING) == 0) {
        /* Here it is moved with its fates; further on it has been. */
        carried.home = journal->slots[table_at(&journal->table, index)->slot]->number;
        if (carried.home < here) {
            batch_carry_fate(journal, &carried);
        }
    } else if (fate->home != 0 && fate->home < here && oldest_number(journal) <= fate->home) {
        batch_carry_fate(journal, &carried);
    }
}

static void renew_notes(struct journal *journal, struct message_id id)
{
    struct log_compaction *compaction = journal->compaction;
    uint32_t index = table_find(&journal->table, id);
    if (index == STORED_NONE) {
        return;
    }
    struct stored *stored = table_at(&journal->table, index);
    if ((stored->flags & (STORED_DESCRIBED | STORED_PENDING)) != 0 ||
        journal->slots[stored->slot]->number >= compaction->number) {
        return;
    }
    buffer_append(&compaction->described, slice_make(&index, sizeof(index)));
    if (compaction->described.failed) {
        compaction->described.failed = false;
        compaction->skipped = true;
        return;
    }
    stored->flags |= STORED_DESCRIBED;
    batch_reset_notes(journal, index);
    describe(journal, index);
}

static void forget_described(struct journal *journal)
{
    struct buffer *described = &journal->compaction->described;
    const uint32_t *indexes = (const void *)described->data;
    for (size_t i = 0; i < described->length / sizeof(*indexes); i++) {
        /* Another message may have the entry by now: that does no harm. */
        table_at(&journal->table, indexes[i])->flags &= (uint8_t)~STORED_DESCRIBED;
    }
    buffer_clear(described);
}

static enum error treat(struct journal *journal, const struct segment *segment,
                        const struct log_entry *entry)
{
    struct log_compaction *compaction = journal->compaction;
    struct log_message message;
    struct log_fate fate;
    struct message_id id;
    uint32_t index;
    enum error error;
    switch (entry->type) {
    case LOG_MESSAGE:
        arena_reset(&compaction->arena);
        error = log_get_message(entry->payload, &compaction->arena, &message);
        if (error != ERROR_NONE) {
            return error;
        }
        index = table_find(&journal->table, message.message.id);
        return index != STORED_NONE && table_at(&journal->table, index)->slot == segment->slot &&
                       table_at(&journal->table, index)->offset == entry->offset
                   ? move(journal, index)
                   : ERROR_NONE;
    case LOG_FATE:
        if (!log_get_fate(entry->payload, &fate)) {
            return ERROR_CORRUPT;
        }
        carry_fate(journal, &fate);
        return ERROR_NONE;
    case LOG_NOTE:
    case LOG_NOTES_RESET:
        if (!log_get_id(entry->payload, &id)) {
            return ERROR_CORRUPT;
        }
        renew_notes(journal, id);
        return ERROR_NONE;
    default:
        return ERROR_NONE;
    }
}

/* Messages whose record stands elsewhere, but with content here. */
static enum error move_spread(struct journal *journal, const struct segment *segment)
{
    LIST_EACH(&journal->spread, at, after)
    {
        struct stored_extra *extra = LIST_ENTRY(at, struct stored_extra, link);
        for (uint32_t i = 0; i < extra->foreign_count; i++) {
            if (extra->foreign[i] == segment->slot) {
                enum error error = move(journal, extra->stored);
                if (error != ERROR_NONE) {
                    return error;
                }
                break;
            }
        }
        if (journal->gather->bytes.length > STEP_BYTES) {
            journal->compaction->skipped = true; /* the rest another time */
            break;
        }
    }
    return ERROR_NONE;
}

/* ---- steps ------------------------------------------------------------------------------- */

void compaction_free(struct journal *journal)
{
    struct log_compaction *compaction = journal->compaction;
    if (compaction != NULL) {
        struct segment *segment = segment_by_number(journal, compaction->number);
        if (segment != NULL) {
            segment->emptying = false;
        }
        forget_described(journal);
        buffer_done(&compaction->index);
        buffer_done(&compaction->described);
        arena_done(&compaction->arena);
        free(compaction);
        journal->compaction = NULL;
    }
}

static bool begin(struct journal *journal)
{
    struct segment *segment = is_worth_it(journal) ? choose(journal) : NULL;
    if (segment == NULL) {
        return false;
    }
    struct log_compaction *compaction = calloc(1, sizeof(*compaction));
    if (compaction == NULL) {
        return false;
    }
    arena_init(&compaction->arena);
    compaction->number = segment->number;
    segment->emptying = true;
    journal->compaction = compaction;
    enum error error = segment_index(journal, segment, &compaction->index);
    if (error != ERROR_NONE) {
        segment->stuck = error != ERROR_MEMORY; /* for which there is another time */
        compaction_free(journal);
        return false;
    }
    return true;
}

/* All that had to stay is on stable storage elsewhere. */
static void end(struct journal *journal, struct segment *segment)
{
    if (!journal->compaction->skipped) {
        segment->reference_count = 0;
    }
    compaction_free(journal);
    segments_reclaim(journal);
}

static void step_done(void *context, enum error error, const struct spool_handle *handles,
                      size_t count)
{
    struct journal *journal = context;
    (void)handles;
    (void)count;
    journal->compaction->under_way = false;
    if (error != ERROR_NONE) {
        compaction_free(journal);
    } else if (!journal->ending) {
        journal->compact_next = true; /* once this group's other batches have been told */
    }
}

static enum error fill(struct journal *journal, struct segment *segment)
{
    struct log_compaction *compaction = journal->compaction;
    size_t before = journal->gather->bytes.length;
    struct log_entry entry;
    bool sound = true;
    for (unsigned i = 0; i < STEP_ENTRIES; i++) {
        if (journal->gather->bytes.length - before > STEP_BYTES) {
            return ERROR_NONE;
        }
        if (!log_entry_next(buffer_slice(&compaction->index), &compaction->at, &entry, &sound)) {
            compaction->entries_done = true;
            return sound ? move_spread(journal, segment) : ERROR_CORRUPT;
        }
        enum error error = treat(journal, segment, &entry);
        if (error != ERROR_NONE) {
            return error;
        }
    }
    return ERROR_NONE;
}

void compaction_step(struct journal *journal)
{
    journal->compact_next = false;
    if (journal->loading != NULL || journal->trouble != ERROR_NONE || journal->ending ||
        (journal->compaction != NULL && journal->compaction->under_way) ||
        (journal->compaction == NULL && !begin(journal))) {
        return;
    }
    struct log_compaction *compaction = journal->compaction;
    struct segment *segment = segment_by_number(journal, compaction->number);
    assert(segment != NULL);
    if (compaction->entries_done) {
        end(journal, segment);
        return;
    }
    log_batch_begin(&journal->spool);
    enum error error = fill(journal, segment);
    if (error != ERROR_NONE) {
        log_batch_cancel(&journal->spool);
        segment->stuck = error != ERROR_MEMORY;
        compaction_free(journal);
        return;
    }
    journal->open.once = true;
    journal->moving_group = journal->gather->number;
    compaction->under_way = true;
    log_batch_submit(&journal->spool, SPOOL_SYNCED, step_done, journal);
}
