/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/database_trouble.h"

static struct database_trouble fresh(void)
{
    return (struct database_trouble){0};
}

static void what_the_member_says_counts_at_once(void **state)
{
    (void)state;
    struct database_trouble trouble = fresh();
    assert_null(database_trouble_text(&trouble));
    database_trouble_member(&trouble, "no answer");
    assert_string_equal(database_trouble_text(&trouble), "no answer");
    database_trouble_member(&trouble, "");
    assert_null(database_trouble_text(&trouble));
}

static void a_group_that_fails_once_is_no_trouble(void **state)
{
    (void)state;
    struct database_trouble trouble = fresh();
    assert_false(database_trouble_spool(&trouble, false, "deadlock", 1000));
    assert_false(database_trouble_spool(&trouble, false, "deadlock", 2900));
    assert_false(database_trouble_spool(&trouble, true, "", 3000));
    assert_false(database_trouble_spool(&trouble, false, "deadlock", 3100));
    assert_null(database_trouble_text(&trouble));
}

static void what_lasts_is_told_once(void **state)
{
    (void)state;
    struct database_trouble trouble = fresh();
    assert_false(database_trouble_spool(&trouble, false, "disk full", 1000));
    assert_true(database_trouble_spool(&trouble, false, "disk full", 3000));
    assert_string_equal(database_trouble_text(&trouble), "the database takes no mail: disk full");
    assert_false(database_trouble_spool(&trouble, false, "disk full", 3100));
}

static void some_groups_in_time_do_not_end_it(void **state)
{
    (void)state;
    struct database_trouble trouble = fresh();
    (void)database_trouble_spool(&trouble, false, "slow", 1000);
    assert_true(database_trouble_spool(&trouble, false, "slow", 3000));
    for (int64_t now_ms = 4000; now_ms < 40000; now_ms += 5000) {
        assert_false(database_trouble_spool(&trouble, true, "", now_ms));
        assert_false(database_trouble_spool(&trouble, true, "", now_ms + 2000));
        assert_false(database_trouble_spool(&trouble, false, "slow", now_ms + 2100));
        assert_non_null(database_trouble_text(&trouble));
    }
    assert_false(database_trouble_spool(&trouble, true, "", 50000));
    assert_non_null(database_trouble_text(&trouble));
    assert_false(database_trouble_spool(&trouble, true, "", 50000 + DATABASE_TROUBLE_OVER_MS));
    assert_null(database_trouble_text(&trouble));
}

/* The heartbeat is answered before the next group is tried: one trouble, and no word of another. */
static void an_outage_ends_when_both_are_well(void **state)
{
    (void)state;
    struct database_trouble trouble = fresh();
    database_trouble_member(&trouble, "no answer");
    assert_false(database_trouble_spool(&trouble, false, "lost", 1000));
    assert_false(database_trouble_spool(&trouble, false, "lost", 9000));
    database_trouble_member(&trouble, "");
    assert_non_null(database_trouble_text(&trouble));
    assert_false(database_trouble_spool(&trouble, false, "lost", 9100));
    assert_non_null(database_trouble_text(&trouble));
    assert_false(database_trouble_spool(&trouble, true, "", 9200));
    assert_null(database_trouble_text(&trouble));
}

static void an_outage_that_leaves_the_disk_full_goes_on(void **state)
{
    (void)state;
    struct database_trouble trouble = fresh();
    database_trouble_member(&trouble, "no answer");
    assert_false(database_trouble_spool(&trouble, false, "lost", 1000));
    database_trouble_member(&trouble, "");
    assert_false(database_trouble_spool(&trouble, false, "disk full", 1100));
    assert_non_null(database_trouble_text(&trouble));
    assert_true(database_trouble_spool(&trouble, false, "disk full", 3100));
    assert_string_equal(database_trouble_text(&trouble), "the database takes no mail: disk full");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_member_says_counts_at_once),
        cmocka_unit_test(a_group_that_fails_once_is_no_trouble),
        cmocka_unit_test(what_lasts_is_told_once),
        cmocka_unit_test(some_groups_in_time_do_not_end_it),
        cmocka_unit_test(an_outage_ends_when_both_are_well),
        cmocka_unit_test(an_outage_that_leaves_the_disk_full_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
