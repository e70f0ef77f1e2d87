/* SPDX-License-Identifier: Apache-2.0
 *
 * R4's table. A row matches when each of its conditions does; a condition left out (zero) matches
 * all. Rows are tried from the top.
 */
#include "relay/outcome.h"

/* Stages as a set. */
enum {
    AT_RESOLVE = 1 << RELAY_AT_RESOLVE,
    AT_CONNECT = 1 << RELAY_AT_CONNECT,
    AT_GREETING = 1 << RELAY_AT_GREETING,
    AT_HELLO = 1 << RELAY_AT_HELLO,
    AT_TLS = 1 << RELAY_AT_TLS,
    AT_AUTH = 1 << RELAY_AT_AUTH,
    AT_MAIL = 1 << RELAY_AT_MAIL,
    AT_RECIPIENT = 1 << RELAY_AT_RECIPIENT,
    AT_DATA = 1 << RELAY_AT_DATA,
    AT_CONTENT = 1 << RELAY_AT_CONTENT,
    AT_DOT = 1 << RELAY_AT_DOT,
    AT_IDLE = 1 << RELAY_AT_IDLE,
    BEFORE_MAIL = AT_RESOLVE | AT_CONNECT | AT_GREETING | AT_HELLO | AT_TLS | AT_AUTH | AT_IDLE,
    BEFORE_DOT = AT_MAIL | AT_RECIPIENT | AT_DATA | AT_CONTENT,
    ENVELOPE = AT_MAIL | AT_RECIPIENT,
    AFTER_RCPT = AT_DATA | AT_CONTENT | AT_DOT,
};

enum {
    HOW_REPLY = 1 << RELAY_REPLY,
    HOW_LOST = 1 << RELAY_LOST,
    HOW_TIMEOUT = 1 << RELAY_TIMEOUT,
    HOW_LOCAL = 1 << RELAY_LOCAL,
    HOW_DECLINED = 1 << RELAY_DECLINED,
    HOW_GONE = HOW_LOST | HOW_TIMEOUT,
    HOW_REFUSED = HOW_REPLY | HOW_DECLINED,
};

enum {
    IF_ACCEPTED = 1 << RELAY_ACCEPTED,
    IF_REFUSED = 1 << RELAY_REFUSED,
    IF_NOT_TRIED = 1 << RELAY_NOT_TRIED,
    IF_CUT = 1 << RELAY_CUT,
    IF_IN_DOUBT = 1 << RELAY_IN_DOUBT,
    IF_DAMAGED = 1 << RELAY_DAMAGED,
};

typedef bool row_condition(const struct outcome_question *question);

static bool is_credentials(const struct outcome_question *question)
{
    uint16_t code = question->reply->code;
    return code == 530 || code == 534 || code == 535 || code == 538;
}

/* Nothing but the operator mends that. 432 asks for a password to be set anew (RFC 4954 4.7.12),
 * other 4xx, such as 454, speak of the server's own trouble with logins. */
static bool is_login_refused(const struct outcome_question *question)
{
    uint16_t code = question->reply->code;
    return is_credentials(question) ||
           (question->reply->stage == RELAY_AT_AUTH && (code >= 500 || code == 432));
}

static bool is_421(const struct outcome_question *question)
{
    return question->reply->code == 421;
}

static bool is_reused(const struct outcome_question *question)
{
    return question->reused_session;
}

static bool is_rehearsal(const struct outcome_question *question)
{
    return question->envelope_only;
}

static bool has_broken_before(const struct outcome_question *question)
{
    return question->broke_before;
}

static bool is_credentials_again(const struct outcome_question *question)
{
    return is_credentials(question) && question->broke_before;
}

static bool is_421_again(const struct outcome_question *question)
{
    return is_421(question) && question->broke_before;
}

static bool is_enhanced(const struct relay_reply *reply, int subject, int detail)
{
    return reply->enhanced[0] != 0 && reply->enhanced[1] == subject && reply->enhanced[2] == detail;
}

/* MAIL refusals that speak of this message or sender; others speak of us (R4). */
static bool is_final_at_mail(const struct outcome_question *question)
{
    const struct relay_reply *reply = question->reply;
    return reply->code == 552 || reply->code == 555 || is_enhanced(reply, 3, 4) ||
           is_enhanced(reply, 1, 7) || is_enhanced(reply, 1, 8) || is_enhanced(reply, 6, 7);
}

static bool is_system_trouble(const struct outcome_question *question)
{
    const struct relay_reply *reply = question->reply;
    return reply->enhanced[0] == 4 && reply->enhanced[1] == 3;
}

