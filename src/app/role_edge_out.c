/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that talks to servers: one sender (service/smtp_out.h) per loop, each with its own
 * reader of the journal and its own resolver. It can read the journal's directory and write
 * nothing.
 */
#include "app/edge_loops.h"
#include "app/name_servers.h"
#include "app/role_channel.h"
#include "app/turn.h"
#include "service/smtp_out.h"
#include "sys/tls.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct edge_out {
    struct role_start start;
    struct edge_loops *loops;
    struct spool_reader *readers[LOOPS_MAX];
    struct dns *resolvers[LOOPS_MAX];
    struct smtp_out *senders[LOOPS_MAX];
    int link; /* to edge-in; -1: none. The first loop's */
    struct loop_watch *link_watch;
};

/* A turned connection on its way to its loop. */
struct turned {
    struct edge_out *edge;
    uint32_t session;
    int fd;
};

/* ---- from the keeper --------------------------------------------------------------------- */

static void set_ring(void *context, uint32_t index, struct ring *ring)
{
    struct edge_out *edge = context;
    smtp_out_set_ring(edge->senders[index], ring);
}

static void take_turned(void *context, uint32_t index)
{
    struct turned *turned = context;
    smtp_out_turned(turned->edge->senders[index], turned->session, turned->fd);
    free(turned);
}

static void unlink_edges(struct edge_out *edge)
{
    loop_watch_free(edge->link_watch);
    edge->link_watch = NULL;
    if (edge->link >= 0) {
        close(edge->link);
    }
    edge->link = -1;
}

/* One at a time: the loop comes back while more wait. When edge-in has gone, another link comes. */
static void link_ready(void *context, unsigned ready)
{
    (void)ready;
    struct edge_out *edge = context;
    struct turned turned = {.edge = edge};
    enum error error = turn_receive(edge->link, &turned.session, &turned.fd);
    if (error == ERROR_CLOSED) {
        unlink_edges(edge);
    }
    if (error != ERROR_NONE) {
        return;
    }
    struct turned *copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        close(turned.fd); /* its session ends by itself, and the client calls again */
        return;
    }
    *copy = turned;
    /* A session belongs to one loop: service/channel.h. */
    edge_loops_post(edge->loops, turned.session % edge_loops_count(edge->loops), take_turned, copy);
}

static void set_link(void *context, enum keeper_link link, uint32_t index, int fd)
{
    struct edge_out *edge = context;
    (void)link; /* there is one */
    if (index != 0) {
        close(fd);
        return;
    }
    unlink_edges(edge);
    edge->link = fd;
    edge->link_watch = loop_watch_new(edge_loops_at(edge->loops, 0), fd, link_ready, edge);
    if (edge->link_watch == NULL) {
        exit(role_fail("link", ERROR_MEMORY));
    }
    loop_watch_set(edge->link_watch, LOOP_READ);
}

static enum error reconfigure(void *context, uint32_t index, const struct edge_config *config)
{
    struct edge_out *edge = context;
    return smtp_out_reconfigure(edge->senders[index], config->values);
}

static void stopped(void *context)
{
    loop_stop(context);
}

static void stop(void *context, uint32_t index, uint32_t grace_ms)
{
    struct edge_out *edge = context;
    smtp_out_stop(edge->senders[index], grace_ms, stopped, edge_loops_at(edge->loops, index));
}

/* ---- the entry --------------------------------------------------------------------------- */

static enum error open_reader(struct edge_out *edge, uint32_t index)
{
    int directory = fcntl(edge->start.spool_directory, F_DUPFD_CLOEXEC, 0);
    struct disk *disk;
    enum error error = directory >= 0 ? disk_from_descriptor(directory, &disk) : ERROR_SPACE;
    return error == ERROR_NONE ? spool_reader_open_log(disk, &edge->readers[index]) : error;
}

static enum error open_sender(struct edge_out *edge, uint32_t index,
                              const struct dns_settings *names)
{
    struct loop *loop = edge_loops_at(edge->loops, index);
    enum error error = open_reader(edge, index);
    if (error == ERROR_NONE) {
        error = dns_new(loop, names, &edge->resolvers[index]);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    edge->senders[index] =
        smtp_out_new(loop, edge_loops_config(edge->loops, index)->values, edge->readers[index],
                     edge->resolvers[index], edge_loops_ring(edge->loops, index),
                     &edge->start.counters->slots[SLOT_EDGE_OUT + index]);
    if (edge->senders[index] == NULL) {
        return ERROR_MEMORY;
    }
    smtp_out_set_broken_handler(edge->senders[index], edge_loops_ring_broken, NULL);
    return ERROR_NONE;
}

static enum error open_senders(struct edge_out *edge, const struct dns_settings *names,
                               const struct edge_handlers *handlers)
{
    edge->link = -1;
    edge->loops = edge_loops_new(edge->start.loops);
    enum error error = edge->loops == NULL
                           ? ERROR_MEMORY
                           : edge_loops_begin(edge->loops, &edge->start, KEEPER_EDGE_OUT, handlers);
    for (uint32_t i = 0; i < edge->start.loops && error == ERROR_NONE; i++) {
        error = open_sender(edge, i, names);
    }
    return error;
}

static void close_senders(struct edge_out *edge)
{
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        smtp_out_free(edge->senders[i]);
        dns_free(edge->resolvers[i]);
        spool_reader_close(edge->readers[i]);
    }
}

int role_edge_out(int channel)
{
    static struct edge_out edge;
    enum error error = role_receive_start(channel, ROLE_EDGE_OUT, &edge.start);
    if (error != ERROR_NONE || edge.start.loops == 0) {
        return role_fail("start", error);
    }
    struct name_servers *names = name_servers_read(settings_config(edge.start.settings));
    if (names == NULL) {
        return role_fail("names", ERROR_MEMORY);
    }
    error = tls_prepare();
    if (error != ERROR_NONE) {
        return role_fail("libcrypto", error);
    }
    error = role_confine(&edge.start, &edge.start.spool_directory, 1);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    const struct edge_handlers handlers = {.context = &edge,
                                           .set_ring = set_ring,
                                           .set_link = set_link,
                                           .reconfigure = reconfigure,
                                           .stop = stop};
    error = open_senders(&edge, name_servers_settings(names), &handlers);
    if (error != ERROR_NONE) {
        return role_fail("senders", error);
    }
    error = edge_loops_serve(edge.loops, &edge.start);
    if (error != ERROR_NONE) {
        return role_fail("loops", error);
    }
    unlink_edges(&edge);
    close_senders(&edge);
    edge_loops_free(edge.loops);
    name_servers_free(names);
    return ROLE_EXIT_STOPPED;
}
