/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections to filters. One that cannot be made makes its filter "away": it is then tried after
 * pauses that grow, whether or not anybody asks, and all sessions know at once that it is not
 * there.
 */
#include "service/smtp_in_milter.h"

#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PAUSE_LEAST_MS = 1000,
    PAUSE_MOST_MS = 10000,
    IDLE_MOST = 64,
    IDLE_MS = 60000,
    READ_BYTES = 16 << 10,
    READS_PER_TURN = 16,
    OUTPUT_LOW = 64 << 10,
};

static void try_again(void *context);

/* ---- peers ----------------------------------------------------------------------------------- */

static bool is_at(const struct milter_peer *peer, const struct milter_config *config)
{
    return slice_equal(peer->config.name, config->name) &&
           slice_equal(peer->config.path, config->path) &&
           peer->config.at.port == config->at.port &&
           ip_equal(&peer->config.at.address, &config->at.address);
}

static void take_config(struct milter_peer *peer, const struct milter_config *config)
{
    snprintf(peer->name, sizeof(peer->name), "%.*s", SLICE_PRINT(config->name));
    snprintf(peer->path, sizeof(peer->path), "%.*s", SLICE_PRINT(config->path));
    peer->config = *config;
    peer->config.name = slice_from_text(peer->name);
    peer->config.path = slice_from_text(peer->path);
}

struct milter_peer *milter_peer_get(struct smtp_in *in, const struct milter_config *config)
{
    LIST_EACH(&in->milter_peers, at, after)
    {
        struct milter_peer *peer = LIST_ENTRY(at, struct milter_peer, link);
        if (is_at(peer, config)) {
            take_config(peer, config);
            peer->references++;
            return peer;
        }
    }
    struct milter_peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return NULL;
    }
    peer->again = loop_timer_new(in->loop, try_again, peer);
    if (peer->again == NULL) {
        free(peer);
        return NULL;
    }
    peer->in = in;
    peer->references = 1;
    list_init(&peer->idle);
    take_config(peer, config);
    list_append(&in->milter_peers, &peer->link);
    return peer;
}

void milter_peer_unref(struct milter_peer *peer)
{
    assert(peer->references > 0);
    if (--peer->references > 0) {
        return;
    }
    while (!list_is_empty(&peer->idle)) {
        milter_link_close(LIST_ENTRY(peer->idle.next, struct milter_link, link));
    }
    if (peer->trial != NULL) {
        milter_link_close(peer->trial);
    }
    loop_timer_free(peer->again);
    list_remove(&peer->link);
    free(peer);
}

/* Logged when it changes; core, which may have begun anew, is told each time. */
static void tell(struct milter_peer *peer, bool is_away, struct slice why)
{
    if (peer->is_away != is_away) {
        log_event(is_away ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
                  is_away ? "filter-away" : "filter-back", LOG_SLICE("milter", peer->config.name),
                  LOG_SLICE("reason", why));
    }
    peer->is_away = is_away;
    core_send_milter(peer->in, peer->config.name, is_away, why);
}

static void peer_failed(struct milter_peer *peer, struct slice why)
{
    int64_t pause_ms = PAUSE_LEAST_MS;
    for (uint32_t i = 0; i < peer->failures && pause_ms < PAUSE_MOST_MS; i++) {
        pause_ms *= 2;
    }
    peer->failures++;
    loop_timer_set(peer->again, pause_ms < PAUSE_MOST_MS ? pause_ms : PAUSE_MOST_MS);
    counter_add(peer->in->counters, COUNTER_MILTER_AWAY, 1);
    tell(peer, true, why);
}

