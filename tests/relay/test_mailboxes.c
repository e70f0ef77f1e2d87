/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known of recipients (R8): the table against a simple model, how learning comes to a
 * verdict, lists, the file, and every row of the decision.
 */
#include "relay/mailboxes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOUR INT64_C(3600000)
#define DAY (24 * HOUR)
#define NOW INT64_C(1700000000000)

static const struct hash_key key = {1, 2};

static struct slice text(const char *string)
{
    return slice_from_text(string);
}

static struct mailboxes *table(void)
{
    struct mailboxes *mailboxes = mailboxes_new(key);
    assert_non_null(mailboxes);
    return mailboxes;
}

static void accepted(struct mailboxes *mailboxes, const char *name, int64_t now_ms)
{
    assert_int_equal(mailboxes_accepted(mailboxes, text(name), true, MAILBOX_FROM_DELIVERY, now_ms),
                     ERROR_NONE);
}

static void refused(struct mailboxes *mailboxes, const char *name, int64_t now_ms)
{
    assert_int_equal(mailboxes_refused(mailboxes, text(name), MAILBOX_FROM_DELIVERY, now_ms),
                     ERROR_NONE);
}

static enum mailbox_standing standing(const struct mailboxes *mailboxes, const char *name)
{
    struct mailbox mailbox;
    return mailboxes_find(mailboxes, text(name), &mailbox) ? mailbox.standing : MAILBOX_UNKNOWN;
}

/* ---- the decision ---------------------------------------------------------------------------- */

struct row {
    const char *what;
    enum mailbox_standing standing;
    enum mailbox_source source;
    int64_t said_ago, refused_ago; /* ms; 0: never */
    bool catches_all;
    /* Up; down and `unknown = accept`; down and `unknown = defer`. */
    enum mailbox_answer up, down_accept, down_defer;
};

static const struct row rows[] = {
    {"nothing known", MAILBOX_UNKNOWN, MAILBOX_FROM_NOBODY, 0, 0, false, MAILBOX_ASK, MAILBOX_TAKE,
     MAILBOX_DEFER},
    {"nothing known, the server takes all", MAILBOX_UNKNOWN, MAILBOX_FROM_NOBODY, 0, 0, true,
     MAILBOX_TAKE, MAILBOX_TAKE, MAILBOX_DEFER},
    {"in a list, of last year", MAILBOX_GOOD, MAILBOX_FROM_LIST, 400 * DAY, 0, false, MAILBOX_TAKE,
     MAILBOX_TAKE, MAILBOX_TAKE},
    {"not in the list, of last year", MAILBOX_BAD, MAILBOX_FROM_LIST, 400 * DAY, 0, false,
     MAILBOX_REFUSE, MAILBOX_REFUSE, MAILBOX_REFUSE},
    {"in a list, refused just now", MAILBOX_GOOD, MAILBOX_FROM_LIST, DAY, 1000, false, MAILBOX_TAKE,
     MAILBOX_TAKE, MAILBOX_TAKE},
    {"the operator says so, long ago", MAILBOX_GOOD, MAILBOX_FROM_OPERATOR, 400 * DAY, 0, false,
     MAILBOX_TAKE, MAILBOX_TAKE, MAILBOX_TAKE},
    {"good within 7 days", MAILBOX_GOOD, MAILBOX_FROM_DELIVERY, 7 * DAY, 0, false, MAILBOX_TAKE,
     MAILBOX_TAKE, MAILBOX_TAKE},
    {"good more than 7 days ago", MAILBOX_GOOD, MAILBOX_FROM_CALLOUT, 7 * DAY + 1, 0, false,
     MAILBOX_ASK, MAILBOX_TAKE, MAILBOX_TAKE},
    {"good, but refused within 10 minutes", MAILBOX_GOOD, MAILBOX_FROM_DELIVERY, HOUR, HOUR / 6,
     false, MAILBOX_REFUSE, MAILBOX_TAKE, MAILBOX_TAKE},
    {"good, refused before that", MAILBOX_GOOD, MAILBOX_FROM_DELIVERY, HOUR, HOUR / 6 + 1, false,
     MAILBOX_TAKE, MAILBOX_TAKE, MAILBOX_TAKE},
    {"refused once within 10 minutes", MAILBOX_UNKNOWN, MAILBOX_FROM_CALLOUT, 0, HOUR / 6, false,
     MAILBOX_REFUSE, MAILBOX_TAKE, MAILBOX_DEFER},
    {"refused once before that", MAILBOX_UNKNOWN, MAILBOX_FROM_CALLOUT, 0, HOUR / 6 + 1, false,
     MAILBOX_ASK, MAILBOX_TAKE, MAILBOX_DEFER},
    {"bad, confirmed within 10 minutes", MAILBOX_BAD, MAILBOX_FROM_DELIVERY, HOUR / 6, HOUR / 6,
     false, MAILBOX_REFUSE, MAILBOX_REFUSE, MAILBOX_REFUSE},
    {"bad, confirmed within 7 days", MAILBOX_BAD, MAILBOX_FROM_DELIVERY, 7 * DAY, 7 * DAY, false,
     MAILBOX_ASK, MAILBOX_REFUSE, MAILBOX_REFUSE},
    {"bad, confirmed more than 7 days ago", MAILBOX_BAD, MAILBOX_FROM_DELIVERY, 7 * DAY + 1,
     7 * DAY + 1, false, MAILBOX_ASK, MAILBOX_TAKE, MAILBOX_DEFER},
};

