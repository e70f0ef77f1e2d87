/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* What versions that run beside each other, and mail that is in the database, rely on: computed
 * apart from this program. These names never change. */
static void names_are_for_ever(void **state)
{
    (void)state;
    static const struct {
        enum share_family family;
        const char *group;
        bool split;
        const char *address;
        const char *name;
    } vectors[] = {
        {SHARE_IN, "", false, "ann@example.com", "in:12"},
        {SHARE_IN, "", false, "BOB@Example.COM", "in:12"},
        {SHARE_IN, "", true, "ann@example.com", "in:51"},
        {SHARE_IN, "", true, "Bob@Example.com", "in:59"},
        {SHARE_OUT, "", false, "x@mail.example.org", "out:22"},
        {SHARE_OUT, "", false, "y@xn--bcher-kva.example", "out:5"},
        {SHARE_IN, "", false, "postmaster", "in:44"},
        {SHARE_IN, "", false, "\"a@b\"@[192.0.2.1]", "in:8"},
        {SHARE_IN, "n1,n2", false, "ann@example.com", "in@n1,n2:3"},
        {SHARE_IN, "n1,n2", true, "bob@example.com", "in@n1,n2:11"},
        {SHARE_IN, "n1", false, "ann@example.com", "in@n1:0"},
        {SHARE_IN, "n1", true, "ann@example.com", "in@n1:0"},
        {SHARE_IN, "site=oslo", false, "ann@example.com", "in@site=oslo:12"},
        {SHARE_IN, "site=oslo", true, "ann@example.com", "in@site=oslo:3"},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char name[SHARE_NAME_MAX + 1];
        share_name_of(vectors[i].family, slice_from_text(vectors[i].group), vectors[i].split,
                      slice_from_text(vectors[i].address), name);
        assert_string_equal(name, vectors[i].name);
        struct share_name parsed;
        assert_true(share_name_parse(slice_from_text(name), &parsed));
        assert_int_equal(parsed.family, vectors[i].family);
        assert_true(slice_equal(parsed.group, slice_from_text(vectors[i].group)));
        assert_int_equal(parsed.part, strtoul(strrchr(name, ':') + 1, NULL, 10));
    }
}

static void a_group_is_written_in_one_way(void **state)
{
    (void)state;
    const struct slice nodes[] = {SLICE_LITERAL("n2"), SLICE_LITERAL("n10"), SLICE_LITERAL("n1"),
                                  SLICE_LITERAL("n2")};
    char group[SHARE_GROUP_MAX + 1];
    assert_int_equal(share_group_of_nodes(nodes, 4, group), ERROR_NONE);
    assert_string_equal(group, "n1,n10,n2");
    struct slice text = slice_from_text(group);
    assert_true(share_group_has_node(text, SLICE_LITERAL("n10")));
    assert_true(share_group_has_node(text, SLICE_LITERAL("n2")));
    assert_false(share_group_has_node(text, SLICE_LITERAL("n")));
    assert_false(share_group_has_node(text, SLICE_LITERAL("1,n10")));
    assert_false(share_group_has_node(text, SLICE_EMPTY));
    assert_int_equal(share_group_of_nodes(nodes, 1, group), ERROR_NONE);
    assert_string_equal(group, "n2");
    assert_int_equal(share_parts(SHARE_IN, slice_from_text(group)), 1);
    assert_int_equal(share_group_of_site(SLICE_LITERAL("oslo"), group), ERROR_NONE);
    assert_string_equal(group, "site=oslo");
    text = slice_from_text(group);
    assert_true(share_group_has_site(text, SLICE_LITERAL("oslo")));
    assert_false(share_group_has_site(text, SLICE_LITERAL("osl")));
    assert_false(share_group_has_site(SLICE_LITERAL("oslo"), SLICE_LITERAL("oslo")));
    assert_false(share_group_has_node(text, SLICE_LITERAL("site=oslo")));
}

static void what_breaks_a_group_is_refused(void **state)
{
    (void)state;
    const char *const bad[] = {"", "N1", "n,1", "n:1", "site=x", "-n", "n 1", "n@1", "\xc3\xa9"};
    char group[SHARE_GROUP_MAX + 1];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct slice name = slice_from_text(bad[i]);
        assert_int_equal(share_group_of_nodes(&name, 1, group), ERROR_INVALID);
        assert_int_equal(share_group_of_site(name, group), ERROR_INVALID);
    }
    char texts[30][NODE_NAME_MAX + 2];
    struct slice names[30];
    for (int i = 0; i < 30; i++) {
        snprintf(texts[i], sizeof(texts[i]), "node-%02d-of-many", i);
        names[i] = slice_from_text(texts[i]);
    }
    assert_int_equal(share_group_of_nodes(names, 25, group), ERROR_NONE);
    assert_int_equal(share_group_of_nodes(names, 26, group), ERROR_LIMIT);
    memset(texts[0], 'n', NODE_NAME_MAX + 1);
    names[0] = slice_make(texts[0], NODE_NAME_MAX + 1);
    assert_int_equal(share_group_of_nodes(names, 1, group), ERROR_INVALID);
}

static void strange_names_are_not_shares(void **state)
{
    (void)state;
    const char *const bad[] = {
        "",         "in",          "in:",        "in:64",          "in:01",
        "in:-1",    "out@n1:0",    "in@:0",      "in@n2,n1:0",     "in@n1,n1:0",
        "in@n1:1",  "in@n1,n2:16", "in@site=:0", "in@site=A:0",    "in@site=a:16",
        "in@n1,:0", "in@,n1:0",    "leader:0",   "in@n1,site=a:0", "dead:1",
        "in:1 ",    "IN:1"};
    struct share_name parsed;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(share_name_parse(slice_from_text(bad[i]), &parsed));
    }
    assert_true(share_name_parse(SLICE_LITERAL("leader"), &parsed));
    assert_int_equal(parsed.family, SHARE_LEADER);
    assert_int_equal(share_parts(SHARE_LEADER, SLICE_EMPTY), 1);
}

/* 64 parts are of use only if domains fall into all of them. */
static void domains_are_spread(void **state)
{
    (void)state;
    int counts[SHARE_PARTS] = {0};
    for (int i = 0; i < 6400; i++) {
        char address[64];
        char name[SHARE_NAME_MAX + 1];
        struct share_name parsed;
        snprintf(address, sizeof(address), "ann@customer%d.example", i);
        share_name_of(SHARE_IN, SLICE_EMPTY, false, slice_from_text(address), name);
        assert_true(share_name_parse(slice_from_text(name), &parsed));
        counts[parsed.part]++;
    }
    for (int part = 0; part < SHARE_PARTS; part++) {
        assert_in_range(counts[part], 50, 150);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_for_ever),
        cmocka_unit_test(a_group_is_written_in_one_way),
        cmocka_unit_test(what_breaks_a_group_is_refused),
        cmocka_unit_test(strange_names_are_not_shares),
        cmocka_unit_test(domains_are_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
