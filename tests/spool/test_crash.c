/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal after a crash at every single operation on the disk, with each unsynced write kept,
 * dropped or torn. A workload with batches of all kinds, streamed and large contents, recycling and
 * compaction is recorded once; then each prefix of it is opened. What is loaded must be the state
 * after some batch: not before the last one that was told to be on stable storage, and nothing that
 * skips a batch. Of messages whose end was told to nobody the spool knows which were stored, also
 * after they have ended. And the test must notice a missing sync of the directory. The second
 * workload keeps copies of what was handed over, which come and go meanwhile: nothing of them may
 * be loaded, and what is found of them must be whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "sim/slow.h"
#include "spool/copies.h"
#include "tests/spool/harness.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    BATCHES = 700,
    MESSAGES_MAX = 4 * BATCHES,
    RECIPIENTS_MAX = 3,
    SUBMITTED = 1 << 20, /* mark of a submission; else a completion */
    STREAMS = 3,
    STREAMED = 1000000,   /* numbers of their contents */
    KEEP_MS = 150 * 1000, /* copies; a second passes with each batch */
};
static const int64_t began_ms = 1700000000000;

/* Under a sanitizer not every crash, but crashes of every kind: odd, so that thorough ones
 * (each 16th step) are among them. */
enum { EVERY = IS_SLOW ? 13 : 1 };

struct held {
    uint64_t n;
    uint64_t content; /* which */
    size_t length;
    struct spool_handle handle;
    uint32_t recipients, left;
    uint8_t fates[RECIPIENTS_MAX];
    uint64_t notes[16]; /* of its payloads */
    unsigned note_count;
    bool known, ended; /* handle given; last fate submitted */
};

/* Content that comes in pieces, while batches of others pass. */
struct stream {
    struct spool_content *content;
    uint64_t n;
    size_t length, sent;
};

struct workload {
    struct harness harness;
    struct disk_sim *sim;
    struct stream streams[STREAMS];
    uint64_t streamed;
    struct held held[MESSAGES_MAX];
    size_t held_count;
    uint64_t globals[4];
    uint64_t digest[BATCHES + 1];
    uint8_t durability[BATCHES + 1];
    size_t held_after[BATCHES + 1]; /* so many messages were submitted with it and before */
    unsigned batches, outstanding;
    uint64_t random;
    int64_t keep_ms;
    size_t copies_found, asked;
};

struct pending {
    struct workload *workload;
    unsigned batch;
    size_t first, count; /* of its new messages */
};

static uint64_t draw(struct workload *workload, uint64_t bound)
{
    workload->random ^= workload->random << 13;
    workload->random ^= workload->random >> 7;
    workload->random ^= workload->random << 17;
    return workload->random % bound;
}

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ULL + b * 0xbf58476d1ce4e5b9ULL + c + 0x94d049bb133111ebULL;
    x ^= x >> 31;
    x *= 0xd6e8feb86659fd93ULL;
    return x ^ x >> 32;
}

/* ---- the state as a number --------------------------------------------------------------- */

