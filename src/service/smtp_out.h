/* SPDX-License-Identifier: Apache-2.0
 *
 * The door for outgoing SMTP and LMTP: does what core says (connect, deliver, close) and reports
 * what happened; decides nothing. Reads stored messages by ticket, resolves the names of servers.
 * One per event loop of edge-out. Results are kept until core says they are durable, and said again
 * to a new core.
 */
#ifndef HOLDFAST_SERVICE_SMTP_OUT_H
#define HOLDFAST_SERVICE_SMTP_OUT_H

#include "service/config.h"
#include "service/metrics.h"
#include "spool/reader.h"
#include "sys/dns.h"
#include "sys/loop.h"
#include "sys/ring.h"

struct smtp_out;

struct smtp_out *smtp_out_new(struct loop *loop, const struct service_config *config,
                              struct spool_reader *reader, struct dns *dns, struct ring *ring,
                              struct counters *counters);
/* Core has restarted: work goes on, unconfirmed results are repeated on the new ring. */
void smtp_out_set_ring(struct smtp_out *out, struct ring *ring);
/* Called when core has broken the ring, which is not used any more: without another nothing is
 * delivered. May end the process. */
void smtp_out_set_broken_handler(struct smtp_out *out, void (*broken)(void *context),
                                 void *context);
/* A connection that a client of ours has made and had turned round (ATRN), for the session that
 * core has told edge-in; fd is ours from now on. */
void smtp_out_turned(struct smtp_out *out, uint32_t session, int fd);
/* On success nothing points into the old configuration. */
enum error smtp_out_reconfigure(struct smtp_out *out,
                                const struct service_config *config) MUST_CHECK;
/* No new dots; waits for replies to dots under way at most grace_ms, then reports the rest. */
void smtp_out_stop(struct smtp_out *out, int64_t grace_ms, void (*done)(void *context),
                   void *context);
void smtp_out_free(struct smtp_out *out);

#endif
