/* SPDX-License-Identifier: Apache-2.0
 *
 * The room's own view of MX routing: exchangers, what is known of them from before, and
 * destinations. Nobody else includes this.
 */
#ifndef HOLDFAST_RELAY_DESTINATION_H
#define HOLDFAST_RELAY_DESTINATION_H

#include "relay/relay_internal.h"

/* ---- exchanger.c: servers made on demand -------------------------------------------------- */

struct exchanger {
    struct server server;
    struct server_config config; /* its `waived` is one of its terms */
    struct server_address addresses[MX_ADDRESSES_MAX];
    uint64_t key;
    bool expected;      /* known from a note alone, by name: DNS is to say where it is */
    struct link uses;   /* struct exchanger_use */
    uint32_t pin_count; /* lanes for doubts */
    uint8_t host[MX_HOST_MAX];
    uint8_t signed_by[MX_HOST_MAX]; /* a domain */
};

struct exchanger_use {
    struct link link;
    struct destination *destination;
};

/* What makes one host several exchangers, for sessions are shared by all who use one. */
struct exchanger_terms {
    uint64_t filter;        /* of what deliver-only-to says */
    bool waived;            /* for mail that waives what domains demand; else: */
    enum sts_demand sts;    /* of the domain's policy */
    struct slice signed_by; /* the domain, if its MX records are signed, at most MX_HOST_MAX bytes:
                               by its name the host may prove itself (RFC 7672 3.2.2); else empty */
};
/* The exchanger for this choice and on these terms, made if need be. `lasting`: it is probed as
 * configured servers are. NULL: memory is out, or there are too many. */
struct server *exchanger_take(struct relay *relay, const struct mx_choice *choice,
                              const struct exchanger_terms *terms, bool lasting);
/* One that was noted, whose addresses are still to be learned, and who has signed that it is one;
 * NULL as above. */
struct server *exchanger_expect(struct relay *relay, struct slice host,
                                const struct exchanger_terms *terms);
/* It was only expected, and DNS has named others in its place. */
bool exchanger_is_gone(const struct server *server);
/* One may connect to it. */
bool exchanger_has_place(const struct server *server);
/* Loading is complete: those of domain blocks are probed. */
void exchangers_start(struct relay *relay);
/* It may take its time to greet, as the last server of a chain (R4). */
void exchanger_is_last(struct server *server);
/* Mail waits for it. */
bool exchanger_is_wanted(const struct server *server);
/* The lanes that it matters to, after its state has changed. */
void exchanger_place_lanes(struct relay *relay, const struct server *server);
/* Frees those that nobody needs. */
void exchangers_sweep(struct relay *relay);
/* Before the lanes are made anew. */
void exchangers_unplace(struct relay *relay);
void exchangers_done(struct relay *relay);

/* ---- mx_known.c: what is known of exchangers from before ------------------------------------ */

/* The last good answer for a name of a domain block, addresses completed; as it was decided. */
void mx_known_keep(struct relay *relay, struct slice domain, const struct mx_decision *decision);
/* False: none. Hosts are valid until the next mx_known_keep() or mx_known_prune(). */
bool mx_known_read(const struct relay *relay, struct slice domain,
                   struct mx_decision *ret_decision);
void mx_known_load(struct relay *relay, struct slice domain, struct slice payload);
/* Forgets what no domain block needs any more. */
void mx_known_prune(struct relay *relay);
void mx_known_done(struct relay *relay);
/* What was noted of an exchanger's state. */
void noted_load(struct relay *relay, const struct note_key *key, struct slice payload);
/* The exchanger is there now. */
void noted_apply(struct relay *relay, struct server *server);
/* Loading is complete: states of those that are not there are of the past. */
void noted_start(struct relay *relay);
/* Another node's hand has taken it out of service, or brought it back: an empty payload. */
void noted_hear_hand(struct relay *relay, const struct note_key *key, struct slice payload,
                     const struct hand_note *note);
/* What a hand did to it is over. */
void noted_forget(struct relay *relay, struct slice host);

/* ---- destination.c: MX routing ------------------------------------------------------------ */

