/* SPDX-License-Identifier: Apache-2.0
 *
 * Which refusals of clients and recipients are kept for `trace`, so that a flood of them fills no
 * disk and hides nobody else's: of each network REFUSALS_OF_NETWORK in a minute, of all together
 * REFUSALS_BURST at once and then REFUSALS_A_MINUTE. What is left out is counted and told with the
 * next of its network, or when the minute is over. No clock, no file: time is an argument.
 */
#ifndef HOLDFAST_SERVICE_REFUSALS_H
#define HOLDFAST_SERVICE_REFUSALS_H

#include "base/network.h"

enum {
    REFUSALS_OF_NETWORK = 10,
    REFUSALS_BURST = 2000,
    REFUSALS_A_MINUTE = 20,
};

struct refusals;

struct refusals *refusals_new(void); /* NULL: memory */
void refusals_free(struct refusals *refusals);
/* True: it is to be kept, and tells that *ret_left_out of its network were not. */
bool refusals_take(struct refusals *refusals, const struct ip_address *client, int64_t steady_ms,
                   uint64_t *ret_left_out);
/* True: a minute is over, and this is to be told of a network by the last of its clients that was
 * left out. To be asked again until it says false. */
bool refusals_over(struct refusals *refusals, int64_t steady_ms, struct ip_address *ret_client,
                   uint64_t *ret_left_out);

#endif
