/* SPDX-License-Identifier: Apache-2.0
 *
 * Guards' work, done by the runner: asks core once a second what is to be run and which machines
 * are to be asked (service/core_guard.c), runs the scripts that the configuration names, and says
 * how they ended. Core says only which guard and which of its two scripts; a run has a number.
 *
 * Of each guard the last run is remembered, so that an end is told again to a core that has not
 * kept it. Machines are asked by a connection that is closed at once: nothing is read from it.
 */
#ifndef HOLDFAST_APP_GUARD_DESK_H
#define HOLDFAST_APP_GUARD_DESK_H

#include "app/programs.h"
#include "service/config.h"

struct guard_desk;

/* `programs` must outlive it. NULL: memory. */
struct guard_desk *guard_desk_new(struct loop *loop, struct programs *programs);
void guard_desk_free(struct guard_desk *desk); /* NULL is allowed */
/* Must live until the next one, or the end. What runs goes on. */
void guard_desk_configure(struct guard_desk *desk, const struct service_config *config);
/* A new stream to core, taken over. */
void guard_desk_set_core(struct guard_desk *desk, int fd);

#endif
