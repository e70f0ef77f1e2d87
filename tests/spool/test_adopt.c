/* SPDX-License-Identifier: Apache-2.0
 *
 * Two writers with tokens on one disk, of which the older one does not know yet that it has been
 * taken over from, or wakes from a write that hung: nothing of its is changed, and nothing that it
 * has brought to its end is lost, or comes twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "spool/log_found.h"
#include "spool/verify.h"
#include "tests/spool/harness.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEGMENT = 128 << 10, NAMES = 64 };

struct pair {
    struct disk_sim *sim;
    struct harness old, new;
};

static void open_writer(struct pair *pair, struct harness *harness, uint32_t token, uint32_t ended)
{
    *harness = (struct harness){.make_disk = harness_simulated_disk, .context = pair->sim};
    spool_settings_default(&harness->settings);
    harness->settings.segment_bytes = SEGMENT;
    harness->settings.large_bytes = 64 << 10;
    harness->settings.reserve_bytes = 1;
    harness->settings.ready_segments = 1;
    harness->settings.token = token;
    harness->settings.ended_token = ended;
    harness_open(harness, HARNESS_LOG);
}

static void pair_open(struct pair *pair)
{
    *pair = (struct pair){.sim = disk_sim_new()};
    open_writer(pair, &pair->old, 1, 0);
}

static void pair_done(struct pair *pair)
{
    harness_done(&pair->new);
    disk_sim_free(pair->sim);
}

/* As core does each second: what the janitor finds is loaded. Until a line with `wanted` was, or
 * for some rounds. */
static bool adopt(struct harness *harness, const char *wanted)
{
    for (int i = 0; i < 200; i++) {
        spool_tick(harness->spool);
        harness_pass(harness, 2);
        harness_load(harness);
        if (wanted != NULL && harness_loaded(harness, wanted)) {
            return true;
        }
        if (wanted == NULL && i == 40) {
            return false;
        }
    }
    return false;
}

static const char *line(const char *format, uint64_t n)
{
    static char text[128];
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(harness_id(n), id);
    snprintf(text, sizeof(text), format, id);
    return text;
}

/* ---- names ------------------------------------------------------------------------------- */

struct names {
    char name[NAMES][LOG_NAME_SIZE];
    size_t count;
    uint32_t token;
    bool spares;
};

static void take_name(void *context, const char *name, uint64_t size)
{
    struct names *names = context;
    enum log_name kind;
    uint64_t number;
    (void)size;
    if (log_name_parse(name, &kind, &number) && log_token(number) == names->token &&
        (kind == LOG_NAME_SEGMENT || kind == LOG_NAME_SPARE)) {
        assert_true(names->count < NAMES);
        snprintf(names->name[names->count++], LOG_NAME_SIZE, "%s", name);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static struct names names_of(struct pair *pair, uint32_t token)
{
    struct names names = {.token = token};
    struct disk *disk = disk_sim_open(pair->sim);
    assert_int_equal(disk->ops->list(disk, take_name, &names), ERROR_NONE);
    disk_free(disk);
    qsort(names.name, names.count, LOG_NAME_SIZE, by_name);
    return names;
}

/* ---- tests ------------------------------------------------------------------------------- */

static void a_late_message_is_adopted(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    harness_accept(&pair.old, 1, 1000);
    open_writer(&pair, &pair.new, 2, 0);
    assert_int_equal(pair.new.messages, 1);
    harness_accept(&pair.old, 2, 3000);
    assert_true(adopt(&pair.new, line("message %s", 2)));
    assert_int_equal(pair.new.messages, 1);
    harness_check(&pair.new, 1, 1000);
    harness_check(&pair.new, 2, 3000);
    /* One more, and a large one in a file of its own, after what was adopted. */
    harness_accept(&pair.old, 3, 100 << 10);
    assert_true(adopt(&pair.new, line("message %s", 3)));
    harness_check(&pair.new, 3, 100 << 10);
    /* They come before what was accepted here meanwhile. */
    struct spool_handle own = harness_accept(&pair.new, 4, 10);
    harness_accept(&pair.old, 5, 10);
    assert_true(adopt(&pair.new, line("message %s", 5)));
    assert_true(spool_sequence(pair.new.spool, spool_find(pair.new.spool, harness_id(5))) <
                spool_sequence(pair.new.spool, own));
    assert_false(adopt(&pair.new, NULL));
    assert_int_equal(pair.new.messages, 0); /* none of them twice */
    harness_done(&pair.old);
    pair_done(&pair);
}

static void a_late_fate_is_told(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    struct spool_handle first = harness_accept(&pair.old, 3, 100);
    struct spool_handle second = harness_accept(&pair.old, 6, 100);
    open_writer(&pair, &pair.new, 2, 0);
    harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(6)), 0);
    harness_finish(&pair.old, first, 0);
    assert_true(adopt(&pair.new, line("late fate %s/0 1 here", 3)));
    spool_batch_begin(pair.old.spool);
    spool_batch_taken(pair.old.spool, second, 0, SPOOL_DELIVERED, 1700000000000,
                      SLICE_LITERAL("m1"));
    assert_int_equal(harness_submit(&pair.old, SPOOL_SYNCED), ERROR_NONE);
    assert_true(adopt(&pair.new, line("late fate %s/0 1 gone", 6)));
    /* What its own start read of both has an end at a later start, too. */
    harness_done(&pair.old);
    harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(3)), 0);
    pair.new.settings.token = 3;
    harness_reopen(&pair.new);
    assert_int_equal(pair.new.messages, 0);
    pair_done(&pair);
}

