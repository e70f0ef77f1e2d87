/* SPDX-License-Identifier: Apache-2.0 */
#include "in_world.h"

#include "sim/sim.h"

void backend_begin(void)
{
    sim_begin(1);
}

void backend_end(void)
{
    sim_run_until(sim_now_ns() + 60LL * 1000000000); /* timers that were set are freed when due */
    sim_end();
}

void backend_run(struct world *world, int64_t ms)
{
    (void)world;
    sim_run_until(sim_now_ns() + ms * 1000000);
}
