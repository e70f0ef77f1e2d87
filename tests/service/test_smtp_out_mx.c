/* SPDX-License-Identifier: Apache-2.0
 *
 * Core's questions who takes a domain's mail, on simulated names (sim.h): each is answered once,
 * with all that DNS says, and with what kept it from saying more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "out_world.h"
#include "sim/sim.h"
#include "sys/dns.h"
#include "sys/ring.h"

static struct service_config config;
static struct counters counters;
static struct loop *loop;
static struct dns *dns;
static struct fake_core core;
static struct ring *ring;
static struct smtp_out *out;

static void pass(int64_t ms)
{
    sim_run_until(sim_now_ns() + ms * 1000000);
}

static void attach(void)
{
    struct ring *theirs;
    assert_int_equal(ring_pair_local(64 << 10, 64 << 10, loop, loop, &theirs, &ring), ERROR_NONE);
    core_attach(&core, loop, theirs);
}

static void open_door(void)
{
    sim_begin(1);
    config = (struct service_config){.hostname = SLICE_LITERAL("mx2.test")};
    config.relay.hostname = config.hostname;
    memset(&core, 0, sizeof(core));
    loop = loop_new();
    assert_int_equal(dns_new(loop, &(struct dns_settings){0}, &dns), ERROR_NONE);
    attach();
    out = smtp_out_new(loop, &config, NULL, dns, ring, &counters);
    assert_non_null(out);
    pass(100);
    buffer_clear(&core.heard);
}

static int begin(void **state)
{
    (void)state;
    open_door();
    return 0;
}

static int end(void **state)
{
    (void)state;
    smtp_out_free(out);
    ring_free(ring);
    core_done(&core);
    dns_free(dns);
    pass(3600 * 1000); /* lets the world forget what is on its way */
    loop_free(loop);
    sim_end();
    return 0;
}

static void assert_answer(const char *domain, const char *wanted)
{
    char line[512];
    buffer_clear(&core.heard);
    core_resolve(&core, domain);
    pass(200);
    snprintf(line, sizeof(line), "mx %s %s\n", domain, wanted);
    buffer_put_u8(&core.heard, 0);
    assert_string_equal((const char *)core.heard.data, line);
}

static uint32_t answers(void)
{
    uint32_t count = 0;
    for (size_t i = 0; i < core.heard.length; i++) {
        count += core.heard.data[i] == '\n';
    }
    return count;
}

static void exchangers_come_best_first_with_their_addresses(void **state)
{
    (void)state;
    assert_answer("far.test", "0 0 60; 10 a5.test 0 192.0.2.5; 20 a2.test 0 192.0.2.2");
    assert_answer("example.test", "0 0 60; 10 a1.test 0 192.0.2.1; 20 a2.test 0 192.0.2.2; 30 "
                                  "a3.test 0 192.0.2.3");
}

static void a_name_without_mx_is_its_own_exchanger(void **state)
{
    (void)state;
    assert_answer("a7.test", "0 1 60; 0 a7.test 0 192.0.2.7");
}

static void what_is_no_name_is_not_asked_for(void **state)
{
    (void)state;
    char wanted[32];
    snprintf(wanted, sizeof(wanted), "%d 0 60", ERROR_MISSING);
    assert_answer("gone.example", wanted);
    snprintf(wanted, sizeof(wanted), "%d 0 0", ERROR_MISSING);
    sim_dns_fail(1000); /* whoever asks hears nothing good */
    assert_answer("b\x01d.test", wanted);
    assert_answer("b d.test", wanted);
    assert_answer("b\xc3\xa9.test", wanted);
}

static void a_literal_needs_no_dns(void **state)
{
    (void)state;
    char wanted[32];
    sim_dns_fail(1000);
    assert_answer("[192.0.2.9]", "0 1 86400; 0 192.0.2.9 0 192.0.2.9");
    assert_answer("[IPv6:2001:db8::9]", "0 1 86400; 0 2001:db8::9 0 2001:db8::9");
    snprintf(wanted, sizeof(wanted), "%d 0 86400", ERROR_MISSING);
    assert_answer("[192.0.2.256]", wanted);
    assert_answer("[x]", wanted);
}

static void failures_are_told_apart_from_missing_names(void **state)
{
    (void)state;
    bool seen[16] = {false};
    sim_dns_fail(1000);
    for (int i = 0; i < 50; i++) {
        buffer_clear(&core.heard);
        core_resolve(&core, "far.test");
        pass(200);
        buffer_put_u8(&core.heard, 0);
        int error = -1;
        assert_int_equal(sscanf((const char *)core.heard.data, "mx far.test %d", &error), 1);
        assert_true(error == ERROR_TIMEOUT || error == ERROR_IO || error == ERROR_CORRUPT);
        seen[error % 16] = true;
    }
    assert_true(seen[ERROR_TIMEOUT % 16] && seen[ERROR_IO % 16] && seen[ERROR_CORRUPT % 16]);
}

static void an_exchanger_that_dns_fails_for_does_not_hide_the_others(void **state)
{
    (void)state;
    int alone = 0;
    sim_dns_fail(300);
    for (int i = 0; i < 100; i++) {
        buffer_clear(&core.heard);
        core_resolve(&core, "far.test");
        pass(200);
        assert_int_equal(answers(), 1);
        alone += core_heard(&core, "192.0.2.2") && !core_heard(&core, "192.0.2.5") &&
                 core_heard(&core, "a5.test");
    }
    assert_in_range(alone, 5, 40);
}

/* For whoever is no better than we is left out. */
static void in_a_crowd_of_equals_we_are_looked_at(void **state)
{
    (void)state;
    core_resolve(&core, "crowd.test");
    pass(200);
    assert_true(core_heard(&core, "; 10 mx2.test "));
    uint32_t exchangers = 0;
    for (size_t i = 0; i < core.heard.length; i++) {
        exchangers += core.heard.data[i] == ';';
    }
    assert_int_equal(exchangers, MX_EXCHANGERS_MAX);
}

static void too_many_questions_are_put_off_and_none_is_lost(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 500; i++) {
            char domain[32];
            snprintf(domain, sizeof(domain), "d%d-%d.test", round, i);
            core_resolve(&core, domain);
        }
    }
    pass(1000);
    assert_int_equal(answers(), 2500);
    char put_off[32];
    snprintf(put_off, sizeof(put_off), ".test %d 0 0", ERROR_TIMEOUT);
    assert_true(core_heard(&core, put_off)); /* asked for again later */
    assert_true(core_heard(&core, "192.0.2.5"));
}

/* What is under way goes with the door; the sanitizers see to the rest. */
static void the_door_may_close_meanwhile(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        core_resolve(&core, "far.test");
        core_resolve(&core, "a7.test");
        pass(i);
    }
    end(NULL);
    open_door();
    core_resolve(&core, "far.test");
    pass(1);
}

int main(void)
{
#define MX(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        MX(exchangers_come_best_first_with_their_addresses),
        MX(a_name_without_mx_is_its_own_exchanger),
        MX(what_is_no_name_is_not_asked_for),
        MX(a_literal_needs_no_dns),
        MX(failures_are_told_apart_from_missing_names),
        MX(an_exchanger_that_dns_fails_for_does_not_hide_the_others),
        MX(in_a_crowd_of_equals_we_are_looked_at),
        MX(too_many_questions_are_put_off_and_none_is_lost),
        MX(the_door_may_close_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
