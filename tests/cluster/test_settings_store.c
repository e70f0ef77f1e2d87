/* SPDX-License-Identifier: Apache-2.0
 *
 * Versions of the settings in a real database.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster/settings_store.h"
#include "tests/sys/postgres.h"

#include <stdio.h>
#include <stdlib.h>

enum { LONG_MS = 60000 };

#define N1 SLICE_LITERAL("n1")
#define N2 SLICE_LITERAL("n2")
#define ANN SLICE_LITERAL("ann@n1")

static struct database *database_to(const struct postgres *server)
{
    struct database_settings settings = {.conninfo = slice_from_text(postgres_conninfo(server)),
                                         .name = SLICE_LITERAL("test"),
                                         .connect_timeout_ms = LONG_MS};
    struct database *database = database_new(&settings);
    assert_non_null(database);
    assert_int_equal(database_connect(database), DATABASE_DONE);
    return database;
}

static void run(struct database *database, const char *sql)
{
    enum database_outcome outcome = database_run(database, sql, LONG_MS);
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %d %s", sql, outcome, database_error(database));
    }
}

/* An empty store. */
static struct database *fresh(void **state)
{
    char problem[DATABASE_ERROR_SIZE];
    struct database *database = database_to(*state);
    run(database, "DROP SCHEMA IF EXISTS holdfast CASCADE");
    assert_true(settings_store_connect(database, problem));
    assert_true(settings_store_connect(database, problem)); /* again does no harm */
    return database;
}

static bool make_from(struct database *database, uint64_t number, uint64_t made_from,
                      const char *text, const struct settings_file *files, uint32_t file_count)
{
    const struct settings_version version = {
        .number = number, .text = slice_from_text(text), .files = files, .file_count = file_count};
    bool made;
    assert_int_equal(
        settings_store_make(database, &version, made_from, ANN, SLICE_LITERAL("why not"), &made),
        DATABASE_DONE);
    return made;
}

static bool make_with(struct database *database, uint64_t number, const char *text,
                      const struct settings_file *files, uint32_t file_count)
{
    return make_from(database, number, number - 1, text, files, file_count);
}

static bool make(struct database *database, uint64_t number, const char *text)
{
    return make_with(database, number, text, NULL, 0);
}

static struct settings_heads heads(struct database *database, struct slice member)
{
    struct settings_heads heads;
    assert_int_equal(settings_store_heads(database, member, &heads), DATABASE_DONE);
    return heads;
}

static bool claim(struct database *database, uint64_t number, struct slice member)
{
    bool done;
    assert_int_equal(settings_store_claim(database, number, member, &done), DATABASE_DONE);
    return done;
}

static bool approve(struct database *database, uint64_t number, struct slice member)
{
    bool done;
    assert_int_equal(settings_store_approve(database, number, member, &done), DATABASE_DONE);
    return done;
}

static bool give_up(struct database *database, uint64_t number, struct slice member,
                    enum settings_state outcome)
{
    bool done;
    assert_int_equal(settings_store_give_up(database, number, member, outcome,
                                            SLICE_LITERAL("settings:3: no"), &done),
                     DATABASE_DONE);
    return done;
}

static void an_empty_store_has_no_heads(void **state)
{
    struct database *database = fresh(state);
    struct settings_heads none = heads(database, N1);
    assert_int_equal(none.newest, 0);
    assert_int_equal(none.approved, 0);
    struct buffer bytes;
    bool found;
    buffer_init(&bytes, 0);
    assert_int_equal(settings_store_fetch(database, 1, &bytes, &found), DATABASE_DONE);
    assert_false(found);
    buffer_done(&bytes);
    database_free(database);
}

