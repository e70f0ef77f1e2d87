/* SPDX-License-Identifier: Apache-2.0
 *
 * ETRN (RFC 1985): a client asks that what waits for a domain be handed over now. It is believed
 * when its address is that of a server in the domain's chain, or in the route's `etrn-from`.
 *
 * The answer is the truth at this moment. Mail goes where its chain leads, never to the client for
 * its asking; what asking does is this: those servers of the chain that are not up are probed at
 * once (R3), and deliveries that were deferred are due now.
 */
#ifndef HOLDFAST_RELAY_ETRN_H
#define HOLDFAST_RELAY_ETRN_H

#include "relay/relay.h"

/* Messages of the queue that one request looks at, the oldest first: milliseconds. */
enum { RELAY_ETRN_LOOK = 1 << 16 };

enum relay_etrn_outcome {
    RELAY_ETRN_DENIED,    /* the domain is none of ours, or the client none of its servers */
    RELAY_ETRN_NOTHING,   /* no message waits */
    RELAY_ETRN_COUNTED,   /* `messages` wait or are under way */
    RELAY_ETRN_UNCOUNTED, /* some do; more are queued than one look takes in. Deferred ones among
                             the rest keep to their schedule */
    RELAY_ETRN_STARTED,   /* none was found, and more are queued than one look takes in */
    RELAY_ETRN_LATER,     /* before relay_start(): asking does nothing, ask again */
    /* `messages` wait, and asking moves none of them: */
    RELAY_ETRN_HELD,      /* an operator holds some, and nothing else waits */
    RELAY_ETRN_REFUSED,   /* all are held since a server has refused them (R5) */
    RELAY_ETRN_TAKEN_OUT, /* every server of the chain is taken out by hand */
    RELAY_ETRN_CALLS,     /* the same, but for servers that have no address and call */
    RELAY_ETRN_DRILL,     /* a drill holds them back */
    RELAY_ETRN_OUTCOMES
};

struct relay_etrn {
    enum relay_etrn_outcome outcome;
    uint64_t messages;
};

/* For `domain`; with `subdomains` for every domain below it, too (RFC 1985's "@"), as far as the
 * client may ask for them. */
struct relay_etrn relay_etrn(struct relay *relay, struct slice domain, bool subdomains,
                             const struct ip_address *client, struct relay_time now);

#endif
