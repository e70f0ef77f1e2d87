/* SPDX-License-Identifier: Apache-2.0
 *
 * Members as processes of their own on a PostgreSQL of the test's own. After each test, whatever
 * was killed, paused or cut off in it: no two have ever had a share with one token, and at no
 * moment did two believe that they may deliver for one share.
 */
#include "member_process.h"

#include "sys/clock.h"
#include "tests/sys/postgres.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONG_MS = 90000, PROCESSES = 10, ALL_SHARES = 128 };

struct scene {
    struct postgres *server;
    struct database *database; /* the test's own */
    struct process *processes[PROCESSES];
    size_t count;
};

/* ---- the scene ------------------------------------------------------------------------------ */

static void connect_to(struct scene *scene)
{
    if (!database_is_connected(scene->database)) {
        assert_int_equal(database_connect(scene->database), DATABASE_DONE);
    }
}

static void run(struct scene *scene, const char *sql)
{
    connect_to(scene);
    enum database_outcome outcome = database_run(scene->database, sql, LONG_MS);
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %d %s", sql, outcome, database_error(scene->database));
    }
}

static int64_t number(struct scene *scene, const char *sql)
{
    const struct database_rows *rows;
    connect_to(scene);
    assert_int_equal(database_query(scene->database, sql, NULL, 0, LONG_MS, &rows), DATABASE_DONE);
    return database_count(rows) == 0 ? 0 : database_get_int(rows, 0, 0);
}

static int begin(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    assert_non_null(scene);
    /* Members lose their leases on a disk that stands still, which is no matter here; a server that
     * is killed loses nothing by it. */
    scene->server = postgres_new("fsync = off\n");
    if (scene->server == NULL) {
        free(scene);
        return -1;
    }
    struct database_settings settings = {.conninfo =
                                             slice_from_text(postgres_conninfo(scene->server)),
                                         .password = SLICE_EMPTY,
                                         .name = SLICE_LITERAL("test"),
                                         .connect_timeout_ms = LONG_MS};
    scene->database = database_new(&settings);
    assert_non_null(scene->database);
    *state = scene;
    return 0;
}

static bool overlap(const struct belief *a, const struct belief *b)
{
    return a->share == b->share && a->first_ns <= b->last_ns && b->first_ns <= a->last_ns;
}

static void check_pair(const struct process *a, const struct process *b)
{
    for (int i = 0; i < a->report->belief_count; i++) {
        for (int j = 0; j < b->report->belief_count; j++) {
            const struct belief *x = &a->report->beliefs[i];
            const struct belief *y = &b->report->beliefs[j];
            if (x->share == y->share && x->token == y->token) {
                fail_msg("share %u has token %lld twice", x->share, (long long)x->token);
            }
            if (overlap(x, y)) {
                fail_msg("share %u: %s until %lld, %s from %lld (ns)", x->share, a->name,
                         (long long)x->last_ns, b->name, (long long)y->first_ns);
            }
        }
    }
}

static int end(void **state)
{
    struct scene *scene = *state;
    int beliefs = 0;
    for (size_t i = 0; i < scene->count; i++) {
        for (size_t j = i + 1; j < scene->count; j++) {
            check_pair(scene->processes[i], scene->processes[j]);
        }
        beliefs += scene->processes[i]->report->belief_count;
    }
    printf("    %d stretches of time in which one might deliver for a share\n", beliefs);
    assert_true(beliefs > 0);
    for (size_t i = 0; i < scene->count; i++) {
        process_free(scene->processes[i]);
    }
    database_free(scene->database);
    postgres_free(scene->server);
    free(scene);
    return 0;
}

static struct process *start_as(struct scene *scene, const struct process_settings *settings)
{
    struct process_settings own = *settings;
    if (own.conninfo == NULL) {
        own.conninfo = postgres_conninfo(scene->server);
    }
    assert_true(scene->count < PROCESSES);
    struct process *process = process_new(&own);
    scene->processes[scene->count++] = process;
    return process;
}

