/* SPDX-License-Identifier: Apache-2.0
 *
 * The least configuration that relay works with: domain example.com goes to server m1.
 */
#ifndef HOLDFAST_TESTS_ONE_ROUTE_H
#define HOLDFAST_TESTS_ONE_ROUTE_H

#include "relay/config.h"

extern const struct relay_config one_route;

#endif
