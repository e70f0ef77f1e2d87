/* SPDX-License-Identifier: Apache-2.0
 *
 * ATRN (RFC 2645): the client of a server without an address has called and asks that the
 * connection be turned round, so that the mail of its domains goes over it. Who it is, and that the
 * domains are its own, the caller has made sure of.
 *
 * Such a server is down while nobody calls, which is no trouble: it is not probed, its lanes do not
 * count as stopped. A call makes it up (recovering, if the last one broke) for as long as there is
 * mail to send of the routes that were asked for; then the session is closed, and it is down again.
 */
#ifndef HOLDFAST_RELAY_ATRN_H
#define HOLDFAST_RELAY_ATRN_H

#include "relay/relay.h"

enum { RELAY_ATRN_DOMAINS_MAX = 64 }; /* of one request */

enum relay_atrn_outcome {
    RELAY_ATRN_DENIED,  /* not all of the domains have such a server, and the same */
    RELAY_ATRN_OUT,     /* the operator has taken the server out */
    RELAY_ATRN_BUSY,    /* it has a connection already, or an earlier one has not ended */
    RELAY_ATRN_LATER,   /* before relay_start(), or memory is out */
    RELAY_ATRN_NOTHING, /* nothing waits that would go there now */
    RELAY_ATRN_TURN, /* RELAY_CONNECT has been said for `session`: the connection is to carry it */
    RELAY_ATRN_OUTCOMES
};

struct relay_atrn {
    enum relay_atrn_outcome outcome;
    uint32_t session;    /* RELAY_ATRN_TURN */
    uint64_t deliveries; /* that wait */
};

/* For `count` domains, at least one and at most RELAY_ATRN_DOMAINS_MAX. What was deferred of them
 * is due now. */
struct relay_atrn relay_atrn(struct relay *relay, const struct slice *domains, uint32_t count,
                             struct relay_time now);

#endif
