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
    SMTP_IN_FULL,         /* connections in all */
    SMTP_IN_CLIENT_FULL,  /* connections of this client; an IPv6 client is a /64 */
    SMTP_IN_NETWORK_FULL, /* connections of its network: IPv4 /24, IPv6 /48 */
};

/* A connection that was admitted must leave with the same address. Loopback, and NULL, is not
 * counted by client. */
enum smtp_in_admission smtp_in_enter(struct smtp_in_shared *shared,
                                     const struct limits_config *limits,
                                     const struct ip_address *client);
/* One that has entered is another client's now. If not admitted, it is still the old one's. */
enum smtp_in_admission smtp_in_change(struct smtp_in_shared *shared,
                                      const struct limits_config *limits,
                                      const struct ip_address *old,
                                      const struct ip_address *client);
void smtp_in_leave(struct smtp_in_shared *shared, const struct ip_address *client);

/* What a client may do so many times, and then at a steady pace: each time has a cost, which is
 * paid off as time goes by; a client owes at most its credit. */
enum smtp_in_deed {
    SMTP_IN_CONNECTS,
    SMTP_IN_SENDS,   /* MAIL */
    SMTP_IN_NAMES,   /* RCPT */
    SMTP_IN_MISSES,  /* a recipient that is refused */
    SMTP_IN_SUBMITS, /* RCPT of a user who has logged in, from wherever */
    SMTP_IN_DEEDS
};
struct smtp_in_pace {
    int64_t cost_us; /* 0: as it likes */
    int64_t credit_us;
};
/* So many in a minute, all at once if it likes; 0: any number. */
struct smtp_in_pace smtp_in_per_minute(uint32_t count);
/* Clients are counted as for connections; loopback is not. */
bool smtp_in_may(struct smtp_in_shared *shared, enum smtp_in_deed deed, struct smtp_in_pace pace,
                 const struct ip_address *client, int64_t now_ms);
void smtp_in_did(struct smtp_in_shared *shared, enum smtp_in_deed deed, struct smtp_in_pace pace,
                 const struct ip_address *client, int64_t now_ms);

/* A user as a client of no address: to be counted like one. */
struct ip_address smtp_in_user(const struct smtp_in_shared *shared, struct slice name);

/* With what all loops seal session tickets. */
const struct tls_tickets *smtp_in_tickets(const struct smtp_in_shared *shared);
/* Of all loops; never NULL. */
struct greylist *smtp_in_greylist(struct smtp_in_shared *shared);

void smtp_in_content_grown(struct smtp_in_shared *shared, size_t bytes);
void smtp_in_content_shrunk(struct smtp_in_shared *shared, size_t bytes);
size_t smtp_in_content_bytes(const struct smtp_in_shared *shared);

#endif