static void a_version_comes_back_with_its_files(void **state)
{
    static struct settings_file files[SETTINGS_FILES_MAX];
    const struct settings_file two[] = {
        {SLICE_LITERAL("a.pem"), {(const uint8_t *)"x\0\xff", 3}},
        {SLICE_LITERAL("b"), SLICE_LITERAL("")},
    };
    struct database *database = fresh(state);
    assert_true(make_with(database, 1, "domain a { }\n", two, 2));
    assert_true(make_with(database, 2, "", two, 1));
    struct buffer bytes;
    bool found;
    buffer_init(&bytes, 0);
    assert_int_equal(settings_store_fetch(database, 1, &bytes, &found), DATABASE_DONE);
    assert_true(found);
    struct settings_version version;
    assert_int_equal(settings_version_get(buffer_slice(&bytes), &version, files), ERROR_NONE);
    assert_int_equal(version.number, 1);
    assert_true(slice_equal(version.text, SLICE_LITERAL("domain a { }\n")));
    assert_int_equal(version.file_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(slice_equal(version.files[i].name, two[i].name));
        assert_true(slice_equal(version.files[i].content, two[i].content));
    }
    buffer_done(&bytes);
    database_free(database);
}

static void of_two_made_at_once_one_is_told(void **state)
{
    struct database *a = fresh(state);
    struct database *b = database_to(*state);
    assert_true(make(a, 1, "one"));
    /* Who holds the place of 2, without an end yet. */
    run(a, "BEGIN; INSERT INTO holdfast.settings (version, author, comment, body)"
           " VALUES (2, 'x', '', '')");
    run(b, "SET lock_timeout = '300ms'");
    const struct settings_version second = {.number = 2, .text = SLICE_LITERAL("two")};
    bool made;
    assert_int_equal(settings_store_make(b, &second, 1, ANN, SLICE_EMPTY, &made), DATABASE_AGAIN);
    assert_false(made);
    run(a, "COMMIT");
    assert_false(make(b, 2, "two"));
    assert_false(make(b, 4, "beyond"));
    assert_true(make(b, 3, "three"));
    assert_int_equal(heads(a, N1).newest, 3);
    database_free(b);
    database_free(a);
}

static void one_member_tries_and_all_may_follow(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_int_equal(heads(database, N1).state, SETTINGS_NEW);
    assert_true(claim(database, 1, N1));
    assert_false(claim(database, 1, N2));
    assert_true(heads(database, N1).is_mine);
    assert_false(heads(database, N2).is_mine);
    assert_int_equal(heads(database, N2).approved, 0);
    assert_false(approve(database, 1, N2));
    assert_true(approve(database, 1, N1));
    assert_int_equal(heads(database, N2).approved, 1);
    assert_false(give_up(database, 1, N1, SETTINGS_BAD));
    /* The next one: not approved yet, and all stay with the first. */
    assert_true(make(database, 2, "two"));
    struct settings_heads now = heads(database, N2);
    assert_int_equal(now.newest, 2);
    assert_int_equal(now.approved, 1);
    database_free(database);
}

static void what_one_refuses_another_may_try(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_true(claim(database, 1, N1));
    assert_false(give_up(database, 1, N2, SETTINGS_NEW));
    assert_true(give_up(database, 1, N1, SETTINGS_NEW));
    assert_true(claim(database, 1, N2));
    assert_true(give_up(database, 1, N2, SETTINGS_NEW));
    /* Or this one itself, when what was missing is there. */
    assert_true(claim(database, 1, N1));
    assert_false(claim(database, 1, N2));
    assert_true(give_up(database, 1, N1, SETTINGS_NEW));
    assert_true(claim(database, 1, N2));
    assert_true(approve(database, 1, N2));
    database_free(database);
}

static void what_one_died_of_nobody_tries(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_true(claim(database, 1, N1));
    assert_true(give_up(database, 1, N1, SETTINGS_BAD));
    assert_int_equal(heads(database, N2).state, SETTINGS_BAD);
    assert_false(claim(database, 1, N2));
    assert_int_equal(heads(database, N2).approved, 0);
    /* Nor comes it into another; which has its turn when the member is back. */
    assert_false(make(database, 2, "two"));
    assert_true(make_from(database, 2, 0, "two", NULL, 0));
    assert_false(claim(database, 2, N2));
    run(database, "UPDATE holdfast.settings SET settled = settled - interval '29 s'");
    assert_false(claim(database, 2, N2));
    run(database, "UPDATE holdfast.settings SET settled = settled - interval '1 s'");
    assert_true(claim(database, 2, N2));
    database_free(database);
}

