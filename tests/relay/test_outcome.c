/* SPDX-License-Identifier: Apache-2.0
 *
 * R4's table, row by row, and then every combination of verdict, stage, manner and code against
 * what the table says of it in words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/outcome.h"

static struct judgement judge(enum relay_verdict verdict, enum relay_stage stage,
                              enum relay_how how, uint16_t code)
{
    struct relay_reply reply = {.stage = stage, .how = how, .code = code};
    struct outcome_question question = {.verdict = verdict, .reply = &reply};
    return outcome_of_delivery(&question);
}

static struct judgement refused(enum relay_stage stage, uint16_t code, uint8_t subject,
                                uint8_t detail)
{
    struct relay_reply reply = {.stage = stage, .how = RELAY_REPLY, .code = code};
    if (subject != 0 || detail != 0) {
        reply.enhanced[0] = (uint8_t)(code / 100);
        reply.enhanced[1] = subject;
        reply.enhanced[2] = detail;
    }
    struct outcome_question question = {.verdict = RELAY_REFUSED, .reply = &reply};
    return outcome_of_delivery(&question);
}

static void assert_judgement(struct judgement got, enum outcome outcome, enum verdict verdict)
{
    assert_int_equal(got.outcome, outcome);
    assert_int_equal(got.verdict, verdict);
}

static void mail_refusals_are_final_only_when_they_speak_of_the_message(void **state)
{
    (void)state;
    const enum relay_stage at = RELAY_AT_MAIL;
    assert_judgement(refused(at, 450, 0, 0), OUTCOME_DEFERRED, SERVER_DEFERS);
    assert_judgement(refused(at, 552, 0, 0), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 555, 0, 0), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 550, 3, 4), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 550, 1, 7), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 550, 1, 8), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 553, 6, 7), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 550, 0, 0), OUTCOME_HELD, SERVER_REFUSES);
    assert_judgement(refused(at, 554, 7, 1), OUTCOME_HELD, SERVER_REFUSES);
    assert_judgement(refused(at, 501, 1, 6), OUTCOME_HELD, SERVER_REFUSES);
}

static void what_is_damaged_here_is_held_and_what_cannot_be_read_put_off(void **state)
{
    (void)state;
    struct relay_reply reply = {.stage = RELAY_AT_CONTENT, .how = RELAY_LOCAL};
    struct outcome_question question = {.verdict = RELAY_DAMAGED, .reply = &reply};
    assert_judgement(outcome_of_delivery(&question), OUTCOME_HELD, SERVER_SAYS_NOTHING);
    question.verdict = RELAY_REFUSED;
    assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
}

static void too_many_recipients_costs_nothing(void **state)
{
    (void)state;
    const enum relay_stage at = RELAY_AT_RECIPIENT;
    assert_judgement(judge(RELAY_NOT_TRIED, at, RELAY_REPLY, 452), OUTCOME_UNTOUCHED,
                     SERVER_SAYS_NOTHING);
    /* Said of the first recipient, the same codes speak of storage, or would turn in a circle. */
    assert_judgement(refused(at, 452, 5, 3), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
    assert_judgement(refused(at, 452, 2, 2), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
    assert_judgement(refused(at, 552, 2, 2), OUTCOME_FINAL, SERVER_REFUSES);
    assert_judgement(refused(at, 452, 3, 1), OUTCOME_DEFERRED, SERVER_DEFERS);
}

static void a_rehearsal_ends_with_any_reply_to_its_envelope(void **state)
{
    (void)state;
    struct relay_reply reply = {
        .stage = RELAY_AT_RECIPIENT, .how = RELAY_REPLY, .code = 250, .text = SLICE_EMPTY};
    struct outcome_question question = {
        .verdict = RELAY_ACCEPTED, .reply = &reply, .envelope_only = true};
    assert_judgement(outcome_of_delivery(&question), OUTCOME_REHEARSED, SERVER_SAYS_NOTHING);
    question.verdict = RELAY_REFUSED;
    for (int mail = 0; mail < 2; mail++) {
        reply.stage = mail ? RELAY_AT_MAIL : RELAY_AT_RECIPIENT;
        const uint16_t codes[] = {450, 550, 554};
        for (size_t i = 0; i < 3; i++) {
            reply.code = codes[i];
            assert_judgement(outcome_of_delivery(&question), OUTCOME_REHEARSED,
                             SERVER_SAYS_NOTHING);
        }
        reply.code = 421;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_STRIKE, SERVER_AT_LIMIT);
        reply.code = 530;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_STRIKE, SERVER_CREDENTIALS);
        reply.code = 553;
        reply.how = RELAY_LOCAL;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_REHEARSED, SERVER_SAYS_NOTHING);
        reply.how = RELAY_REPLY;
    }
    /* Only one: what edge-out says of other mail is taken as said. */
    question.envelope_only = false;
    reply.stage = RELAY_AT_RECIPIENT;
    reply.code = 450;
    assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
    reply.code = 250;
    question.verdict = RELAY_ACCEPTED;
    assert_judgement(outcome_of_delivery(&question), OUTCOME_DELIVERED, SERVER_WORKS);
}

