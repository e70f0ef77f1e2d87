/* SPDX-License-Identifier: Apache-2.0
 *
 * Refusals that are not believed (R5): whether a 5xx is held, and when it is tried again; the
 * breaker that opens when a server refuses everybody. Only for the room itself.
 */
#ifndef HOLDFAST_RELAY_REFUSAL_H
#define HOLDFAST_RELAY_REFUSAL_H

#include "relay/relay_internal.h"

/* The server has taken mail for this recipient, or does so as far as is known (directory.h). */
void recipient_accepted(struct relay *relay, const struct server *server,
                        const struct delivery *delivery);
/* It has done so before, as far as is remembered. */
bool recipient_is_known_good(const struct relay *relay, const struct server *server,
                             const struct delivery *delivery);

/* A 5xx, over a session that speaks for the server: it may open the breaker. */
void breaker_count(struct relay *relay, struct server *server, const struct delivery *delivery,
                   const struct relay_reply *reply);
/* A 2xx, or it is up. */
void breaker_reset(struct server *server);

/* A refusal of this server now. */
bool refusal_is_believed(const struct relay *relay, const struct server *server,
                         const struct delivery *delivery);
/* Of mail of the lane that has just come. */
bool refusals_are_believed(const struct relay *relay, const struct server *server,
                           const struct lane *lane);
enum hold { HOLD_NOT, HOLD_UNTIL_BELIEVED, HOLD_AN_HOUR };
/* Of a 5xx now to a delivery in flight. */
enum hold refusal_hold(const struct relay *relay, const struct server *server,
                       const struct delivery *delivery, const struct relay_reply *reply);
void refusal_held(struct relay *relay, uint32_t number, const struct relay_reply *reply,
                  enum hold hold);
bool is_held_refusal(const struct delivery *delivery);
/* It is about to go, whatever it waits for. */
void refusal_forget(struct relay *relay, uint32_t number);
/* Whether one that is held is tried again by itself, and when: steady ms, or INT64_MAX, when the
 * server is well. */
bool refusal_due(const struct relay *relay, const struct delivery *delivery, int64_t *ret_due_ms);
/* `for_good`: its reason to be held has gone, the next refusal counts. */
void refusal_retry(struct relay *relay, uint32_t number, bool for_good);
/* The oldest of those that wait for the server's sake, so that it has something to be tried with.
 */
void refusals_canary(struct relay *relay, struct server *server);
/* Tries those again whose reason has gone; sets when to look next. */
void refusals_review(struct relay *relay, struct server *server);
/* The same soon: what they wait for may have come. Nothing for NO_INDEX. */
void refusals_look_again(struct relay *relay, uint32_t server);
/* The server is down or disabled now, or usable again: those that wait for one that is away go to
 * another, if there is one. */
void refusals_state_changed(struct relay *relay, struct server *server);
/* Its mail of before the recovery is through. */
void refusals_lane_drained(struct relay *relay, const struct lane *lane);
/* Counts them anew by server; those whose server is not configured any more wait no longer. */
void refusals_recount(struct relay *relay);

#endif
