/* SPDX-License-Identifier: Apache-2.0
 *
 * The lease: its record, what each side concludes from its own clock, two that take it at once, and
 * a long time of both with pauses and writes that hang: never do both work.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/lease_files.h"
#include "app/shared_state.h"
#include "sim/disk_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t here[LEASE_MACHINE] = {1}, there[LEASE_MACHINE] = {2};
static const struct slice us = {(const uint8_t *)"us", 2}, them = {(const uint8_t *)"them", 4};

static struct lease_record record_of(uint32_t token, const char *name, const uint8_t *machine)
{
    struct lease_record record = {.token = token, .hold_ms = 10000, .counter = 5, .since_ms = 77};
    memcpy(record.machine, machine, LEASE_MACHINE);
    snprintf(record.name, sizeof(record.name), "%s", name);
    return record;
}

/* ---- the record -------------------------------------------------------------------------- */

static void a_record_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[LEASE_BYTES];
    struct lease_record record = record_of(0xabcdef, "mx-2.example", there), back;
    record.trouble = LEASE_PROGRAM_FAILED;
    lease_encode(&record, bytes);
    assert_true(lease_decode(slice_make(bytes, sizeof(bytes)), &back));
    assert_int_equal(back.trouble, LEASE_PROGRAM_FAILED);
    assert_string_equal(lease_trouble_text(back.trouble), "before-takeover has failed");
    assert_null(lease_trouble_text(LEASE_WELL));
    assert_string_equal(lease_trouble_text((enum lease_trouble)200), "it has failed");
    assert_int_equal(back.token, 0xabcdef);
    assert_int_equal(back.hold_ms, 10000);
    assert_int_equal(back.counter, 5);
    assert_int_equal(back.since_ms, 77);
    assert_string_equal(back.name, "mx-2.example");
    assert_memory_equal(back.machine, there, LEASE_MACHINE);
    for (size_t i = 0; i < sizeof(bytes); i++) { /* torn, or anything else */
        bytes[i] ^= 1;
        assert_false(lease_decode(slice_make(bytes, sizeof(bytes)), &back));
        bytes[i] ^= 1;
    }
    assert_false(lease_decode(slice_make(bytes, sizeof(bytes) - 1), &back));
    assert_false(lease_name_is_good(SLICE_LITERAL("../x")));
    assert_false(lease_name_is_good(SLICE_LITERAL("")));
    assert_true(lease_name_is_good(SLICE_LITERAL("a.b-c_1")));
}

/* ---- who may take it --------------------------------------------------------------------- */

static bool may_take(const struct lease_view *view, int64_t seen_ms, int64_t began_ms)
{
    struct lease_watch watch = {0};
    lease_watch_saw(&watch, view, seen_ms);
    return lease_may_take(view, &watch, us, here, 20000, began_ms);
}

static void who_may_take_it(void **state)
{
    (void)state;
    struct lease_view view = {0};
    assert_true(may_take(&view, 1000, 1000)); /* nobody ever had it */
    view = (struct lease_view){.token = 3, .readable = true, .record = record_of(3, "them", there)};
    assert_false(may_take(&view, 1000, 20999));
    assert_true(may_take(&view, 1000, 21000));
    view.end = LEASE_STOPPED; /* perhaps only for a restart */
    assert_false(may_take(&view, 1000, 20999));
    assert_true(may_take(&view, 1000, 21000));
    view.end = LEASE_HANDED;
    assert_true(may_take(&view, 1000, 1000));
    view.end = LEASE_LOST;
    assert_true(may_take(&view, 1000, 1000));
    /* Ours of before. */
    view = (struct lease_view){.token = 3, .readable = true, .record = record_of(3, "us", here)};
    assert_true(may_take(&view, 1000, 1000));
    view.end = LEASE_STOPPED;
    assert_true(may_take(&view, 1000, 1000));
    view.end = LEASE_HANDED; /* the other one's turn */
    assert_false(may_take(&view, 1000, 20999));
    assert_true(may_take(&view, 1000, 21000));
    /* Another machine with our name. */
    view = (struct lease_view){.token = 3, .readable = true, .record = record_of(3, "us", there)};
    assert_false(may_take(&view, 1000, 20999));
    assert_true(may_take(&view, 1000, 21000));
    /* One that was told to wait longer than we were. */
    view = (struct lease_view){.token = 3, .readable = true, .record = record_of(3, "them", there)};
    view.record.hold_ms = 60000;
    assert_false(may_take(&view, 1000, 120999));
    assert_true(may_take(&view, 1000, 121000));
    /* One that cannot be read: nobody knows how long it was told to wait. */
    view.readable = false;
    assert_false(may_take(&view, 1000, 1000 + LEASE_AFTER_MOST_MS - 1));
    assert_true(may_take(&view, 1000, 1000 + LEASE_AFTER_MOST_MS));
}