static uint64_t digest_of(const struct workload *workload)
{
    uint64_t digest = 0;
    for (size_t i = 0; i < workload->held_count; i++) {
        const struct held *held = &workload->held[i];
        uint64_t id = harness_id(held->n).low;
        if (held->ended) {
            continue;
        }
        digest += mix(id, 1, held->length);
        for (uint32_t d = 0; d < held->recipients; d++) {
            digest += held->fates[d] != 0 ? mix(id, 2 + d, held->fates[d]) : 0;
        }
        for (unsigned k = 0; k < held->note_count; k++) {
            digest += mix(id, 9, held->notes[k]);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        digest += workload->globals[i] != 0 ? mix(i, 77, workload->globals[i]) : 0;
    }
    return digest;
}

struct seen {
    struct spool *spool;
    uint64_t digest;
    uint64_t last_sequence;
    size_t messages, damages;
    bool ordered;
    struct buffer notes; /* struct seen_note, for describing them */
};

struct seen_note {
    uint64_t id, value;
};

static void seen_message(void *context, struct spool_handle handle,
                         const struct spool_message *message)
{
    struct seen *seen = context;
    (void)handle;
    seen->digest += mix(message->id.low, 1, message->header_length + message->body_length);
    seen->ordered &= message->sequence > seen->last_sequence;
    seen->last_sequence = message->sequence;
    seen->messages++;
}

static void seen_fate(void *context, struct spool_handle handle, uint32_t delivery,
                      enum spool_fate fate)
{
    struct seen *seen = context;
    seen->digest += mix(spool_id(seen->spool, handle).low, 2 + delivery, fate);
}

static void seen_note(void *context, struct spool_handle handle, uint32_t delivery, uint16_t kind,
                      struct slice payload)
{
    struct seen *seen = context;
    uint64_t value;
    (void)delivery;
    (void)kind;
    memcpy(&value, payload.data, sizeof(value));
    struct seen_note note = {spool_id(seen->spool, handle).low, value};
    buffer_append(&seen->notes, slice_make(&note, sizeof(note)));
    seen->digest += mix(note.id, 9, value);
}

static void seen_global(void *context, struct slice key, struct slice payload)
{
    struct seen *seen = context;
    uint64_t value;
    memcpy(&value, payload.data, sizeof(value));
    seen->digest += mix(key.data[0] - '0', 77, value);
}

static void seen_damage(void *context, const char *text)
{
    struct seen *seen = context;
    (void)text;
    seen->damages++;
}

/* ---- the workload ------------------------------------------------------------------------ */

static void told(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct pending *pending = context;
    struct workload *workload = pending->workload;
    assert_int_equal(error, ERROR_NONE);
    assert_int_equal(count, pending->count);
    disk_sim_mark(workload->sim, pending->batch);
    for (size_t i = 0; i < count; i++) {
        struct held *held = &workload->held[pending->first + i];
        held->handle = handles[i];
        held->known = true;
    }
    workload->outstanding--;
    free(pending);
    loop_stop(workload->harness.loop);
}

static size_t draw_length(struct workload *workload)
{
    switch (draw(workload, 24)) {
    case 0:
        return 65000 + draw(workload, 3000); /* about a chunk */
    case 1:
        return 40000 + draw(workload, 100000); /* a file of its own */
    default:
        return draw(workload, 3000);
    }
}

static void stream_on(struct workload *workload, struct stream *stream)
{
    struct spool *spool = workload->harness.spool;
    if (stream->content == NULL) {
        *stream = (struct stream){.content = spool_content_new(spool, 0),
                                  .n = STREAMED + ++workload->streamed,
                                  .length = draw(workload, 140000)};
        return;
    }
    size_t length = draw(workload, 40000);
    struct buffer bytes;
    harness_content(stream->n, stream->length, &bytes);
    struct slice part = slice_take(slice_skip(buffer_slice(&bytes), stream->sent), length);
    assert_int_equal(spool_content_append(stream->content, part), ERROR_NONE);
    stream->sent += part.length;
    if (draw(workload, 2) == 0) {
        spool_content_relieve(spool);
    }
    buffer_done(&bytes);
}

/* One that has come so far that the rest may be the tail. */
static struct stream *ready_stream(struct workload *workload)
{
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = &workload->streams[i];
        if (stream->content != NULL && stream->length - stream->sent < 30000) {
            return stream;
        }
    }
    return NULL;
}

static void add_message(struct workload *workload, struct pending *pending)
{
    struct held *held = &workload->held[workload->held_count];
    struct stream *stream = ready_stream(workload);
    struct stream given = {.n = workload->held_count + 1};
    struct arena arena;
    struct spool_message message;
    struct buffer bytes;
    if (stream != NULL) {
        given = *stream;
        stream->content = NULL;
    } else {
        given.length = draw_length(workload);
    }
    *held =
        (struct held){.n = workload->held_count + 1, .content = given.n, .length = given.length};
    arena_init(&arena);
    harness_message(held->n, &arena, &message);
    harness_content(held->content, held->length, &bytes);
    message.body_length = held->length;
    held->recipients = held->left = message.recipient_count;
    assert_int_equal(spool_batch_message(workload->harness.spool, &message, given.content,
                                         slice_skip(buffer_slice(&bytes), given.sent)),
                     ERROR_NONE);
    if (pending->count++ == 0) {
        pending->first = workload->held_count;
    }
    workload->held_count++;
    buffer_done(&bytes);
    arena_done(&arena);
}