static enum mailbox_answer answer(const struct row *row, bool up, bool accept)
{
    struct mailbox mailbox = {.standing = row->standing,
                              .source = row->source,
                              .said_ms = row->said_ago != 0 ? NOW - row->said_ago : 0,
                              .refused_ms = row->refused_ago != 0 ? NOW - row->refused_ago : 0};
    bool nothing = row->source == MAILBOX_FROM_NOBODY;
    const struct mailbox_question question = {.found = nothing ? NULL : &mailbox,
                                              .up = up,
                                              .catches_all = row->catches_all,
                                              .accept_unknown = accept,
                                              .now_ms = NOW};
    return mailbox_decide(&question);
}

static void test_every_row_of_the_decision(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        print_message("%s\n", rows[i].what);
        assert_int_equal(answer(&rows[i], true, true), rows[i].up);
        assert_int_equal(answer(&rows[i], true, false), rows[i].up);
        assert_int_equal(answer(&rows[i], false, true), rows[i].down_accept);
        assert_int_equal(answer(&rows[i], false, false), rows[i].down_defer);
    }
    assert_int_equal(mailbox_unanswered(true), MAILBOX_TAKE);
    assert_int_equal(mailbox_unanswered(false), MAILBOX_DEFER);
}

/* ---- learning -------------------------------------------------------------------------------- */

static void test_two_refusals_an_hour_apart_make_one_bad(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    refused(mailboxes, "ann", NOW);
    accepted(mailboxes, "bob", NOW + 1000);
    refused(mailboxes, "ann", NOW + HOUR - 1000);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_UNKNOWN);
    refused(mailboxes, "ann", NOW + HOUR);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_BAD);
    struct mailbox mailbox;
    assert_true(mailboxes_find(mailboxes, text("ann"), &mailbox));
    assert_int_equal(mailbox.said_ms, NOW + HOUR);
    assert_int_equal(mailbox.source, MAILBOX_FROM_DELIVERY);
    mailboxes_free(mailboxes);
}

/* Else a dictionary would fill the memory. */
static void test_so_many_refused_are_remembered_and_no_more(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    char name[24];
    for (int i = 0; i < MAILBOXES_REFUSED_MAX; i++) {
        snprintf(name, sizeof(name), "guess%d", i);
        refused(mailboxes, name, NOW);
    }
    assert_int_equal(mailboxes_refused(mailboxes, text("more"), MAILBOX_FROM_CALLOUT, NOW),
                     ERROR_LIMIT);
    assert_false(mailboxes_has(mailboxes, text("more")));
    accepted(mailboxes, "ann", NOW);
    refused(mailboxes, "guess7", NOW + HOUR);
    refused(mailboxes, "ann", NOW + HOUR);
    assert_int_equal(standing(mailboxes, "guess7"), MAILBOX_BAD);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_GOOD);
    assert_int_equal(mailboxes_refused(mailboxes, text("more"), MAILBOX_FROM_CALLOUT, NOW),
                     ERROR_LIMIT);
    assert_true(mailboxes_forget(mailboxes, text("guess1")));
    refused(mailboxes, "more", NOW);
    mailboxes_free(mailboxes);
}

