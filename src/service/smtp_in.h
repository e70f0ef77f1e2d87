/* SPDX-License-Identifier: Apache-2.0
 *
 * The door for incoming SMTP: listeners, sessions, limits, relay rules, trace header fields;
 * content and envelope go to core over a ring, and 250 is said when core says CHANNEL_STORED. One
 * per event loop of edge-in. Has no file system.
 */
#ifndef HOLDFAST_SERVICE_SMTP_IN_H
#define HOLDFAST_SERVICE_SMTP_IN_H

#include "service/config.h"
#include "service/metrics.h"
#include "sys/loop.h"
#include "sys/ring.h"
#include "sys/scratch.h"

struct greylist; /* service/greylist.h */
struct smtp_in;
struct smtp_in_shared; /* what the loops of one edge-in count together: connections per client */

/* The list, which must outlive it, is asked where a listener says so; NULL: nobody is put off.
 * NULL: memory. */
struct smtp_in_shared *smtp_in_shared_new(struct greylist *greylist);
void smtp_in_shared_free(struct smtp_in_shared *shared);

/* listeners[i] is the descriptor of config->listeners[i] (-1: not SMTP). Descriptors are shared
 * with the other loops and not owned. ring may be NULL at first (answers 421 until it is there). */
struct smtp_in *smtp_in_new(struct loop *loop, const struct service_config *config,
                            uint32_t generation, struct smtp_in_shared *shared,
                            const int *listeners, struct ring *ring, struct counters *counters);
/* Core has died, and this ring leads to the next one; the old one is the caller's to free. A
 * message of which more than CHANNEL_CHUNK has come, and not all, gets 451. Of one that was given
 * to core and not answered the next one is asked as soon as it knows (CHANNEL_REPEATED), by the
 * same id: so it is there once, whichever of them has stored it. Meanwhile its client waits at the
 * dot, for at most SMTP_IN_REPEAT_MS, and says nothing more; so nothing of it is overtaken. Of a
 * client that has gone nothing is asked: it heard nothing, and will come again with another
 * message. */
void smtp_in_set_ring(struct smtp_in *in, struct ring *ring);
/* Called when core has broken the ring, which is not used any more: without another nothing is
 * accepted. May end the process. */
void smtp_in_set_broken_handler(struct smtp_in *in, void (*broken)(void *context), void *context);
/* How the connection of a client that has called for its mail (ATRN) is given to the sending
 * process, for `session`; the descriptor stays the caller's. False: it cannot be had. NULL: there
 * is nobody.
 */
typedef bool smtp_in_turn_fn(void *context, int fd, uint32_t session);
void smtp_in_set_turn(struct smtp_in *in, smtp_in_turn_fn *turn, void *context);
/* How a connection to a filter is asked for, by its name: smtp_in_dialed() tells of it later, never
 * from within. False: it cannot be asked for. */
typedef bool smtp_in_dial_fn(void *context, uint64_t token, struct slice milter);
/* `store` is for content on its way through filters, and taken over; NULL: none larger than
 * CHANNEL_CHUNK passes. */
void smtp_in_set_filters(struct smtp_in *in, smtp_in_dial_fn *dial, void *context,
                         struct scratch *store);
/* The descriptor, which may still be connecting, is taken over; -1: there is none, and why. */
void smtp_in_dialed(struct smtp_in *in, uint64_t token, enum error error, int fd);
/* One end of fdpass_pair(), taken over; who has the secrets is at the other (service/login.h). -1:
 * there is nobody, and nobody can log in. */
void smtp_in_set_login(struct smtp_in *in, int fd);
/* New configuration: running sessions keep their listener's name, new rules hold from the next
 * transaction. On success nothing points into the old one. */
enum error smtp_in_reconfigure(struct smtp_in *in, const struct service_config *config,
                               uint32_t generation, const int *listeners) MUST_CHECK;
/* Stops accepting; idle sessions get 421; calls `done` when the last one has ended, or after
 * grace_ms. */
void smtp_in_stop(struct smtp_in *in, int64_t grace_ms, void (*done)(void *context), void *context);
void smtp_in_free(struct smtp_in *in);

#endif
