/* SPDX-License-Identifier: Apache-2.0
 *
 * When a server's standby is started and ended: what counts as gone and back, that nothing is run
 * twice, and what is known after a restart.
 */
#include "service/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { AFTER_MS = 300000, BACK_MS = 600000, STEP_MS = 1000 };

struct world {
    struct guard guard;
    struct guard_config config;
    struct guard_facts facts;
    uint64_t last_run; /* given, whether taken or not */
    uint32_t begun;    /* runs */
};

static struct world world_new(void)
{
    struct world world = {.config = {.name = SLICE_LITERAL("m1"),
                                     .start = SLICE_LITERAL("/start"),
                                     .undo = SLICE_LITERAL("/undo"),
                                     .after_ms = AFTER_MS,
                                     .back_after_ms = BACK_MS,
                                     .tries = 1}};
    world.facts.steady_ms = 1000;
    world.facts.wall_ms = 5000000;
    guard_init(&world.guard, world.facts.steady_ms, world.facts.wall_ms);
    return world;
}

static void step(struct world *world)
{
    uint64_t before = world->guard.run;
    world->facts.steady_ms += STEP_MS;
    world->facts.wall_ms += STEP_MS;
    (void)guard_step(&world->guard, &world->config, &world->facts, ++world->last_run);
    world->begun += world->guard.run != 0 && world->guard.run != before;
}

static void pass(struct world *world, int64_t ms)
{
    for (int64_t gone = 0; gone < ms; gone += STEP_MS) {
        step(world);
    }
}

static void is_up(struct world *world)
{
    world->facts.up = true;
    world->facts.down = world->facts.gone = false;
    step(world);
}

static void is_gone(struct world *world)
{
    world->facts.up = false;
    world->facts.down = world->facts.gone = true;
    step(world);
}

static void ends(struct world *world, bool well, const char *text)
{
    guard_ended(&world->guard, &world->config, well, slice_from_text(text), world->facts.steady_ms,
                world->facts.wall_ms);
}

static const char *state_of(const struct world *world)
{
    return guard_state_text(&world->guard, &world->config);
}

/* Gone for long enough, and its standby runs. */
static struct world world_taken_over(enum guard_undo_when when)
{
    struct world world = world_new();
    world.config.undo_when = when;
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS);
    ends(&world, true, "it runs");
    assert_string_equal(state_of(&world), "taken-over");
    return world;
}

static void starts_once_after_the_time(void **state)
{
    (void)state;
    struct world world = world_new();
    is_up(&world);
    assert_string_equal(state_of(&world), "watching");
    is_gone(&world);
    assert_string_equal(state_of(&world), "counting");
    assert_int_equal(guard_seconds_left(&world.guard, &world.config), AFTER_MS / 1000);
    pass(&world, AFTER_MS - STEP_MS);
    assert_int_equal(world.begun, 0);
    step(&world);
    assert_int_equal(world.begun, 1);
    assert_string_equal(state_of(&world), "starting");
    assert_int_equal(world.facts.wall_ms - world.guard.gone_since_wall_ms, AFTER_MS);
    pass(&world, 10 * AFTER_MS);
    ends(&world, true, "standby is up");
    assert_string_equal(world.guard.text, "standby is up");
    is_up(&world); /* it has m1's address */
    pass(&world, 10 * BACK_MS);
    is_gone(&world); /* and dies, too */
    pass(&world, 10 * AFTER_MS);
    assert_string_equal(state_of(&world), "taken-over");
    assert_int_equal(world.begun, 1);
}

static void a_server_never_seen_up_is_not_taken_over(void **state)
{
    (void)state;
    struct world world = world_new();
    is_gone(&world);
    pass(&world, 10 * AFTER_MS);
    assert_int_equal(world.begun, 0);
    assert_string_equal(state_of(&world), "resting");
}

static void an_interruption_begins_anew(void **state)
{
    (void)state;
    struct world world = world_new();
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS - 2 * STEP_MS);
    world.facts.gone = world.facts.down = false; /* recovering, suspect, disabled */
    step(&world);
    is_gone(&world);
    pass(&world, AFTER_MS - STEP_MS);
    assert_int_equal(world.begun, 0);
    step(&world);
    assert_int_equal(world.begun, 1);
}