static void recipients_are_deferred_or_refused_each(void **state)
{
    (void)state;
    const enum relay_stage at = RELAY_AT_RECIPIENT;
    assert_judgement(refused(at, 450, 0, 0), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
    assert_judgement(refused(at, 451, 7, 1), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
    assert_judgement(refused(at, 451, 3, 0), OUTCOME_DEFERRED, SERVER_DEFERS);
    assert_judgement(refused(at, 550, 1, 1), OUTCOME_FINAL, SERVER_REFUSES);
}

static void data_and_dot_speak_for_the_transaction(void **state)
{
    (void)state;
    const enum relay_stage stages[] = {RELAY_AT_DATA, RELAY_AT_CONTENT, RELAY_AT_DOT};
    for (size_t i = 0; i < 3; i++) {
        assert_judgement(refused(stages[i], 451, 0, 0), OUTCOME_DEFERRED, SERVER_DEFERS);
        assert_judgement(refused(stages[i], 554, 0, 0), OUTCOME_FINAL, SERVER_REFUSES);
    }
    /* 421 to the dot is a refusal, not in doubt; before the dot a server failure. */
    assert_judgement(refused(RELAY_AT_DOT, 421, 0, 0), OUTCOME_DEFERRED, SERVER_DEFERS);
    for (int stage = RELAY_AT_MAIL; stage <= RELAY_AT_CONTENT; stage++) {
        assert_judgement(refused((enum relay_stage)stage, 421, 0, 0), OUTCOME_STRIKE,
                         SERVER_AT_LIMIT);
    }
}

static void greylisting_counts_at_no_stage_but_a_filter_that_is_down_does(void **state)
{
    (void)state;
    struct relay_reply reply = {.how = RELAY_REPLY,
                                .code = 451,
                                .enhanced = {4, 7, 1},
                                .text = SLICE_LITERAL("Try again later")};
    struct outcome_question question = {.verdict = RELAY_REFUSED, .reply = &reply};
    for (int stage = RELAY_AT_RECIPIENT; stage <= RELAY_AT_DOT; stage++) {
        reply.stage = (enum relay_stage)stage;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
    }
    reply.text = SLICE_LITERAL("Service unavailable - try again later");
    assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_DEFERS);
    reply = (struct relay_reply){.stage = RELAY_AT_DOT, .how = RELAY_REPLY, .code = 451};
    assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_DEFERS);
}

static void what_cannot_be_said_to_a_server_is_not_its_refusal(void **state)
{
    (void)state;
    const enum relay_stage stages[] = {RELAY_AT_MAIL, RELAY_AT_RECIPIENT};
    for (size_t i = 0; i < 2; i++) {
        assert_judgement(judge(RELAY_REFUSED, stages[i], RELAY_LOCAL, 553), OUTCOME_FINAL,
                         SERVER_SAYS_NOTHING);
    }
}