static void test_nobody_is_bad_while_all_are_refused(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    for (int64_t at = 0; at < 10 * HOUR; at += HOUR) {
        refused(mailboxes, "ann", NOW + at);
        refused(mailboxes, "bob", NOW + at);
    }
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_UNKNOWN);
    assert_int_equal(standing(mailboxes, "bob"), MAILBOX_UNKNOWN);
    mailboxes_free(mailboxes);
}

static void test_being_accepted_oneself_is_not_another(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    refused(mailboxes, "ann", NOW);
    accepted(mailboxes, "ann", NOW + HOUR);
    refused(mailboxes, "ann", NOW + 2 * HOUR);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_GOOD);
    refused(mailboxes, "ann", NOW + 4 * HOUR);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_GOOD);
    accepted(mailboxes, "bob", NOW + 4 * HOUR);
    refused(mailboxes, "ann", NOW + 5 * HOUR);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_BAD);
    mailboxes_free(mailboxes);
}

static void test_an_acceptance_that_teaches_nothing_still_ends_refusals(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    refused(mailboxes, "ann", NOW);
    assert_int_equal(mailboxes_count(mailboxes).refused, 1);
    assert_int_equal(
        mailboxes_accepted(mailboxes, text("ann"), false, MAILBOX_FROM_DELIVERY, NOW + HOUR),
        ERROR_NONE);
    assert_false(mailboxes_has(mailboxes, text("ann")));
    assert_int_equal(
        mailboxes_accepted(mailboxes, text("bob"), false, MAILBOX_FROM_DELIVERY, NOW + HOUR),
        ERROR_NONE);
    assert_false(mailboxes_has(mailboxes, text("bob")));
    mailboxes_free(mailboxes);
}

static void test_what_a_random_address_has_shown_holds_a_day(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    assert_int_equal(mailboxes_catch(mailboxes, 7, NOW), CATCH_NOT_KNOWN);
    mailboxes_random(mailboxes, 7, true, NOW);
    assert_int_equal(mailboxes_catch(mailboxes, 7, NOW + DAY), CATCH_NONE);
    assert_int_equal(mailboxes_catch(mailboxes, 7, NOW + DAY + 1), CATCH_NOT_KNOWN);
    assert_int_equal(mailboxes_catch(mailboxes, 8, NOW), CATCH_NOT_KNOWN);
    assert_int_equal(mailboxes_catch(mailboxes, 7, NOW - 1), CATCH_NOT_KNOWN);
    mailboxes_random(mailboxes, 7, false, NOW);
    assert_int_equal(mailboxes_catch(mailboxes, 7, NOW), CATCH_ALL);
    mailboxes_free(mailboxes);
}

static void test_it_cleans_itself(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    refused(mailboxes, "refused", NOW);
    accepted(mailboxes, "good", NOW);
    assert_int_equal(mailboxes_told(mailboxes, text("told"), NOW), ERROR_NONE);
    mailboxes_clean(mailboxes, 10, NOW + 7 * DAY);
    assert_int_equal(mailboxes_count(mailboxes).names, 3);
    mailboxes_clean(mailboxes, 10, NOW + 7 * DAY + 1000);
    assert_false(mailboxes_has(mailboxes, text("refused")));
    mailboxes_clean(mailboxes, 10, NOW + MAILBOX_KEPT_MS + 1000);
    assert_false(mailboxes_has(mailboxes, text("good")));
    assert_int_equal(standing(mailboxes, "told"), MAILBOX_GOOD);
    mailboxes_free(mailboxes);
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void add(struct mailboxes *mailboxes, const char *name)
{
    assert_int_equal(mailboxes_list_add(mailboxes, text(name)), ERROR_NONE);
}

static void test_a_list_is_the_whole_truth(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = table();
    accepted(mailboxes, "carl", NOW);
    mailboxes_list_begin(mailboxes);
    add(mailboxes, "ann");
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_UNKNOWN); /* not yet */
    mailboxes_list_end(mailboxes, false, NOW);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_GOOD);
    assert_int_equal(standing(mailboxes, "carl"), MAILBOX_BAD);
    assert_int_equal(standing(mailboxes, "nobody"), MAILBOX_BAD);
    mailboxes_list_begin(mailboxes);
    add(mailboxes, "bob");
    mailboxes_list_give_up(mailboxes); /* the earlier one holds */
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_GOOD);
    assert_int_equal(standing(mailboxes, "bob"), MAILBOX_BAD);
    mailboxes_list_begin(mailboxes);
    add(mailboxes, "bob");
    mailboxes_list_end(mailboxes, true, NOW);
    assert_int_equal(standing(mailboxes, "ann"), MAILBOX_GOOD); /* as everybody */
    assert_int_equal(mailboxes_count(mailboxes).names, 2);
    mailboxes_list_drop(mailboxes);
    assert_int_equal(standing(mailboxes, "bob"), MAILBOX_UNKNOWN);
    assert_int_equal(standing(mailboxes, "carl"), MAILBOX_GOOD);
    mailboxes_free(mailboxes);
}