static void while_one_is_tried_there_is_no_other(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_true(claim(database, 1, N1));
    assert_false(make(database, 2, "two"));
    assert_false(make_from(database, 2, 0, "two", NULL, 0));
    /* As a program of the version before makes it. */
    run(database, "INSERT INTO holdfast.settings (version, author, comment, body)"
                  " VALUES (2, 'x', '', '')");
    assert_false(claim(database, 2, N2));
    assert_true(approve(database, 1, N1));
    assert_true(claim(database, 2, N2));
    database_free(database);
}

/* What nobody has tried is replaced, and claimed by nobody any more. */
static void a_new_one_is_replaced(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_false(make_from(database, 3, 1, "three", NULL, 0));
    assert_int_equal(heads(database, N1).state, SETTINGS_NEW); /* undone with it */
    assert_true(make(database, 2, "two"));
    assert_false(claim(database, 1, N1));
    assert_true(claim(database, 2, N1));
    assert_true(approve(database, 2, N1));
    /* One that was refused is left out; but not one that others live with meanwhile. */
    assert_true(make(database, 3, "three"));
    assert_true(claim(database, 3, N1));
    assert_true(give_up(database, 3, N1, SETTINGS_NEW));
    assert_true(make_from(database, 4, 2, "four", NULL, 0));
    assert_true(claim(database, 4, N1));
    assert_true(give_up(database, 4, N1, SETTINGS_NEW));
    assert_true(claim(database, 4, N2));
    assert_true(approve(database, 4, N2));
    assert_false(make_from(database, 5, 2, "five", NULL, 0));
    assert_true(make(database, 5, "five"));
    database_free(database);
}

static void who_does_not_come_back_is_not_waited_for(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_true(claim(database, 1, N1));
    run(database, "UPDATE holdfast.settings SET settled = settled - interval '100 s'");
    assert_false(heads(database, N2).is_overdue);
    assert_int_equal(settings_store_expire(database), DATABASE_DONE);
    assert_int_equal(heads(database, N2).state, SETTINGS_TRIAL);
    run(database, "UPDATE holdfast.settings SET settled = settled - interval '20 s'");
    assert_true(heads(database, N2).is_overdue);
    assert_int_equal(settings_store_expire(database), DATABASE_DONE);
    assert_int_equal(heads(database, N2).state, SETTINGS_BAD);
    assert_false(approve(database, 1, N1));
    database_free(database);
}

static void followers_are_woken(void **state)
{
    struct database *database = fresh(state);
    struct database *follower = database_to(*state);
    bool woken;
    run(follower, settings_store_listen);
    assert_int_equal(database_wait(follower, 0, &woken), DATABASE_DONE);
    assert_false(woken);
    assert_true(make(database, 1, "one"));
    assert_int_equal(database_wait(follower, LONG_MS, &woken), DATABASE_DONE);
    assert_true(woken);
    assert_true(claim(database, 1, N1));
    assert_int_equal(database_wait(follower, LONG_MS, &woken), DATABASE_DONE);
    assert_true(woken);
    database_free(follower);
    database_free(database);
}

struct history {
    struct buffer text;
};

static void add_entry(void *context, const struct settings_entry *entry)
{
    struct history *history = context;
    buffer_printf(&history->text, "%llu %d %.*s/%.*s tried:%.*s refused:%.*s %.*s on:%.*s %u;",
                  (unsigned long long)entry->number, entry->state, SLICE_PRINT(entry->author),
                  SLICE_PRINT(entry->comment), SLICE_PRINT(entry->tried_by),
                  SLICE_PRINT(entry->refused_by), SLICE_PRINT(entry->problem),
                  SLICE_PRINT(entry->members), entry->file_count);
    assert_true(entry->made_ms > INT64_C(1700000000000));
}

