/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that talks to servers: one sender (service/smtp_out.h) per loop, each with its own
 * reader of the journal and its own resolver. It can read the journal's directory and write
 * nothing.
 */
#include "app/edge_loops.h"
#include "app/name_servers.h"
#include "app/role_channel.h"
#include "service/smtp_out.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct edge_out {
    struct role_start start;
    struct edge_loops *loops;
    struct spool_reader *readers[LOOPS_MAX];
    struct dns *resolvers[LOOPS_MAX];
    struct smtp_out *senders[LOOPS_MAX];
    struct ring *rings[LOOPS_MAX]; /* ours; the senders use them */
};

/* What one loop is asked to do. */
struct request {
    struct edge_out *edge;
    struct ring_descriptors descriptors;
    const struct service_config *config;
    uint32_t grace_ms;
};

static void post(struct edge_out *edge, uint32_t index, edge_call_fn *fn, struct request request)
{
    struct request *copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        exit(role_fail("request", ERROR_MEMORY));
    }
    *copy = request;
    copy->edge = edge;
    edge_loops_post(edge->loops, index, fn, copy);
}

static void drained_by_sender(void *context)
{
    (void)context; /* the sender sets its own handler */
}

static void attach_ring(struct edge_out *edge, uint32_t index, struct ring_descriptors descriptors)
{
    enum error error = ring_attach(descriptors, RING_SIDE_A, edge_loops_at(edge->loops, index),
                                   drained_by_sender, NULL, &edge->rings[index]);
    if (error != ERROR_NONE) {
        exit(role_fail("ring", error));
    }
}

/* ---- from the keeper --------------------------------------------------------------------- */

static void set_ring_there(void *context, uint32_t index)
{
    struct request *request = context;
    struct edge_out *edge = request->edge;
    struct ring *old = edge->rings[index];
    attach_ring(edge, index, request->descriptors);
    smtp_out_set_ring(edge->senders[index], edge->rings[index]);
    ring_free(old);
    free(request);
}

static void set_ring(void *context, enum keeper_edge edge_kind, uint32_t index, uint32_t count,
                     struct ring_descriptors descriptors)
{
    struct edge_out *edge = context;
    if (edge_kind != KEEPER_EDGE_OUT || count != edge_loops_count(edge->loops)) {
        exit(role_fail("ring", ERROR_INVALID));
    }
    post(edge, index, set_ring_there, (struct request){.descriptors = descriptors});
}

static void reconfigure_there(void *context, uint32_t index)
{
    struct request *request = context;
    enum error error = smtp_out_reconfigure(request->edge->senders[index], request->config);
    if (error != ERROR_NONE) {
        exit(role_fail("reload", error)); /* and it is started with the new configuration */
    }
    free(request);
}

static enum error reload(void *context, const struct service_config *config, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    struct edge_out *edge = context;
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        post(edge, i, reconfigure_there, (struct request){.config = config});
    }
    return ERROR_NONE;
}

static void stopped(void *context)
{
    loop_stop(context);
}

static void stop_there(void *context, uint32_t index)
{
    struct request *request = context;
    struct edge_out *edge = request->edge;
    smtp_out_stop(edge->senders[index], request->grace_ms, stopped,
                  edge_loops_at(edge->loops, index));
    free(request);
}

static void stop(void *context, uint32_t grace_ms)
{
    struct edge_out *edge = context;
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        post(edge, i, stop_there, (struct request){.grace_ms = grace_ms});
    }
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
    struct role_start *start = &edge->start;
    struct loop *loop = edge_loops_at(edge->loops, index);
    enum error error = open_reader(edge, index);
    if (error == ERROR_NONE) {
        error = dns_new(loop, names, &edge->resolvers[index]);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    attach_ring(edge, index, start->rings[KEEPER_EDGE_OUT][index]);
    edge->senders[index] = smtp_out_new(
        loop, settings_config(start->settings), edge->readers[index], edge->resolvers[index],
        edge->rings[index], &start->counters->slots[SLOT_EDGE_OUT + index]);
    return edge->senders[index] != NULL ? ERROR_NONE : ERROR_MEMORY;
}

static enum error open_senders(struct edge_out *edge, const struct dns_settings *names)
{
    edge->loops = edge_loops_new(edge->start.loops);
    enum error error = edge->loops != NULL ? ERROR_NONE : ERROR_MEMORY;
    for (uint32_t i = 0; i < edge->start.loops && error == ERROR_NONE; i++) {
        error = open_sender(edge, i, names);
    }
    return error;
}

static void close_senders(struct edge_out *edge)
{
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        smtp_out_free(edge->senders[i]);
        ring_free(edge->rings[i]);
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
    error = role_confine(&edge.start, &edge.start.spool_directory, 1);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    error = open_senders(&edge, name_servers_settings(names));
    if (error != ERROR_NONE) {
        return role_fail("senders", error);
    }
    const struct role_handlers handlers = {
        .context = &edge, .ring = set_ring, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(edge_loops_at(edge.loops, 0), &edge.start, &handlers, &keeper);
    if (error == ERROR_NONE) {
        error = edge_loops_run(edge.loops);
    }
    if (error != ERROR_NONE) {
        return role_fail("loops", error);
    }
    close_senders(&edge);
    role_channel_free(keeper);
    edge_loops_free(edge.loops);
    name_servers_free(names);
    return ROLE_EXIT_STOPPED;
}