/* ---- the file -------------------------------------------------------------------------------- */

static void write_all(const struct mailboxes *mailboxes, struct buffer *ret_bytes)
{
    buffer_init(ret_bytes, 0);
    for (uint64_t at = 0; mailboxes_write(mailboxes, &at, ret_bytes);) {
    }
    assert_false(ret_bytes->failed);
}

static void check_same(const struct mailboxes *a, const struct mailboxes *b)
{
    struct mailboxes_count one = mailboxes_count(a), other = mailboxes_count(b);
    assert_memory_equal(&one, &other, sizeof(one));
    assert_int_equal(mailboxes_list_ms(a), mailboxes_list_ms(b));
    struct mailbox mailbox, found;
    uint32_t other_at = 0;
    for (uint32_t at = 0; mailboxes_next(a, &at, &mailbox);) {
        assert_true(mailboxes_next(b, &other_at, &found)); /* written in order */
        assert_true(slice_equal(found.name, mailbox.name));
        assert_int_equal(found.standing, mailbox.standing);
        assert_int_equal(found.source, mailbox.source);
        assert_int_equal(found.said_ms, mailbox.said_ms);
        assert_int_equal(found.refused_ms, mailbox.refused_ms);
        assert_int_equal(found.first_refused_ms, mailbox.first_refused_ms);
        assert_int_equal(found.other_accepted, mailbox.other_accepted);
    }
}

/* Some of each, more than one block of them. */
static struct mailboxes *full_table(bool with_list)
{
    struct mailboxes *mailboxes = table();
    char name[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "name%d", i);
        if (i % 3 == 0) {
            refused(mailboxes, name, NOW - 2 * HOUR);
        } else if (i % 3 == 1) {
            accepted(mailboxes, name, NOW - i * 1000);
        } else {
            assert_int_equal(mailboxes_told(mailboxes, text(name), NOW), ERROR_NONE);
        }
    }
    refused(mailboxes, "name0", NOW);
    assert_int_equal(standing(mailboxes, "name0"), MAILBOX_BAD);
    refused(mailboxes, "late", NOW);
    mailboxes_random(mailboxes, 9, true, NOW);
    if (with_list) {
        mailboxes_list_begin(mailboxes);
        add(mailboxes, "name7");
        add(mailboxes, "listed");
        mailboxes_list_end(mailboxes, false, NOW);
    }
    return mailboxes;
}

static void test_a_file_keeps_all(void **state)
{
    (void)state;
    for (int with_list = 0; with_list < 2; with_list++) {
        struct mailboxes *mailboxes = full_table(with_list);
        struct mailboxes *again = table();
        struct buffer bytes;
        size_t used;
        bool end;
        write_all(mailboxes, &bytes);
        assert_true(bytes.length > MAILBOXES_BLOCK_MAX);
        assert_int_equal(mailboxes_read(again, buffer_slice(&bytes), bytes.length, &used, &end),
                         ERROR_NONE);
        assert_true(end);
        assert_int_equal(used, bytes.length);
        check_same(mailboxes, again);
        assert_int_equal(mailboxes_catch(again, 9, NOW), CATCH_NONE);
        buffer_done(&bytes);
        mailboxes_free(mailboxes);
        mailboxes_free(again);
    }
}

