/* SPDX-License-Identifier: Apache-2.0 */
#include "service/metrics.h"

#include <assert.h>

static const char *const names[COUNTER_COUNT] = {
#define COUNTER_NAME(name, text, help) text,
    COUNTER_TABLE(COUNTER_NAME)
#undef COUNTER_NAME
};

static const char *const helps[COUNTER_COUNT] = {
#define COUNTER_HELP(name, text, help) help,
    COUNTER_TABLE(COUNTER_HELP)
#undef COUNTER_HELP
};

uint64_t counter_sum(const struct counter_page *page, enum counter which)
{
    uint64_t sum = 0;
    assert(which < COUNTER_COUNT);
    for (int i = 0; i < COUNTER_SLOTS; i++) {
        sum += atomic_load_explicit(&page->slots[i].value[which], memory_order_relaxed);
    }
    return sum;
}

const char *counter_name(enum counter which)
{
    assert(which < COUNTER_COUNT);
    return names[which];
}

const char *counter_help(enum counter which)
{
    assert(which < COUNTER_COUNT);
    return helps[which];
}