static void what_changes_is_a_sign_of_life(void **state)
{
    (void)state;
    struct lease_watch watch = {0};
    struct lease_view view = {.token = 3, .readable = true, .record = record_of(3, "them", there)};
    lease_watch_saw(&watch, &view, 1000);
    lease_watch_saw(&watch, &view, 5000);
    assert_int_equal(lease_watch_due(&watch, 20000), 21000);
    view.readable = false; /* torn, or unreadable: no sign */
    lease_watch_saw(&watch, &view, 6000);
    assert_int_equal(lease_watch_due(&watch, 20000), 21000);
    view.readable = true;
    view.record.counter++;
    lease_watch_saw(&watch, &view, 7000);
    assert_int_equal(lease_watch_due(&watch, 20000), 27000);
    view.record.counter--; /* whatever it is, it is another one */
    lease_watch_saw(&watch, &view, 8000);
    assert_int_equal(lease_watch_due(&watch, 20000), 28000);
    view = (struct lease_view){.token = 4};
    lease_watch_saw(&watch, &view, 9000);
    assert_int_equal(lease_watch_due(&watch, 20000), 9000 + LEASE_AFTER_MOST_MS);
}

/* Somebody has emptied the directory, or brought an old one back: the holder may not have seen it
 * yet, and what is taken next is above all that the journal knows. */
static void what_is_missing_is_nobodys_end(void **state)
{
    (void)state;
    struct lease_watch watch = {0};
    struct lease_view view = {.token = 3, .readable = true, .record = record_of(3, "them", there)};
    lease_watch_saw(&watch, &view, 1000);
    view = (struct lease_view){.used = 3};
    lease_watch_saw(&watch, &view, 2000);
    lease_watch_saw(&watch, &view, 3000);
    assert_false(lease_may_take(&view, &watch, us, here, 20000, 41999));
    assert_true(lease_may_take(&view, &watch, us, here, 20000, 42000));
    assert_int_equal(lease_view_next(&view), 4);
    view = (struct lease_view){.token = 2, .used = 7, .end = LEASE_HANDED};
    lease_watch_saw(&watch, &view, 50000);
    assert_int_equal(watch.seen_ms, 2000); /* of the same kind */
    assert_int_equal(lease_view_next(&view), 8);
    watch = (struct lease_watch){0}; /* a process that has seen nothing before */
    lease_watch_saw(&watch, &view, 50000);
    assert_false(lease_may_take(&view, &watch, us, here, 20000, 89999));
    assert_true(lease_may_take(&view, &watch, us, here, 20000, 90000));
    view = (struct lease_view){.token = 7, .used = 7, .end = LEASE_HANDED};
    lease_watch_saw(&watch, &view, 60000);
    assert_true(lease_may_take(&view, &watch, us, here, 20000, 60000));
}

/* ---- files ------------------------------------------------------------------------------- */

static void of_two_that_claim_one_wins(void **state)
{
    (void)state;
    struct disk_sim *sim = disk_sim_new();
    struct disk *ours = disk_sim_open(sim), *theirs = disk_sim_open(sim);
    struct lease_record record = record_of(1, "us", here), other = record_of(1, "them", there);
    struct disk_file *file, *none;
    struct lease_look look;
    assert_int_equal(lease_files_claim(ours, &record, &file), ERROR_NONE);
    assert_int_equal(lease_files_claim(theirs, &other, &none), ERROR_EXISTS);
    assert_int_equal(lease_files_look(theirs, us, &look), ERROR_NONE);
    assert_int_equal(look.view.token, 1);
    assert_int_equal(look.open_token, 1);
    assert_true(look.view.readable);
    assert_string_equal(look.view.record.name, "us");
    record.counter = 6;
    assert_int_equal(lease_files_renew(file, &record), ERROR_NONE);
    assert_int_equal(lease_files_look(theirs, us, &look), ERROR_NONE);
    assert_int_equal(look.view.record.counter, 6);
    ours->ops->close(file);
    disk_free(ours);
    disk_free(theirs);
    disk_sim_free(sim);
}