/* Greylisting after the content, when all is known of it (R5: RCPT 4.7 never counts; nor this). But
 * 4.7.1 "Service unavailable" is what Postfix says in the name of a filter that is down. */
static bool is_greylisting(const struct outcome_question *question)
{
    const struct relay_reply *reply = question->reply;
    return reply->enhanced[0] == 4 && reply->enhanced[1] == 7 &&
           !slice_starts_fold(reply->text, SLICE_LITERAL("Service unavailable"));
}

struct row {
    uint32_t verdicts;
    uint32_t stages;
    uint32_t hows;
    uint16_t code_from, code_to;
    row_condition *also;
    struct judgement judgement;
};

static const struct row rows[] = {
    {IF_ACCEPTED, AT_RECIPIENT, 0, 0, 0, is_rehearsal, {OUTCOME_REHEARSED, SERVER_SAYS_NOTHING}},
    {IF_ACCEPTED, 0, 0, 0, 0, NULL, {OUTCOME_DELIVERED, SERVER_WORKS}},
    {IF_IN_DOUBT, 0, HOW_LOCAL, 0, 0, NULL, {OUTCOME_DOUBT, SERVER_SAYS_NOTHING}},
    {IF_IN_DOUBT, 0, 0, 0, 0, NULL, {OUTCOME_DOUBT, SERVER_FAILS}},

    /* Nothing was sent for it, or it was one recipient too many. A login refused or a 421 on the
     * way is the server's matter. */
    {IF_NOT_TRIED,
     0,
     HOW_REFUSED,
     500,
     599,
     is_credentials,
     {OUTCOME_UNTOUCHED, SERVER_CREDENTIALS}},
    {IF_NOT_TRIED, 0, 0, 0, 0, NULL, {OUTCOME_UNTOUCHED, SERVER_SAYS_NOTHING}},

    /* No schedule mends it: the operator is told. */
    {IF_DAMAGED, 0, 0, 0, 0, NULL, {OUTCOME_HELD, SERVER_SAYS_NOTHING}},

    /* Our own trouble counts against no server; what we cannot say to it at all is refused here, a
     * message whose content cannot be read is put off, and one that always breaks the session from
     * our side ends there by its strikes. */
    {IF_REFUSED,
     ENVELOPE,
     HOW_LOCAL,
     500,
     599,
     is_rehearsal,
     {OUTCOME_REHEARSED, SERVER_SAYS_NOTHING}},
    {IF_REFUSED, ENVELOPE, HOW_LOCAL, 500, 599, NULL, {OUTCOME_FINAL, SERVER_SAYS_NOTHING}},
    {IF_REFUSED, 0, HOW_LOCAL, 0, 0, NULL, {OUTCOME_DEFERRED, SERVER_SAYS_NOTHING}},
    {IF_CUT, 0, HOW_LOCAL, 0, 0, has_broken_before, {OUTCOME_DEFERRED, SERVER_SAYS_NOTHING}},
    {IF_CUT, 0, HOW_LOCAL, 0, 0, NULL, {OUTCOME_STRIKE, SERVER_SAYS_NOTHING}},

    /* AUTH refused, or impossible for us; 530, 534, 535, 538 before MAIL. */
    {0, BEFORE_MAIL, HOW_REFUSED, 0, 0, is_login_refused, {OUTCOME_UNTOUCHED, SERVER_CREDENTIALS}},
    {0, BEFORE_MAIL, 0, 0, 0, NULL, {OUTCOME_UNTOUCHED, SERVER_FAILS}},

    /* 421 or loss on a reused session before MAIL is answered: same server, fresh connection. */
    {0, AT_MAIL, HOW_REPLY, 421, 421, is_reused, {OUTCOME_UNTOUCHED, SERVER_SAYS_NOTHING}},
    {0, AT_MAIL, HOW_LOST, 0, 0, is_reused, {OUTCOME_UNTOUCHED, SERVER_SAYS_NOTHING}},
    /* Loss or time-out before the dot, any other 421 before it, 530, 534, 535, 538 within a
     * transaction: server failure and a strike, for a server says such things of a single message,
     * too. */
    {IF_CUT, 0, HOW_GONE, 0, 0, has_broken_before, {OUTCOME_DEFERRED, SERVER_FAILS_THIS}},
    {IF_CUT, 0, HOW_GONE, 0, 0, NULL, {OUTCOME_STRIKE, SERVER_FAILS}},
    {0, BEFORE_DOT, HOW_REPLY, 0, 0, is_421_again, {OUTCOME_DEFERRED, SERVER_FAILS_THIS}},
    {0, BEFORE_DOT, HOW_REPLY, 0, 0, is_421, {OUTCOME_STRIKE, SERVER_AT_LIMIT}},
    {0, 0, HOW_REPLY, 0, 0, is_credentials_again, {OUTCOME_DEFERRED, SERVER_FAILS_THIS}},
    {0, 0, HOW_REPLY, 0, 0, is_credentials, {OUTCOME_STRIKE, SERVER_CREDENTIALS}},

    /* Nothing is tried again that was to be asked once, and it does not count. */
    {IF_REFUSED,
     ENVELOPE,
     HOW_REPLY,
     400,
     599,
     is_rehearsal,
     {OUTCOME_REHEARSED, SERVER_SAYS_NOTHING}},

    {0, AT_MAIL, HOW_REPLY, 400, 499, NULL, {OUTCOME_DEFERRED, SERVER_DEFERS}},
    {0, AT_MAIL, HOW_REPLY, 500, 599, is_final_at_mail, {OUTCOME_FINAL, SERVER_REFUSES}},
    {0, AT_MAIL, HOW_REPLY, 500, 599, NULL, {OUTCOME_HELD, SERVER_REFUSES}},

    {0, AT_RECIPIENT, HOW_REPLY, 400, 499, is_system_trouble, {OUTCOME_DEFERRED, SERVER_DEFERS}},
    {0, AT_RECIPIENT, HOW_REPLY, 400, 499, NULL, {OUTCOME_DEFERRED, SERVER_SAYS_NOTHING}},
    {0, AT_RECIPIENT, HOW_REPLY, 500, 599, NULL, {OUTCOME_FINAL, SERVER_REFUSES}},

    {0, AFTER_RCPT, HOW_REPLY, 400, 499, is_greylisting, {OUTCOME_DEFERRED, SERVER_SAYS_NOTHING}},
    {0, AFTER_RCPT, HOW_REPLY, 400, 499, NULL, {OUTCOME_DEFERRED, SERVER_DEFERS}},
    {0, AFTER_RCPT, HOW_REPLY, 500, 599, NULL, {OUTCOME_FINAL, SERVER_REFUSES}},

    /* A reply that no server should give there, or a loss called a refusal: put off, never lost. */
    {0, 0, 0, 0, 0, NULL, {OUTCOME_DEFERRED, SERVER_DEFERS}},
};

