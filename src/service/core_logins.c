/* SPDX-License-Identifier: Apache-2.0
 *
 * Logins: what the process of the secrets tells of each, as events for `trace` (event_bound.h says
 * how many), and an alert while somebody must wait after failed ones.
 *
 * It is believed when it says that somebody waits, and for how long: the alert ends with that time,
 * and no sooner than after an hour, or with the process, which forgets who waits; after a restart
 * of ours it is raised by the next failure. So a storm of guesses, which costs strangers nothing,
 * begins few alerts in an hour, and buries no others where a hook tells so many in an hour. Names
 * that nobody has raise none: strangers may make up as many as they like.
 */
#include "service/core_internal.h"

#include "service/login.h"
#include "sys/clock.h"
#include "sys/net.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    WAITING_MAX = 4, /* alerts of each kind with a name; the others have one together */
    STANDS_AT_LEAST_MS = 3600000,
    KINDS = 2,
    SUBJECT_SIZE = LOGIN_NAME_MAX + 1,
};

struct waiting {
    char subject[SUBJECT_SIZE];
    int64_t until_ms; /* 0: nobody */
    uint64_t times;   /* of the others: how often one was made to wait */
};

struct logins {
    struct core *core;
    struct loop_watch *watch;
    int fd; /* -1: there is nobody */
    struct event_bound *good, *failed;
    struct waiting waiting[KINDS][WAITING_MAX + 1]; /* the last is for the others, without a name */
};

static const enum alert_kind kinds[KINDS] = {ALERT_LOGIN_ACCOUNT, ALERT_LOGIN_CLIENT};

/* ---- who must wait -------------------------------------------------------------------------- */

static struct slice subject_of(const struct waiting *waiting)
{
    return slice_from_text(waiting->subject);
}

static struct waiting *find_place(struct waiting *all, struct slice subject)
{
    struct waiting *place = NULL;
    for (int i = 0; i < WAITING_MAX; i++) {
        if (all[i].until_ms != 0 && slice_equal_fold(subject_of(&all[i]), subject)) {
            return &all[i];
        }
        if (all[i].until_ms == 0 && place == NULL) {
            place = &all[i];
        }
    }
    return place != NULL ? place : &all[WAITING_MAX];
}

static void must_wait(struct logins *logins, int kind, struct slice subject, const char *text,
                      uint32_t wait_ms)
{
    static const char *const others[KINDS] = {"strangers at other accounts", "other clients"};
    struct waiting *place = find_place(logins->waiting[kind], subject);
    bool is_other = place == &logins->waiting[kind][WAITING_MAX];
    int64_t now_ms = core_now(logins->core).steady_ms, until_ms = now_ms + wait_ms;
    char of_others[ALERT_TEXT_SIZE];
    if (place->until_ms == 0) {
        place->until_ms = now_ms + STANDS_AT_LEAST_MS;
        if (!is_other) {
            memcpy(place->subject, subject.data, subject.length);
            place->subject[subject.length] = '\0';
        }
    }
    if (is_other) {
        snprintf(of_others, sizeof(of_others),
                 "after too many failed logins %s were made to wait, too: %" PRIu64 " times",
                 others[kind], ++place->times);
        text = of_others;
    }
    place->until_ms = until_ms > place->until_ms ? until_ms : place->until_ms;
    report_alert_of(logins->core, kinds[kind], subject_of(place), text);
}

/* As the throttle counts clients: an address of IPv4, a /64 of IPv6. */
static struct slice client_text(const struct ip_address *client, char text[IP_TEXT_SIZE + 4])
{
    struct ip_address first = *client;
    if (!ip_is_v4(client)) {
        memset(first.bytes + sizeof(first.bytes) / 2, 0, sizeof(first.bytes) / 2);
    }
    ip_to_text(&first, text);
    if (!ip_is_v4(client)) {
        memcpy(text + strlen(text), "/64", sizeof("/64"));
    }
    return slice_from_text(text);
}

static void look_who_waits(struct logins *logins, const struct login_news *news)
{
    char text[ALERT_TEXT_SIZE], client[IP_TEXT_SIZE + 4];
    struct slice from = client_text(&news->client, client);
    if (news->account_wait_ms > 0 && news->is_known) {
        snprintf(
            text, sizeof(text),
            "too many logins as %.*s have failed, the last from %s: strangers are made to wait",
            SLICE_PRINT(slice_take(news->name, 80)), client);
        must_wait(logins, 0, news->name, text, news->account_wait_ms);
    }
    if (news->client_wait_ms > 0) {
        snprintf(text, sizeof(text),
                 "too many logins from %s have failed, the last as %.*s: it is made to wait",
                 client, SLICE_PRINT(slice_take(news->name, 80)));
        must_wait(logins, 1, from, text, news->client_wait_ms);
    }
}

static void end_waits(struct logins *logins, int64_t now_ms)
{
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i <= WAITING_MAX; i++) {
            struct waiting *waiting = &logins->waiting[kind][i];
            if (waiting->until_ms != 0 && waiting->until_ms <= now_ms) {
                report_alert_over_of(logins->core, kinds[kind], subject_of(waiting));
                *waiting = (struct waiting){.until_ms = 0};
            }
        }
    }
}