static void late_segments_are_adopted(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    harness_accept(&pair.old, 1, 20000);
    open_writer(&pair, &pair.new, 2, 0);
    for (uint64_t n = 2; n <= 21; n++) { /* several segments */
        harness_accept(&pair.old, n, 20000);
    }
    assert_true(names_of(&pair, 1).count > 3);
    adopt(&pair.new, NULL);
    for (uint64_t n = 1; n <= 21; n++) {
        harness_check(&pair.new, n, 20000);
    }
    harness_accept(&pair.old, 22, 20000);
    assert_true(adopt(&pair.new, line("message %s", 22)));
    harness_done(&pair.old);
    pair_done(&pair);
}

/* With a note that is of the message, and one that is not any more. */
static void notes_of_a_late_message_come_with_it(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    struct spool_handle early = harness_accept(&pair.old, 3, 100);
    open_writer(&pair, &pair.new, 2, 0);
    struct spool_handle late = harness_accept(&pair.old, 6, 100);
    spool_batch_begin(pair.old.spool);
    spool_batch_note(pair.old.spool, early, 0, 4, SLICE_LITERAL("of old"));
    spool_batch_note(pair.old.spool, late, 0, 4, SLICE_LITERAL("of late"));
    spool_batch_global_note(pair.old.spool, SLICE_LITERAL("key"), SLICE_LITERAL("old"));
    assert_int_equal(harness_submit(&pair.old, SPOOL_SYNCED), ERROR_NONE);
    bool message = false, note = false;
    for (int i = 0; i < 200 && !note; i++) {
        spool_tick(pair.new.spool);
        harness_pass(&pair.new, 2);
        harness_load(&pair.new);
        message |= harness_loaded(&pair.new, line("message %s", 6));
        note |= harness_loaded(&pair.new, line("note %s/0 4 of late", 6));
        assert_false(harness_loaded(&pair.new, "of old"));
        assert_false(harness_loaded(&pair.new, "global"));
    }
    assert_true(message && note);
    harness_done(&pair.old);
    pair_done(&pair);
}