static void a_time_unseen_does_not_count(void **state)
{
    (void)state;
    struct world world = world_new();
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS / 2);
    world.facts.steady_ms += 100 * AFTER_MS; /* the machine slept */
    step(&world);
    pass(&world, AFTER_MS - STEP_MS);
    assert_int_equal(world.begun, 0);
    step(&world);
    assert_int_equal(world.begun, 1);
}

static void one_that_answers_is_not_gone(void **state)
{
    (void)state;
    struct world world = world_new();
    char why[200];
    is_up(&world);
    is_gone(&world);
    world.facts.gone = false; /* down all the same */
    pass(&world, 10 * AFTER_MS);
    assert_int_equal(world.begun, 0);
    assert_false(guard_is_blocked(&world.guard, &world.config));
    guard_why(&world.guard, &world.config, why, sizeof(why));
    assert_non_null(strstr(why, "m1 takes no mail, but answers"));
}

static void its_machine_holds_it_back(void **state)
{
    (void)state;
    struct world world = world_new();
    world.config.watch_count = 1;
    is_up(&world);
    assert_int_equal(guard_look_every_ms(&world.guard, &world.config), 0);
    world.facts.known = true;
    for (int answer = GUARD_REFUSED; answer <= GUARD_ACCEPTED; answer++) {
        world.facts.watch = (enum guard_place)answer;
        is_gone(&world);
        assert_true(guard_look_every_ms(&world.guard, &world.config) > 0);
        pass(&world, AFTER_MS - STEP_MS);
        assert_false(guard_is_blocked(&world.guard, &world.config));
        step(&world);
        assert_string_equal(state_of(&world), "blocked");
        is_up(&world);
    }
    world.facts.watch = GUARD_SILENT;
    is_gone(&world);
    pass(&world, AFTER_MS / 2);
    world.facts.watch = GUARD_ACCEPTED;
    step(&world);
    world.facts.watch = GUARD_SILENT;
    pass(&world, AFTER_MS);
    assert_int_equal(world.begun, 0); /* silent, too, without interruption */
    step(&world);
    assert_int_equal(world.begun, 1);
}

static void what_is_not_known_holds_it_back(void **state)
{
    (void)state;
    struct world world = world_new();
    world.config.watch_count = 1;
    is_up(&world);
    is_gone(&world);
    pass(&world, 2 * AFTER_MS);
    assert_int_equal(world.begun, 0);
    assert_string_equal(state_of(&world), "blocked");
}

static void one_who_is_cut_off_starts_nothing(void **state)
{
    (void)state;
    struct world world = world_new();
    world.config.witness_count = 1;
    world.facts.known = true;
    is_up(&world);
    is_gone(&world);
    pass(&world, 2 * AFTER_MS);
    assert_int_equal(world.begun, 0);
    assert_string_equal(state_of(&world), "blocked");
    world.facts.witness = GUARD_REFUSED; /* an answer all the same */
    pass(&world, AFTER_MS);
    assert_int_equal(world.begun, 0); /* it was not seen to be gone before */
    step(&world);
    assert_int_equal(world.begun, 1);
}

static void by_default_only_hands_undo(void **state)
{
    (void)state;
    struct world world = world_taken_over(GUARD_UNDO_MANUAL);
    world.facts.known = true;
    world.facts.watch = GUARD_ACCEPTED;
    is_up(&world);
    pass(&world, 10 * BACK_MS);
    assert_string_equal(state_of(&world), "taken-over");
    assert_null(guard_undo(&world.guard, &world.config, 77, world.facts.wall_ms));
    assert_string_equal(state_of(&world), "undoing");
    assert_true(world.guard.run == 77 && world.guard.by_hand);
    ends(&world, true, "");
    assert_string_equal(state_of(&world), "resting");
    is_gone(&world); /* its place changes hands */
    pass(&world, 10 * AFTER_MS);
    assert_int_equal(world.begun, 1);
    is_up(&world);
    assert_string_equal(state_of(&world), "watching");
}

