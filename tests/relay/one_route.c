/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/one_route.h"

static const struct server_config server = {.name = {(const uint8_t *)"m1", 2},
                                            .connections = 20,
                                            .probe_interval_ms = 700,
                                            .failover = NO_INDEX};
static const uint32_t chain[] = {0};
static const uint32_t retry_ms[] = {600000};
static const struct domain_pattern domain = {{(const uint8_t *)"example.com", 11}, false};
static const struct route_config route = {.kind = ROUTE_DOMAIN,
                                          .name = {(const uint8_t *)"example.com", 11},
                                          .domains = &domain,
                                          .domain_count = 1,
                                          .chain = chain,
                                          .chain_length = 1,
                                          .retry_ms = retry_ms,
                                          .retry_count = 1,
                                          .order_patience_ms = 30000};
const struct relay_config one_route = {.servers = &server,
                                       .server_count = 1,
                                       .routes = &route,
                                       .route_count = 1,
                                       .bounces = NO_INDEX,
                                       .hostname = {(const uint8_t *)"mx", 2}};