static bool row_matches(const struct row *row, const struct outcome_question *question)
{
    const struct relay_reply *reply = question->reply;
    return (row->verdicts == 0 || (row->verdicts & 1u << question->verdict) != 0) &&
           (row->stages == 0 || (row->stages & 1u << reply->stage) != 0) &&
           (row->hows == 0 || (row->hows & 1u << reply->how) != 0) &&
           (row->code_to == 0 || (reply->code >= row->code_from && reply->code <= row->code_to)) &&
           (row->also == NULL || row->also(question));
}

struct judgement outcome_of_delivery(const struct outcome_question *question)
{
    const struct row *row = rows;
    while (!row_matches(row, question)) {
        row++; /* the last one matches all */
    }
    return row->judgement;
}

enum verdict outcome_of_session(const struct relay_reply *reply, bool worked)
{
    struct outcome_question question = {.reply = reply};
    if (reply->how == RELAY_LOCAL) {
        return SERVER_SAYS_NOTHING;
    }
    if ((1u << reply->how & HOW_REFUSED) != 0 && is_login_refused(&question)) {
        return SERVER_CREDENTIALS;
    }
    switch (reply->stage) {
    case RELAY_AT_RESOLVE: /* R3: any failure of DNS means down, never more than that */
    case RELAY_AT_CONNECT:
        return SERVER_UNREACHABLE;
    case RELAY_AT_GREETING:
        return reply->how == RELAY_REPLY && reply->code < 500 ? SERVER_AT_LIMIT : SERVER_UNGREETED;
    case RELAY_AT_HELLO:
    case RELAY_AT_TLS:
    case RELAY_AT_AUTH:
        return reply->how == RELAY_REPLY && is_421(&question) ? SERVER_AT_LIMIT : SERVER_UNGREETED;
    case RELAY_AT_IDLE:
        /* One that closes right after EHLO, again and again, is no server. */
        if (worked) {
            return SERVER_SAYS_NOTHING;
        }
        return reply->how == RELAY_REPLY && is_421(&question) ? SERVER_AT_LIMIT : SERVER_UNGREETED;
    default:
        return SERVER_SAYS_NOTHING; /* within a transaction: its job has told */
    }
}