static void its_machine_back_undoes(void **state)
{
    (void)state;
    struct world world = world_taken_over(GUARD_UNDO_WATCH);
    world.config.watch_count = 1;
    world.facts.known = true;
    world.facts.watch = GUARD_REFUSED; /* it boots */
    is_up(&world);                     /* the standby, at its address */
    pass(&world, 2 * BACK_MS);
    assert_string_equal(state_of(&world), "taken-over");
    world.facts.watch = GUARD_ACCEPTED;
    step(&world);
    assert_string_equal(state_of(&world), "returning");
    pass(&world, BACK_MS / 2);
    world.facts.known = false;
    step(&world);
    world.facts.known = true;
    pass(&world, BACK_MS);
    assert_int_equal(world.begun, 1);
    step(&world);
    assert_int_equal(world.begun, 2);
    assert_string_equal(state_of(&world), "undoing");
    assert_false(world.guard.by_hand);
}

static void the_server_back_undoes(void **state)
{
    (void)state;
    struct world world = world_taken_over(GUARD_UNDO_SERVER);
    is_up(&world);
    pass(&world, BACK_MS - STEP_MS);
    assert_int_equal(world.begun, 1);
    pass(&world, 2 * STEP_MS);
    assert_int_equal(world.begun, 2);
    assert_string_equal(state_of(&world), "undoing");
}

static void what_hands_started_hands_undo(void **state)
{
    (void)state;
    struct world world = world_new();
    world.config.undo_when = GUARD_UNDO_SERVER;
    is_up(&world);
    assert_null(guard_start(&world.guard, 9, world.facts.wall_ms));
    assert_non_null(guard_start(&world.guard, 10, world.facts.wall_ms));
    assert_non_null(guard_undo(&world.guard, &world.config, 10, world.facts.wall_ms));
    assert_non_null(guard_reset(&world.guard, world.facts.wall_ms));
    assert_true(world.guard.run == 9);
    ends(&world, true, "");
    assert_non_null(guard_start(&world.guard, 10, world.facts.wall_ms));
    pass(&world, 10 * BACK_MS);
    assert_string_equal(state_of(&world), "taken-over");
    assert_int_equal(world.begun, 0);
    assert_null(guard_reset(&world.guard, world.facts.wall_ms));
    assert_string_equal(state_of(&world), "resting");
}

static void a_failure_waits_for_people(void **state)
{
    (void)state;
    struct world world = world_new();
    char why[300];
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS);
    ends(&world, false, "exit status 1: no power switch");
    assert_string_equal(state_of(&world), "start-failed");
    guard_why(&world.guard, &world.config, why, sizeof(why));
    assert_non_null(strstr(why, "exit status 1: no power switch"));
    pass(&world, 10 * AFTER_MS);
    is_up(&world);
    is_gone(&world);
    pass(&world, 10 * AFTER_MS);
    assert_int_equal(world.begun, 1);
    assert_null(guard_start(&world.guard, 5000, world.facts.wall_ms));
    assert_true(world.guard.run == 5000);
}

static void tries_are_made_apart_and_counted(void **state)
{
    (void)state;
    struct world world = world_new();
    world.config.tries = 3;
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS);
    for (uint32_t i = 1; i < 3; i++) {
        assert_int_equal(world.begun, i);
        ends(&world, false, "no");
        pass(&world, GUARD_RETRY_MS - STEP_MS);
        assert_int_equal(world.begun, i);
        step(&world);
    }
    assert_int_equal(world.begun, 3);
    ends(&world, false, "no");
    assert_string_equal(state_of(&world), "start-failed");
}

static void a_try_is_not_made_when_the_server_is_back(void **state)
{
    (void)state;
    struct world world = world_new();
    world.config.tries = 3;
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS);
    ends(&world, false, "no");
    is_up(&world);
    pass(&world, 10 * GUARD_RETRY_MS);
    assert_int_equal(world.begun, 1);
    assert_string_equal(state_of(&world), "start-failed");
}

