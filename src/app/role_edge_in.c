/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that talks to clients: one door (service/smtp_in.h) per loop. Listening sockets,
 * rings and a link to edge-out are all it holds; it has no file system.
 */
#include "app/dial.h"
#include "app/edge_loops.h"
#include "app/role_channel.h"
#include "app/turn.h"
#include "service/smtp_in.h"
#include "sys/fdpass.h"
#include "sys/tls.h"

#include <stdlib.h>
#include <unistd.h>

/* What a door has of the link to edge-out, on its own thread. */
struct turn_link {
    int fd; /* -1: none */
};

/* A door's way to filters, on its own thread. */
struct dial_link {
    int fd;
    struct loop_watch *watch;
    struct smtp_in *door;
};

struct edge_in {
    struct role_start start;
    struct edge_loops *loops;
    struct smtp_in_shared *shared;
    struct smtp_in *doors[LOOPS_MAX];
    struct turn_link links[LOOPS_MAX];
    struct dial_link dials[LOOPS_MAX];
};

/* ---- from the keeper --------------------------------------------------------------------- */

static void set_ring(void *context, uint32_t index, struct ring *ring)
{
    struct edge_in *edge = context;
    smtp_in_set_ring(edge->doors[index], ring);
}

static bool turn(void *context, int fd, uint32_t session)
{
    const struct turn_link *link = context;
    return link->fd >= 0 && turn_send(link->fd, session, fd) == ERROR_NONE;
}

/* The other process hears each loop on a pair of its own, so that an answer comes where the
 * question was asked. Without one nobody can log in, until the keeper gives another link. */
static void set_login(struct edge_in *edge, uint32_t index, int link)
{
    int ends[2];
    if (fdpass_pair(ends) == ERROR_NONE) {
        if (fdpass_send(link, SLICE_LITERAL("."), &ends[1], 1) == ERROR_NONE) {
            smtp_in_set_login(edge->doors[index], ends[0]);
        } else {
            close(ends[0]);
        }
        close(ends[1]);
    }
    close(link);
}

static void set_link(void *context, enum keeper_link link, uint32_t index, int fd)
{
    struct edge_in *edge = context;
    if (link == KEEPER_LINK_LOGIN) {
        set_login(edge, index, fd);
        return;
    }
    if (edge->links[index].fd >= 0) {
        close(edge->links[index].fd);
    }
    edge->links[index].fd = fd;
}

static bool dial(void *context, uint64_t token, struct slice milter)
{
    const struct dial_link *link = context;
    return dial_ask(link->fd, token, milter) == ERROR_NONE;
}

static void dial_heard(void *context, unsigned ready)
{
    (void)ready;
    struct dial_link *link = context;
    for (;;) {
        struct dial_answer answer;
        enum error error = dial_answered(link->fd, &answer);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            exit(role_fail("dial", error)); /* the keeper has gone */
        }
        smtp_in_dialed(link->door, answer.token, answer.error, answer.fd);
    }
}

static enum error open_filters(struct edge_in *edge, uint32_t index)
{
    struct filter_descriptors given = edge->start.filters[index];
    struct dial_link *link = &edge->dials[index];
    if (given.dial < 0) {
        return ERROR_INVALID;
    }
    *link = (struct dial_link){.fd = given.dial, .door = edge->doors[index]};
    struct scratch *scratch = scratch_new(given.scratch);
    link->watch = loop_watch_new(edge_loops_at(edge->loops, index), link->fd, dial_heard, link);
    if (scratch == NULL || link->watch == NULL) {
        scratch_free(scratch);
        return ERROR_MEMORY;
    }
    loop_watch_set(link->watch, LOOP_READ);
    smtp_in_set_filters(link->door, dial, link, scratch);
    return ERROR_NONE;
}

static enum error reconfigure(void *context, uint32_t index, const struct edge_config *config)
{
    struct edge_in *edge = context;
    return smtp_in_reconfigure(edge->doors[index], config->values, config->generation,
                               config->listeners);
}

static void stopped(void *context)
{
    loop_stop(context);
}

static void stop(void *context, uint32_t index, uint32_t grace_ms)
{
    struct edge_in *edge = context;
    smtp_in_stop(edge->doors[index], grace_ms, stopped, edge_loops_at(edge->loops, index));
}

/* ---- the entry --------------------------------------------------------------------------- */

static enum error open_doors(struct edge_in *edge, const struct edge_handlers *handlers)
{
    struct role_start *start = &edge->start;
    edge->loops = edge_loops_new(start->loops);
    edge->shared = smtp_in_shared_new(start->greylist);
    if (edge->loops == NULL || edge->shared == NULL) {
        return ERROR_MEMORY;
    }
    enum error error = edge_loops_begin(edge->loops, start, KEEPER_EDGE_IN, handlers);
    for (uint32_t i = 0; i < LOOPS_MAX; i++) {
        edge->links[i].fd = -1;
    }
    for (uint32_t i = 0; i < start->loops && error == ERROR_NONE; i++) {
        const struct edge_config *config = edge_loops_config(edge->loops, i);
        edge->doors[i] =
            smtp_in_new(edge_loops_at(edge->loops, i), config->values, config->generation,
                        edge->shared, config->listeners, edge_loops_ring(edge->loops, i),
                        &start->counters->slots[SLOT_EDGE_IN + i]);
        error = edge->doors[i] != NULL ? ERROR_NONE : ERROR_MEMORY;
        error = error == ERROR_NONE ? open_filters(edge, i) : error;
        if (error == ERROR_NONE) {
            smtp_in_set_broken_handler(edge->doors[i], edge_loops_ring_broken, NULL);
            smtp_in_set_turn(edge->doors[i], turn, &edge->links[i]);
        }
    }
    return error;
}

static void close_doors(struct edge_in *edge)
{
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        smtp_in_free(edge->doors[i]);
        loop_watch_free(edge->dials[i].watch);
    }
    smtp_in_shared_free(edge->shared);
}

int role_edge_in(int channel)
{
    static struct edge_in edge;
    enum error error = role_receive_start(channel, ROLE_EDGE_IN, &edge.start);
    if (error != ERROR_NONE || edge.start.loops == 0 || edge.start.greylist == NULL) {
        return role_fail("start", error);
    }
    error = tls_prepare();
    if (error != ERROR_NONE) {
        return role_fail("libcrypto", error);
    }
    error = role_confine(&edge.start, NULL, 0);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    const struct edge_handlers handlers = {.context = &edge,
                                           .set_ring = set_ring,
                                           .set_link = set_link,
                                           .reconfigure = reconfigure,
                                           .stop = stop};
    error = open_doors(&edge, &handlers);
    if (error != ERROR_NONE) {
        return role_fail("listeners", error);
    }
    error = edge_loops_serve(edge.loops, &edge.start);
    if (error != ERROR_NONE) {
        return role_fail("loops", error);
    }
    close_doors(&edge);
    edge_loops_free(edge.loops);
    return ROLE_EXIT_STOPPED;
}