/* One that is known and not ended; old ones are rare, so that they survive and are moved. */
static struct held *pick(struct workload *workload)
{
    for (int i = 0; i < 20 && workload->held_count > 0; i++) {
        struct held *held = &workload->held[draw(workload, workload->held_count)];
        if (held->known && !held->ended && (held->n % 23 != 0 || draw(workload, 4) == 0)) {
            return held;
        }
    }
    return NULL;
}

static void add_fate(struct workload *workload, enum spool_fate fate)
{
    struct held *held = pick(workload);
    if (held == NULL) {
        return;
    }
    uint32_t delivery = (uint32_t)draw(workload, held->recipients);
    while (held->fates[delivery] != 0) {
        delivery = (delivery + 1) % held->recipients;
    }
    if (held->n % 46 == 0 && held->left == 1) {
        return; /* these never end */
    }
    if (fate == SPOOL_DELIVERED) {
        spool_batch_taken(workload->harness.spool, held->handle, delivery, fate,
                          began_ms + workload->batches * 1000, SLICE_LITERAL("m1"));
    } else {
        spool_batch_fate(workload->harness.spool, held->handle, delivery, fate);
    }
    held->fates[delivery] = (uint8_t)fate;
    held->ended = --held->left == 0;
}

static void add_note(struct workload *workload)
{
    struct held *held = pick(workload);
    if (held == NULL || held->note_count == 16) {
        return;
    }
    uint64_t value = draw(workload, UINT32_MAX);
    spool_batch_note(workload->harness.spool, held->handle, 0, 5,
                     slice_make(&value, sizeof(value)));
    held->notes[held->note_count++] = value;
}

static void add_global(struct workload *workload)
{
    unsigned which = (unsigned)draw(workload, 4);
    uint64_t value = draw(workload, 5) == 0 ? 0 : 1 + draw(workload, UINT32_MAX);
    char key = (char)('0' + which);
    spool_batch_global_note(workload->harness.spool, slice_make(&key, 1),
                            slice_make(&value, value == 0 ? 0 : sizeof(value)));
    workload->globals[which] = value;
}

static void describe(void *context, struct spool_handle handle)
{
    struct workload *workload = context;
    uint64_t low = spool_id(workload->harness.spool, handle).low;
    for (size_t i = 0; i < workload->held_count; i++) {
        const struct held *held = &workload->held[i];
        for (unsigned k = 0; harness_id(held->n).low == low && k < held->note_count; k++) {
            spool_batch_note(workload->harness.spool, handle, 0, 5,
                             slice_make(&held->notes[k], sizeof(held->notes[k])));
        }
    }
}

static void submit_one(struct workload *workload)
{
    struct spool *spool = workload->harness.spool;
    struct pending *pending = calloc(1, sizeof(*pending));
    pending->workload = workload;
    pending->batch = ++workload->batches;
    enum spool_durability durability = SPOOL_SYNCED;
    if (draw(workload, 3) == 0) {
        stream_on(workload, &workload->streams[draw(workload, STREAMS)]);
    }
    spool_batch_begin(spool);
    switch (draw(workload, 10)) {
    case 0:
        add_message(workload, pending);
        add_message(workload, pending);
        break;
    case 1:
    case 2:
        add_message(workload, pending);
        break;
    case 3: /* a bounce */
        add_fate(workload, SPOOL_BOUNCED);
        add_message(workload, pending);
        break;
    case 4:
        add_note(workload);
        durability = SPOOL_WRITTEN;
        break;
    case 5:
        add_note(workload);
        add_global(workload);
        durability = draw(workload, 2) == 0 ? SPOOL_LAZY : SPOOL_WRITTEN;
        break;
    case 6:
        add_global(workload);
        break;
    default:
        add_fate(workload, SPOOL_DELIVERED);
        add_fate(workload, SPOOL_DISCARDED);
        add_fate(workload, SPOOL_PULLED);
        break;
    }
    workload->digest[pending->batch] = digest_of(workload);
    workload->durability[pending->batch] = (uint8_t)durability;
    workload->held_after[pending->batch] = workload->held_count;
    workload->outstanding++;
    disk_sim_mark(workload->sim, SUBMITTED + pending->batch);
    spool_batch_submit(spool, durability, told, pending);
}