static struct guard restarted(const struct world *world, bool *ret_read)
{
    struct guard guard;
    struct buffer note;
    buffer_init(&note, GUARD_NOTE_MAX);
    guard_note_encode(&world->guard, &note);
    assert_false(note.failed);
    guard_init(&guard, 50, 60);
    *ret_read = guard_note_decode(&guard, buffer_slice(&note));
    for (size_t cut = 0; cut < note.length; cut++) {
        struct guard other;
        guard_init(&other, 50, 60);
        assert_false(guard_note_decode(&other, slice_take(buffer_slice(&note), cut)));
        assert_int_equal(other.phase, GUARD_RESTING);
    }
    buffer_done(&note);
    return guard;
}

static void a_restart_forgets_nothing_and_runs_nothing(void **state)
{
    (void)state;
    bool read;
    struct world world = world_new();
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS);
    struct guard guard = restarted(&world, &read);
    assert_true(read);
    assert_int_equal(guard.phase, GUARD_STARTING);
    assert_true(guard.run == world.guard.run && guard.run != 0);
    world.guard = guard;
    world.facts.steady_ms = 50;
    pass(&world, 10 * AFTER_MS);
    assert_int_equal(world.begun, 1);
    ends(&world, true, "ok");
    guard = restarted(&world, &read);
    assert_true(read && guard.phase == GUARD_TAKEN_OVER && !guard.by_hand);
    assert_int_equal(guard.since_wall_ms, world.guard.since_wall_ms);
    assert_int_equal(guard.gone_since_wall_ms, world.guard.gone_since_wall_ms);
    assert_string_equal(guard.text, "ok");
}

static void a_restart_between_tries_tries_on(void **state)
{
    (void)state;
    bool read;
    struct world world = world_new();
    world.config.tries = 2;
    is_up(&world);
    is_gone(&world);
    pass(&world, AFTER_MS);
    ends(&world, false, "no");
    world.guard = restarted(&world, &read);
    assert_true(read);
    world.facts.steady_ms = 50;
    pass(&world, GUARD_RETRY_MS);
    assert_int_equal(world.begun, 2);
    ends(&world, false, "no");
    assert_string_equal(state_of(&world), "start-failed");
}

static void what_is_no_note_is_refused(void **state)
{
    (void)state;
    struct guard guard;
    uint8_t bytes[64] = {1, GUARD_PHASES};
    guard_init(&guard, 1, 2);
    assert_false(guard_note_decode(&guard, slice_make(bytes, sizeof(bytes))));
    bytes[0] = 2; /* a later version */
    bytes[1] = GUARD_TAKEN_OVER;
    assert_false(guard_note_decode(&guard, slice_make(bytes, sizeof(bytes))));
    bytes[0] = 1;
    bytes[7] = 1; /* a run, where nothing runs */
    assert_false(guard_note_decode(&guard, slice_make(bytes, sizeof(bytes))));
    assert_int_equal(guard.phase, GUARD_RESTING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_once_after_the_time),
        cmocka_unit_test(a_server_never_seen_up_is_not_taken_over),
        cmocka_unit_test(an_interruption_begins_anew),
        cmocka_unit_test(a_time_unseen_does_not_count),
        cmocka_unit_test(one_that_answers_is_not_gone),
        cmocka_unit_test(its_machine_holds_it_back),
        cmocka_unit_test(what_is_not_known_holds_it_back),
        cmocka_unit_test(one_who_is_cut_off_starts_nothing),
        cmocka_unit_test(by_default_only_hands_undo),
        cmocka_unit_test(its_machine_back_undoes),
        cmocka_unit_test(the_server_back_undoes),
        cmocka_unit_test(what_hands_started_hands_undo),
        cmocka_unit_test(a_failure_waits_for_people),
        cmocka_unit_test(tries_are_made_apart_and_counted),
        cmocka_unit_test(a_try_is_not_made_when_the_server_is_back),
        cmocka_unit_test(a_restart_forgets_nothing_and_runs_nothing),
        cmocka_unit_test(a_restart_between_tries_tries_on),
        cmocka_unit_test(what_is_no_note_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