bool logins_waits(const struct core *core, enum alert_kind kind, struct slice subject)
{
    for (int i = 0; core->logins != NULL && i < KINDS; i++) {
        for (int j = 0; kinds[i] == kind && j < WAITING_MAX; j++) {
            const struct waiting *waiting = &core->logins->waiting[i][j];
            if (waiting->until_ms != 0 && slice_equal(subject_of(waiting), subject)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- events --------------------------------------------------------------------------------- */

static const char *denial_text(enum login_verdict verdict)
{
    return verdict == LOGIN_REFUSED ? "wrong"
           : verdict == LOGIN_LATER ? "not tried, for too many have failed"
           : verdict == LOGIN_BUSY  ? "not tried, for too many came at once"
                                    : "not tried, for those who know do not answer";
}

static void add_event(struct logins *logins, const struct login_news *news, uint64_t left_out)
{
    struct core *core = logins->core;
    char reason[LOGIN_LISTENER_MAX + 256];
    bool is_good = news->verdict == LOGIN_GOOD;
    uint32_t wait_ms = news->wait_ms > news->client_wait_ms ? news->wait_ms : news->client_wait_ms;
    struct event event = {
        .kind = is_good ? EVENT_LOGIN : EVENT_DENIED,
        .time_ms = core_wall_ms(core),
        .id = core_make_id(core),
        .delivery = EVENTS_NO_DELIVERY,
        .has_client = true,
        .client = news->client,
        .sender = news->name,
        .has_sender = news->name.length > 0,
        .left_out = left_out,
        .next_ms = wait_ms > 0 ? core_wall_ms(core) + wait_ms : 0,
    };
    if (news->name.length > 0) {
        int length = snprintf(reason, sizeof(reason), "%s%sby %.*s, listener %.*s",
                              is_good ? "" : denial_text(news->verdict), is_good ? "" : "; ",
                              SLICE_PRINT(news->how), SLICE_PRINT(news->listener));
        event.reason = slice_make(reason, (size_t)length);
    }
    events_add(core->events, &event);
}

/* Who logs in rightly is known, and has his own share; others have that of their network. */
static void take_news(struct logins *logins, const struct login_news *news)
{
    bool is_good = news->verdict == LOGIN_GOOD;
    struct slice whose = news->identity.length > 0 ? news->identity : news->name;
    uint64_t left_out = 0;
    look_who_waits(logins, news);
    if (event_bound_take(is_good ? logins->good : logins->failed,
                         is_good ? whose : ip_neighbours(&news->client), &news->client,
                         core_now(logins->core).steady_ms, &left_out)) {
        add_event(logins, news, left_out);
    } else {
        counter_add(logins->core->counters, COUNTER_LOGINS_LEFT_OUT, 1);
    }
}

static void tell_rest(struct logins *logins, struct event_bound *of, enum login_verdict verdict,
                      int64_t now_ms)
{
    struct login_news rest = {.verdict = verdict};
    uint64_t left_out;
    while (event_bound_over(of, now_ms, &rest.client, &left_out)) {
        add_event(logins, &rest, left_out);
    }
}

void logins_tick(struct core *core, int64_t now_ms)
{
    struct logins *logins = core->logins;
    if (logins != NULL) {
        end_waits(logins, now_ms);
        tell_rest(logins, logins->good, LOGIN_GOOD, now_ms);
        tell_rest(logins, logins->failed, LOGIN_REFUSED, now_ms);
    }
}

/* ---- the link ------------------------------------------------------------------------------- */

static void link_gone(struct logins *logins)
{
    if (logins->fd >= 0) {
        loop_watch_free(logins->watch);
        logins->watch = NULL;
        net_close(logins->fd);
        logins->fd = -1;
    }
}

static bool news_heard(void *context, struct slice message)
{
    struct logins *logins = context;
    struct login_news news;
    bool good = login_get_news(message, &news);
    if (good) {
        take_news(logins, &news);
    }
    return good;
}

static void on_news(void *context, unsigned ready)
{
    struct logins *logins = context;
    (void)ready;
    if (!login_hear(&logins->fd, news_heard, logins)) {
        link_gone(logins); /* the keeper gives another with the next process */
    }
}

void core_set_logins(struct core *core, int fd)
{
    struct logins *logins = core->logins;
    struct loop_watch *watch =
        logins != NULL && fd >= 0 ? loop_watch_new(core->loop, fd, on_news, logins) : NULL;
    if (logins != NULL) {
        link_gone(logins);
        end_waits(logins, INT64_MAX);
    }
    if (watch == NULL) {
        if (fd >= 0) {
            net_close(fd);
        }
        return;
    }
    logins->fd = fd;
    logins->watch = watch;
    loop_watch_set(watch, LOOP_READ);
}

struct logins *logins_new(struct core *core)
{
    struct logins *logins = calloc(1, sizeof(*logins));
    if (logins == NULL) {
        return NULL;
    }
    logins->core = core;
    logins->fd = -1;
    logins->good = event_bound_new(false);
    logins->failed = event_bound_new(true);
    if (logins->good == NULL || logins->failed == NULL) {
        logins_free(logins);
        return NULL;
    }
    return logins;
}

void logins_free(struct logins *logins)
{
    if (logins != NULL) {
        link_gone(logins);
        event_bound_free(logins->good);
        event_bound_free(logins->failed);
        free(logins);
    }
}