static void a_reused_session_may_end_before_mail_is_answered(void **state)
{
    (void)state;
    struct relay_reply lost = {.stage = RELAY_AT_MAIL, .how = RELAY_LOST};
    struct relay_reply closing = {.stage = RELAY_AT_MAIL, .how = RELAY_REPLY, .code = 421};
    struct outcome_question question = {
        .verdict = RELAY_CUT, .reply = &lost, .reused_session = true};
    assert_judgement(outcome_of_delivery(&question), OUTCOME_UNTOUCHED, SERVER_SAYS_NOTHING);
    question.reply = &closing;
    question.verdict = RELAY_REFUSED;
    assert_judgement(outcome_of_delivery(&question), OUTCOME_UNTOUCHED, SERVER_SAYS_NOTHING);
    question.verdict = RELAY_CUT;
    assert_judgement(outcome_of_delivery(&question), OUTCOME_UNTOUCHED, SERVER_SAYS_NOTHING);
    lost.stage = RELAY_AT_RECIPIENT;
    question.reply = &lost;
    assert_judgement(outcome_of_delivery(&question), OUTCOME_STRIKE, SERVER_FAILS);
    /* Who lets go of old sessions answers; who is silent fails. */
    lost = (struct relay_reply){.stage = RELAY_AT_MAIL, .how = RELAY_TIMEOUT};
    assert_judgement(outcome_of_delivery(&question), OUTCOME_STRIKE, SERVER_FAILS);
}

static void losses_before_the_dot_are_strikes_until_the_message_is_to_blame(void **state)
{
    (void)state;
    const enum relay_stage stages[] = {RELAY_AT_MAIL, RELAY_AT_RECIPIENT, RELAY_AT_DATA,
                                       RELAY_AT_CONTENT};
    for (size_t i = 0; i < 4; i++) {
        assert_judgement(judge(RELAY_CUT, stages[i], RELAY_LOST, 0), OUTCOME_STRIKE, SERVER_FAILS);
        assert_judgement(judge(RELAY_CUT, stages[i], RELAY_TIMEOUT, 0), OUTCOME_STRIKE,
                         SERVER_FAILS);
        struct relay_reply reply = {.stage = stages[i], .how = RELAY_LOST};
        struct outcome_question question = {
            .verdict = RELAY_CUT, .reply = &reply, .broke_before = true};
        assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_FAILS_THIS);
        reply = (struct relay_reply){.stage = stages[i], .how = RELAY_REPLY, .code = 421};
        question.verdict = RELAY_REFUSED;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_FAILS_THIS);
        reply.code = 530;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_FAILS_THIS);
        question.verdict = RELAY_CUT;
        /* Our own trouble blames no server, yet does not turn in a circle. */
        reply.how = RELAY_LOCAL;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_DEFERRED, SERVER_SAYS_NOTHING);
        question.broke_before = false;
        assert_judgement(outcome_of_delivery(&question), OUTCOME_STRIKE, SERVER_SAYS_NOTHING);
    }
}

static void credentials_are_a_strike_at_most(void **state)
{
    (void)state;
    const uint16_t codes[] = {530, 534, 535, 538};
    for (size_t i = 0; i < 4; i++) {
        for (int stage = RELAY_AT_MAIL; stage <= RELAY_AT_DOT; stage++) {
            assert_judgement(refused((enum relay_stage)stage, codes[i], 0, 0), OUTCOME_STRIKE,
                             SERVER_CREDENTIALS);
        }
        struct relay_reply reply = {.stage = RELAY_AT_HELLO, .how = RELAY_REPLY, .code = codes[i]};
        assert_int_equal(outcome_of_session(&reply, false), SERVER_CREDENTIALS);
    }
}