/* One state directory for each name, all on one machine. */
static struct process_settings settings_of(const char *name)
{
    return (struct process_settings){
        .name = name,
        .machine = "here",
        .roles = NODE_ROLE_NODE | NODE_ROLE_HUB,
        .instance = {1, (uint64_t)name[1]},
    };
}

static struct process *start(struct scene *scene, const char *name)
{
    struct process_settings settings = settings_of(name);
    return start_as(scene, &settings);
}

/* Conditions that a test waits for. */
#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int64_t until_ms = clock_steady_ms() + LONG_MS;                                            \
        while (!(condition)) {                                                                     \
            if (clock_steady_ms() > until_ms) {                                                    \
                fail_msg("line %d: never true: %s", __LINE__, #condition);                         \
            }                                                                                      \
            usleep(5000);                                                                          \
        }                                                                                          \
    } while (false)

static void make_shares(struct scene *scene)
{
    run(scene, "INSERT INTO holdfast.shares (name, family, part)"
               " SELECT f || ':' || k, f, k FROM unnest(ARRAY['in', 'out']) f,"
               " generate_series(0, 63) k");
}

/* Three members, which share everything. */
static void start_three(struct scene *scene)
{
    static const char *const names[] = {"n1", "n2", "n3"};
    for (int i = 0; i < 3; i++) {
        start(scene, names[i]);
    }
    for (int i = 0; i < 3; i++) {
        WAIT_UNTIL(scene->processes[i]->report->number > 0);
    }
    make_shares(scene);
    /* Who was there first may have taken it all; the others get theirs when they are settled. */
    for (int i = 0; i < 3; i++) {
        WAIT_UNTIL(scene->processes[i]->report->shares >= 42 &&
                   scene->processes[i]->report->shares <= 44);
    }
    for (int i = 0; i < 3; i++) {
        WAIT_UNTIL(scene->processes[i]->report->may);
    }
}

static int leaders(const struct scene *scene)
{
    int count = 0;
    for (size_t i = 0; i < scene->count; i++) {
        count += scene->processes[i]->pid != 0 && scene->processes[i]->report->leads;
    }
    return count;
}

static struct told *told(struct process *process, enum member_news_kind kind)
{
    return &process->report->news[kind];
}

static size_t lanes_listed(const struct process *by, const char *name)
{
    for (int i = 0; i < by->report->nodes_listed; i++) {
        if (strcmp(by->report->nodes[i].name, name) == 0) {
            return by->report->nodes[i].lanes;
        }
    }
    return SIZE_MAX;
}

static int state_listed(const struct process *by, const char *name)
{
    for (int i = 0; i < by->report->nodes_listed; i++) {
        if (strcmp(by->report->nodes[i].name, name) == 0) {
            return (int)by->report->nodes[i].state;
        }
    }
    return -1;
}

/* ---- members that go ------------------------------------------------------------------------ */

static void a_killed_members_shares_move(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    struct process *n1 = scene->processes[0], *n2 = scene->processes[1], *n3 = scene->processes[2];
    WAIT_UNTIL(leaders(scene) == 1);
    /* Long enough in contact to judge. */
    WAIT_UNTIL(state_listed(n2, "n3") == NODE_UP && state_listed(n3, "n2") == NODE_UP);
    int had = n1->report->shares;
    int64_t killed_ms = clock_steady_ms();
    process_kill(n1);
    WAIT_UNTIL(n2->report->shares + n3->report->shares == ALL_SHARES);
    printf("    %d shares of a killed member were taken after %lld ms\n", had,
           (long long)(clock_steady_ms() - killed_ms));
    WAIT_UNTIL(n2->report->shares == 64 && n3->report->shares == 64);
    WAIT_UNTIL(told(n2, MEMBER_TAKEN_OVER)->count == 1 && told(n3, MEMBER_TAKEN_OVER)->count == 1);
    assert_string_equal(told(n2, MEMBER_TAKEN_OVER)->node, "n1");
    assert_int_equal(told(n2, MEMBER_TAKEN_OVER)->shares, had);
    assert_int_equal(told(n2, MEMBER_NODE_DOWN)->count, 1);
    assert_int_equal(told(n2, MEMBER_NODE_DOWN)->shares, had);
    printf("    told: %lld ms after its last heartbeat\n",
           (long long)told(n2, MEMBER_TAKEN_OVER)->after_ms);
    assert_int_equal(state_listed(n2, "n1"), NODE_DOWN);
    WAIT_UNTIL(leaders(scene) == 1);
    /* It comes again, under its number, and gets its part when it has stayed a while. */
    struct process *again = start(scene, "n1");
    WAIT_UNTIL(again->report->number > 0);
    assert_int_equal(again->report->number, n1->report->number);
    WAIT_UNTIL(told(n2, MEMBER_NODE_BACK)->count >= 1);
    WAIT_UNTIL(again->report->shares >= 42);
    assert_int_equal(told(n2, MEMBER_TAKEOVER_LATE)->count, 0);
}

