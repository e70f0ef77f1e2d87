/* SPDX-License-Identifier: Apache-2.0
 *
 * A session's filters. At each step of the client's they are asked one after another, in the order
 * of the listener's list, after our own rules have let the step pass; the first that refuses has
 * spoken for all. One that has no connection yet, or has lost it, is told at the next MAIL what it
 * has missed of the session. One that fails within a message knows no more of it.
 */
#include "service/smtp_in_milter.h"

#include "sys/clock.h"
#include "sys/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    WORDS_MAX = 8 << 10,
    VERDICTS_MAX = 4 << 10,
};

static const struct smtp_answer unavailable = {
    451, "4.7.1", SLICE_LITERAL("Service unavailable, try again later")};

/* ---- listeners ------------------------------------------------------------------------------- */

bool listener_take_milters(struct listener *listener, const struct service_config *config,
                           const struct listener_config *from)
{
    listener->milter_default = from->milter_default;
    for (uint32_t i = 0; i < from->milter_count; i++) {
        struct milter_peer *peer =
            milter_peer_get(listener->in, &config->milters[from->milters[i]]);
        if (peer == NULL) {
            return false;
        }
        listener->milters[listener->milter_count++] = peer;
    }
    return true;
}

void listener_drop_milters(struct listener *listener)
{
    for (uint32_t i = 0; i < listener->milter_count; i++) {
        milter_peer_unref(listener->milters[i]);
    }
    listener->milter_count = 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static struct session_milters *milters_new(struct session *session)
{
    const struct listener *listener = session->listener;
    struct session_milters *milters =
        calloc(1, sizeof(*milters) + listener->milter_count * sizeof(milters->each[0]));
    if (milters == NULL) {
        return NULL;
    }
    milters->session = session;
    milters->listener = session->listener;
    milters->listener->references++;
    milters->count = listener->milter_count;
    buffer_init(&milters->words, WORDS_MAX);
    buffer_init(&milters->verdicts, VERDICTS_MAX);
    for (uint32_t i = 0; i < milters->count; i++) {
        milters->each[i].all = milters;
        milters->each[i].peer = listener->milters[i];
        milters->each[i].peer->references++;
    }
    return milters;
}

static void leave(struct session_milter *filter)
{
    if (filter->link != NULL) {
        milter_link_leave(filter->link);
    }
    filter->is_met = filter->knows_helo = filter->in_message = false;
}

static void message_over(struct session_milters *milters)
{
    int64_t now_ms = clock_steady_ms();
    for (uint32_t i = 0; i < milters->count; i++) {
        struct session_milter *filter = &milters->each[i];
        if (filter->in_message && filter->link != NULL) {
            milter_abort(filter->link->milter, now_ms);
            milter_link_go(filter->link);
        }
        filter->in_message = filter->is_out = false;
    }
    draft_free(milters->session->in, milters->draft);
    milters->draft = NULL;
    milters->has_failed = milters->is_discarded = milters->is_content = milters->is_asked = false;
    milters->recipients = 0;
    buffer_clear(&milters->verdicts);
}

void milters_message_over(struct session *session)
{
    if (session->milters != NULL) {
        message_over(session->milters);
    }
}

void milters_free(struct session *session)
{
    struct session_milters *milters = session->milters;
    if (milters == NULL) {
        return;
    }
    message_over(milters);
    for (uint32_t i = 0; i < milters->count; i++) {
        leave(&milters->each[i]);
        milter_peer_unref(milters->each[i].peer);
    }
    buffer_done(&milters->words);
    buffer_done(&milters->verdicts);
    listener_unref(milters->listener);
    free(milters);
    session->milters = NULL;
}

void milters_meet_again(struct session *session)
{
    for (uint32_t i = 0; session->milters != NULL && i < session->milters->count; i++) {
        leave(&session->milters->each[i]);
    }
}

/* ---- verdicts -------------------------------------------------------------------------------- */

void milter_note_verdict(struct session_milters *milters, const struct session_milter *filter,
                         const char *verdict, struct slice text)
{
    struct buffer *to = &milters->verdicts;
    size_t length = filter->peer->config.name.length + strlen(verdict) + text.length + 8;
    if (to->length + length < VERDICTS_MAX) {
        buffer_append_text(to, to->length > 0 ? "; " : "");
        buffer_append(to, filter->peer->config.name);
        buffer_append_text(to, "=");
        buffer_append_text(to, verdict);
        buffer_append_text(to, text.length > 0 ? " " : "");
        buffer_append(to, text);
    }
}

/* Its answer's text lasts until the loop's next. */
struct smtp_answer milter_refusal(const struct session_milter *filter,
                                  const struct milter_event *event)
{
    struct smtp_in *in = filter->all->session->in;
    static const struct smtp_answer usual[] = {
        [MILTER_REJECT] = {550, "5.7.1", SLICE_LITERAL("Command rejected")},
        [MILTER_TEMPFAIL] = {451, "4.7.1", SLICE_LITERAL("Service unavailable, try again later")},
        [MILTER_HANG_UP] = {421, "4.7.0", SLICE_LITERAL("Closing connection")},
    };
    struct smtp_answer answer = usual[event->verdict];
    if (event->code != 0) {
        answer.code = event->code;
    }
    if (event->enhanced.length > 0) {
        snprintf(in->enhanced, sizeof(in->enhanced), "%.*s", SLICE_PRINT(event->enhanced));
        answer.enhanced = in->enhanced;
    } else if (event->code != 0 && event->text.length > 0) {
        answer.enhanced = NULL;
    }
    if (event->text.length > 0) {
        size_t length =
            event->text.length < sizeof(in->text) ? event->text.length : sizeof(in->text);
        memcpy(in->text, event->text.data, length);
        answer.text = slice_make(in->text, length);
    }
    return answer;
}

static const char *stage_name(enum milter_stage stage)
{
    static const char *const names[] = {"connect", "helo",   "mail", "rcpt", "data",
                                        "header",  "header", "body", "end"};
    return names[stage];
}

static enum milter_default default_of(const struct session_milter *filter)
{
    enum milter_default own = filter->peer->config.otherwise;
    return own != MILTER_DEFAULT_LISTENER ? own : filter->all->listener->milter_default;
}

bool milter_failed(struct session_milter *filter, struct slice why, struct smtp_answer *ret_answer)
{
    struct session_milters *milters = filter->all;
    struct smtp_in *in = milters->session->in;
    bool accepts = default_of(filter) == MILTER_DEFAULT_ACCEPT;
    char client[IP_TEXT_SIZE];
    if (filter->link != NULL) {
        milter_link_close(filter->link);
        filter->link = NULL;
    }
    filter->is_met = filter->knows_helo = filter->in_message = false;
    ip_to_text(&milters->session->client.address, client);
    counter_add(in->counters, COUNTER_MILTER_FAILURES, 1);
    log_event(LOG_LEVEL_WARNING, "filter-failed", LOG_SLICE("milter", filter->peer->config.name),
              LOG_TEXT("stage", stage_name(milters->stage)), LOG_TEXT("client", client),
              LOG_SLICE("reason", why), LOG_TEXT("default", accepts ? "accept" : "tempfail"));
    if (milters->stage < MILTER_MAIL) {
        return false; /* it is met again at MAIL */
    }
    filter->is_out = true;
    milter_note_verdict(milters, filter, "failed", why);
    if (accepts) {
        return false;
    }
    milters->has_failed = true;
    *ret_answer = unavailable;
    return true;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* What it must be told next so that the client can be answered; false: nothing. */
static bool next_step(const struct session_milter *filter, enum milter_stage *ret_stage)
{
    const struct session_milters *milters = filter->all;
    if (filter->is_out || (milters->stage > MILTER_MAIL && !filter->in_message)) {
        return false;
    }
    if (!filter->is_met) {
        *ret_stage = MILTER_CONNECT;
        return true;
    }
    if (milters->stage != MILTER_CONNECT && !filter->knows_helo && milters->session->helo != NULL) {
        *ret_stage = MILTER_HELO;
        return true;
    }
    *ret_stage = milters->stage;
    return milters->stage >= MILTER_MAIL;
}

static void took_step(struct session_milter *filter)
{
    switch (filter->all->said) {
    case MILTER_CONNECT:
        filter->is_met = true;
        break;
    case MILTER_HELO:
        filter->knows_helo = true;
        break;
    case MILTER_MAIL:
        filter->in_message = true;
        break;
    default:
        break;
    }
}

/* True: an answer will come. */
static bool say(struct session_milter *filter, enum milter_stage stage)
{
    struct session_milters *milters = filter->all;
    struct session *session = milters->session;
    struct milter *milter = filter->link->milter;
    struct slice words = buffer_slice(&milters->words);
    struct slice first = slice_take(words, milters->first_length);
    struct slice second = slice_skip(words, milters->first_length);
    int64_t now_ms = clock_steady_ms();
    struct slice name = client_name(session);
    char address[IP_TEXT_SIZE], host[IP_TEXT_SIZE + 8];
    milters->said = stage;
    switch (stage) {
    case MILTER_CONNECT:
        ip_to_text(&session->client.address, address);
        snprintf(host, sizeof(host), "[%s%s]",
                 ip_is_v4(&session->client.address) ? "" : "IPv6:", address);
        return milter_connect(milter, name.length > 0 ? name : slice_from_text(host),
                              &session->client, now_ms);
    case MILTER_HELO:
        return milter_helo(milter, slice_make(session->helo, session->helo_length), now_ms);
    case MILTER_MAIL:
        return milter_mail(milter, first, second, now_ms);
    case MILTER_RCPT:
        return milter_rcpt(milter, first, second, now_ms);
    default:
        return milter_data(milter, now_ms);
    }
}

enum went { WENT_ON, WENT_WAITING, WENT_ANSWERED };

static enum went fail(struct session_milter *filter, const char *why,
                      struct smtp_answer *ret_answer)
{
    return milter_failed(filter, slice_from_text(why), ret_answer) ? WENT_ANSWERED : WENT_ON;
}

/* All that one filter is to be told now. */
static enum went ask_one(struct session_milter *filter, struct smtp_answer *ret_answer)
{
    enum milter_stage stage;
    const char *why;
    while (next_step(filter, &stage)) {
        if (filter->link == NULL) {
            enum error error = milter_link_get(filter, &filter->link);
            if (error != ERROR_NONE) {
                return fail(filter, error == ERROR_AGAIN ? "it is away" : error_text(error),
                            ret_answer);
            }
        }
        if (filter->link->state != LINK_READY) {
            return WENT_WAITING;
        }
        if (!milter_link_check(filter->link, &why)) {
            return fail(filter, why, ret_answer);
        }
        bool waits = say(filter, stage);
        milter_link_go(filter->link);
        if (waits) {
            return WENT_WAITING;
        }
        took_step(filter);
        if (stage == filter->all->stage) {
            break;
        }
    }
    return WENT_ON;
}

/* True: *ret_answer is the client's; false: it comes later. */
static bool ask_on(struct session_milters *milters, struct smtp_answer *ret_answer)
{
    for (; milters->at < milters->count && !milters->is_discarded; milters->at++) {
        enum went went = ask_one(&milters->each[milters->at], ret_answer);
        milters->is_asked = went == WENT_WAITING;
        if (went != WENT_ON) {
            return went == WENT_ANSWERED;
        }
    }
    if (milters->stage == MILTER_RCPT) {
        milters->recipients = milters->session->transaction->recipient_count;
    }
    *ret_answer = SMTP_ACCEPT;
    return true;
}

static void refuse_recipient(struct session_milters *milters)
{
    counter_add(milters->session->in->counters, COUNTER_RECIPIENTS_REFUSED, 1);
    envelope_forget_recipients(milters->session, milters->recipients);
}

static void conclude(struct session_milters *milters, struct smtp_answer answer)
{
    struct session *session = milters->session;
    enum smtp_server_event_kind kind = milters->kind;
    milters->is_asked = false;
    if (answer.code != 0 && milters->stage == MILTER_RCPT) {
        refuse_recipient(milters);
    }
    if (!guard_holds(session, kind, &answer)) {
        session_answer(session, kind, &answer);
    }
}

/* ---- what links tell ------------------------------------------------------------------------- */

static void go_on(struct session_milters *milters)
{
    struct smtp_answer answer;
    if (milters->is_content ? milter_content_go(milters, &answer) : ask_on(milters, &answer)) {
        conclude(milters, answer);
    }
}

void milter_met(struct session_milter *owner)
{
    go_on(owner->all);
}

void milter_has_room(struct session_milter *owner)
{
    go_on(owner->all);
}

void milter_lost_it(struct session_milter *owner, struct slice why, bool was_used_before)
{
    struct session_milters *milters = owner->all;
    struct smtp_answer answer;
    bool is_asked = milters->is_asked && &milters->each[milters->at] == owner;
    bool is_idle = !owner->in_message && !is_asked;
    bool may_have_gone_before = was_used_before && !owner->is_met;
    if (is_idle || (is_asked && may_have_gone_before)) {
        /* Nothing is lost with it: another connection is made when it is needed. */
        owner->is_met = owner->knows_helo = false;
        if (is_asked) {
            go_on(milters);
        }
        return;
    }
    bool is_answered = milter_failed(owner, why, &answer);
    if (!is_asked) {
        return; /* heard of at the next step */
    }
    if (is_answered) {
        conclude(milters, answer);
    } else {
        milters->at += !milters->is_content;
        go_on(milters);
    }
}

/* A session that is refused at its connection ends: 554 or 421 (RFC 5321 section 3.1). */
static struct smtp_answer refuse_at(const struct session_milters *milters,
                                    struct smtp_answer answer)
{
    if (milters->kind == SMTP_SERVER_GREETING) {
        answer.code = answer.code >= 500 ? 554 : 421;
    }
    return answer;
}

void milter_discard(struct session_milters *milters, const struct session_milter *filter)
{
    milters->is_discarded = true;
    milters->session->transaction->is_discarded = true;
    milter_note_verdict(milters, filter, "discard", SLICE_EMPTY);
}

void milter_tell_refusal(const struct session_milters *milters, const struct session_milter *filter,
                         const struct smtp_answer *answer)
{
    const struct session *session = milters->session;
    char client[IP_TEXT_SIZE];
    ip_to_text(&session->client.address, client);
    counter_add(session->in->counters, COUNTER_MILTER_REFUSALS, 1);
    log_event(LOG_LEVEL_INFO, "filter-refused", LOG_SLICE("milter", filter->peer->config.name),
              LOG_TEXT("stage", stage_name(milters->said)), LOG_TEXT("client", client),
              LOG_SLICE("sender",
                        session->transaction != NULL ? session->transaction->sender : SLICE_EMPTY),
              LOG_NUMBER("code", answer->code), LOG_SLICE("reason", answer->text));
}

bool milter_said(struct session_milter *owner, const struct milter_event *event)
{
    struct session_milters *milters = owner->all;
    struct smtp_answer answer;
    if (milters->is_content) {
        return milter_content_said(owner, event);
    }
    assert(event->kind == MILTER_VERDICT); /* changes come at the end of a message only */
    milters->is_asked = false;
    took_step(owner);
    switch (event->verdict) {
    case MILTER_DISCARD:
        milter_discard(milters, owner);
        go_on(milters);
        return false;
    case MILTER_REJECT:
    case MILTER_TEMPFAIL:
    case MILTER_HANG_UP:
        answer = refuse_at(milters, milter_refusal(owner, event));
        milter_tell_refusal(milters, owner, &answer);
        if (milters->said <= MILTER_HELO) {
            leave(owner); /* should the client go on, it is asked the same again */
        }
        conclude(milters, answer);
        return false;
    default:
        milters->at += milters->said == milters->stage;
        go_on(milters);
        return false;
    }
}

/* ---- steps of the client --------------------------------------------------------------------- */

static bool stage_of(enum smtp_server_event_kind kind, enum milter_stage *ret_stage)
{
    switch (kind) {
    case SMTP_SERVER_GREETING:
        *ret_stage = MILTER_CONNECT;
        return true;
    case SMTP_SERVER_HELLO:
        *ret_stage = MILTER_HELO;
        return true;
    case SMTP_SERVER_MAIL:
        *ret_stage = MILTER_MAIL;
        return true;
    case SMTP_SERVER_RECIPIENT:
        *ret_stage = MILTER_RCPT;
        return true;
    case SMTP_SERVER_DATA:
        *ret_stage = MILTER_DATA;
        return true;
    default:
        return false;
    }
}

static bool keep_words(struct session_milters *milters, const struct smtp_server_event *event)
{
    struct buffer *words = &milters->words;
    buffer_clear(words);
    buffer_append(words, event->mailbox.text);
    milters->first_length = event->mailbox.text.length;
    buffer_append(words, event->parameters);
    return !words->failed;
}

/* Filters of the listener as it is now, from a session's beginning or, after a reload, from its
 * next message on. */
static bool take_filters(struct session *session)
{
    if (session->milters != NULL && session->milters->listener != session->listener) {
        milters_free(session);
    }
    if (session->milters == NULL && session->listener->milter_count > 0) {
        session->milters = milters_new(session);
        return session->milters != NULL;
    }
    return true;
}

bool milters_hold(struct session *session, const struct smtp_server_event *event,
                  struct smtp_answer *answer)
{
    enum milter_stage stage;
    if (answer->code != 0 || !stage_of(event->kind, &stage)) {
        return false;
    }
    if (stage <= MILTER_MAIL && !take_filters(session)) {
        *answer = unavailable;
        return false;
    }
    struct session_milters *milters = session->milters;
    if (milters == NULL) {
        return false;
    }
    milters->stage = stage;
    milters->kind = event->kind;
    milters->at = 0;
    if (milters->has_failed) {
        *answer = unavailable;
    } else if (!keep_words(milters, event)) {
        *answer = core_error_answer(ERROR_MEMORY);
    } else {
        for (uint32_t i = 0; stage == MILTER_HELO && i < milters->count; i++) {
            milters->each[i].knows_helo = false; /* it has another name */
        }
        if (!ask_on(milters, answer)) {
            return true;
        }
        *answer = answer->code != 0 ? refuse_at(milters, *answer) : *answer;
    }
    if (answer->code != 0 && stage == MILTER_RCPT) {
        refuse_recipient(milters);
    }
    return false;
}