static struct disk *open_sim(struct harness *harness)
{
    return disk_sim_open(harness->context);
}

static void settings_of_test(struct spool_settings *settings)
{
    spool_settings_default(settings);
    settings->segment_bytes = 160 << 10;
    settings->large_bytes = 100 << 10;
    settings->reserve_bytes = 1;
    settings->ready_segments = 1;
}

static void stop_loop(void *context)
{
    loop_stop(context);
}

static void tick(struct workload *workload, struct spool *spool)
{
    spool_keep_copies(spool, workload->keep_ms, began_ms + workload->batches * 1000);
    spool_tick(spool);
}

static void run(struct workload *workload, uint64_t seed, int64_t keep_ms)
{
    struct harness *harness = &workload->harness;
    workload->random = seed;
    workload->keep_ms = keep_ms;
    workload->sim = disk_sim_new();
    disk_sim_record(workload->sim);
    settings_of_test(&harness->settings);
    harness->make_disk = open_sim;
    harness->context = workload->sim;
    harness->owner = (struct spool_owner){.context = workload, .describe = describe};
    harness_open(harness, HARNESS_LOG);
    struct loop_timer *stop = loop_timer_new(harness->loop, stop_loop, harness->loop);
    assert_non_null(stop);
    while (workload->batches < BATCHES) {
        submit_one(workload);
        uint64_t limit = draw(workload, 6);
        while (workload->outstanding > limit) {
            tick(workload, harness->spool); /* lazy ones must come to their end too */
            harness_pass(harness, 5);
        }
        if (draw(workload, 20) == 0) {
            tick(workload, harness->spool);
        }
    }
    loop_timer_free(stop);
    spool_close(harness->spool);
    assert_int_equal(workload->outstanding, 0);
    harness->spool = NULL;
}

static void run_done(struct workload *workload)
{
    disk_sim_free(workload->sim);
    loop_free(workload->harness.loop);
    buffer_done(&workload->harness.loaded);
    free(workload);
}

/* ---- the check --------------------------------------------------------------------------- */

static void describe_seen(void *context, struct spool_handle handle)
{
    struct seen *seen = context;
    const struct seen_note *notes = (const void *)seen->notes.data;
    for (size_t i = 0; i < seen->notes.length / sizeof(*notes); i++) {
        if (notes[i].id == spool_id(seen->spool, handle).low) {
            spool_batch_note(seen->spool, handle, 0, 5,
                             slice_make(&notes[i].value, sizeof(notes[i].value)));
        }
    }
}

static void load(struct spool *spool, struct seen *seen)
{
    buffer_done(&seen->notes);
    *seen = (struct seen){.spool = spool, .ordered = true};
    struct spool_loader loader = {seen,      seen_message, seen_fate,
                                  seen_note, seen_global,  seen_damage};
    bool complete = false;
    while (!complete) {
        assert_int_equal(spool_load(spool, &loader, &complete), ERROR_NONE);
    }
}

static enum error open_on(struct workload *workload, struct disk_sim *sim, struct seen *seen,
                          struct spool **ret_spool)
{
    struct spool_owner owner = {.context = seen, .describe = describe_seen};
    return spool_open_log(workload->harness.loop, disk_sim_open(sim), &workload->harness.settings,
                          &owner, ret_spool);
}

