/* SPDX-License-Identifier: Apache-2.0 */
#include "in_world.h"

#include <stdlib.h>

void backend_begin(void) {}

void backend_end(void) {}

static void stop(void *context)
{
    struct world *world = context;
    loop_stop(world->loop);
}

void backend_run(struct world *world, int64_t ms)
{
    struct loop_timer *timer = loop_timer_new(world->loop, stop, world);
    if (timer == NULL) {
        abort();
    }
    loop_timer_set(timer, ms < 2 ? ms : 2);
    world->is_running = true;
    loop_run(world->loop);
    world->is_running = false;
    loop_timer_free(timer);
}