static void peer_works(struct milter_peer *peer)
{
    peer->failures = 0;
    loop_timer_cancel(peer->again);
    if (peer->is_away) {
        tell(peer, false, SLICE_EMPTY);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

void milter_link_close(struct milter_link *link)
{
    struct smtp_in *in = link->peer->in;
    if (!list_is_empty(&link->link)) {
        link->peer->idle_count--;
    }
    list_remove(&link->link);
    if (link->state == LINK_DIALING) {
        (void)map_remove(&in->milter_dials, link->token);
    }
    if (link->peer->trial == link) {
        link->peer->trial = NULL;
    }
    loop_watch_free(link->watch);
    loop_timer_free(link->timer);
    if (link->fd >= 0) {
        net_close(link->fd);
    }
    milter_free(link->milter);
    free(link);
}

static void link_lost(struct milter_link *link, struct slice why)
{
    struct session_milter *owner = link->owner;
    char reason[80];
    bool was_used = link->sessions > 1;
    /* `why` may lie in what goes now. */
    snprintf(reason, sizeof(reason), "%.*s", SLICE_PRINT(why));
    if (link->state != LINK_READY) {
        peer_failed(link->peer, slice_from_text(reason));
    }
    milter_link_close(link);
    if (owner != NULL) {
        owner->link = NULL;
        milter_lost_it(owner, slice_from_text(reason), was_used);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static int64_t deadline(const struct milter_link *link)
{
    if (link->state != LINK_READY) {
        return link->begun_ms + link->peer->config.connect_timeout_ms;
    }
    if (link->owner == NULL) {
        return link->begun_ms + IDLE_MS;
    }
    return milter_deadline(link->milter);
}

/* Set once, it is only looked at again when it is due: a step costs nothing here. */
static void watch_time(struct milter_link *link)
{
    int64_t due_ms = deadline(link);
    if (due_ms < link->timer_ms) {
        int64_t now_ms = clock_steady_ms();
        link->timer_ms = due_ms;
        loop_timer_set(link->timer, due_ms > now_ms ? due_ms - now_ms : 0);
    }
}

/* Connections of this filter's are used no more than once. */
static void meet_once(struct milter_peer *peer)
{
    log_event(LOG_LEVEL_INFO, "filter-meets-once", LOG_SLICE("milter", peer->config.name));
    peer->meets_once = true;
    while (!list_is_empty(&peer->idle)) {
        milter_link_close(LIST_ENTRY(peer->idle.next, struct milter_link, link));
    }
}

static void on_time(void *context)
{
    struct milter_link *link = context;
    link->timer_ms = INT64_MAX;
    if (clock_steady_ms() < deadline(link)) {
        watch_time(link);
    } else if (link->owner == NULL && link->state == LINK_READY) {
        (void)milter_quit(link->milter, false, clock_steady_ms());
        milter_link_go(link);
        milter_link_close(link);
    } else {
        if (link->sessions > 1 && !link->owner->is_met) {
            meet_once(link->peer);
        }
        link_lost(link, link->state == LINK_READY ? SLICE_LITERAL("no answer in time")
                                                  : SLICE_LITERAL("no connection in time"));
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

void milter_link_go(struct milter_link *link)
{
    for (;;) {
        struct slice output = milter_output(link->milter);
        size_t sent = 0;
        if (output.length == 0 || net_send(link->fd, output, &sent) != ERROR_NONE) {
            break; /* a connection that is lost is found so by reading */
        }
        milter_sent(link->milter, sent, clock_steady_ms());
    }
    bool rest = milter_output(link->milter).length > 0;
    loop_watch_set(link->watch, LOOP_READ | (rest ? LOOP_WRITE : 0));
    watch_time(link);
}

/* For the next session. */
static void keep(struct milter_link *link)
{
    struct milter_peer *peer = link->peer;
    if (peer->trial == link) {
        peer->trial = NULL;
    }
    link->begun_ms = clock_steady_ms();
    list_append(&peer->idle, &link->link);
    peer->idle_count++;
}

static void agreed(struct milter_link *link)
{
    link->state = LINK_READY;
    peer_works(link->peer);
    if (link->owner == NULL) {
        keep(link);
        milter_link_go(link);
        return;
    }
    milter_link_go(link);
    milter_met(link->owner);
}

/* What becomes of the link. */
enum taken {
    TAKEN_NOTHING, /* no whole packet is here */
    TAKEN_CHANGE,  /* there may be more */
    TAKEN_LAST,    /* the owner has gone on, or the link is lost: it may not be touched any more */
};

static enum taken take_event(struct milter_link *link)
{
    struct milter_event event;
    if (!milter_next(link->milter, &event)) {
        return TAKEN_NOTHING;
    }
    bool is_expected = event.kind == MILTER_READY || link->owner != NULL;
    if (event.kind == MILTER_BROKEN || !is_expected) {
        link_lost(link,
                  event.kind == MILTER_BROKEN ? event.text : SLICE_LITERAL("an answer to nothing"));
        return TAKEN_LAST;
    }
    if (event.kind == MILTER_READY) {
        agreed(link);
        return TAKEN_LAST;
    }
    return milter_said(link->owner, &event) ? TAKEN_CHANGE : TAKEN_LAST;
}

bool milter_link_check(struct milter_link *link, const char **ret_why)
{
    struct milter_event event;
    if (!milter_next(link->milter, &event)) {
        return true;
    }
    *ret_why = event.kind == MILTER_BROKEN ? (const char *)event.text.data /* static */
                                           : "an answer that nobody asked for";
    return false;
}

static void receive(struct milter_link *link)
{
    uint8_t bytes[READ_BYTES];
    for (int i = 0; i < READS_PER_TURN; i++) {
        size_t length = 0;
        enum error error = net_receive(link->fd, bytes, sizeof(bytes), &length);
        if (error == ERROR_AGAIN) {
            break;
        }
        if (error != ERROR_NONE) {
            link_lost(link, SLICE_LITERAL("connection lost"));
            return;
        }
        milter_input(link->milter, slice_make(bytes, length), clock_steady_ms());
        enum taken taken;
        do {
            taken = take_event(link);
        } while (taken == TAKEN_CHANGE);
        if (taken == TAKEN_LAST) {
            return; /* what else has come is found by the watch, or before the next step */
        }
        if (length < sizeof(bytes)) {
            break;
        }
    }
    watch_time(link);
}

static void on_ready(void *context, unsigned ready)
{
    struct milter_link *link = context;
    if (link->state == LINK_CONNECTING) {
        enum error error = net_connected(link->fd);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            link_lost(link, SLICE_LITERAL("connection refused"));
            return;
        }
        link->state = LINK_AGREEING;
        milter_link_go(link);
        return;
    }
    if ((ready & LOOP_WRITE) != 0) {
        milter_link_go(link);
        if (link->wants_room && milter_output(link->milter).length < OUTPUT_LOW) {
            link->wants_room = false;
            milter_has_room(link->owner);
            return;
        }
    }
    if ((ready & LOOP_READ) != 0) {
        receive(link);
    }
}

/* ---- the beginning --------------------------------------------------------------------------- */

static bool make_talk(struct milter_link *link)
{
    const struct milter_config *config = &link->peer->config;
    const struct milter_settings settings = {
        .may = MILTER_MAY_ALL,
        .command_timeout_ms = config->command_timeout_ms,
        .content_timeout_ms = config->content_timeout_ms,
        .macro = milter_macro,
        .context = link,
    };
    link->milter = milter_new(&settings, clock_steady_ms());
    link->watch = loop_watch_new(link->peer->in->loop, link->fd, on_ready, link);
    return link->milter != NULL && link->watch != NULL;
}

void smtp_in_dialed(struct smtp_in *in, uint64_t token, enum error error, int fd)
{
    struct milter_link *link = map_remove(&in->milter_dials, token);
    if (link == NULL) {
        if (fd >= 0) {
            net_close(fd); /* nobody waits any more */
        }
        return;
    }
    link->state = LINK_CONNECTING;
    link->fd = fd;
    if (error != ERROR_NONE || !make_talk(link)) {
        link_lost(link, slice_from_text(error != ERROR_NONE ? error_text(error) : "no memory"));
        return;
    }
    loop_watch_set(link->watch, LOOP_WRITE);
}

static struct milter_link *link_new(struct milter_peer *peer, struct session_milter *owner)
{
    struct milter_link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        return NULL;
    }
    list_init(&link->link);
    link->peer = peer;
    link->owner = owner;
    link->fd = -1;
    link->begun_ms = clock_steady_ms();
    link->timer_ms = INT64_MAX;
    link->sessions = owner != NULL;
    link->timer = loop_timer_new(peer->in->loop, on_time, link);
    if (link->timer == NULL) {
        free(link);
        return NULL;
    }
    return link;
}

static enum error dial(struct milter_peer *peer, struct session_milter *owner,
                       struct milter_link **ret_link)
{
    struct smtp_in *in = peer->in;
    struct milter_link *link = link_new(peer, owner);
    if (link == NULL) {
        return ERROR_MEMORY;
    }
    link->token = in->next_token++;
    if (map_put(&in->milter_dials, link->token, link) != ERROR_NONE) {
        link->state = LINK_CONNECTING; /* it is in no map */
        milter_link_close(link);
        return ERROR_MEMORY;
    }
    if (in->dial == NULL || !in->dial(in->dial_context, link->token, peer->config.name)) {
        milter_link_close(link);
        peer_failed(peer, SLICE_LITERAL("no connection can be asked for"));
        return ERROR_CLOSED;
    }
    watch_time(link);
    *ret_link = link;
    return ERROR_NONE;
}

static void try_again(void *context)
{
    struct milter_peer *peer = context;
    struct milter_link *trial;
    if (!peer->is_away || peer->trial != NULL || peer->in->is_stopping) {
        return;
    }
    enum error error = dial(peer, NULL, &trial);
    if (error == ERROR_NONE) {
        peer->trial = trial;
    } else if (error == ERROR_MEMORY) {
        peer_failed(peer, SLICE_LITERAL("no memory"));
    }
}

enum error milter_link_get(struct session_milter *owner, struct milter_link **ret_link)
{
    struct milter_peer *peer = owner->peer;
    if (!list_is_empty(&peer->idle)) {
        /* The one used last: the others may reach their time. */
        struct milter_link *link = LIST_ENTRY(peer->idle.previous, struct milter_link, link);
        list_remove(&link->link);
        peer->idle_count--;
        link->owner = owner;
        link->sessions++;
        *ret_link = link;
        return ERROR_NONE;
    }
    return peer->is_away ? ERROR_AGAIN : dial(peer, owner, ret_link);
}

void milter_link_leave(struct milter_link *link)
{
    struct milter_peer *peer = link->peer;
    link->owner->link = NULL;
    if (link->state != LINK_READY) {
        milter_link_close(link);
        return;
    }
    int64_t now_ms = clock_steady_ms();
    const char *why;
    bool may = link->sessions < peer->config.sessions && !peer->meets_once &&
               peer->idle_count < IDLE_MOST && !peer->in->is_stopping &&
               milter_output(link->milter).length == 0 && milter_link_check(link, &why);
    bool is_kept = milter_quit(link->milter, may, now_ms);
    link->owner = NULL;
    link->wants_room = false;
    link->begun_ms = now_ms;
    milter_link_go(link);
    if (!is_kept || milter_output(link->milter).length > 0) {
        milter_link_close(link);
    } else {
        keep(link);
    }
}
