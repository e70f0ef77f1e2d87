/* SPDX-License-Identifier: Apache-2.0
 *
 * What a member tells of others, and what it does about shares, reading by reading.
 */
#include "cluster/watch.h"

#include "cluster/holding.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { NODES = 3, SHARES = 6, BEAT_US = LEASE_BEAT_MS * 1000 };

struct scene {
    int64_t now_ms;
    struct contact contact;
    struct watch watch;
    struct holding holding;
    struct arena arena;
    struct view view;
    struct view_member members[NODES];
    struct view_share shares[SHARES];
    bool silent[NODES];
    struct watch_event events[WATCH_EVENTS_MAX];
    size_t event_count;
    struct holding_step *steps;
    size_t step_count;
};

static const char *const names[NODES] = {"n1", "n2", "n3"};
static const char *const share_names[SHARES] = {"in:0", "in:1", "in:2", "in:3", "in:4", "leader"};

static int begin(void **state)
{
    static struct scene scene;
    scene = (struct scene){.now_ms = 100000};
    holding_init(&scene.holding);
    arena_init(&scene.arena);
    for (int i = 0; i < NODES; i++) {
        scene.members[i] =
            (struct view_member){.number = i + 1,
                                 .name = slice_from_text(names[i]),
                                 .roles = NODE_ROLE_NODE | (i == 0 ? NODE_ROLE_HUB : 0),
                                 .has_beat = true,
                                 .incarnation = 1,
                                 .beat_us = 1000000,
                                 .up_ms = BALANCE_SETTLE_MS};
    }
    for (uint32_t i = 0; i < SHARES; i++) {
        scene.shares[i] = (struct view_share){.number = i + 1, .token = 7};
        scene.shares[i].name = slice_from_text(share_names[i]);
        assert_true(share_name_parse(scene.shares[i].name, &scene.shares[i].parsed));
    }
    scene.view = (struct view){1, scene.members, NODES, scene.shares, SHARES};
    *state = &scene;
    return 0;
}

static int end(void **state)
{
    struct scene *scene = *state;
    holding_done(&scene->holding);
    arena_done(&scene->arena);
    return 0;
}

/* One heartbeat later. */
static void read_on(struct scene *scene)
{
    scene->now_ms += LEASE_BEAT_MS;
    for (int i = 0; i < NODES; i++) {
        if (scene->silent[i]) {
            scene->members[i].age_ms += LEASE_BEAT_MS;
        } else {
            scene->members[i].age_ms = 0;
            scene->members[i].beat_us += BEAT_US;
        }
    }
    contact_heard(&scene->contact, scene->now_ms - 3, scene->now_ms, 1);
    scene->event_count =
        watch_read(&scene->watch, &scene->view, &scene->contact, scene->now_ms, scene->events);
    arena_reset(&scene->arena);
    assert_int_equal(holding_follow(&scene->holding, &scene->view, true, &scene->arena,
                                    &scene->steps, &scene->step_count),
                     ERROR_NONE);
}

static void read_for(struct scene *scene, int beats)
{
    for (int i = 0; i < beats; i++) {
        read_on(scene);
        assert_int_equal(scene->event_count, 0);
    }
}

static void own(struct scene *scene, size_t row, int owner)
{
    scene->shares[row].owner = owner;
    scene->shares[row].token++;
}

static void assert_event(const struct scene *scene, enum watch_kind kind, int node, size_t shares)
{
    assert_int_equal(scene->event_count, 1);
    assert_int_equal(scene->events[0].kind, kind);
    assert_int_equal(scene->events[0].node, node);
    assert_int_equal(scene->events[0].shares, shares);
}

/* ---- watching ------------------------------------------------------------------------------- */

