/* SPDX-License-Identifier: Apache-2.0
 *
 * Which exchangers a domain's mail goes to, case by case.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx_answer.h"

struct case_of {
    struct mx_answer_text text;
    struct ip_network only[4];
    struct ip_address own[2];
    struct mx_policy policy;
    struct mx_decision decision;
    char order[256];
};

static void begin(struct case_of *test, const char *text)
{
    memset(test, 0, sizeof *test);
    mx_answer_read(&test->text, text);
    test->policy.hostname = SLICE_LITERAL("mx2.example.net");
}

static void only(struct case_of *test, const char *network)
{
    assert_true(
        ip_network_from_text(slice_from_text(network), &test->only[test->policy.only_count++]));
    test->policy.only = test->only;
}

/* The order of hosts, as one text; empty unless found. */
static const char *decide(struct case_of *test, uint64_t seed)
{
    mx_decide(&test->text.answer, &test->policy, seed, &test->decision);
    test->order[0] = '\0';
    for (uint32_t i = 0; i < test->decision.count; i++) {
        strncat(test->order, (const char *)test->decision.choices[i].host.data,
                test->decision.choices[i].host.length);
        strcat(test->order, i + 1 < test->decision.count ? " " : "");
    }
    assert_true((test->decision.verdict == MX_FOUND) == (test->decision.count > 0));
    return test->order;
}

static enum mx_verdict verdict(struct case_of *test)
{
    (void)decide(test, 1);
    return test->decision.verdict;
}

static void the_lowest_preference_comes_first(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "30 c 192.0.2.3; 10 a 192.0.2.1; 20 b 192.0.2.2");
    for (uint64_t seed = 0; seed < 50; seed++) {
        assert_string_equal(decide(&test, seed), "a b c");
    }
}

static void equals_take_turns_in_each_order(void **state)
{
    (void)state;
    struct case_of test;
    int seen[3] = {0};
    begin(&test, "20 z 192.0.2.9; 10 a 192.0.2.1; 10 b 192.0.2.2; 10 c 192.0.2.3");
    for (uint64_t seed = 0; seed < 3000; seed++) {
        const char *order = decide(&test, seed);
        assert_string_equal(order + 6, "z");
        seen[order[0] - 'a']++;
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(seen[i], 900, 1100);
    }
}

static void we_and_all_that_are_no_better_are_left_out(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "10 a 192.0.2.1; 20 MX2.Example.Net 192.0.2.7; 20 b 192.0.2.2; 30 c 192.0.2.3");
    assert_string_equal(decide(&test, 1), "a");
    begin(&test, "10 a 192.0.2.1; 20 other !192.0.2.7; 20 b 192.0.2.2");
    assert_string_equal(decide(&test, 1), "a");
    /* Behind a router that translates, others know us by another address. */
    begin(&test, "10 a 192.0.2.1; 20 other 198.51.100.7; 30 b 192.0.2.2");
    assert_string_equal(decide(&test, 1), "a other b");
    assert_true(ip_from_text(SLICE_LITERAL("198.51.100.7"), &test.own[1]));
    test.policy.own = test.own;
    test.policy.own_count = 2;
    assert_string_equal(decide(&test, 1), "a");
    /* An exchanger whose addresses nobody tells may still be us by name. */
    begin(&test, "10 a 192.0.2.1; 20 mx2.example.net ?; 30 b 192.0.2.2");
    assert_string_equal(decide(&test, 1), "a");
}

static void nobody_is_better_than_we(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "10 mx2.example.net 192.0.2.7; 20 b 192.0.2.2");
    assert_int_equal(verdict(&test), MX_OURSELVES);
    begin(&test, "10 one !192.0.2.7; 10 b 192.0.2.2");
    assert_int_equal(verdict(&test), MX_OURSELVES);
    begin(&test, "0 example.org !192.0.2.7");
    test.text.answer.implicit = true;
    assert_int_equal(verdict(&test), MX_OURSELVES);
}

static void a_null_exchanger_takes_no_mail(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "0 .");
    assert_int_equal(verdict(&test), MX_NULL);
    begin(&test, "0 .; 10 a 192.0.2.1"); /* RFC 7505 3 forbids it: the others count */
    assert_string_equal(decide(&test, 1), "a");
}

static void without_mx_the_name_is_its_own_exchanger(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "0 example.org 192.0.2.1");
    test.text.answer.implicit = true;
    assert_string_equal(decide(&test, 1), "example.org");
    begin(&test, "0 example.org -");
    test.text.answer.implicit = true;
    assert_int_equal(verdict(&test), MX_NO_NAME);
    begin(&test, "0 example.org ?");
    test.text.answer.implicit = true;
    assert_int_equal(verdict(&test), MX_NO_ANSWER);
}

static void no_such_name_is_final_and_no_answer_is_not(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "");
    test.text.answer.error = ERROR_MISSING;
    assert_int_equal(verdict(&test), MX_NO_NAME);
    const enum error silent[] = {ERROR_TIMEOUT, ERROR_IO, ERROR_CORRUPT, ERROR_MEMORY};
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++) {
        test.text.answer.error = silent[i];
        assert_int_equal(verdict(&test), MX_NO_ANSWER);
    }
    const enum mx_verdict final[] = {MX_NO_NAME, MX_NULL, MX_OURSELVES, MX_NO_ADDRESS, MX_REFUSED};
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        assert_true(mx_is_final(final[i]));
    }
    assert_false(mx_is_final(MX_NO_ANSWER) || mx_is_final(MX_ELSEWHERE) || mx_is_final(MX_FOUND));
}

