/* SPDX-License-Identifier: Apache-2.0
 *
 * Which events that strangers cause are kept for `trace`, so that a flood of them fills no disk and
 * hides nobody else's: of each (a network, an account) EVENT_BOUND_OF_ONE in a minute; where
 * strangers can be as many as they like, of all together EVENT_BOUND_BURST at once and then
 * EVENT_BOUND_A_MINUTE. What is left out is counted and told with the next of its own, or when the
 * minute is over. No clock, no file: time is an argument.
 */
#ifndef HOLDFAST_SERVICE_EVENT_BOUND_H
#define HOLDFAST_SERVICE_EVENT_BOUND_H

#include "base/network.h"

enum {
    EVENT_BOUND_OF_ONE = 10,
    EVENT_BOUND_BURST = 2000,
    EVENT_BOUND_A_MINUTE = 20,
};

struct event_bound;

/* `has_total`: there is a bound for all together. NULL: memory. */
struct event_bound *event_bound_new(bool has_total);
void event_bound_free(struct event_bound *bound); /* NULL is allowed */
/* Of whose they are: of a client's network, ip_neighbours(). True: it is to be kept, and tells that
 * *ret_left_out of the same were not. */
bool event_bound_take(struct event_bound *bound, struct slice of, const struct ip_address *client,
                      int64_t steady_ms, uint64_t *ret_left_out);
/* True: a minute is over, and this is to be told of one by the last client that was left out. To be
 * asked again until it says false. */
bool event_bound_over(struct event_bound *bound, int64_t steady_ms, struct ip_address *ret_client,
                      uint64_t *ret_left_out);

#endif
