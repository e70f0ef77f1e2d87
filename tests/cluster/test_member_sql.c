/* SPDX-License-Identifier: Apache-2.0
 *
 * Each statement of a member, on a real server, and what another one under way makes of it.
 */
#include "cluster/member_sql.h"

#include "cluster/balance.h"
#include "sys/clock.h"
#include "tests/sys/postgres.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONG_MS = 60000 };

struct scene {
    struct postgres *server;
    struct database *database;
    struct database *other;
    struct arena arena;
};

static const struct message_id life_1 = {7, 1}, life_2 = {7, 2};

static struct member_settings settings_of(const char *name)
{
    return (struct member_settings){.name = slice_from_text(name),
                                    .site = SLICE_LITERAL("oslo"),
                                    .version = SLICE_LITERAL("1.0"),
                                    .roles = NODE_ROLE_NODE,
                                    .instance = {3, (uint64_t)name[1]},
                                    .place = SLICE_LITERAL("a \"place\""),
                                    .machine = SLICE_LITERAL("machine")};
}

static struct database *connect_to(const struct postgres *server)
{
    char problem[MEMBER_TEXT_SIZE];
    struct database_settings settings = {.conninfo = slice_from_text(postgres_conninfo(server)),
                                         .password = SLICE_EMPTY,
                                         .name = SLICE_LITERAL("test"),
                                         .connect_timeout_ms = LONG_MS};
    struct database *database = database_new(&settings);
    assert_non_null(database);
    assert_int_equal(member_sql_connect(database, problem), DATABASE_DONE);
    return database;
}

static void run(struct database *database, const char *sql)
{
    enum database_outcome outcome = database_run(database, sql, LONG_MS);
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %d %s", sql, outcome, database_error(database));
    }
}

static int join(struct scene *scene, const char *name, struct message_id life)
{
    struct member_settings settings = settings_of(name);
    struct member_sql_name found;
    bool joined = false;
    assert_int_equal(member_sql_find(scene->database, &settings, &found), DATABASE_DONE);
    assert_true(found.known);
    assert_int_equal(member_sql_join(scene->database, &settings, &found, life, -1, &joined),
                     DATABASE_DONE);
    assert_true(joined);
    return found.number;
}

/* Two nodes, 1 and 2, and the shares 1 (the leader), 2, 3, 4. */
static int begin(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    assert_non_null(scene);
    scene->server = postgres_new("fsync = off\n"); /* a busy disk is no matter here */
    assert_non_null(scene->server);
    scene->database = connect_to(scene->server);
    scene->other = connect_to(scene->server);
    arena_init(&scene->arena);
    assert_int_equal(join(scene, "n1", life_1), 1);
    assert_int_equal(join(scene, "n2", life_2), 2);
    run(scene->database, "TRUNCATE holdfast.shares; INSERT INTO holdfast.shares (share, name,"
                         " family, part) VALUES (1, 'leader', 'leader', 0), (2, 'in:0', 'in', 0),"
                         " (3, 'in:1', 'in', 1), (4, 'out:0', 'out', 0)");
    *state = scene;
    return 0;
}

static int end(void **state)
{
    struct scene *scene = *state;
    arena_done(&scene->arena);
    database_free(scene->database);
    database_free(scene->other);
    postgres_free(scene->server);
    free(scene);
    return 0;
}

static struct view read_view(struct scene *scene)
{
    struct view view;
    uint64_t server = 0;
    arena_reset(&scene->arena);
    assert_int_equal(member_sql_read(scene->database, &scene->arena, 1, &view, &server),
                     DATABASE_DONE);
    assert_true(server != 0);
    return view;
}

static struct member_sql_claim claim_of(uint32_t share, int64_t token, int owner, int64_t beat_us)
{
    return (struct member_sql_claim){.step = {HOLDING_CLAIM, share, token, owner, beat_us, 0}};
}

static bool claim(struct scene *scene, int own, struct message_id life, uint32_t share,
                  int64_t token, int owner, int64_t beat_us)
{
    struct member_sql_claim one = claim_of(share, token, owner, beat_us);
    assert_int_equal(member_sql_claim(scene->database, own, life, &one, 1), DATABASE_DONE);
    assert_true(!one.done || one.token == token + 1);
    return one.done;
}

