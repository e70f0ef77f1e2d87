/* SPDX-License-Identifier: Apache-2.0
 *
 * What strangers have to bear: the operator's block and allow rules, a greeting that comes late, a
 * bound on how much of what they may do in a minute, greylisting, and slow answers for who guesses
 * recipients.
 * Relay clients, who has logged in and whom an allow rule names are spared all of it.
 */
#include "service/smtp_in_internal.h"

#include "service/greylist.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    HELD_MAX = 2000, /* answers of a loop that come late; beyond, none does */
    MISSES_FREE = 5, /* refused recipients of a session that are answered at once */
};

/* An answer that is given later. */
struct held_answer {
    struct session *session;
    struct loop_timer *timer;
    enum smtp_server_event_kind kind;
    uint16_t code;
    char enhanced[12];
    char text[SMTP_IN_TEXT_MAX];
};

/* ---- answers that come late -------------------------------------------------------------- */

void guard_forget(struct session *session)
{
    if (session->held != NULL) {
        loop_timer_free(session->held->timer);
        free(session->held);
        session->held = NULL;
        session->in->held_count--;
    }
}

static void on_time(void *context)
{
    struct held_answer *of = context;
    struct held_answer held = *of;
    struct smtp_answer answer = SMTP_ACCEPT;
    if (held.code != 0) {
        answer = (struct smtp_answer){held.code, held.enhanced, slice_from_text(held.text)};
    }
    if (held.kind == SMTP_SERVER_GREETING && held.session->is_early) {
        answer = guard_early(held.session);
    }
    guard_forget(held.session);
    session_answer(held.session, held.kind, &answer);
}

/* False: it is given at once, for want of memory or because so many are held already. */
static bool hold(struct session *session, enum smtp_server_event_kind kind,
                 const struct smtp_answer *answer, uint32_t delay_ms)
{
    struct held_answer *held = session->in->held_count < HELD_MAX ? calloc(1, sizeof(*held)) : NULL;
    if (held == NULL) {
        return false;
    }
    held->timer = loop_timer_new(session->in->loop, on_time, held);
    if (held->timer == NULL) {
        free(held);
        return false;
    }
    held->session = session;
    held->kind = kind;
    held->code = answer->code;
    if (answer->code != 0) {
        snprintf(held->enhanced, sizeof(held->enhanced), "%s",
                 answer->enhanced != NULL ? answer->enhanced : "5.0.0");
        snprintf(held->text, sizeof(held->text), "%.*s", SLICE_PRINT(answer->text));
    }
    loop_timer_set(held->timer, delay_ms);
    session->held = held;
    session->in->held_count++;
    return true;
}

/* ---- who is meant ------------------------------------------------------------------------ */

bool guard_spares(const struct session *session)
{
    return session->is_allowed || login_user(session).length > 0 ||
           routing_is_relay_client(session->in->routing, &session->client.address);
}

/* The rules by client, HELO and, if it is known, sender. The answer's text lasts until the loop's
 * next. */
static struct smtp_answer check_rules(struct session *session, const struct slice *sender)
{
    struct smtp_in *in = session->in;
    struct access_query query = {
        .client = &session->client.address,
        .has_helo = session->helo != NULL,
        .helo = slice_make(session->helo, session->helo_length),
        .has_sender = sender != NULL,
        .sender = sender != NULL ? *sender : SLICE_EMPTY,
    };
    const struct access_rule *rule = access_find(in->access, &query);
    session->is_allowed = rule != NULL && rule->allows;
    if (rule == NULL || rule->allows) {
        return SMTP_ACCEPT;
    }
    int length = snprintf(in->text, sizeof(in->text), "Refused by the rule '%.*s'%s%.*s",
                          SLICE_PRINT(rule->name), rule->text.length > 0 ? ": " : "",
                          SLICE_PRINT(rule->text));
    size_t shown = (size_t)length < sizeof(in->text) ? (size_t)length : sizeof(in->text) - 1;
    struct smtp_answer answer = {554, "5.7.1", slice_make(in->text, shown)};
    counter_add(in->counters, COUNTER_BLOCKED, 1);
    return answer;
}

/* Once more of it, if that is not too much. */
static bool spend(struct session *session, enum smtp_in_deed deed, uint32_t per_minute)
{
    struct smtp_in_shared *shared = session->in->shared;
    struct smtp_in_pace pace = smtp_in_per_minute(per_minute);
    if (per_minute == 0 || guard_spares(session)) {
        return true;
    }
    int64_t now_ms = clock_steady_ms();
    if (!smtp_in_may(shared, deed, pace, &session->client.address, now_ms)) {
        counter_add(session->in->counters, COUNTER_RATE_LIMITED, 1);
        return false;
    }
    smtp_in_did(shared, deed, pace, &session->client.address, now_ms);
    return true;
}

/* ---- stages ------------------------------------------------------------------------------ */

static struct smtp_answer check_connect(struct session *session)
{
    const struct limits_config *limits = &session->in->config->limits;
    struct smtp_answer answer = check_rules(session, NULL);
    if (answer.code != 0) {
        return answer;
    }
    if (!spend(session, SMTP_IN_CONNECTS, limits->connection_rate)) {
        return (struct smtp_answer){421, "4.7.0",
                                    SLICE_LITERAL("You connect too often, wait a minute")};
    }
    if (!guard_spares(session) &&
        !smtp_in_may(session->in->shared, SMTP_IN_MISSES, smtp_in_per_minute(limits->refused_rate),
                     &session->client.address, clock_steady_ms())) {
        counter_add(session->in->counters, COUNTER_RATE_LIMITED, 1);
        return (struct smtp_answer){421, "4.7.0",
                                    SLICE_LITERAL("Too many recipients of yours were refused")};
    }
    return SMTP_ACCEPT;
}