static bool contents_are_whole(struct spool *spool, const struct workload *workload)
{
    static uint8_t bytes[200000];
    for (size_t i = 0; i < workload->held_count; i++) {
        const struct held *held = &workload->held[i];
        struct spool_handle handle = spool_find(spool, harness_id(held->n));
        size_t length;
        if (handle.index == SPOOL_NO_HANDLE.index) {
            continue;
        }
        if (spool_read_content(spool, handle, 0, bytes, sizeof(bytes), &length) != ERROR_NONE ||
            length != held->length) {
            return false;
        }
        struct buffer want;
        harness_content(held->content, held->length, &want);
        bool same = memcmp(want.data, bytes, length) == 0;
        buffer_done(&want);
        if (!same) {
            return false;
        }
    }
    return true;
}

static void searched(void *context, enum error error)
{
    struct workload *workload = context;
    assert_int_equal(error, ERROR_NONE);
    loop_stop(workload->harness.loop);
}

static bool copy_is_whole(const struct workload *workload, struct spool_copies *copies, size_t i)
{
    static uint8_t bytes[200000];
    struct spool_copy copy;
    size_t length;
    spool_copies_get(copies, i, &copy);
    const struct held *held = &workload->held[(copy.id.high & 0xffffffff) - 1];
    struct buffer want;
    harness_content(held->content, held->length, &want);
    enum error error = spool_copies_read_content(copies, i, 0, bytes, sizeof(bytes), &length);
    bool same =
        error == ERROR_NONE && length == held->length && memcmp(want.data, bytes, length) == 0;
    if (!same) {
        print_error("a copy of %zu bytes: error %d, %zu bytes\n", held->length, (int)error,
                    error == ERROR_NONE ? length : 0);
    }
    buffer_done(&want);
    return same;
}

static bool copies_are_whole(struct spool *spool, struct workload *workload, size_t *ret_count)
{
    const struct spool_copies_query query = {
        .until_ms = INT64_MAX, .done = searched, .context = workload};
    struct spool_copies *copies;
    struct spool_copies_counts counts;
    assert_int_equal(spool_copies_find(spool, &query, &copies), ERROR_NONE);
    loop_run(workload->harness.loop);
    spool_copies_counts(copies, &counts);
    bool whole = counts.unreadable == 0;
    if (!whole) {
        print_error("%zu indexes cannot be read\n", counts.unreadable);
    }
    for (size_t i = 0; i < counts.messages; i++) {
        whole &= copy_is_whole(workload, copies, i);
    }
    spool_copies_free(copies);
    *ret_count += counts.messages;
    return whole;
}

static void ended(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    bool *done = context;
    (void)handles;
    (void)count;
    assert_int_equal(error, ERROR_NONE);
    *done = true;
}

/* `stored` of all messages are there; the end of the first `told` was told. */
static bool knows_what_was_stored(struct spool *spool, struct workload *workload, size_t told_count,
                                  size_t stored)
{
    bool good = true, done = false;
    for (size_t i = told_count; i < workload->held_count; i++) {
        good &= spool_was_stored(spool, harness_id(workload->held[i].n)) == (i < stored);
    }
    if (!good || told_count >= stored) {
        return good;
    }
    spool_batch_begin(spool);
    for (size_t i = told_count; i < stored; i++) {
        struct spool_handle handle = spool_find(spool, harness_id(workload->held[i].n));
        for (uint32_t d = 0; d < workload->held[i].recipients; d++) {
            spool_batch_fate(spool, handle, d, SPOOL_DELIVERED);
        }
    }
    spool_batch_submit(spool, SPOOL_SYNCED, ended, &done);
    while (!done) {
        harness_pass(&workload->harness, 1);
    }
    for (size_t i = told_count; i < stored; i++) {
        struct message_id id = harness_id(workload->held[i].n);
        good &= spool_find(spool, id).index == SPOOL_NO_HANDLE.index && spool_was_stored(spool, id);
        workload->asked++;
    }
    return good;
}