static void tokens_end_and_go(void **state)
{
    (void)state;
    struct disk_sim *sim = disk_sim_new();
    struct disk *disk = disk_sim_open(sim);
    struct lease_look look;
    for (uint32_t token = 1; token <= 4; token++) {
        struct disk_file *file;
        struct lease_record record =
            token % 2 == 1 ? record_of(token, "us", here) : record_of(token, "them", there);
        assert_int_equal(lease_files_claim(disk, &record, &file), ERROR_NONE);
        disk->ops->close(file);
    }
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.open_token, 1);
    assert_int_equal(look.view.end, LEASE_GOES_ON);
    /* Of ours we know that they have ended; of theirs only who has cut the power does. */
    assert_int_equal(lease_files_settle(disk, us, here, UINT32_MAX, LEASE_LOST), ERROR_NONE);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.open_token, 2);
    assert_int_equal(lease_files_settle(disk, SLICE_EMPTY, NULL, UINT32_MAX, LEASE_FENCED),
                     ERROR_NONE);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.open_token, 0);
    assert_int_equal(look.view.end, LEASE_FENCED);
    assert_int_equal(lease_files_end(disk, 4, LEASE_HANDED), ERROR_NONE); /* said before */
    lease_files_clean(disk, 4);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.view.token, 4);
    assert_int_equal(look.view.end, LEASE_FENCED);
    /* Wishes, and who stands by. */
    assert_false(look.wanted || look.other_known);
    struct lease_record watching = record_of(4, "them", there);
    assert_int_equal(lease_files_watch(disk, &watching), ERROR_NONE);
    assert_int_equal(lease_files_want(disk, them, true), ERROR_NONE);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_true(look.wanted && look.other_known);
    assert_int_equal(lease_files_want(disk, them, false), ERROR_NONE);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_false(look.wanted);
    /* One of which nothing can be read, for it is somebody else's, is one. */
    struct disk_file *file;
    assert_int_equal(disk->ops->open(disk, "want-them", DISK_WRITE | DISK_CREATE, &file),
                     ERROR_NONE);
    disk->ops->close(file);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_true(look.wanted);
    disk_free(disk);
    disk_sim_free(sim);
}

static void claim(struct disk *disk, uint32_t token, const char *name, const uint8_t *machine)
{
    struct disk_file *file;
    struct lease_record record = record_of(token, name, machine);
    assert_int_equal(lease_files_claim(disk, &record, &file), ERROR_NONE);
    disk->ops->close(file);
}

/* It says of those before it that they have ended, and of itself when it is not the next one. */
static void who_was_fenced_may_be_back(void **state)
{
    (void)state;
    struct disk_sim *sim = disk_sim_new();
    struct disk *disk = disk_sim_open(sim);
    struct lease_record record = record_of(2, "us", here);
    struct lease_look look;
    struct disk_file *file;
    claim(disk, 1, "them", there);
    assert_int_equal(lease_files_take(disk, them, true, record.token - 1, &record, &look, &file),
                     ERROR_NONE);
    assert_int_equal(look.view.token, 2);
    assert_int_equal(look.open_token, 2);
    disk->ops->close(file);

    /* Since `fence` was begun it was started again, and works. */
    claim(disk, 3, "them", there);
    record = record_of(3, "us", here);
    assert_int_equal(lease_files_take(disk, them, true, record.token - 1, &record, &look, &file),
                     ERROR_EXISTS);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.view.token, 3);
    assert_int_equal(look.view.end, LEASE_GOES_ON);
    assert_int_equal(look.open_token, 2);
    assert_int_equal(lease_files_settle(disk, SLICE_EMPTY, NULL, 3, LEASE_FENCED), ERROR_NONE);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.view.end, LEASE_GOES_ON);
    assert_int_equal(look.open_token, 3);

    /* More than once: the name that we are after is free again. */
    assert_int_equal(lease_files_end(disk, 3, LEASE_STOPPED), ERROR_NONE);
    claim(disk, 4, "them", there);
    lease_files_clean(disk, 4);
    assert_int_equal(lease_files_take(disk, them, true, record.token - 1, &record, &look, &file),
                     ERROR_EXISTS);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.open_token, 4);
    assert_int_equal(look.view.end, LEASE_GOES_ON);
    disk_free(disk);
    assert_int_equal(disk_sim_open_files(sim), 0);
    disk_sim_free(sim);
}