/* At once, with new tokens; nobody else comes in between. */
static void a_restarted_member_takes_its_own(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    struct process *n1 = scene->processes[0], *n2 = scene->processes[1];
    int64_t killed_ms = clock_steady_ms();
    process_kill(n1);
    struct process *again = start(scene, "n1");
    WAIT_UNTIL(again->report->shares >= 42 && again->report->may);
    bool is_quick = clock_steady_ms() - killed_ms < LEASE_MS - LEASE_BEAT_MS;
    assert_true(told(n2, MEMBER_NODE_DOWN)->count == 0 || !is_quick);
    assert_int_equal(again->report->number, n1->report->number);
}

static void a_stopped_member_knows_when_it_wakes(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    struct process *n1 = scene->processes[0], *n2 = scene->processes[1], *n3 = scene->processes[2];
    kill(n1->pid, SIGSTOP);
    WAIT_UNTIL(n2->report->shares + n3->report->shares == ALL_SHARES);
    WAIT_UNTIL(n2->report->may && n3->report->may);
    sleep(6);
    kill(n1->pid, SIGCONT);
    WAIT_UNTIL(told(n1, MEMBER_SPLIT)->count >= 1);
    WAIT_UNTIL(told(n1, MEMBER_HEALED)->count >= 1);
    WAIT_UNTIL(n1->report->lost > 0);
    /* It is given its part anew. */
    WAIT_UNTIL(told(n2, MEMBER_NODE_BACK)->count >= 1);
    WAIT_UNTIL(n1->report->shares >= 42 && n1->report->shares <= 43 && n1->report->may);
}

static void who_stops_in_order_is_not_waited_for(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    struct process *n1 = scene->processes[0], *n2 = scene->processes[1], *n3 = scene->processes[2];
    int64_t stopped_ms = clock_steady_ms();
    process_command(n1, 'S', "");
    WAIT_UNTIL(n1->report->stopped);
    WAIT_UNTIL(n2->report->shares + n3->report->shares == ALL_SHARES);
    printf("    its shares were taken after %lld ms\n",
           (long long)(clock_steady_ms() - stopped_ms));
    WAIT_UNTIL(told(n2, MEMBER_NODE_LEFT)->count == 1);
    assert_int_equal(told(n2, MEMBER_NODE_DOWN)->count, 0);
    assert_int_equal(waitpid(n1->pid, NULL, 0), n1->pid);
    n1->pid = 0;
}

/* ---- names ---------------------------------------------------------------------------------- */