/* True if the crashed disk shows the state after one of the batches [from, to]. */
static bool crash_is_harmless(struct workload *workload, struct disk_sim *sim, unsigned from,
                              unsigned to, bool thorough, const char **ret_what)
{
    struct spool *spool;
    struct seen seen = {0};
    if (open_on(workload, sim, &seen, &spool) != ERROR_NONE) {
        *ret_what = "not opened";
        return false;
    }
    load(spool, &seen);
    bool found = false;
    size_t stored = 0;
    for (unsigned i = from; i <= to && !found; i++) {
        found = workload->digest[i] == seen.digest;
        stored = workload->held_after[i];
    }
    bool good = found && seen.ordered;
    const char *what = !found ? "no such state" : "out of order";
    if (good && !thorough) {
        good = knows_what_was_stored(spool, workload, workload->held_after[from], stored);
        what = "what was stored";
    }
    if (good && thorough) {
        bool copies = true;
        good = contents_are_whole(spool, workload);
        for (int i = 0; i < 4; i++) {
            tick(workload, spool);
        }
        if (workload->keep_ms > 0) {
            copies = copies_are_whole(spool, workload, &workload->copies_found);
        }
        spool_close(spool);
        uint64_t before = seen.digest;
        assert_int_equal(open_on(workload, sim, &seen, &spool), ERROR_NONE);
        load(spool, &seen);
        what = !good              ? "content"
               : !copies          ? "a copy"
               : seen.damages > 0 ? "damage at the second start"
                                  : "changed";
        good &= copies && seen.digest == before && seen.damages == 0;
    }
    *ret_what = what;
    spool_close(spool);
    buffer_done(&seen.notes);
    return good;
}

/* Counts the crashes that did harm. */
static unsigned replay_all(struct workload *workload, bool ignore_directory_syncs, unsigned seeds,
                           unsigned every, unsigned *ret_points)
{
    struct disk_replay *replay = disk_replay_new(workload->sim, ignore_directory_syncs);
    unsigned synced = 0, submitted = 0, harmed = 0, points = 0, step = 0;
    uint64_t mark;
    while (disk_replay_step(replay, &mark)) {
        if (mark > SUBMITTED) {
            submitted = (unsigned)(mark - SUBMITTED);
        } else if (mark > 0 && workload->durability[mark] == SPOOL_SYNCED) {
            synced = (unsigned)mark > synced ? (unsigned)mark : synced;
        }
        if (step++ % every != 0) {
            continue;
        }
        for (unsigned seed = 0; seed < seeds; seed++) {
            uint64_t drawn = seed < 2 ? seed : step * 100 + seed;
            struct disk_sim *sim = disk_replay_crash(replay, drawn);
            const char *what;
            if (!crash_is_harmless(workload, sim, synced, submitted, step % 16 == 0, &what)) {
                if (harmed++ < 3 && !ignore_directory_syncs) {
                    print_error("harm at step %u, seed %llu, batches %u to %u: %s\n", step,
                                (unsigned long long)drawn, synced, submitted, what);
                }
            }
            disk_sim_free(sim);
            points++;
        }
    }
    disk_replay_free(replay);
    *ret_points = points;
    return harmed;
}

static void no_crash_does_harm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct workload *workload = calloc(1, sizeof(*workload));
        unsigned points;
        run(workload, seed * 7919, seed == 2 ? KEEP_MS : 0);
        unsigned harmed = replay_all(workload, false, 3, EVERY, &points);
        print_message("%u crashes looked at, %zu copies read, %zu ends asked for\n", points,
                      workload->copies_found, workload->asked);
        assert_int_equal(harmed, 0);
        assert_true(workload->asked > 100 / EVERY);
        assert_int_equal(workload->copies_found > 1000 / EVERY, seed == 2);
        run_done(workload);
    }
}

static void a_missing_directory_sync_is_noticed(void **state)
{
    (void)state;
    struct workload *workload = calloc(1, sizeof(*workload));
    unsigned points;
    run(workload, 12345, 0);
    assert_true(replay_all(workload, true, 2, 5, &points) > 0);
    run_done(workload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_crash_does_harm),
        cmocka_unit_test(a_missing_directory_sync_is_noticed),
    };
    return cmocka_run_group_tests_name("spool after crashes", tests, NULL, NULL);
}