static void tells_of_a_takeover(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < SHARES; i++) {
        own(scene, i, 2 + (int)(i % 2));
    }
    read_for(scene, 10);
    assert_int_equal(scene->members[1].state, NODE_UP);
    assert_int_equal(scene->members[1].shares, 3);
    assert_int_equal(scene->members[2].shares, 2); /* leading is no lane */
    scene->silent[1] = true;
    read_for(scene, 3);
    assert_int_equal(scene->members[1].state, NODE_SUSPECT);
    read_for(scene, 3);
    assert_false(scene->members[1].lapsed);
    read_on(scene);
    assert_event(scene, WATCH_DOWN, 2, 3);
    assert_int_equal(scene->events[0].after_ms, LEASE_MS);
    assert_true(scene->members[1].lapsed);
    assert_int_equal(scene->members[1].state, NODE_DOWN);
    own(scene, 0, 3);
    own(scene, 2, 3);
    read_for(scene, 1);
    own(scene, 4, 3);
    read_on(scene);
    assert_event(scene, WATCH_TAKEN, 2, 3);
    assert_int_equal(scene->events[0].after_ms, LEASE_MS + 2 * LEASE_BEAT_MS);
    read_for(scene, 20);
    scene->silent[1] = false;
    read_on(scene);
    assert_event(scene, WATCH_BACK, 2, 0);
    read_for(scene, 5);
}

static void counts_what_others_took_before_we_judged(void **state)
{
    struct scene *scene = *state;
    own(scene, 0, 2);
    own(scene, 1, 2);
    read_for(scene, LEASE_CONTACT_MS / LEASE_BEAT_MS);
    scene->silent[1] = true;
    read_for(scene, LEASE_MS / LEASE_BEAT_MS - 1);
    own(scene, 0, 3);
    own(scene, 1, 3);
    read_on(scene);
    assert_int_equal(scene->event_count, 2);
    assert_int_equal(scene->events[0].kind, WATCH_DOWN);
    assert_int_equal(scene->events[0].shares, 2);
    assert_int_equal(scene->events[1].kind, WATCH_TAKEN);
    assert_int_equal(scene->events[1].shares, 2);
}

static void tells_once_of_a_takeover_that_fails(void **state)
{
    struct scene *scene = *state;
    own(scene, 0, 2);
    read_for(scene, 10);
    scene->silent[1] = true;
    read_for(scene, LEASE_MS / LEASE_BEAT_MS - 1);
    read_on(scene);
    assert_event(scene, WATCH_DOWN, 2, 1);
    read_for(scene, WATCH_LATE_MS / LEASE_BEAT_MS - 1);
    read_on(scene);
    assert_event(scene, WATCH_LATE, 2, 1);
    read_for(scene, 50);
    own(scene, 0, 3);
    read_on(scene);
    assert_event(scene, WATCH_TAKEN, 2, 1);
}

static void who_ends_in_order_is_not_down(void **state)
{
    struct scene *scene = *state;
    read_for(scene, 10);
    scene->members[1].has_beat = false;
    read_on(scene);
    assert_event(scene, WATCH_LEFT, 2, 0);
    assert_int_equal(scene->members[1].state, NODE_DOWN);
    scene->members[1].has_beat = true;
    read_on(scene);
    assert_event(scene, WATCH_BACK, 2, 0);
}

/* Dead before we came: no news, but for what it leaves behind. */
static void what_was_so_is_no_news(void **state)
{
    struct scene *scene = *state;
    scene->silent[1] = scene->silent[2] = true;
    scene->members[1].age_ms = scene->members[2].age_ms = 3600000;
    own(scene, 0, 3);
    read_for(scene, LEASE_CONTACT_MS / LEASE_BEAT_MS);
    assert_int_equal(scene->members[1].state, NODE_SUSPECT);
    read_on(scene);
    assert_event(scene, WATCH_DOWN, 3, 1);
    assert_int_equal(scene->members[1].state, NODE_DOWN);
    assert_true(scene->members[1].lapsed && scene->members[2].lapsed);
}

/* After an outage the last word of the dead is as old as before. */
static void who_was_down_stays_so_while_nobody_can_judge(void **state)
{
    struct scene *scene = *state;
    read_for(scene, 10);
    scene->silent[1] = true;
    read_for(scene, LEASE_MS / LEASE_BEAT_MS - 1);
    read_on(scene);
    assert_event(scene, WATCH_DOWN, 2, 0);
    contact_lost(&scene->contact);
    read_for(scene, 3);
    assert_int_equal(scene->members[1].state, NODE_DOWN);
    assert_false(scene->members[1].lapsed); /* to take from it somebody must judge */
    scene->silent[1] = false;
    read_on(scene);
    assert_event(scene, WATCH_BACK, 2, 0);
}

