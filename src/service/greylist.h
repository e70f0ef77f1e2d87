/* SPDX-License-Identifier: Apache-2.0
 *
 * Greylisting (RFC 6647): mail of an unknown client, sender and recipient is put off once, since a
 * mail server tries again and much of what sends spam does not. What has come back is known, and so
 * is, after some such mail, the client's network as a whole.
 *
 * A table of fixed size in memory, shared by all loops without a lock. When strangers fill it, mail
 * passes rather than waits for ever. A restart forgets it. Any thread.
 */
#ifndef HOLDFAST_SERVICE_GREYLIST_H
#define HOLDFAST_SERVICE_GREYLIST_H

#include "base/network.h"

struct greylist;

struct greylist_query {
    const struct ip_address *client; /* counted by IPv4 /24 or IPv6 /64 */
    struct slice sender;
    struct slice recipient;
    int64_t delay_ms; /* before which it is not let through, 1 or more */
    int64_t now_ms;   /* steady */
};

struct greylist *greylist_new(void); /* NULL: memory */
void greylist_free(struct greylist *list);
/* 0: let it through; else how long it should wait. */
int64_t greylist_wait_ms(struct greylist *list, const struct greylist_query *query);

#endif