static void others_files_are_left_alone_until_they_ended(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    for (uint64_t n = 1; n <= 12; n++) {
        harness_accept(&pair.old, n * 3, 20000);
    }
    harness_settle(&pair.old);
    harness_pass(&pair.old, 100); /* its spare is prepared */
    struct names before = names_of(&pair, 1);
    assert_true(before.count > 2);
    open_writer(&pair, &pair.new, 2, 0);
    for (uint64_t n = 1; n <= 12; n++) {
        harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(n * 3)), 0);
    }
    adopt(&pair.new, NULL);
    harness_settle(&pair.new);
    struct names after = names_of(&pair, 1);
    assert_int_equal(after.count, before.count);
    for (size_t i = 0; i < after.count; i++) {
        assert_string_equal(after.name[i], before.name[i]);
    }
    /* Nor is anything of theirs used for ours: only what is ours has our token. */
    assert_true(names_of(&pair, 2).count > 0);
    assert_int_equal(names_of(&pair, 0).count, 0);

    /* It ends, which its own end seals; the last that it wrote is not lost. */
    harness_accept(&pair.old, 39, 100);
    harness_done(&pair.old);
    spool_others_ended(pair.new.spool, 1);
    assert_true(adopt(&pair.new, line("message %s", 39)));
    harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(39)), 0);
    for (int i = 0; i < 20; i++) {
        harness_settle(&pair.new);
        harness_pass(&pair.new, 2);
    }
    size_t segments = 0;
    struct names last = names_of(&pair, 1);
    for (size_t i = 0; i < last.count; i++) {
        segments += strncmp(last.name[i], "segment-", 8) == 0;
    }
    assert_int_equal(segments, 0);
    harness_reopen(&pair.new);
    assert_int_equal(pair.new.messages, 0);
    pair_done(&pair);
}

enum { SURVIVORS = 10 };

/* One message of each segment is left: as much as the old one will move. */
static void leave_one_of_each_segment(struct harness *harness, uint32_t bytes)
{
    for (uint64_t n = 1; n <= SURVIVORS; n++) {
        harness_accept(harness, n * 3, bytes);
        for (uint64_t other = 1; other <= 5; other++) {
            uint64_t gone = (SURVIVORS + n * 5 + other) * 3;
            harness_finish(harness, harness_accept(harness, gone, 22000), 0);
        }
    }
}

/* The old one moves what it has, and what the new one has delivered and forgotten meanwhile: that
 * does not come again. Nor if it lived in a segment of one who is known to have ended. */
static void what_another_moves_late_comes_once(void **state)
{
    (void)state;
    for (int older = 0; older < 2; older++) {
        struct pair pair = {.sim = disk_sim_new()};
        uint32_t token = older ? 2 : 1, ended = older ? 1 : 0;
        open_writer(&pair, &pair.old, 1, 0);
        leave_one_of_each_segment(&pair.old, 100);
        if (older) {
            harness_done(&pair.old);
            open_writer(&pair, &pair.old, token, ended);
        }
        open_writer(&pair, &pair.new, token + 1, ended);
        assert_int_equal(pair.new.messages, SURVIVORS);
        uint64_t before = disk_sim_changes(pair.sim);
        for (int i = 0; i < 60; i++) { /* it compacts, and nobody looks */
            spool_tick(pair.old.spool);
            harness_pass(&pair.old, 4);
        }
        assert_true(disk_sim_changes(pair.sim) > before + SURVIVORS);
        for (uint64_t n = 2; n <= SURVIVORS; n++) {
            harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(n * 3)), 0);
        }
        for (uint64_t n = 101; n <= 130; n++) { /* what knows of it does not go meanwhile */
            harness_finish(&pair.new, harness_accept(&pair.new, n * 3, 22000), 0);
            harness_pass(&pair.new, 10);
        }
        assert_false(adopt(&pair.new, NULL));
        assert_int_equal(pair.new.messages, 0);
        for (uint64_t n = 2; n <= SURVIVORS; n++) {
            assert_int_equal(spool_find(pair.new.spool, harness_id(n * 3)).index,
                             SPOOL_NO_HANDLE.index);
        }
        harness_check(&pair.new, 3, 100);
        harness_done(&pair.old);
        pair_done(&pair);
    }
}

