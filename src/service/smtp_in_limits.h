/* SPDX-License-Identifier: Apache-2.0
 *
 * What the loops of one edge-in count together, without a lock: connections in all and by client,
 * bytes of content in memory. Any thread.
 */
#ifndef HOLDFAST_SERVICE_SMTP_IN_LIMITS_H
#define HOLDFAST_SERVICE_SMTP_IN_LIMITS_H

#include "base/network.h"
#include "service/config.h"
#include "service/smtp_in.h"

enum smtp_in_admission {
    SMTP_IN_ADMITTED,
    SMTP_IN_FULL,        /* connections in all */
    SMTP_IN_CLIENT_FULL, /* connections of this client; an IPv6 client is a /64 */
};

/* A connection that was admitted must leave with the same address. Loopback is not counted by
 * client. */
enum smtp_in_admission smtp_in_enter(struct smtp_in_shared *shared,
                                     const struct limits_config *limits,
                                     const struct ip_address *client);
void smtp_in_leave(struct smtp_in_shared *shared, const struct ip_address *client);

/* Logins that fail are counted by client; one that has many behind it may not try for a while: 10
 * at once, then one in 30 s. Loopback is counted like others. */
bool smtp_in_login_allowed(struct smtp_in_shared *shared, const struct ip_address *client,
                           int64_t now_ms);
void smtp_in_login_failed(struct smtp_in_shared *shared, const struct ip_address *client,
                          int64_t now_ms);

void smtp_in_content_grown(struct smtp_in_shared *shared, size_t bytes);
void smtp_in_content_shrunk(struct smtp_in_shared *shared, size_t bytes);
size_t smtp_in_content_bytes(const struct smtp_in_shared *shared);

#endif