static void test_half_a_list_refuses_nobody(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = full_table(true);
    struct buffer bytes;
    write_all(mailboxes, &bytes);
    for (size_t length = 0; length < bytes.length; length += length < 200 ? 1 : 4001) {
        struct mailboxes *again = table();
        size_t used;
        bool end;
        assert_int_equal(mailboxes_read(again, slice_take(buffer_slice(&bytes), length),
                                        bytes.length, &used, &end),
                         ERROR_NONE);
        assert_false(end);
        mailboxes_list_give_up(again);
        assert_int_equal(mailboxes_list_ms(again), 0);
        assert_int_not_equal(standing(again, "nobody"), MAILBOX_BAD);
        mailboxes_free(again);
    }
    buffer_done(&bytes);
    mailboxes_free(mailboxes);
}

static void test_damage_costs_the_list_and_what_comes_after(void **state)
{
    (void)state;
    struct mailboxes *mailboxes = full_table(true);
    struct buffer bytes;
    write_all(mailboxes, &bytes);
    for (size_t at = 0; at < bytes.length; at += at < 100 ? 1 : 997) {
        struct mailboxes *again = table();
        size_t used;
        bool end;
        bytes.data[at] ^= 0x40;
        enum error error = mailboxes_read(again, buffer_slice(&bytes), bytes.length, &used, &end);
        mailboxes_list_give_up(again);
        assert_true(error == ERROR_CORRUPT || !end);
        assert_int_equal(mailboxes_list_ms(again), 0);
        bytes.data[at] ^= 0x40;
        mailboxes_free(again);
    }
    buffer_done(&bytes);
    mailboxes_free(mailboxes);
}

/* ---- against a model ------------------------------------------------------------------------- */

enum { PEOPLE = 200, STEPS = 200000 };

struct person {
    int64_t good, first, last;
    bool bad, other, listed, next;
};

static uint64_t seed = 42;

static uint32_t draw(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return (uint32_t)(seed >> 33) % below;
}

static void model_accepted(struct person *people, uint32_t who, bool teaches, int64_t now_ms)
{
    for (uint32_t i = 0; i < PEOPLE; i++) {
        people[i].other |= i != who && people[i].first != 0;
    }
    struct person *person = &people[who];
    person->first = person->last = 0;
    person->bad = person->other = false;
    person->good = teaches ? now_ms : person->good;
}

static void model_refused(struct person *person, int64_t now_ms)
{
    if (person->first == 0) {
        person->first = now_ms;
        person->other = false;
    }
    person->last = now_ms;
    if (now_ms - person->first >= HOUR && person->other) {
        person->bad = true;
        person->good = 0;
    }
}

static void check_person(const struct mailboxes *mailboxes, const struct person *person,
                         const char *name, bool listing)
{
    struct mailbox mailbox = {.standing = MAILBOX_UNKNOWN};
    (void)mailboxes_find(mailboxes, text(name), &mailbox);
    enum mailbox_standing expected = person->listed           ? MAILBOX_GOOD
                                     : listing || person->bad ? MAILBOX_BAD
                                     : person->good != 0      ? MAILBOX_GOOD
                                                              : MAILBOX_UNKNOWN;
    assert_int_equal(mailbox.standing, expected);
    if (!listing) {
        assert_int_equal(mailbox.refused_ms, person->last);
        assert_int_equal(mailbox.said_ms, person->bad ? person->last : person->good);
    }
}

