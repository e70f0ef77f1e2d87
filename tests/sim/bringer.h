/* SPDX-License-Identifier: Apache-2.0
 *
 * How a client of the simulated world comes: by itself, or brought by another that says whose mail
 * it is: a load balancer by a PROXY header, a mail server by XCLIENT or XFORWARD.
 */
#ifndef HOLDFAST_TESTS_BRINGER_H
#define HOLDFAST_TESTS_BRINGER_H

#include "base/buffer.h"
#include "sim/actors.h"

/* Those that setting.c trusts: of strangers, and in the relay's network. */
#define BRINGER_SERVERS "203.0.113.16"
#define BRINGER_BALANCERS "203.0.113.32"
#define BRINGER_RELAY_SERVERS "198.51.100.16"
#define BRINGER_RELAY_BALANCERS "198.51.100.32"
enum { BRINGER_BITS = 28 };

struct bringer {
    enum { COMES_ITSELF, BRINGS_BY_PROXY, BRINGS_BY_XCLIENT, BRINGS_BY_XFORWARD } way;
    struct ip_address source; /* that it connects from */
    unsigned to_present;      /* XCLIENT commands that are still to be said */
    bool said_ehlo;
    bool has_helo, has_protocol; /* told by XCLIENT, so that a greeting says nothing of it */
    struct ledger_origin origin; /* of the session */
};

/* Draws how the next connection comes, of a client that must be in the relay's network or not. */
void bringer_draw(struct bringer *bringer, bool relay);
/* It has connected from there. */
void bringer_connected(struct bringer *bringer, const struct ip_endpoint *from);
/* What comes before all else; nothing, mostly. */
void bringer_put_header(struct bringer *bringer, struct buffer *to);
/* XCLIENT; its reply is a greeting. */
void bringer_put_xclient(struct bringer *bringer, bool relay, struct buffer *to);
/* EHLO or HELO, as drawn. */
void bringer_put_hello(struct bringer *bringer, struct buffer *to);
/* XFORWARD in front of a message, whose origin is returned. The number of commands: 0 to 2. */
unsigned bringer_put_xforward(const struct bringer *bringer, struct buffer *to,
                              struct ledger_origin *ret_origin);

#endif