static void a_login_that_fails_for_now_is_no_matter_of_credentials(void **state)
{
    (void)state;
    static const struct {
        uint16_t code;
        enum verdict expected;
    } replies[] = {{535, SERVER_CREDENTIALS}, {504, SERVER_CREDENTIALS}, {432, SERVER_CREDENTIALS},
                   {454, SERVER_UNGREETED},   {451, SERVER_UNGREETED},   {421, SERVER_AT_LIMIT}};
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        struct relay_reply reply = {
            .stage = RELAY_AT_AUTH, .how = RELAY_REPLY, .code = replies[i].code};
        assert_int_equal(outcome_of_session(&reply, false), replies[i].expected);
    }
}

static void sessions_that_never_came_to_mail_are_the_servers_failure(void **state)
{
    (void)state;
    const struct {
        enum relay_stage stage;
        enum relay_how how;
        uint16_t code;
        bool worked;
        enum verdict expected;
    } cases[] = {
        {RELAY_AT_RESOLVE, RELAY_LOST, 0, false, SERVER_UNREACHABLE},
        {RELAY_AT_RESOLVE, RELAY_TIMEOUT, 0, false, SERVER_UNREACHABLE},
        {RELAY_AT_CONNECT, RELAY_LOST, 0, false, SERVER_UNREACHABLE},
        {RELAY_AT_CONNECT, RELAY_TIMEOUT, 0, false, SERVER_UNREACHABLE},
        {RELAY_AT_GREETING, RELAY_TIMEOUT, 0, false, SERVER_UNGREETED},
        {RELAY_AT_GREETING, RELAY_LOST, 0, false, SERVER_UNGREETED},
        {RELAY_AT_GREETING, RELAY_REPLY, 554, false, SERVER_UNGREETED},
        {RELAY_AT_GREETING, RELAY_REPLY, 421, false, SERVER_AT_LIMIT},
        {RELAY_AT_GREETING, RELAY_REPLY, 450, false, SERVER_AT_LIMIT},
        {RELAY_AT_HELLO, RELAY_REPLY, 502, false, SERVER_UNGREETED},
        {RELAY_AT_HELLO, RELAY_REPLY, 450, false, SERVER_UNGREETED},
        {RELAY_AT_HELLO, RELAY_REPLY, 421, false, SERVER_AT_LIMIT},
        {RELAY_AT_HELLO, RELAY_LOST, 0, false, SERVER_UNGREETED},
        {RELAY_AT_AUTH, RELAY_REPLY, 535, false, SERVER_CREDENTIALS},
        {RELAY_AT_AUTH, RELAY_DECLINED, 534, false, SERVER_CREDENTIALS},
        {RELAY_AT_TLS, RELAY_LOST, 0, false, SERVER_UNGREETED},
        {RELAY_AT_IDLE, RELAY_REPLY, 421, true, SERVER_SAYS_NOTHING},
        {RELAY_AT_IDLE, RELAY_REPLY, 421, false, SERVER_AT_LIMIT},
        {RELAY_AT_IDLE, RELAY_LOST, 0, true, SERVER_SAYS_NOTHING},
        {RELAY_AT_IDLE, RELAY_LOST, 0, false, SERVER_UNGREETED},
        {RELAY_AT_DATA, RELAY_LOST, 0, true, SERVER_SAYS_NOTHING},
        {RELAY_AT_CONNECT, RELAY_LOCAL, 0, false, SERVER_SAYS_NOTHING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct relay_reply reply = {
            .stage = cases[i].stage, .how = cases[i].how, .code = cases[i].code};
        assert_int_equal(outcome_of_session(&reply, cases[i].worked), cases[i].expected);
    }
}

/* Whatever is said, some things must never follow. */
static void check_never(const struct outcome_question *question)
{
    const struct relay_reply *reply = question->reply;
    struct judgement judgement = outcome_of_delivery(question);
    bool refusal = (reply->how == RELAY_REPLY ||
                    (reply->how == RELAY_LOCAL && question->verdict == RELAY_REFUSED)) &&
                   reply->code >= 500 && reply->code <= 599;
    assert_true((judgement.outcome == OUTCOME_DELIVERED) == (question->verdict == RELAY_ACCEPTED));
    assert_true((judgement.outcome == OUTCOME_DOUBT) == (question->verdict == RELAY_IN_DOUBT));
    if (judgement.outcome == OUTCOME_FINAL || judgement.outcome == OUTCOME_HELD) {
        assert_true(refusal);
        assert_in_range(reply->stage, RELAY_AT_MAIL, RELAY_AT_DOT);
        assert_true(question->verdict == RELAY_REFUSED || question->verdict == RELAY_CUT);
    }
    if (question->verdict == RELAY_NOT_TRIED) {
        assert_int_equal(judgement.outcome, OUTCOME_UNTOUCHED);
    }
    if (reply->how == RELAY_LOCAL && question->verdict != RELAY_ACCEPTED) {
        assert_int_equal(judgement.verdict, SERVER_SAYS_NOTHING);
    }
    if (judgement.outcome == OUTCOME_STRIKE) {
        assert_true(question->verdict == RELAY_CUT || question->verdict == RELAY_REFUSED);
        assert_false(question->broke_before);
    }
    if (judgement.verdict == SERVER_CREDENTIALS) {
        assert_true(judgement.outcome == OUTCOME_UNTOUCHED || judgement.outcome == OUTCOME_STRIKE);
    }
    if (judgement.verdict == SERVER_FAILS_THIS) {
        assert_true(question->broke_before);
        assert_int_equal(judgement.outcome, OUTCOME_DEFERRED);
    }
}

static void no_combination_loses_or_ends_a_delivery_wrongly(void **state)
{
    (void)state;
    static const uint8_t enhanced[][2] = {{0, 0}, {1, 1}, {1, 7}, {2, 2}, {3, 1}, {3, 4}, {5, 3}};
    for (int verdict = 0; verdict <= RELAY_IN_DOUBT; verdict++) {
        for (int stage = 0; stage <= RELAY_AT_IDLE; stage++) {
            for (int how = 0; how <= RELAY_DECLINED; how++) {
                for (unsigned code = 0; code < 700; code += code == 0 ? 200 : 1) {
                    for (unsigned more = 0; more < 4 * 7; more++) {
                        struct relay_reply reply = {.stage = (enum relay_stage)stage,
                                                    .how = (enum relay_how)how,
                                                    .code = (uint16_t)code};
                        const uint8_t *pair = enhanced[more / 4];
                        reply.enhanced[0] = pair[0] != 0 ? (uint8_t)(code / 100) : 0;
                        reply.enhanced[1] = pair[0];
                        reply.enhanced[2] = pair[1];
                        struct outcome_question question = {
                            .verdict = (enum relay_verdict)verdict,
                            .reply = &reply,
                            .reused_session = (more & 1) != 0,
                            .broke_before = (more & 2) != 0,
                        };
                        check_never(&question);
                    }
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_refusals_are_final_only_when_they_speak_of_the_message),
        cmocka_unit_test(what_is_damaged_here_is_held_and_what_cannot_be_read_put_off),
        cmocka_unit_test(too_many_recipients_costs_nothing),
        cmocka_unit_test(a_rehearsal_ends_with_any_reply_to_its_envelope),
        cmocka_unit_test(recipients_are_deferred_or_refused_each),
        cmocka_unit_test(data_and_dot_speak_for_the_transaction),
        cmocka_unit_test(greylisting_counts_at_no_stage_but_a_filter_that_is_down_does),
        cmocka_unit_test(what_cannot_be_said_to_a_server_is_not_its_refusal),
        cmocka_unit_test(a_login_that_fails_for_now_is_no_matter_of_credentials),
        cmocka_unit_test(a_reused_session_may_end_before_mail_is_answered),
        cmocka_unit_test(losses_before_the_dot_are_strikes_until_the_message_is_to_blame),
        cmocka_unit_test(credentials_are_a_strike_at_most),
        cmocka_unit_test(sessions_that_never_came_to_mail_are_the_servers_failure),
        cmocka_unit_test(no_combination_loses_or_ends_a_delivery_wrongly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