struct smtp_answer guard_connect(struct session *session)
{
    struct smtp_answer answer = check_connect(session);
    if (answer.code != 0) {
        counter_add(session->in->counters, COUNTER_SESSIONS_REFUSED, 1);
        session_log_refused(session, "connect", SLICE_EMPTY, &answer);
    }
    return answer;
}

struct smtp_answer guard_mail(struct session *session, struct slice sender)
{
    struct smtp_answer answer = check_rules(session, &sender);
    if (answer.code == 0 &&
        !spend(session, SMTP_IN_SENDS, session->in->config->limits.message_rate)) {
        answer = (struct smtp_answer){450, "4.7.1",
                                      SLICE_LITERAL("You send too many messages, wait a minute")};
    }
    if (answer.code != 0) {
        session_log_refused_sender(session, sender, &answer);
    }
    return answer;
}

struct smtp_answer guard_recipient(struct session *session)
{
    if (spend(session, SMTP_IN_NAMES, session->in->config->limits.recipient_rate)) {
        return SMTP_ACCEPT;
    }
    return (struct smtp_answer){450, "4.7.1",
                                SLICE_LITERAL("You name too many recipients, wait a minute")};
}

/* Who goes to the backup while the primary is there means no good, or will go to it next: unless it
 * has just gone, which somebody must find out. */
struct smtp_answer guard_only_when_down(const struct session *session, uint32_t route)
{
    struct smtp_in *in = session->in;
    if (!in->config->relay.routes[route].only_when_down || !core_route(in, route)->head_up ||
        guard_spares(session)) {
        return SMTP_ACCEPT;
    }
    counter_add(in->counters, COUNTER_SENT_TO_PRIMARY, 1);
    core_sent_on(in, route);
    return (struct smtp_answer){451, "4.7.1",
                                SLICE_LITERAL("The primary mail server is up, send it there")};
}

struct smtp_answer guard_greylist(struct session *session, struct slice recipient)
{
    struct smtp_in *in = session->in;
    struct greylist_query query = {
        .client = &session->client.address,
        .sender = session->transaction->sender,
        .recipient = recipient,
        .delay_ms = session->listener->greylist_ms,
        .now_ms = clock_steady_ms(),
    };
    struct greylist *greylist = smtp_in_greylist(in->shared);
    int64_t wait_ms = query.delay_ms == 0 || greylist == NULL || guard_spares(session)
                          ? 0
                          : greylist_wait_ms(greylist, &query);
    if (wait_ms == 0) {
        return SMTP_ACCEPT;
    }
    int length =
        snprintf(in->text, sizeof(in->text), "Greylisted: unknown here, try again in %lld seconds",
                 (long long)(wait_ms + 999) / 1000);
    counter_add(in->counters, COUNTER_GREYLISTED, 1);
    return (struct smtp_answer){451, "4.7.1", slice_make(in->text, (size_t)length)};
}

/* That one cannot be verified now says as much as that there is none: that there are others. */
static bool is_miss(const struct smtp_answer *answer)
{
    return answer->code >= 500 ||
           (answer->enhanced != NULL && strcmp(answer->enhanced, "4.1.1") == 0);
}

struct smtp_answer guard_missed(struct session *session, struct smtp_answer answer)
{
    const struct limits_config *limits = &session->in->config->limits;
    if (!is_miss(&answer) || guard_spares(session)) {
        return answer;
    }
    smtp_in_did(session->in->shared, SMTP_IN_MISSES, smtp_in_per_minute(limits->refused_rate),
                &session->client.address, clock_steady_ms());
    if (session->misses < UINT16_MAX) {
        session->misses++;
    }
    if (limits->refused != 0 && session->misses > limits->refused) {
        return (struct smtp_answer){421, "4.7.0", SLICE_LITERAL("Too many refused recipients")};
    }
    return answer;
}

bool guard_holds(struct session *session, enum smtp_server_event_kind kind,
                 const struct smtp_answer *answer)
{
    uint32_t delay_ms = 0;
    if (kind == SMTP_SERVER_GREETING && answer->code == 0 && !session->is_presented) {
        delay_ms = session->listener->greeting_delay_ms;
    } else if (kind == SMTP_SERVER_RECIPIENT && is_miss(answer) && session->misses > MISSES_FREE) {
        delay_ms = session->in->config->limits.tarpit_ms;
        counter_add(session->in->counters, COUNTER_TARPITTED, 1);
    }
    return delay_ms != 0 && !guard_spares(session) && hold(session, kind, answer, delay_ms);
}

bool guard_listens(const struct session *session)
{
    const struct held_answer *held = session->held;
    bool waits = (session->request != 0 && session->asks == REQUEST_LISTING) ||
                 (held != NULL && held->kind == SMTP_SERVER_GREETING && held->code == 0);
    return waits && !session->is_early && session->listener->greeting_delay_ms != 0;
}

struct smtp_answer guard_early(struct session *session)
{
    struct smtp_answer answer = {554, "5.5.1",
                                 SLICE_LITERAL("You spoke before the greeting, as no mail server")};
    counter_add(session->in->counters, COUNTER_EARLY_TALKERS, 1);
    counter_add(session->in->counters, COUNTER_SESSIONS_REFUSED, 1);
    session_log_refused(session, "connect", SLICE_EMPTY, &answer);
    return answer;
}

void guard_talked(struct session *session)
{
    session->is_early = true;
}