/* Its kernel may still write to what it has written: that is no file of ours. */
static void others_files_are_not_used_again(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    harness_accept(&pair.old, 3, 20000);
    for (uint64_t n = 2; n <= 12; n++) {
        harness_finish(&pair.old, harness_accept(&pair.old, n * 3, 20000), 0);
    }
    harness_settle(&pair.old);
    harness_pass(&pair.old, 100); /* its spare is prepared */
    struct names names = names_of(&pair, 1);
    struct disk *disk = disk_sim_open(pair.sim);
    struct disk_file *files[NAMES];
    for (size_t i = 0; i < names.count; i++) {
        assert_int_equal(disk->ops->open(disk, names.name[i], DISK_READ | DISK_WRITE, &files[i]),
                         ERROR_NONE);
    }
    harness_done(&pair.old);
    open_writer(&pair, &pair.new, 2, 1);
    harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(3)), 0);
    for (int i = 0; i < 20; i++) {
        harness_settle(&pair.new);
        harness_pass(&pair.new, 20);
    }
    for (uint64_t n = 21; n <= 40; n++) { /* more than one segment */
        harness_accept(&pair.new, n * 3, 20000);
    }
    assert_int_equal(names_of(&pair, 1).count, 0);
    assert_true(names_of(&pair, 2).count > 2);
    uint8_t late[4096];
    memset(late, 0xee, sizeof(late));
    for (size_t i = 0; i < names.count; i++) {
        for (uint64_t at = 0; at + sizeof(late) <= SEGMENT; at += sizeof(late)) {
            assert_int_equal(disk->ops->write(files[i], at, slice_make(late, sizeof(late))),
                             ERROR_NONE);
        }
        disk->ops->close(files[i]);
    }
    disk_free(disk);
    for (uint64_t n = 21; n <= 40; n++) {
        harness_check(&pair.new, n * 3, 20000);
    }
    harness_reopen(&pair.new);
    assert_int_equal(pair.new.messages, 20);
    pair_done(&pair);
}

static void a_superseded_writer_does_not_start(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    harness_accept(&pair.old, 1, 100);
    open_writer(&pair, &pair.new, 2, 0);
    spool_close(pair.old.spool);
    pair.old.spool = NULL;
    assert_int_equal(harness_try_open(&pair.old), ERROR_DENIED);
    harness_done(&pair.old);
    pair_done(&pair);
}

/* What its writer says of a segment counts before what another does. */
static void its_writer_has_the_last_word(void **state)
{
    (void)state;
    enum { END = LOG_DATA_AT + 1024 };
    struct log_found found[3] = {
        {.number = log_token_first(1), .has_header = true},
        {.number = log_token_first(1) + 1, .has_header = true},
        {.number = log_token_first(2), .has_header = true},
    };
    for (int i = 0; i < 3; i++) {
        found[i].header.number = found[i].number;
        found[i].header.nonce = 7 + (uint64_t)i;
    }
    found[2].header.open_end_count = 2;
    for (int i = 0; i < 2; i++) {
        found[2].header.open_ends[i] = (struct log_open_end){
            .number = found[i].number, .nonce = 7 + (uint64_t)i, .end = END, .others = true};
    }
    assert_ptr_equal(log_found_newest_of(found, 3, 0), &found[1]);
    assert_ptr_equal(log_found_newest_of(found, 3, 2), &found[2]);
    /* It had failed: what follows was refused. */
    found[1].header.open_end_count = 1;
    found[1].header.open_ends[0] =
        (struct log_open_end){.number = found[0].number, .nonce = 7, .end = END - 512};
    struct log_judged judged = log_found_judge(&found[0], &found[1], &found[2]);
    assert_int_equal(judged.judgement, LOG_VALID);
    assert_int_equal(judged.end, END - 512);
    judged = log_found_judge(&found[1], &found[1], &found[2]);
    assert_int_equal(judged.judgement, LOG_HEAD);
    assert_int_equal(judged.nonce, 8);
    /* The next one knows that it has ended there. */
    found[2].header.open_ends[1].others = false;
    judged = log_found_judge(&found[1], &found[1], &found[2]);
    assert_int_equal(judged.judgement, LOG_VALID);
    assert_int_equal(judged.end, END);
    uint8_t block[LOG_BLOCK];
    struct log_header header;
    log_header_encode(&found[2].header, block);
    assert_int_equal(log_header_decode(block, &header), ERROR_NONE);
    assert_true(header.open_ends[0].others && !header.open_ends[1].others);
}

/* What it could not sync it writes again elsewhere: that comes once. */
static void what_another_writes_again_comes_once(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    harness_accept(&pair.old, 1, 100);
    open_writer(&pair, &pair.new, 2, 0);
    disk_sim_fail(pair.sim, 2, DISK_SIM_ONCE, ERROR_IO);
    harness_accept(&pair.old, 2, 100);
    harness_accept(&pair.old, 3, 100);
    assert_true(adopt(&pair.new, line("message %s", 3)));
    harness_check(&pair.new, 2, 100);
    assert_false(adopt(&pair.new, NULL));
    harness_done(&pair.old);
    pair_done(&pair);
}