static void a_second_one_of_the_name_is_refused(void **state)
{
    struct scene *scene = *state;
    struct process *first = start(scene, "n1");
    WAIT_UNTIL(first->report->number == 1);
    make_shares(scene);
    WAIT_UNTIL(first->report->shares == ALL_SHARES && first->report->may);
    struct process_settings settings = settings_of("n1");
    settings.instance.low = 99;
    struct process *second = start_as(scene, &settings);
    WAIT_UNTIL(told(second, MEMBER_REFUSED)->count == 1);
    char place[64];
    snprintf(place, sizeof(place), "alive at test, pid %d, since ", (int)first->pid);
    assert_non_null(strstr(told(second, MEMBER_REFUSED)->text, place));
    /* The disk of the first, copied to another machine. */
    settings = settings_of("n1");
    settings.machine = "there";
    struct process *third = start_as(scene, &settings);
    WAIT_UNTIL(told(third, MEMBER_REFUSED)->count == 1);
    assert_non_null(strstr(told(third, MEMBER_REFUSED)->text, "this very node"));
    process_kill(third);
    assert_int_equal(second->report->number, 0);
    assert_int_equal(first->report->shares, ALL_SHARES);
    process_kill(first);
    WAIT_UNTIL(second->report->number == 1 && second->report->shares == ALL_SHARES);
    assert_int_equal(told(second, MEMBER_REFUSED)->count, 1);
}

static void a_removed_node_stays_away(void **state)
{
    struct scene *scene = *state;
    struct process *n1 = start(scene, "n1"), *n2 = start(scene, "n2");
    WAIT_UNTIL(n1->report->number > 0 && n2->report->number > 0);
    make_shares(scene);
    WAIT_UNTIL(n1->report->shares == 64 && n2->report->shares == 64);
    process_command(n1, 'R', "n3");
    WAIT_UNTIL(n1->report->answers == 1);
    assert_int_equal(n1->report->answer, MEMBER_MISSING);
    WAIT_UNTIL(n1->report->nodes_listed == 2);
    process_command(n1, 'R', "n2");
    WAIT_UNTIL(n1->report->answers == 2);
    assert_int_equal(n1->report->answer, MEMBER_ALIVE);
    process_kill(n2);
    WAIT_UNTIL(state_listed(n1, "n2") == NODE_DOWN);
    process_command(n1, 'R', "n2");
    WAIT_UNTIL(n1->report->answers == 3);
    assert_int_equal(n1->report->answer, MEMBER_DONE);
    assert_int_equal(n1->report->answer_number, n2->report->number);
    WAIT_UNTIL(n1->report->nodes_listed == 1);
    struct process *again = start(scene, "n2");
    WAIT_UNTIL(told(again, MEMBER_REFUSED)->count == 1);
    assert_non_null(strstr(told(again, MEMBER_REFUSED)->text, "removed"));
    process_command(n1, 'U', "n2");
    WAIT_UNTIL(again->report->number == n2->report->number);
}

static void a_drained_member_is_left(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    struct process *n1 = scene->processes[0], *n2 = scene->processes[1], *n3 = scene->processes[2];
    process_command(n2, 'D', "n1");
    WAIT_UNTIL(n1->report->shares == 0 && !n1->report->leads);
    WAIT_UNTIL(n2->report->shares + n3->report->shares == ALL_SHARES);
    WAIT_UNTIL(state_listed(n3, "n1") == NODE_DRAINING && lanes_listed(n3, "n1") == 0);
    assert_int_equal(n2->report->answer, MEMBER_DONE);
    process_command(n2, 'U', "n1");
    WAIT_UNTIL(n1->report->shares >= 42);
    process_command(n2, 'D', "n9");
    WAIT_UNTIL(n2->report->answers == 3);
    assert_int_equal(n2->report->answer, MEMBER_MISSING);
}

static void a_share_gets_its_row_when_it_is_named(void **state)
{
    struct scene *scene = *state;
    struct process *n1 = start(scene, "n1");
    WAIT_UNTIL(n1->report->number == 1 && n1->report->leads);
    process_command(n1, 'N', "in@n1,n2:7");
    WAIT_UNTIL(n1->report->answers == 1);
    assert_int_equal(n1->report->answer, MEMBER_DONE);
    int64_t share = n1->report->answer_number;
    assert_int_equal(share, number(scene, "SELECT share FROM holdfast.shares WHERE family = 'in'"
                                          " AND \"group\" = 'n1,n2' AND part = 7"));
    WAIT_UNTIL(n1->report->shares == 1 && n1->report->may);
    process_command(n1, 'N', "in@n1,n2:7");
    WAIT_UNTIL(n1->report->answers == 2);
    assert_int_equal(n1->report->answer_number, share);
    process_command(n1, 'N', "in@n2,n1:7");
    WAIT_UNTIL(n1->report->answers == 3);
    assert_int_equal(n1->report->answer, MEMBER_MISSING);
    assert_string_equal(n1->report->nodes[0].version, "1.2.3");
    assert_int_equal(n1->report->nodes[0].messages, 42);
    assert_true(n1->report->nodes[0].leader);
}

