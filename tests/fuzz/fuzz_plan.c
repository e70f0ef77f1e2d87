/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper believes nothing of what the reader process answers.
 */
#include "app/plan.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct plan plan;
    if (plan_get(slice_make(data, size), &plan)) {
        assert(plan.state[0] == '/' && strlen(plan.state) < sizeof(plan.state));
        assert(plan.listener_count <= LISTENERS_MAX);
        assert(plan.fixed_count <= SETTINGS_RESTART_MAX);
        assert(plan.milter_count <= MILTERS_MAX);
        assert(plan.loops >= 1 && plan.loops <= LOOPS_MAX);
    }
    return 0;
}
