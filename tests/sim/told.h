/* SPDX-License-Identifier: Apache-2.0
 *
 * What a server of the simulated world is told of whose mail it gets: by a PROXY header, XCLIENT or
 * XFORWARD, read in its own few lines. What arrives with another's origin is a fault.
 */
#ifndef HOLDFAST_TESTS_TOLD_H
#define HOLDFAST_TESTS_TOLD_H

#include "base/buffer.h"
#include "sim/actors.h"

enum { TOLD_ATTRIBUTES = 7 };

struct told {
    bool begun;       /* something has come */
    bool proxied;     /* a header has come */
    bool presented;   /* it or XCLIENT told of a client, for whom all that follows is */
    bool presentable; /* XCLIENT stands open to it by the last EHLO */
    bool offers_xforward, forwardable; /* likewise XFORWARD */
    bool xclient_refused;              /* so that mail may come without */
    bool xforward_refused;
    bool client_refused; /* by XCLIENT, and so by the EHLO behind */
    bool forwarded;      /* by XFORWARD, for one mail */
    unsigned attributes; /* that were told, a bit for each, of `origin` */
    struct ledger_origin origin;
    char hello[32];                  /* of the last EHLO */
    char name[32], reverse_name[32]; /* by DNS */
    bool has_name, has_reverse_name;
};

/* The length of the PROXY header that the octets begin with; 0: none. SIZE_MAX: more must come. */
size_t told_header(struct told *told, struct slice bytes, struct ledger *ledger);
/* The EHLO reply's lines for it, as the mood is. */
void told_offer(struct told *told, const struct server_mood *mood, struct buffer *out);
/* The name that EHLO said; false: the client is refused there. */
bool told_hello(struct told *told, struct slice name);
/* XCLIENT or XFORWARD with its parameters: the reply, or NULL to hang up. */
const char *told_xclient(struct told *told, const struct server_mood *mood, struct slice words,
                         struct ledger *ledger);
const char *told_xforward(struct told *told, const struct server_mood *mood, struct slice words,
                          struct ledger *ledger);
/* The mail is over. */
void told_reset(struct told *told);
/* Message `number` has come; LEDGER_NOBODY: mail of the program's own. */
void told_check(const struct told *told, struct ledger *ledger, const char *server,
                uint32_t number);

#endif
