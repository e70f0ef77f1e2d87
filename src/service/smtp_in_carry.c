/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection with TLS that is turned round (docs/decisions/0038): the sending process gets one
 * end of a pair of sockets, and what comes at the other is carried over TLS to the site, and back.
 * Not a word of it is read here.
 *
 * Each direction has CARRY_BYTES and is read only when they have left, so who does not read stops
 * who writes. An end of one side is told to the other behind its last bytes, and all is over when
 * the sending process has ended and its bytes have left; what the site had said reaches that
 * process even if the site takes no more.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/net.h"

#include <stdlib.h>

enum {
    CARRY_BYTES = 16 << 10,          /* a record of TLS */
    CARRY_STEPS = 8,                 /* so that one site leaves time for others */
    CARRY_RECORDS = 64,              /* in a step: some have lines of nothing else but their ends */
    CARRY_QUIET_MS = 70 * 60 * 1000, /* longer than the sending process waits for any reply */
    CARRY_GONE_MS = 60 * 1000,       /* a host that does not acknowledge, or say that it lives */
};

struct flow {
    size_t from, length; /* of what has not left */
    bool ended;          /* nothing more comes */
    uint8_t bytes[CARRY_BYTES];
};

struct end {
    struct tls *tls; /* or NULL */
    int fd;
};

struct carriage {
    int fd; /* our end of the pair */
    struct loop_watch *watch;
    uint8_t watched;
    bool is_on;        /* 250 has left */
    bool is_told;      /* the sending process: the site says nothing more */
    bool is_site_lost; /* it takes nothing more */
    int64_t moved_ms;
    struct flow in, out; /* from the site, and to it */
};

/* ---- begin and end -------------------------------------------------------------------------- */

static void on_pair(void *context, unsigned ready)
{
    struct session *session = context;
    (void)ready;
    if (carry_is_on(session)) {
        (void)carry_go_on(session);
    }
}

bool carry_prepare(struct session *session, int *ret_theirs)
{
    int ends[2];
    struct carriage *carriage = calloc(1, sizeof(*carriage));
    if (carriage == NULL || net_pair(ends) != ERROR_NONE) {
        free(carriage);
        return false;
    }
    carriage->fd = ends[0];
    carriage->watch = loop_watch_new(session->in->loop, ends[0], on_pair, session);
    if (carriage->watch == NULL) {
        net_close(ends[0]);
        net_close(ends[1]);
        free(carriage);
        return false;
    }
    session->carriage = carriage;
    *ret_theirs = ends[1];
    return true;
}

void carry_free(struct session *session)
{
    struct carriage *carriage = session->carriage;
    if (carriage != NULL) {
        loop_watch_free(carriage->watch);
        net_close(carriage->fd);
        free(carriage);
        session->carriage = NULL;
    }
}

bool carry_is_on(const struct session *session)
{
    return session->carriage != NULL && session->carriage->is_on;
}