/* ---- order between nodes ----------------------------------------------------------------------
 */

static int64_t due(const struct scene *scene, struct slice *ret_node)
{
    *ret_node = SLICE_EMPTY;
    return watch_due(&scene->watch, &scene->view,
                     scene->contact.made ? scene->contact.since_ms : INT64_MAX, ret_node);
}

static void mail_is_due_as_members_say(void **state)
{
    struct scene *scene = *state;
    struct slice node;
    for (int i = 0; i < NODES; i++) {
        scene->members[i].health.behind_ms = -1;
    }
    read_for(scene, 10);
    assert_int_equal(due(scene, &node), INT64_MAX);
    scene->members[1].health.behind_ms = 4000;
    scene->members[0].health.behind_ms = 5000; /* we ourselves */
    assert_int_equal(due(scene, &node), 4000);
    assert_true(slice_equal(node, slice_from_text("n2")));
    scene->members[1].health.behind_ms = -1;
    assert_int_equal(due(scene, &node), 5000);
    scene->members[0].health.behind_ms = -1;
    /* Who is silent while we are not has something to say only when it is back. */
    scene->silent[1] = true;
    read_for(scene, 3);
    assert_int_equal(due(scene, &node), INT64_MAX);
}

static void after_an_outage_each_member_must_be_heard(void **state)
{
    struct scene *scene = *state;
    struct slice node;
    for (int i = 0; i < NODES; i++) {
        scene->members[i].health.behind_ms = -1;
    }
    read_for(scene, 10);
    int64_t last_ms = scene->members[1].beat_us / 1000;
    contact_lost(&scene->contact);
    assert_int_equal(due(scene, &node), last_ms - WATCH_UNSAID_MS);
    read_on(scene); /* the first answer: of the others it may be what they said before */
    assert_int_equal(due(scene, &node), last_ms + LEASE_BEAT_MS - WATCH_UNSAID_MS);
    scene->silent[2] = true;
    read_on(scene);
    assert_int_equal(due(scene, &node), last_ms + LEASE_BEAT_MS - WATCH_UNSAID_MS);
    assert_true(slice_equal(node, slice_from_text("n3")));
    for (int i = 0; i < LEASE_CONTACT_MS / LEASE_BEAT_MS && due(scene, &node) != INT64_MAX; i++) {
        read_on(scene);
    }
    assert_int_equal(scene->members[2].state, NODE_DOWN);
    assert_int_equal(due(scene, &node), INT64_MAX);
    contact_lost(&scene->contact); /* nor does it count the next time */
    read_on(scene);
    read_on(scene);
    assert_int_equal(due(scene, &node), INT64_MAX);
}

/* ---- holding -------------------------------------------------------------------------------- */

static size_t count_steps(const struct scene *scene, enum holding_act act)
{
    size_t count = 0;
    for (size_t i = 0; i < scene->step_count; i++) {
        count += scene->steps[i].act == act;
    }
    return count;
}

static void take_all(struct scene *scene)
{
    for (size_t i = 0; i < scene->step_count; i++) {
        if (scene->steps[i].act == HOLDING_CLAIM) {
            own(scene, scene->steps[i].row, 1);
            assert_int_equal(
                holding_take(&scene->holding, scene->steps[i].share, scene->steps[i].token + 1),
                ERROR_NONE);
        }
    }
}

static void takes_its_part_of_what_is_free(void **state)
{
    struct scene *scene = *state;
    read_on(scene);
    size_t claims = count_steps(scene, HOLDING_CLAIM);
    assert_int_equal(claims, 3); /* 2 of 5, and leads */
    take_all(scene);
    read_on(scene);
    assert_int_equal(scene->step_count, 0);
    assert_int_equal(holding_count(&scene->holding), claims);
    int64_t token = 0;
    assert_true(holding_has(&scene->holding, scene->shares[5].number, &token));
    assert_int_equal(token, 8);
}

