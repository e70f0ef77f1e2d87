/* SPDX-License-Identifier: Apache-2.0
 *
 * The work of the helper: asks core once a second for news of alerts, and tells people as the alert
 * blocks of the configuration say. What is told when is decided by app/hook_desk.h.
 *
 * A message is told at least once: a helper that dies begins again where it had said that all was
 * told.
 */
#ifndef HOLDFAST_APP_HOOKS_H
#define HOLDFAST_APP_HOOKS_H

#include "app/hook_web.h"
#include "service/config.h"
#include "service/metrics.h"

struct hooks;

/* `fetcher` must outlive it. NULL: memory. */
struct hooks *hooks_new(struct loop *loop, const struct service_config *config,
                        struct fetcher *fetcher, struct counters *counters);
void hooks_free(struct hooks *hooks);
/* New streams, taken over. */
void hooks_set_core(struct hooks *hooks, int fd);
void hooks_set_runner(struct hooks *hooks, int fd);
/* On success nothing points into the old configuration. ERROR_MEMORY: it stays in force. */
enum error hooks_reconfigure(struct hooks *hooks, const struct service_config *config) MUST_CHECK;

#endif