struct destination {
    uint32_t index;
    uint32_t route;
    uint32_t domain;     /* interned, counted */
    enum sender_tls tls; /* of its mail; ANY but for a relay */
    bool lasting;        /* of a domain block's first name */
    bool idle;           /* nothing was in it at the last sweep */
    bool answered;       /* `verdict` holds until expires_ms */
    bool asked;          /* an answer is due until asked_until_ms */
    enum mx_verdict verdict;
    enum error error;  /* of MX_NO_ANSWER */
    struct slice told; /* the trouble that was told last; static */
    struct link lanes;
    struct link touched;
    uint32_t timer;
    uint32_t wait_ms; /* until it is asked again; doubles */
    int64_t expires_ms;
    int64_t asked_until_ms;
    uint32_t *chain; /* configured servers and exchangers; room for all there may be */
    uint32_t chain_length;
    uint32_t exchanger_count; /* of these, from the route's mx_place on */
    struct exchanger_use uses[MX_EXCHANGERS_MAX];
};

/* Of mail by this route to this domain, which is interned; made if need be. NULL: memory. Mail that
 * asks something of TLS has a destination of its own where that matters, so a lane too: it waits
 * for other servers than the rest, and its order is its own. */
struct destination *destination_take(struct relay *relay, uint32_t route, uint32_t domain,
                                     enum sender_tls tls);
/* That of usual mail if it is there; else NULL. */
struct destination *destination_find(struct relay *relay, uint32_t route, struct slice domain);
/* What was found for it last is used until DNS answers. */
void destination_recall(struct relay *relay, struct destination *destination);
void destinations_recall(struct relay *relay);
/* The server that a note of a delivery there names; NO_INDEX: it has none of that name. `expect`:
 * it is made if need be. */
uint32_t destination_server(struct relay *relay, struct destination *destination, struct slice name,
                            bool expect);
/* Something may have changed for it. */
void destination_touch(struct relay *relay, struct destination *destination);
/* Whom its mail goes to now, or NO_INDEX. */
uint32_t destination_choose(const struct relay *relay, const struct destination *destination);
/* `server` has not taken mail that requires TLS, for want of something; whether that is to be tried
 * with others of its chain. */
enum elsewhere { ELSEWHERE_NOBODY, ELSEWHERE_LATER, ELSEWHERE_NOW };
enum elsewhere destination_elsewhere(struct relay *relay, const struct destination *destination,
                                     struct server *server);
/* What a server can do has changed: mail that requires TLS may go to another one now. */
void destinations_place_strict(struct relay *relay, const struct server *server);
/* There is nobody to go to, and DNS is not being asked. */
bool destination_is_stopped(const struct relay *relay, const struct destination *destination);
bool destination_has_mail(const struct destination *destination);
/* Why DNS gives no exchanger; or empty. */
struct slice destination_trouble(const struct destination *destination);
void destinations_settle(struct relay *relay);
void destination_timer(struct relay *relay, struct destination *destination);
/* Once a minute: frees what nobody needs. */
void destinations_sweep(struct relay *relay);
/* What was asked for will not be answered. */
void destinations_forget_questions(struct relay *relay);
void destination_free(struct relay *relay, struct destination *destination);
/* What DNS said of one of an older configuration holds for the one of `route` now, if there is any.
 */
void destination_carry(struct relay *relay, uint32_t route, const struct destination *from);
/* Between destination.c and destination_answer.c, which holds what DNS has said: */
const struct route_config *destination_route(const struct relay *relay,
                                             const struct destination *destination);
/* It is a domain block's, not a relay's. */
bool destination_is_domains(const struct relay *relay, const struct destination *destination);
uint64_t destination_key(uint32_t route, uint32_t domain, enum sender_tls tls);
/* The route's own servers, and between them these exchangers. */
void destination_set_chain(const struct relay *relay, struct destination *destination,
                           const uint32_t *exchangers, uint32_t count);
void destination_drop_exchangers(struct destination *destination);
void destination_place_lanes(struct relay *relay, struct destination *destination);
/* Its timer, by what is asked or known. */
void destination_arm(struct relay *relay, struct destination *destination);
/* DNS has said so, or nothing in time. */
void destination_conclude(struct relay *relay, struct destination *destination,
                          const struct mx_decision *decision);
/* What DNS said means the same by both. */
bool destination_same_policy(const struct relay_config *a, uint32_t route_a,
                             const struct relay_config *b, uint32_t route_b);

#endif