static bool renew(struct scene *scene, int number, struct message_id life)
{
    struct member_settings settings = settings_of(number == 1 ? "n1" : "n2");
    struct node_health health = {1, 2, 3, 4, 5, -6, 7, 8, 9, 10, 11, 12};
    struct member_word word = {.good_until_ms = INT64_MAX};
    bool ours = false;
    int64_t wall_us = 0;
    assert_int_equal(
        member_sql_renew(scene->database, &settings, number, life, &health, &word, &ours, &wall_us),
        DATABASE_DONE);
    assert_true(!ours || wall_us > 1600000000000000);
    return ours;
}

/* What it says of mail to be brought, carried out in time or too late. */
static int64_t behind_of(struct scene *scene, int64_t behind_ms, bool late)
{
    struct member_settings settings = settings_of("n1");
    struct node_health health = {.behind_ms = behind_ms};
    struct member_word word = {(clock_wall_ms() + (late ? -1 : 1) * LONG_MS), 700};
    bool ours;
    int64_t wall_us;
    assert_int_equal(
        member_sql_renew(scene->database, &settings, 1, life_1, &health, &word, &ours, &wall_us),
        DATABASE_DONE);
    assert_true(ours);
    return read_view(scene).members[0].health.behind_ms;
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void a_view_has_all_that_was_written(void **state)
{
    struct scene *scene = *state;
    assert_true(renew(scene, 1, life_1));
    assert_true(claim(scene, 1, life_1, 4, 0, 0, 0));
    struct view view = read_view(scene);
    assert_int_equal(view.member_count, 2);
    const struct view_member *n1 = &view.members[0];
    assert_true(slice_equal(n1->name, SLICE_LITERAL("n1")));
    assert_true(slice_equal(n1->site, SLICE_LITERAL("oslo")));
    assert_true(slice_equal(n1->version, SLICE_LITERAL("1.0")));
    assert_true(slice_equal(n1->place, SLICE_LITERAL("a \"place\"")));
    assert_int_equal(n1->roles, NODE_ROLE_NODE);
    assert_true(n1->has_beat && n1->schema > 0);
    assert_in_range(n1->age_ms, 0, LONG_MS);
    assert_int_equal(n1->health.messages, 1);
    assert_int_equal(n1->health.disk_bytes, 5);
    assert_int_equal(n1->health.clock_offset_ms, -6);
    assert_int_equal(n1->health.database_lag_ms, 7);
    assert_int_equal(n1->health.behind_ms, 12);
    assert_int_equal(view.members[1].health.messages, -1);
    assert_int_equal(view.share_count, 4);
    assert_int_equal(view.shares[3].number, 4); /* in, in, leader, out */
    assert_int_equal(view.shares[3].owner, 1);
    assert_int_equal(view.shares[3].token, 1);
}

/* Another version's words, and shares that are none for us. */
static void strange_rows_do_no_harm(void **state)
{
    struct scene *scene = *state;
    run(scene->database, "UPDATE holdfast.heartbeats SET data = '{\"messages\": \"x\", \"disk\":"
                         " 1.5, \"deliveries\": 9, \"journalled\": 1e40}' WHERE node = 1;"
                         "INSERT INTO holdfast.shares (share, name, family, part)"
                         " VALUES (5, 'new:0', 'new', 0), (6, 'in@x', 'in', 5)");
    struct view view = read_view(scene);
    assert_int_equal(view.members[0].health.messages, -1);
    assert_int_equal(view.members[0].health.deliveries, 9);
    assert_int_equal(view.members[0].health.disk_bytes, -1);
    assert_int_equal(view.members[0].place.length, 0);
    assert_int_equal(view.share_count, 4);
}

/* A share that is given must not be given once more by the same token after a crash of the
 * database.
 */
static void what_is_given_lasts_whatever_the_role_says(void **state)
{
    struct scene *scene = *state;
    const struct database_rows *rows;
    run(scene->database, "ALTER ROLE CURRENT_USER SET synchronous_commit TO off");
    struct database *database = connect_to(scene->server);
    assert_int_equal(database_query(database, "SHOW synchronous_commit", NULL, 0, LONG_MS, &rows),
                     DATABASE_DONE);
    assert_true(slice_equal(database_get_slice(rows, 0, 0), SLICE_LITERAL("on")));
    run(scene->database, "ALTER ROLE CURRENT_USER SET synchronous_commit TO remote_apply");
    database_disconnect(database);
    char problem[MEMBER_TEXT_SIZE];
    assert_int_equal(member_sql_connect(database, problem), DATABASE_DONE);
    assert_int_equal(database_query(database, "SHOW synchronous_commit", NULL, 0, LONG_MS, &rows),
                     DATABASE_DONE);
    assert_true(slice_equal(database_get_slice(rows, 0, 0), SLICE_LITERAL("remote_apply")));
    database_free(database);
}

static void a_renewal_is_of_one_life(void **state)
{
    struct scene *scene = *state;
    assert_true(renew(scene, 1, life_1));
    assert_false(renew(scene, 1, life_2));
    int64_t up_ms = read_view(scene).members[0].up_ms;
    usleep(20000);
    assert_true(renew(scene, 1, life_1));
    assert_true(read_view(scene).members[0].up_ms > up_ms);
    run(scene->database, "UPDATE holdfast.heartbeats SET beat = beat - interval '4 s'");
    assert_true(renew(scene, 1, life_1));
    assert_int_equal(read_view(scene).members[0].up_ms, 0);
    /* The clock has gone back. */
    run(scene->database, "UPDATE holdfast.heartbeats SET beat = beat + interval '1 h',"
                         " since = since + interval '1 h'");
    assert_true(renew(scene, 1, life_1));
    assert_int_equal(read_view(scene).members[0].up_ms, 0);
    /* Who was found by another is not joined by the first. */
    struct member_settings settings = settings_of("n1");
    struct member_sql_name found;
    bool joined = true;
    assert_int_equal(member_sql_find(scene->database, &settings, &found), DATABASE_DONE);
    assert_true(id_equal(found.incarnation, life_1));
    assert_string_equal(found.machine, "machine");
    assert_int_equal(join(scene, "n1", life_2), 1);
    assert_int_equal(member_sql_join(scene->database, &settings, &found, life_1, -1, &joined),
                     DATABASE_DONE);
    assert_false(joined);
    assert_false(renew(scene, 1, life_1));
    assert_true(renew(scene, 1, life_2));
}

/* By then mail may have come that it knows nothing of. */
static void a_word_that_comes_late_is_not_believed(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(behind_of(scene, -1, false), -1);
    assert_int_equal(behind_of(scene, 500, false), 500);
    assert_int_equal(behind_of(scene, -1, true), 700);
    assert_int_equal(behind_of(scene, 500, true), 500);
    assert_int_equal(behind_of(scene, 900, true), 700);
    assert_int_equal(behind_of(scene, 900, false), 900);
}

static void a_share_is_given_by_token_and_heartbeat(void **state)
{
    struct scene *scene = *state;
    assert_true(claim(scene, 2, life_2, 2, 0, 0, 0));
    assert_false(claim(scene, 2, life_2, 2, 0, 0, 0)); /* the token is another now */
    int64_t beat_us = read_view(scene).members[1].beat_us;
    assert_false(claim(scene, 1, life_1, 2, 1, 2, beat_us - 1));
    assert_false(claim(scene, 1, life_1, 2, 0, 2, beat_us));
    assert_false(claim(scene, 1, life_1, 2, 1, 0, 0));       /* judged as nobody's */
    assert_false(claim(scene, 1, life_2, 2, 1, 2, beat_us)); /* not by this life */
    assert_true(renew(scene, 2, life_2));
    assert_false(claim(scene, 1, life_1, 2, 1, 2, beat_us));
    beat_us = read_view(scene).members[1].beat_us;
    assert_true(claim(scene, 1, life_1, 2, 1, 2, beat_us));
    assert_true(claim(scene, 1, life_1, 2, 2, 1, 0)); /* ours: anew */
}

static void a_share_is_given_up_by_token(void **state)
{
    struct scene *scene = *state;
    assert_true(claim(scene, 1, life_1, 2, 0, 0, 0));
    assert_true(claim(scene, 1, life_1, 3, 0, 0, 0));
    struct member_sql_release releases[] = {{2, 1}, {3, 0}};
    assert_int_equal(member_sql_release(scene->database, 2, releases, 2), DATABASE_DONE);
    assert_int_equal(read_view(scene).shares[0].owner, 1);
    assert_int_equal(member_sql_release(scene->database, 1, releases, 2), DATABASE_DONE);
    struct view view = read_view(scene);
    assert_int_equal(view.shares[0].owner, 0);
    assert_int_equal(view.shares[0].token, 1);
    assert_int_equal(view.shares[1].owner, 1);
    assert_int_equal(member_sql_leave(scene->database, 1, life_2), DATABASE_DONE);
    assert_true(read_view(scene).members[0].has_beat);
    assert_int_equal(member_sql_leave(scene->database, 1, life_1), DATABASE_DONE);
    view = read_view(scene);
    assert_false(view.members[0].has_beat);
    assert_int_equal(view.shares[1].owner, 0);
    assert_false(renew(scene, 1, life_1));
}

/* What another transaction has locked is for the next round; the rest is taken. */
static void a_locked_share_is_passed_over(void **state)
{
    struct scene *scene = *state;
    run(scene->other, "SET idle_in_transaction_session_timeout = 0; BEGIN;"
                      "SELECT * FROM holdfast.shares WHERE share = 2 FOR SHARE");
    struct member_sql_claim two[] = {claim_of(2, 0, 0, 0), claim_of(3, 0, 0, 0)};
    assert_int_equal(member_sql_claim(scene->database, 1, life_1, two, 2), DATABASE_DONE);
    assert_false(two[0].done);
    assert_true(two[1].done);
    run(scene->other, "COMMIT");
    assert_true(claim(scene, 1, life_1, 2, 0, 0, 0));
}

struct claiming {
    struct scene *scene;
    int64_t beat_us;
    struct member_sql_claim claim;
    enum database_outcome outcome;
};

static void *claim_meanwhile(void *context)
{
    struct claiming *claiming = context;
    claiming->claim = claim_of(2, 1, 2, claiming->beat_us);
    claiming->outcome = member_sql_claim(claiming->scene->database, 1, life_1, &claiming->claim, 1);
    return NULL;
}

static bool somebody_waits(struct database *database)
{
    const struct database_rows *rows;
    assert_int_equal(database_query(database, "SELECT count(*) FROM pg_locks WHERE NOT granted",
                                    NULL, 0, LONG_MS, &rows),
                     DATABASE_DONE);
    return database_get_int(rows, 0, 0) > 0;
}

/* Judged dead, and just renewing: the claim waits for the renewal, and then it is not judged any
 * more. */
static void a_renewal_under_way_wins(void **state)
{
    struct scene *scene = *state;
    pthread_t thread;
    assert_true(claim(scene, 2, life_2, 2, 0, 0, 0));
    struct claiming claiming = {.scene = scene, .beat_us = read_view(scene).members[1].beat_us};
    run(scene->database, "SET lock_timeout = 0");
    run(scene->other, "SET idle_in_transaction_session_timeout = 0; BEGIN;"
                      "UPDATE holdfast.heartbeats SET beat = clock_timestamp() WHERE node = 2");
    assert_int_equal(pthread_create(&thread, NULL, claim_meanwhile, &claiming), 0);
    for (int i = 0; i < 300 && !somebody_waits(scene->other); i++) {
        usleep(5000);
    }
    run(scene->other, "COMMIT");
    pthread_join(thread, NULL);
    assert_false(claiming.claim.done);
    /* If it did not come to wait in time, it was because it got no answer in time. */
    assert_true(claiming.outcome == DATABASE_DONE || claiming.outcome == DATABASE_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_view_has_all_that_was_written, begin, end),
        cmocka_unit_test_setup_teardown(strange_rows_do_no_harm, begin, end),
        cmocka_unit_test_setup_teardown(what_is_given_lasts_whatever_the_role_says, begin, end),
        cmocka_unit_test_setup_teardown(a_renewal_is_of_one_life, begin, end),
        cmocka_unit_test_setup_teardown(a_word_that_comes_late_is_not_believed, begin, end),
        cmocka_unit_test_setup_teardown(a_share_is_given_by_token_and_heartbeat, begin, end),
        cmocka_unit_test_setup_teardown(a_share_is_given_up_by_token, begin, end),
        cmocka_unit_test_setup_teardown(a_locked_share_is_passed_over, begin, end),
        cmocka_unit_test_setup_teardown(a_renewal_under_way_wins, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