static void history_tells_all(void **state)
{
    struct database *database = fresh(state);
    assert_true(make(database, 1, "one"));
    assert_true(claim(database, 1, N1));
    assert_true(approve(database, 1, N1));
    assert_true(make(database, 2, "two"));
    assert_true(claim(database, 2, N1));
    assert_true(give_up(database, 2, N1, SETTINGS_NEW));
    assert_int_equal(settings_store_report(database, N2, 1, SLICE_EMPTY), DATABASE_DONE);
    assert_int_equal(settings_store_report(database, N1, 2, SLICE_EMPTY), DATABASE_DONE);
    assert_int_equal(settings_store_report(database, N1, 1, SLICE_LITERAL("x")), DATABASE_DONE);
    struct history history = {0};
    buffer_init(&history.text, 0);
    assert_int_equal(settings_store_history(database, 0, 10, add_entry, &history), DATABASE_DONE);
    buffer_append(&history.text, slice_make("", 1));
    assert_string_equal((const char *)history.text.data,
                        "2 0 ann@n1/why not tried: refused:n1 settings:3: no on: 0;"
                        "1 2 ann@n1/why not tried:n1 refused:  on:n1, n2 0;");
    buffer_clear(&history.text);
    assert_int_equal(settings_store_history(database, 1, 10, add_entry, &history), DATABASE_DONE);
    assert_int_equal(history.text.data[0], '1');
    buffer_done(&history.text);
    database_free(database);
}

/* The oldest go, but never the one in force; and with them the files that no other has. */
static void old_versions_go(void **state)
{
    const struct settings_file file = {SLICE_LITERAL("f"), SLICE_LITERAL("content")};
    struct database *database = fresh(state);
    assert_true(make_with(database, 1, "one", &file, 1));
    assert_true(claim(database, 1, N1));
    assert_true(approve(database, 1, N1));
    assert_true(make(database, 2, "two"));
    run(database, "INSERT INTO holdfast.settings (version, author, comment, body)"
                  " SELECT n, 'x', '', '' FROM generate_series(3, 1004) n;"
                  "UPDATE holdfast.settings_files SET used = used - interval '2 days'");
    assert_true(make(database, 1005, "last"));
    struct buffer bytes;
    bool found;
    buffer_init(&bytes, 0);
    static const struct {
        uint64_t number;
        bool there;
    } kept[] = {{1, true}, {2, false}, {5, false}, {6, true}, {1005, true}};
    for (size_t i = 0; i < 5; i++) {
        buffer_clear(&bytes);
        assert_int_equal(settings_store_fetch(database, kept[i].number, &bytes, &found),
                         DATABASE_DONE);
        assert_int_equal(found, kept[i].there);
        if (i == 0) {
            assert_non_null(memmem(bytes.data, bytes.length, "content", 7));
        }
    }
    buffer_done(&bytes);
    database_free(database);
}

static int start(void **state)
{
    *state = postgres_new("fsync = off"); /* nothing is killed */
    return *state == NULL;
}

static int stop(void **state)
{
    postgres_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_store_has_no_heads),
        cmocka_unit_test(a_version_comes_back_with_its_files),
        cmocka_unit_test(of_two_made_at_once_one_is_told),
        cmocka_unit_test(one_member_tries_and_all_may_follow),
        cmocka_unit_test(what_one_refuses_another_may_try),
        cmocka_unit_test(what_one_died_of_nobody_tries),
        cmocka_unit_test(while_one_is_tried_there_is_no_other),
        cmocka_unit_test(a_new_one_is_replaced),
        cmocka_unit_test(who_does_not_come_back_is_not_waited_for),
        cmocka_unit_test(followers_are_woken),
        cmocka_unit_test(history_tells_all),
        cmocka_unit_test(old_versions_go),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