/* ---- a database that is away ---------------------------------------------------------------- */

static void wait_for_all(struct scene *scene, enum member_news_kind kind, int count)
{
    for (size_t i = 0; i < scene->count; i++) {
        WAIT_UNTIL(told(scene->processes[i], kind)->count >= count);
    }
}

/* Shares may still be handed on so that all have as many; taken they are not. */
static void check_nothing_was_taken(struct scene *scene)
{
    for (size_t i = 0; i < scene->count; i++) {
        WAIT_UNTIL(scene->processes[i]->report->may);
    }
    usleep((LEASE_CONTACT_MS + LEASE_MS) * 1000); /* for who would take what it should not */
    for (size_t i = 0; i < scene->count; i++) {
        assert_int_equal(told(scene->processes[i], MEMBER_NODE_DOWN)->count, 0);
        assert_int_equal(scene->processes[i]->report->lost, 0);
        WAIT_UNTIL(scene->processes[i]->report->shares >= 42);
    }
}

static void nobody_takes_anything_while_the_database_is_away(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    postgres_pause(scene->server);
    wait_for_all(scene, MEMBER_AWAY, 1);
    wait_for_all(scene, MEMBER_SPLIT, 1);
    for (size_t i = 0; i < scene->count; i++) {
        WAIT_UNTIL(!scene->processes[i]->report->may);
        assert_true(scene->processes[i]->report->shares > 0);
        assert_true(told(scene->processes[i], MEMBER_AWAY)->text[0] != '\0');
    }
    printf("    away: %s\n", told(scene->processes[0], MEMBER_AWAY)->text);
    process_command(scene->processes[0], 'D', "n2");
    WAIT_UNTIL(scene->processes[0]->report->answers == 1);
    assert_int_equal(scene->processes[0]->report->answer, MEMBER_UNREACHABLE);
    postgres_resume(scene->server);
    wait_for_all(scene, MEMBER_HERE, 1);
    wait_for_all(scene, MEMBER_HEALED, 1);
    database_disconnect(scene->database);
    check_nothing_was_taken(scene);
    postgres_kill(scene->server);
    wait_for_all(scene, MEMBER_SPLIT, 2);
    postgres_start(scene->server);
    wait_for_all(scene, MEMBER_HEALED, 2);
    database_disconnect(scene->database);
    check_nothing_was_taken(scene);
}

/* Who asked waits for it, and has memory of it. */
static void a_command_under_way_is_answered_at_the_end(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    struct process *n1 = scene->processes[0];
    postgres_pause(scene->server);
    process_command(n1, 'D', "n2");
    process_command(n1, 'S', "");
    assert_int_equal(waitpid(n1->pid, NULL, 0), n1->pid);
    n1->pid = 0;
    postgres_resume(scene->server);
    assert_true(n1->report->stopped);
    assert_int_equal(n1->report->answers, 1);
    assert_int_equal(n1->report->answer, MEMBER_UNREACHABLE);
}

/* What it writes is confirmed by no other database: the lease is worth nothing. And then it can
 * only be read. */