static void one_without_an_address_is_passed_over(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "10 a -; 20 b 192.0.2.2");
    assert_string_equal(decide(&test, 1), "b");
    begin(&test, "10 a -; 20 b -");
    assert_int_equal(verdict(&test), MX_NO_ADDRESS);
    begin(&test, "10 a ?; 20 b -");
    assert_int_equal(verdict(&test), MX_NO_ANSWER);
}

static void closed_addresses_are_refused_unless_listed(void **state)
{
    (void)state;
    static const char *const closed[] = {"127.0.0.1",   "10.1.2.3", "172.31.0.1",     "192.168.1.1",
                                         "169.254.1.1", "0.0.0.0",  "100.64.0.1",     "224.0.0.1",
                                         "::1",         "::",       "fe80::1",        "fd00::1",
                                         "ff02::1",     "10.0.0.0", "255.255.255.255"};
    for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++) {
        struct case_of test;
        char text[64];
        snprintf(text, sizeof text, "10 a %s", closed[i]);
        begin(&test, text);
        assert_int_equal(verdict(&test), MX_REFUSED);
        only(&test, closed[i]);
        assert_string_equal(decide(&test, 1), "a");
        only(&test, "192.0.2.0/24"); /* a lying name beside it is no way out */
        test.text.addresses[0][0].ours = false;
        assert_string_equal(decide(&test, 1), "a");
    }
    struct case_of test;
    begin(&test, "10 a 10.0.0.1 192.0.2.1; 20 b 192.168.0.1");
    assert_string_equal(decide(&test, 1), "a");
    assert_int_equal(test.decision.choices[0].address_count, 1);
}

static void mail_goes_only_to_listed_networks(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "10 a 192.0.2.1; 20 b 198.51.100.1 203.0.113.1");
    only(&test, "198.51.100.0/24");
    assert_string_equal(decide(&test, 1), "b");
    assert_int_equal(test.decision.choices[0].address_count, 1);
    begin(&test, "10 a 192.0.2.1");
    only(&test, "198.51.100.0/24");
    assert_int_equal(verdict(&test), MX_ELSEWHERE);
}

static void our_own_address_counts_unless_listed_alone(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "10 a !10.0.0.5; 20 b 10.0.0.6");
    only(&test, "10.0.0.0/8");
    assert_int_equal(verdict(&test), MX_OURSELVES);
    only(&test, "10.0.0.5");
    assert_string_equal(decide(&test, 1), "a b");
    begin(&test, "10 a !127.0.0.5; 20 b !127.0.0.6"); /* loopback says nothing of who listens */
    only(&test, "127.0.0.0/8");
    assert_string_equal(decide(&test, 1), "a b");
}

static void answers_are_kept_within_bounds(void **state)
{
    (void)state;
    struct case_of test;
    begin(&test, "10 a 192.0.2.1");
    const uint32_t given[] = {0, 30, 3600, 86400, 604800}, kept[] = {30, 30, 3600, 86400, 86400};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        test.text.answer.ttl_s = given[i];
        (void)decide(&test, 1);
        assert_int_equal(test.decision.ttl_s, kept[i]);
    }
    begin(&test, "10 a -");
    (void)decide(&test, 1);
    assert_int_equal(test.decision.ttl_s, 300);
    begin(&test, "10 a ?; 20 b 192.0.2.1"); /* the better one is asked for again soon */
    (void)decide(&test, 1);
    assert_int_equal(test.decision.ttl_s, 300);
}

static void every_verdict_but_found_has_its_words(void **state)
{
    (void)state;
    uint8_t enhanced[2];
    for (int i = MX_NO_ANSWER; i <= MX_ELSEWHERE; i++) {
        assert_true(mx_reason((enum mx_verdict)i, enhanced).length > 0);
        assert_int_not_equal(enhanced[0], 0);
    }
    const enum error errors[] = {ERROR_TIMEOUT, ERROR_CORRUPT, ERROR_IO};
    for (size_t i = 0; i < 3; i++) { /* whose fault it is can be told */
        for (size_t j = 0; j < i; j++) {
            assert_false(slice_equal(mx_trouble(MX_NO_ANSWER, errors[i]),
                                     mx_trouble(MX_NO_ANSWER, errors[j])));
        }
    }
    (void)mx_reason(MX_NULL, enhanced);
    assert_int_equal(enhanced[1], 10);
    (void)mx_reason(MX_OURSELVES, enhanced);
    assert_true(enhanced[0] == 4 && enhanced[1] == 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lowest_preference_comes_first),
        cmocka_unit_test(equals_take_turns_in_each_order),
        cmocka_unit_test(we_and_all_that_are_no_better_are_left_out),
        cmocka_unit_test(nobody_is_better_than_we),
        cmocka_unit_test(a_null_exchanger_takes_no_mail),
        cmocka_unit_test(without_mx_the_name_is_its_own_exchanger),
        cmocka_unit_test(no_such_name_is_final_and_no_answer_is_not),
        cmocka_unit_test(one_without_an_address_is_passed_over),
        cmocka_unit_test(closed_addresses_are_refused_unless_listed),
        cmocka_unit_test(mail_goes_only_to_listed_networks),
        cmocka_unit_test(our_own_address_counts_unless_listed_alone),
        cmocka_unit_test(answers_are_kept_within_bounds),
        cmocka_unit_test(every_verdict_but_found_has_its_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
