/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP: /metrics (Prometheus text) and /health for machines; for who sits at this one, or comes by
 * a proxy on it, a page at / that shows what `holdfast status` says, of all members of a cluster
 * too, and the same as JSON at /api/status. Nothing can be changed. Everything else is 404. Reads
 * the shared counters itself and asks core for its status over a control stream; answers without
 * core too, and says so.
 */
#ifndef HOLDFAST_SERVICE_WEB_H
#define HOLDFAST_SERVICE_WEB_H

#include "service/config.h"
#include "service/metrics.h"
#include "sys/loop.h"

/* Against one who takes all descriptors: what comes above is closed without an answer. */
enum {
    WEB_CONNECTIONS_MAX = 256,
    WEB_CONNECTIONS_PER_CLIENT = 64, /* an IPv6 client is a /64; loopback is exempt */
};

struct web;

/* listeners[i] is the descriptor of config->listeners[i] (-1: not HTTP), control_fd a connected
 * stream to core (-1: none yet); all are taken over, also on failure. The page outlives it. Needs
 * the real loop. NULL: memory, or a listener could not be used. */
struct web *web_new(struct loop *loop, const struct service_config *config, const int *listeners,
                    int control_fd, const struct counter_page *page);
/* Core has restarted. */
void web_set_control(struct web *web, int control_fd);
void web_free(struct web *web); /* NULL is allowed */

#endif