static void a_heartbeat_that_is_not_safe_does_not_count(void **state)
{
    struct scene *scene = *state;
    start_three(scene);
    run(scene, "SET synchronous_commit = local");
    run(scene, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    run(scene, "SELECT pg_reload_conf()");
    wait_for_all(scene, MEMBER_SPLIT, 1);
    run(scene, "ALTER SYSTEM RESET synchronous_standby_names");
    run(scene, "SELECT pg_reload_conf()");
    wait_for_all(scene, MEMBER_HEALED, 1);
    check_nothing_was_taken(scene);
    run(scene, "ALTER SYSTEM SET default_transaction_read_only = on");
    run(scene, "SELECT pg_reload_conf()");
    wait_for_all(scene, MEMBER_SPLIT, 2);
    printf("    away: %s\n", told(scene->processes[0], MEMBER_AWAY)->text);
    run(scene, "SET default_transaction_read_only = off");
    run(scene, "ALTER SYSTEM RESET default_transaction_read_only");
    run(scene, "SELECT pg_reload_conf()");
    wait_for_all(scene, MEMBER_HEALED, 2);
    check_nothing_was_taken(scene);
}

/* Told once, tried on, and in when there is room. */
static void who_finds_no_room_says_so(void **state)
{
    struct scene *scene = *state;
    char conninfo[256];
    run(scene,
        "CREATE ROLE few LOGIN CONNECTION LIMIT 0; GRANT CREATE ON DATABASE postgres TO few");
    snprintf(conninfo, sizeof(conninfo), "host=%s dbname=postgres user=few",
             postgres_host(scene->server));
    struct process_settings settings = settings_of("n1");
    settings.conninfo = conninfo;
    struct process *n1 = start_as(scene, &settings);
    WAIT_UNTIL(told(n1, MEMBER_AWAY)->count == 1);
    assert_non_null(strstr(told(n1, MEMBER_AWAY)->text, "no room for us"));
    sleep(4);
    assert_int_equal(told(n1, MEMBER_AWAY)->count, 1);
    run(scene, "ALTER ROLE few CONNECTION LIMIT 5");
    WAIT_UNTIL(n1->report->number == 1 && told(n1, MEMBER_HERE)->count == 1);
    process_command(n1, 'N', "out:1");
    WAIT_UNTIL(n1->report->shares == 1 && n1->report->may);
}

static void a_clock_hours_off_does_no_harm(void **state)
{
    struct scene *scene = *state;
    struct process *n1 = start(scene, "n1");
    struct process_settings settings = settings_of("n2");
    settings.wall_ahead_ms = 7200000;
    struct process *n2 = start_as(scene, &settings);
    WAIT_UNTIL(n1->report->number > 0 && n2->report->number > 0);
    make_shares(scene);
    WAIT_UNTIL(n1->report->shares == 64 && n2->report->shares == 64);
    WAIT_UNTIL(n1->report->may && n2->report->may);
    WAIT_UNTIL(n1->report->nodes_listed == 2);
    int row = strcmp(n1->report->nodes[0].name, "n2") == 0 ? 0 : 1;
    WAIT_UNTIL(n1->report->nodes[row].clock_offset_ms > 7200000 - 60000 &&
               n1->report->nodes[row].clock_offset_ms < 7200000 + 60000);
    WAIT_UNTIL(lanes_listed(n1, "n2") == 64);
}

/* With an argument, only tests of that name. */
int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_killed_members_shares_move, begin, end),
        cmocka_unit_test_setup_teardown(a_restarted_member_takes_its_own, begin, end),
        cmocka_unit_test_setup_teardown(a_stopped_member_knows_when_it_wakes, begin, end),
        cmocka_unit_test_setup_teardown(who_stops_in_order_is_not_waited_for, begin, end),
        cmocka_unit_test_setup_teardown(a_second_one_of_the_name_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(a_removed_node_stays_away, begin, end),
        cmocka_unit_test_setup_teardown(a_drained_member_is_left, begin, end),
        cmocka_unit_test_setup_teardown(a_share_gets_its_row_when_it_is_named, begin, end),
        cmocka_unit_test_setup_teardown(nobody_takes_anything_while_the_database_is_away, begin,
                                        end),
        cmocka_unit_test_setup_teardown(a_command_under_way_is_answered_at_the_end, begin, end),
        cmocka_unit_test_setup_teardown(a_heartbeat_that_is_not_safe_does_not_count, begin, end),
        cmocka_unit_test_setup_teardown(who_finds_no_room_says_so, begin, end),
        cmocka_unit_test_setup_teardown(a_clock_hours_off_does_no_harm, begin, end),
    };
    cmocka_set_test_filter(getenv("FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