/* Nobody has said of a machine that it has ended, and the other one is started again and again. */
static void many_tokens_are_all_seen(void **state)
{
    (void)state;
    struct disk_sim *sim = disk_sim_new();
    struct disk *disk = disk_sim_open(sim);
    struct lease_look look;
    enum { MANY = 700 };
    claim(disk, 1, "them", there);
    for (uint32_t token = 2; token <= MANY; token++) {
        claim(disk, token, "us", here);
        assert_int_equal(lease_files_end(disk, token, LEASE_STOPPED), ERROR_NONE);
    }
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.view.token, MANY);
    assert_int_equal(look.view.end, LEASE_STOPPED);
    assert_int_equal(look.open_token, 1);
    assert_int_equal(lease_files_end(disk, 1, LEASE_FENCED), ERROR_NONE);
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.open_token, 0);
    lease_files_clean(disk, MANY);
    claim(disk, 1, "them", there); /* its name is free again, and it has not ended */
    assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
    assert_int_equal(look.open_token, 1);
    disk_free(disk);
    disk_sim_free(sim);
}

/* A claim that does not reach the disk gives nothing, and its token is not a writer's. */
static void a_claim_that_fails_is_over(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 4; nth++) {
        struct disk_sim *sim = disk_sim_new();
        struct disk *disk = disk_sim_open(sim);
        struct lease_record record = record_of(1, "us", here);
        struct disk_file *file;
        struct lease_look look;
        disk_sim_fail(sim, nth, DISK_SIM_ONCE, ERROR_IO);
        enum error error = lease_files_claim(disk, &record, &file);
        assert_int_equal(error, ERROR_IO);
        assert_int_equal(lease_files_look(disk, them, &look), ERROR_NONE);
        assert_int_equal(look.open_token, 0);
        disk_free(disk);
        assert_int_equal(disk_sim_open_files(sim), 0);
        disk_sim_free(sim);
    }
}

/* ---- where they are ---------------------------------------------------------------------- */

static void an_empty_mount_point_is_not_the_state(void **state)
{
    (void)state;
    struct shared_identity nothing = {0}, known = {"aa", "nfs 1"}, found = {"", "ext4 7"};
    assert_int_equal(shared_state_judge(true, false, &found, &nothing), SHARED_NEW);
    assert_int_equal(shared_state_judge(false, false, &nothing, &nothing), SHARED_NEW);
    assert_int_equal(shared_state_judge(true, false, &known, &nothing), SHARED_OURS);
    assert_int_equal(shared_state_judge(true, true, &found, &nothing), SHARED_OWN);
    assert_int_equal(shared_state_judge(false, true, &nothing, &nothing), SHARED_OWN);
    assert_int_equal(shared_state_judge(true, true, &known, &nothing), SHARED_OURS);
    assert_int_equal(shared_state_judge(true, false, &found, &known), SHARED_UNMARKED);
    assert_int_equal(shared_state_judge(false, false, &nothing, &known), SHARED_MISSING);
    assert_int_equal(shared_state_judge(true, false, &known, &known), SHARED_OURS);
    found = (struct shared_identity){"aa", "nfs 2"}; /* mounted from elsewhere */
    assert_int_equal(shared_state_judge(true, false, &found, &known), SHARED_OURS);
    found = (struct shared_identity){"bb", "ext4 7"};
    assert_int_equal(shared_state_judge(true, false, &found, &known), SHARED_OTHER);
    /* Emptied, and perhaps marked by the other machine since. */
    found = (struct shared_identity){"", "nfs 1"};
    assert_int_equal(shared_state_judge(true, false, &found, &known), SHARED_NEW);
    assert_int_equal(shared_state_judge(true, true, &found, &known), SHARED_NEW);
    found = (struct shared_identity){"bb", "nfs 1"};
    assert_int_equal(shared_state_judge(true, false, &found, &known), SHARED_OURS);
}