static bool ask(void *context)
{
    return *(const bool *)context;
}

/* Its lease is over: batches fail, and the disk is as it was. */
static void who_may_not_write_does_not(void **state)
{
    (void)state;
    bool may = true;
    struct pair pair = {.sim = disk_sim_new()};
    open_writer(&pair, &pair.new, 1, 0);
    pair.new.owner.may_write = ask;
    pair.new.owner.may_write_context = &may;
    harness_reopen(&pair.new);
    struct spool_handle handle = harness_accept(&pair.new, 3, 100);
    harness_settle(&pair.new);
    harness_pass(&pair.new, 100);
    uint64_t changes = disk_sim_changes(pair.sim);
    may = false;
    spool_batch_begin(pair.new.spool);
    spool_batch_fate(pair.new.spool, handle, 0, SPOOL_DELIVERED);
    spool_batch_submit(pair.new.spool, SPOOL_SYNCED, NULL, NULL);
    for (int i = 0; i < 5; i++) {
        spool_tick(pair.new.spool);
        harness_pass(&pair.new, 5);
    }
    assert_int_equal(disk_sim_changes(pair.sim), changes);
    struct spool_state spool_state;
    spool_status(pair.new.spool, &spool_state);
    assert_int_not_equal(spool_state.accepting, ERROR_NONE);
    may = true;
    harness_reopen(&pair.new);
    pair_done(&pair);
}

static void a_third_writer_finds_what_both_have_left(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair);
    for (uint64_t n = 1; n <= 4; n++) {
        harness_accept(&pair.old, n * 3, 5000);
    }
    open_writer(&pair, &pair.new, 2, 0);
    harness_accept(&pair.old, 15, 5000);
    assert_true(adopt(&pair.new, line("message %s", 15)));
    harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(3)), 0);
    harness_finish(&pair.new, spool_find(pair.new.spool, harness_id(15)), 0);
    harness_accept(&pair.new, 18, 5000);
    harness_accept(&pair.old, 21, 5000); /* and nobody has seen it */
    struct harness third;
    open_writer(&pair, &third, 3, 0);
    assert_int_equal(third.messages, 5);
    const uint64_t left[] = {6, 9, 12, 18, 21};
    for (size_t i = 0; i < 5; i++) {
        harness_check(&third, left[i], 5000);
    }
    /* The second one is late, too. */
    harness_accept(&pair.new, 24, 5000);
    assert_true(adopt(&third, line("message %s", 24)));
    harness_done(&pair.old);
    spool_others_ended(third.spool, 2);
    adopt(&third, NULL);
    assert_int_equal(third.messages, 0);
    harness_done(&third);
    pair_done(&pair);
}

/* A journal of a time without tokens, and one whose tokens are given up. */
static void tokens_may_begin_and_end(void **state)
{
    (void)state;
    struct pair pair = {.sim = disk_sim_new()};
    open_writer(&pair, &pair.new, 0, 0);
    harness_accept(&pair.new, 1, 100);
    assert_int_equal(names_of(&pair, 0).count > 0, true);
    pair.new.settings.token = 7;
    harness_reopen(&pair.new);
    assert_int_equal(pair.new.messages, 1);
    harness_accept(&pair.new, 2, 100);
    assert_true(names_of(&pair, 7).count > 0);
    pair.new.settings.token = 0;
    harness_reopen(&pair.new);
    assert_int_equal(pair.new.messages, 2);
    harness_accept(&pair.new, 4, 100);
    harness_reopen(&pair.new);
    assert_int_equal(pair.new.messages, 3);
    pair_done(&pair);
}

/* ---- crashes ----------------------------------------------------------------------------- */

enum { STEPS = 120, ACCEPTED = 1000, ENDING = 2000, ENDED = 3000 };

/* Old and new take turns; each acknowledged step is a mark. At each moment all power goes: a third
 * one has every message that was acknowledged and not ended, and none that was ended. */
static void mark(struct pair *pair, uint64_t what)
{
    disk_sim_mark(pair->sim, what);
}

