/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that a client of ours has made and had turned round (ATRN, RFC 2645), or where it
 * speaks TLS one end of a pair that edge-in carries its bytes over. Each comes with
 * the number of the session that it is for; core tells of that session by its own way, and either
 * may be first. What does not find the other in time is given up.
 */
#include "service/smtp_out_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"

enum {
    TURNED_PATIENCE_MS = 5000,
    TURNED_MAX = 256, /* waiting: more is a broken edge-in */
};

struct turned {
    struct link link; /* out->turned, the oldest first */
    uint32_t session;
    int fd;
    int64_t until_ms;
};

static void turned_free(struct smtp_out *out, struct turned *turned)
{
    list_remove(&turned->link);
    out->turned_count--;
    if (turned->fd >= 0) {
        net_close(turned->fd);
    }
    free(turned);
}

static void drop_old(struct smtp_out *out, int64_t now_ms)
{
    LIST_EACH(&out->turned, at, after)
    {
        struct turned *turned = LIST_ENTRY(at, struct turned, link);
        if (turned->until_ms <= now_ms || out->turned_count > TURNED_MAX) {
            turned_free(out, turned);
        }
    }
}

bool session_is_called(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    return server != NULL && server->protocol == SERVER_ODMR;
}

/* One that edge-in carries is by TLS, and has no address. */
static void connect_turned(struct out_session *session, int fd)
{
    struct ip_endpoint peer;
    if (net_peer(fd, &peer) == ERROR_INVALID) {
        snprintf(session->tls_said, sizeof(session->tls_said), "that of the site's own call");
    }
    session->limit_ms = INT64_MAX;
    counter_add(session->out->counters, COUNTER_SERVER_CONNECTIONS, 1);
    session_connected(session, fd);
}

void turned_begin(struct out_session *session)
{
    struct smtp_out *out = session->out;
    drop_old(out, clock_steady_ms());
    LIST_EACH(&out->turned, at, after)
    {
        struct turned *turned = LIST_ENTRY(at, struct turned, link);
        if (turned->session == session->id) {
            int fd = turned->fd;
            turned->fd = -1;
            turned_free(out, turned);
            connect_turned(session, fd);
            return;
        }
    }
    session->limit_ms = clock_steady_ms() + TURNED_PATIENCE_MS;
    session_set_timer(session);
}

void turned_limit(struct out_session *session)
{
    const struct relay_reply reply = {.stage = RELAY_AT_CONNECT,
                                      .how = RELAY_LOCAL,
                                      .text =
                                          SLICE_LITERAL("the client's connection has not come")};
    session_over(session, &reply);
}

void smtp_out_turned(struct smtp_out *out, uint32_t id, int fd)
{
    struct out_session *session = map_get(&out->sessions_by_id, id);
    struct turned *turned = NULL;
    drop_old(out, clock_steady_ms());
    if (out->stopping || !net_is_stream(fd)) {
        net_close(fd); /* its client has gone, or what edge-in gave is no connection */
        return;
    }
    if (session != NULL && session->state == OUT_RESOLVING && session_is_called(session)) {
        connect_turned(session, fd);
        return;
    }
    if (session == NULL) {
        turned = calloc(1, sizeof(*turned));
    }
    if (turned == NULL) {
        log_event(LOG_LEVEL_WARNING, "turned-connection", LOG_NUMBER("session", id),
                  LOG_TEXT("reason", session != NULL ? "is for no session that waits for it"
                                                     : "out of memory"));
        net_close(fd);
        return;
    }
    *turned = (struct turned){
        .session = id, .fd = fd, .until_ms = clock_steady_ms() + TURNED_PATIENCE_MS};
    list_append(&out->turned, &turned->link);
    out->turned_count++;
}

void turned_drop_all(struct smtp_out *out)
{
    LIST_EACH(&out->turned, at, after)
    {
        turned_free(out, LIST_ENTRY(at, struct turned, link));
    }
}