/* ---- both, for a long time ---------------------------------------------------------------- */

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (*random >> 33) % below;
}

/* How long something takes: mostly nothing, sometimes it hangs. */
static int64_t delay(uint64_t *random)
{
    return draw(random, 12) == 0 ? (int64_t)draw(random, 30000) : (int64_t)draw(random, 50);
}

/* One renewal after the other, of which each is seen from its end on; one look after the other.
 * Clocks with another zero and another rate. When the other one takes over, the holder's clock has
 * told it to stop. True: it was taken over. */
static bool live(uint64_t seed, uint32_t after_ms, int64_t *ret_margin_ms)
{
    uint64_t random = seed;
    enum { RENEWALS = 400, SKEW = 1000000 };
    int64_t begun[RENEWALS], ended[RENEWALS], at = 0;
    for (int i = 0; i < RENEWALS; i++) {
        begun[i] = at;
        ended[i] = at + delay(&random);
        at = ended[i] + LEASE_RENEW_MS + (draw(&random, 40) == 0 ? delay(&random) : 0);
    }
    struct lease_watch watch = {0};
    struct lease_view view = {.token = 1, .readable = true, .record = record_of(1, "them", there)};
    view.record.hold_ms = lease_hold_ms(after_ms);
    for (int64_t now = (int64_t)draw(&random, 1000); now < ended[RENEWALS - 1];) {
        int64_t read_began = now, read_at = now + delay(&random),
                read_ended = read_at + delay(&random);
        int newest = -1; /* of what is there when it is read */
        for (int i = 0; i < RENEWALS && ended[i] <= read_at; i++) {
            newest = i;
        }
        view.record.counter = (uint64_t)(newest + 1);
        lease_watch_saw(&watch, &view, read_ended + SKEW);
        if (lease_may_take(&view, &watch, us, here, after_ms, read_began + SKEW)) {
            /* What the holder believes at any moment from now on. */
            int last = 0;
            for (int i = 0; i < RENEWALS && ended[i] <= read_began; i++) {
                last = i;
            }
            int64_t until = newest < 0 ? 0 : begun[last] + (int64_t)view.record.hold_ms;
            for (int i = last + 1; i < RENEWALS && newest >= 0; i++) {
                if (ended[i] <= until) { /* later ones find it stopped */
                    until = begun[i] + (int64_t)view.record.hold_ms;
                } else {
                    break;
                }
            }
            *ret_margin_ms = read_ended - until;
            return true;
        }
        now = read_ended + LEASE_RENEW_MS;
    }
    return false;
}

static void never_do_both_work(void **state)
{
    (void)state;
    unsigned taken = 0;
    int64_t least_ms = INT64_MAX;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        int64_t margin_ms;
        if (live(seed, seed % 2 == 0 ? 20000 : LEASE_AFTER_LEAST_MS, &margin_ms)) {
            taken++;
            least_ms = margin_ms < least_ms ? margin_ms : least_ms;
            if (margin_ms < 0) {
                fail_msg("seed %llu: both work for %lld ms", (unsigned long long)seed,
                         (long long)-margin_ms);
            }
        }
    }
    print_message("%u times taken over, with %lld ms at least between\n", taken,
                  (long long)least_ms);
    assert_true(taken > 1000);
    assert_true(least_ms >= LEASE_AFTER_LEAST_MS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back),
        cmocka_unit_test(who_may_take_it),
        cmocka_unit_test(what_changes_is_a_sign_of_life),
        cmocka_unit_test(what_is_missing_is_nobodys_end),
        cmocka_unit_test(of_two_that_claim_one_wins),
        cmocka_unit_test(tokens_end_and_go),
        cmocka_unit_test(who_was_fenced_may_be_back),
        cmocka_unit_test(many_tokens_are_all_seen),
        cmocka_unit_test(a_claim_that_fails_is_over),
        cmocka_unit_test(an_empty_mount_point_is_not_the_state),
        cmocka_unit_test(never_do_both_work),
    };
    return cmocka_run_group_tests_name("lease", tests, NULL, NULL);
}
