/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts of web: web.c speaks HTTP, web_clients.c bounds who may, web_status.c keeps what core
 * last said, web_page.c and web_metrics.c write it for people and for machines.
 */
#ifndef HOLDFAST_SERVICE_WEB_INTERNAL_H
#define HOLDFAST_SERVICE_WEB_INTERNAL_H

#include "service/control_frame.h"
#include "service/web.h"

/* ---- web_clients.c --------------------------------------------------------------------------- */

struct web_client {
    int fd;
    struct ip_endpoint peer;
};

struct web_clients {
    uint32_t count;
    struct web_client at[WEB_CONNECTIONS_MAX];
};

/* Counts a new connection. False: it is one too many, and is not counted. */
bool web_clients_enter(struct web_clients *clients, int fd) MUST_CHECK;

/* ---- web_status.c ---------------------------------------------------------------------------- */

struct web_status;
/* `fn` when an answer asked for by web_status_ask() has come, or could not. */
struct web_status *web_status_new(struct loop *loop, int fd, void (*fn)(void *context),
                                  void *context);
void web_status_set(struct web_status *status, int fd);
void web_status_ask(struct web_status *status);
/* The last answer, if it is not older than max_age_ms; else NULL. Borrowed. */
json_t *web_status_get(const struct web_status *status, int64_t max_age_ms);
void web_status_free(struct web_status *status);

/* ---- web_metrics.c --------------------------------------------------------------------------- */

/* Prometheus text; `status` may be NULL. */
void web_metrics(struct buffer *out, const struct counter_page *page, json_t *status);

/* ---- web_page.c ------------------------------------------------------------------------------ */

/* HTML; `status` may be NULL. */
void web_page(struct buffer *out, struct slice hostname, const json_t *status);
/* CSS, the page's. */
const char *web_page_style(void);

#endif