static void test_as_a_simple_model(void **state)
{
    (void)state;
    static struct person people[PEOPLE];
    struct mailboxes *mailboxes = table();
    bool reading = false, listing = false;
    int64_t now = NOW;
    char name[32];
    for (int step = 0; step < STEPS; step++) {
        uint32_t who = draw(PEOPLE);
        struct person *person = &people[who];
        now += draw(40) * 60000;
        snprintf(name, sizeof(name), "%.*sp%u", (int)(who % 20), "aaaaaaaaaaaaaaaaaaaa", who);
        uint32_t what = draw(100);
        if (what < 30) {
            bool teaches = draw(2) != 0;
            assert_int_equal(
                mailboxes_accepted(mailboxes, text(name), teaches, MAILBOX_FROM_CALLOUT, now),
                ERROR_NONE);
            model_accepted(people, who, teaches, now);
        } else if (what < 70) {
            refused(mailboxes, name, now);
            model_refused(person, now);
        } else if (what < 90) {
            bool had = person->good != 0 || person->last != 0;
            assert_int_equal(mailboxes_forget(mailboxes, text(name)), had);
            person->good = person->first = person->last = 0;
            person->bad = person->other = false;
        } else if (what < 97 && reading) {
            add(mailboxes, name);
            person->next = true;
        } else if (draw(20) == 0) {
            bool gives_up = draw(3) == 0, drops = draw(3) == 0;
            if (!reading) {
                mailboxes_list_begin(mailboxes);
            } else if (gives_up) {
                mailboxes_list_give_up(mailboxes);
            } else if (drops) {
                mailboxes_list_drop(mailboxes);
            } else {
                mailboxes_list_end(mailboxes, false, now);
            }
            listing = reading && !gives_up ? !drops : listing;
            for (uint32_t i = 0; reading && i < PEOPLE; i++) {
                people[i].listed = gives_up ? people[i].listed : people[i].next && !drops;
                people[i].next = false;
            }
            reading = !reading;
        }
        check_person(mailboxes, person, name, listing);
    }
    struct mailboxes_count count = {0}, said = mailboxes_count(mailboxes);
    struct mailbox mailbox;
    for (uint32_t at = 0; mailboxes_next(mailboxes, &at, &mailbox);) {
        count.good += mailbox.standing == MAILBOX_GOOD;
        count.bad += mailbox.standing == MAILBOX_BAD;
        count.refused += mailbox.standing == MAILBOX_UNKNOWN;
    }
    assert_int_equal(said.good, count.good);
    assert_int_equal(said.bad, count.bad);
    assert_int_equal(said.refused, count.refused);
    mailboxes_free(mailboxes);
}

/* ---- size ------------------------------------------------------------------------------------ */

static void test_a_million_cost_less_than_64_bytes_each(void **state)
{
    (void)state;
    enum { MILLION = 1000000 };
    struct mailboxes *mailboxes = table();
    char name[32];
    for (uint32_t i = 0; i < MILLION; i++) {
        snprintf(name, sizeof(name), "firstname.name%u", i);
        accepted(mailboxes, name, NOW);
    }
    assert_true(mailboxes_bytes(mailboxes) < 64 * (size_t)MILLION);
    print_message("%zu bytes each\n", mailboxes_bytes(mailboxes) / MILLION);
    for (uint32_t i = 0; i < MILLION; i += 997) {
        snprintf(name, sizeof(name), "firstname.name%u", i);
        assert_int_equal(standing(mailboxes, name), MAILBOX_GOOD);
    }
    mailboxes_forget_all(mailboxes);
    assert_int_equal(mailboxes_count(mailboxes).names, 0);
    mailboxes_free(mailboxes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_of_the_decision),
        cmocka_unit_test(test_two_refusals_an_hour_apart_make_one_bad),
        cmocka_unit_test(test_so_many_refused_are_remembered_and_no_more),
        cmocka_unit_test(test_nobody_is_bad_while_all_are_refused),
        cmocka_unit_test(test_being_accepted_oneself_is_not_another),
        cmocka_unit_test(test_an_acceptance_that_teaches_nothing_still_ends_refusals),
        cmocka_unit_test(test_what_a_random_address_has_shown_holds_a_day),
        cmocka_unit_test(test_it_cleans_itself),
        cmocka_unit_test(test_a_list_is_the_whole_truth),
        cmocka_unit_test(test_a_file_keeps_all),
        cmocka_unit_test(test_half_a_list_refuses_nobody),
        cmocka_unit_test(test_damage_costs_the_list_and_what_comes_after),
        cmocka_unit_test(test_as_a_simple_model),
        cmocka_unit_test(test_a_million_cost_less_than_64_bytes_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