bool carry_begin(struct session *session)
{
    session->carriage->is_on = true;
    session->carriage->moved_ms = clock_steady_ms();
    net_give_up_after(session->fd, CARRY_GONE_MS);
    net_ask_for_life(session->fd, true);
    return carry_go_on(session);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* A line at most, where it goes by TLS: each is a record of its own, since fetchmail waits for the
 * descriptor though its TLS has another line, and would wait for ever. */
static struct slice piece_of(const struct flow *flow, struct end to)
{
    struct slice rest = slice_make(flow->bytes + flow->from, flow->length);
    return to.tls != NULL ? slice_take(rest, slice_find(rest, '\n') + 1) : rest;
}

static enum error drain(struct flow *flow, struct end to, bool *ret_moved)
{
    enum error error = ERROR_NONE;
    for (int i = 0; i < CARRY_RECORDS && flow->length > 0 && error == ERROR_NONE; i++) {
        size_t count = 0;
        error = stream_send(to.tls, to.fd, piece_of(flow, to), &count);
        if (error == ERROR_NONE) {
            flow->from += count;
            flow->length -= count;
            *ret_moved = *ret_moved || count > 0;
        }
    }
    return error;
}

/* True: something has moved. */
static bool step(struct flow *flow, struct end from, struct end to, bool *ret_lost)
{
    bool moved = false;
    if (flow->length == 0 && !flow->ended) {
        size_t count = 0;
        enum error error =
            stream_receive(from.tls, from.fd, flow->bytes, sizeof(flow->bytes), &count);
        moved = error != ERROR_AGAIN;
        flow->ended = error != ERROR_NONE && error != ERROR_AGAIN;
        flow->from = 0;
        flow->length = error == ERROR_NONE ? count : 0;
    }
    if (flow->length > 0) {
        bool holds = to.tls != NULL; /* so that lines share packets */
        if (holds) {
            net_hold(to.fd, true);
        }
        enum error error = drain(flow, to, &moved);
        if (holds) {
            net_hold(to.fd, false);
        }
        *ret_lost = error != ERROR_NONE && error != ERROR_AGAIN;
    }
    return moved;
}

/* False: the sending process has gone. */
static bool move(struct session *session)
{
    struct carriage *carriage = session->carriage;
    const struct end site = {session->tls, session->fd}, sender = {NULL, carriage->fd};
    bool is_sender_lost = false, is_site_lost = false, moved = true;
    for (int i = 0; i < CARRY_STEPS && moved; i++) {
        moved = step(&carriage->in, site, sender, &is_sender_lost);
        moved |= !carriage->is_site_lost && step(&carriage->out, sender, site, &is_site_lost);
        if (is_sender_lost) {
            return false;
        }
        carriage->is_site_lost = carriage->is_site_lost || is_site_lost;
        carriage->moved_ms = moved ? clock_steady_ms() : carriage->moved_ms;
    }
    return true;
}

static bool is_over(const struct carriage *carriage)
{
    bool is_heard = carriage->in.ended && carriage->in.length == 0;
    bool is_said = carriage->out.ended && carriage->out.length == 0;
    return is_said || (carriage->is_site_lost && is_heard);
}

static void watch(struct session *session)
{
    struct carriage *carriage = session->carriage;
    const struct flow *in = &carriage->in, *out = &carriage->out;
    bool wants_site = in->length == 0 && !in->ended;
    bool wants_sender = out->length == 0 && !out->ended && !carriage->is_site_lost;
    bool has_for_site = out->length > 0 && !carriage->is_site_lost;
    unsigned wanted = (wants_sender ? LOOP_READ : 0u) | (in->length > 0 ? LOOP_WRITE : 0u);
    if (wanted != carriage->watched) {
        carriage->watched = (uint8_t)wanted;
        loop_watch_set(carriage->watch, wanted);
    }
    session_watch(session, (wants_site ? LOOP_READ : 0u) | (has_for_site ? LOOP_WRITE : 0u));
    if (wants_site && tls_has_unread(session->tls)) {
        session_hurry(session);
    }
}

bool carry_go_on(struct session *session)
{
    struct carriage *carriage = session->carriage;
    if (!move(session) || is_over(carriage)) {
        session_free(session);
        return false;
    }
    if (carriage->in.ended && carriage->in.length == 0 && !carriage->is_told) {
        carriage->is_told = true;
        net_end(carriage->fd);
    }
    watch(session);
    return true;
}

bool carry_expire(struct session *session, int64_t now_ms)
{
    const struct carriage *carriage = session->carriage;
    if (!carry_is_on(session)) {
        return false;
    }
    int64_t most_ms = carriage->out.ended ? SMTP_IN_LINGER_MS : CARRY_QUIET_MS;
    if (now_ms - carriage->moved_ms >= most_ms) {
        session_free(session);
    }
    return true;
}