static void loses_what_another_has(void **state)
{
    struct scene *scene = *state;
    read_on(scene);
    take_all(scene);
    own(scene, 5, 2);
    read_on(scene);
    assert_int_equal(scene->step_count, 1);
    assert_int_equal(scene->steps[0].act, HOLDING_LOST);
    assert_int_equal(scene->steps[0].share, 6);
    assert_int_equal(scene->steps[0].token, 8);
    int64_t token;
    assert_false(holding_has(&scene->holding, 6, &token));
    /* Ours by name, by a claim of which we know nothing: claimed anew. */
    own(scene, 5, 1);
    read_on(scene);
    assert_int_equal(count_steps(scene, HOLDING_CLAIM), 1);
    assert_int_equal(scene->steps[0].token, 10);
    /* A row that is gone. */
    size_t held = holding_count(&scene->holding);
    scene->view.share_count = 0;
    read_on(scene);
    assert_int_equal(count_steps(scene, HOLDING_LOST), held);
    assert_int_equal(holding_count(&scene->holding), 0);
}

static void leaves_when_it_drains_and_gives_up_when_left(void **state)
{
    struct scene *scene = *state;
    read_on(scene);
    take_all(scene);
    scene->members[0].draining = true;
    read_on(scene);
    assert_int_equal(count_steps(scene, HOLDING_LEAVE), 3);
    assert_int_equal(scene->step_count, 3);
    read_on(scene);
    assert_int_equal(scene->step_count, 0); /* told once; it still holds them */
    int64_t token = 0;
    assert_true(holding_left(&scene->holding, 6, &token));
    assert_int_equal(token, 8);
    assert_false(holding_left(&scene->holding, 6, &token));
    read_on(scene);
    assert_int_equal(scene->step_count, 1);
    assert_int_equal(scene->steps[0].act, HOLDING_RELEASE);
    assert_int_equal(scene->steps[0].token, 8);
}

static void takes_from_the_dead_by_its_last_heartbeat(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < SHARES; i++) {
        own(scene, i, 2);
    }
    scene->silent[2] = true;
    read_for(scene, 7);
    scene->silent[1] = true;
    scene->members[2].age_ms = 10000000;
    while (!scene->members[1].lapsed) {
        read_on(scene);
        if (!scene->members[1].lapsed) {
            assert_int_equal(count_steps(scene, HOLDING_CLAIM), 0);
        }
    }
    assert_int_equal(count_steps(scene, HOLDING_CLAIM), SHARES);
    for (size_t i = 0; i < scene->step_count; i++) {
        assert_int_equal(scene->steps[i].owner, 2);
        assert_int_equal(scene->steps[i].beat_us, scene->members[1].beat_us);
        assert_int_equal(scene->steps[i].token, 8);
    }
    arena_reset(&scene->arena);
    assert_int_equal(holding_follow(&scene->holding, &scene->view, false, &scene->arena,
                                    &scene->steps, &scene->step_count),
                     ERROR_NONE);
    assert_int_equal(scene->step_count, 0); /* without a lease, nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_of_a_takeover, begin, end),
        cmocka_unit_test_setup_teardown(counts_what_others_took_before_we_judged, begin, end),
        cmocka_unit_test_setup_teardown(tells_once_of_a_takeover_that_fails, begin, end),
        cmocka_unit_test_setup_teardown(who_ends_in_order_is_not_down, begin, end),
        cmocka_unit_test_setup_teardown(what_was_so_is_no_news, begin, end),
        cmocka_unit_test_setup_teardown(who_was_down_stays_so_while_nobody_can_judge, begin, end),
        cmocka_unit_test_setup_teardown(mail_is_due_as_members_say, begin, end),
        cmocka_unit_test_setup_teardown(after_an_outage_each_member_must_be_heard, begin, end),
        cmocka_unit_test_setup_teardown(takes_its_part_of_what_is_free, begin, end),
        cmocka_unit_test_setup_teardown(loses_what_another_has, begin, end),
        cmocka_unit_test_setup_teardown(leaves_when_it_drains_and_gives_up_when_left, begin, end),
        cmocka_unit_test_setup_teardown(takes_from_the_dead_by_its_last_heartbeat, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