static void work(struct pair *pair)
{
    for (uint64_t step = 1; step <= STEPS; step++) {
        struct harness *writer = step % 3 == 0 ? &pair->old : &pair->new;
        if (step % 3 != 2) {
            harness_accept(writer, step * 3, 4000 + 300 * step);
            mark(pair, ACCEPTED + step);
        } else { /* one that the new one has seen ends there */
            uint64_t n = step / 2;
            struct spool_handle handle = spool_find(pair->new.spool, harness_id(n * 3));
            if (handle.index != SPOOL_NO_HANDLE.index) {
                mark(pair, ENDING + n);
                harness_finish(&pair->new, handle, 0);
                mark(pair, ENDED + n);
            }
        }
        spool_tick(pair->old.spool);
        harness_pass(&pair->old, 1);
        spool_tick(pair->new.spool);
        harness_pass(&pair->new, 1);
        harness_load(&pair->new);
    }
}

static void check_crash(struct disk_sim *crashed, const uint8_t *told, unsigned step, uint64_t seed)
{
    struct pair alone = {.sim = crashed};
    struct harness third;
    open_writer(&alone, &third, 3, seed % 2 == 0 ? 0 : 2);
    for (uint64_t n = 1; n <= STEPS; n++) {
        bool here = spool_find(third.spool, harness_id(n * 3)).index != SPOOL_NO_HANDLE.index;
        if (told[n] == 1 && !here) {
            fail_msg("step %u, seed %llu: message %llu is lost", step, (unsigned long long)seed,
                     (unsigned long long)n);
        }
        if (told[n] == 2 && here) {
            fail_msg("step %u, seed %llu: message %llu comes again", step, (unsigned long long)seed,
                     (unsigned long long)n);
        }
        if (here) {
            harness_check(&third, n * 3, 4000 + 300 * n);
        }
    }
    harness_done(&third);
}

static void no_crash_of_both_does_harm(void **state)
{
    (void)state;
    struct pair pair = {.sim = disk_sim_new()};
    disk_sim_record(pair.sim);
    open_writer(&pair, &pair.old, 1, 0);
    open_writer(&pair, &pair.new, 2, 0);
    work(&pair);
    harness_done(&pair.old);
    spool_others_ended(pair.new.spool, 1);
    adopt(&pair.new, NULL);
    spool_close(pair.new.spool);
    pair.new.spool = NULL;

    struct disk_replay *replay = disk_replay_new(pair.sim, false);
    uint8_t told[STEPS + 1] = {0};
    uint64_t marked;
    unsigned step = 0, points = 0, ended = 0;
    while (disk_replay_step(replay, &marked)) {
        if (marked > ENDED) {
            told[marked - ENDED] = 2;
            ended++;
        } else if (marked > ENDING) {
            told[marked - ENDING] = 0; /* either is right */
        } else if (marked > ACCEPTED) {
            told[marked - ACCEPTED] = 1;
        }
        if (++step % 5 != 0) {
            continue;
        }
        for (uint64_t seed = 0; seed < 3; seed++) {
            struct disk_sim *crashed = disk_replay_crash(replay, seed < 2 ? seed : step);
            check_crash(crashed, told, step, seed);
            disk_sim_free(crashed);
            points++;
        }
    }
    disk_replay_free(replay);
    print_message("%u crashes looked at, %u messages ended\n", points, ended);
    assert_true(points > 100 && ended > 10);
    pair_done(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_message_is_adopted),
        cmocka_unit_test(a_late_fate_is_told),
        cmocka_unit_test(late_segments_are_adopted),
        cmocka_unit_test(notes_of_a_late_message_come_with_it),
        cmocka_unit_test(others_files_are_left_alone_until_they_ended),
        cmocka_unit_test(what_another_moves_late_comes_once),
        cmocka_unit_test(others_files_are_not_used_again),
        cmocka_unit_test(a_superseded_writer_does_not_start),
        cmocka_unit_test(its_writer_has_the_last_word),
        cmocka_unit_test(what_another_writes_again_comes_once),
        cmocka_unit_test(who_may_not_write_does_not),
        cmocka_unit_test(a_third_writer_finds_what_both_have_left),
        cmocka_unit_test(tokens_may_begin_and_end),
        cmocka_unit_test(no_crash_of_both_does_harm),
    };
    return cmocka_run_group_tests_name("spool with two writers", tests, NULL, NULL);
}
