/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers of DNS written as text: "10 a 192.0.2.1 192.0.2.2; 20 b -". After a host come its
 * addresses; "-": it has none; "?": there is no answer for it; "!192.0.2.9": this machine's.
 */
#ifndef HOLDFAST_TESTS_RELAY_MX_ANSWER_H
#define HOLDFAST_TESTS_RELAY_MX_ANSWER_H

#include "relay/mx.h"
#include "world.h"

struct mx_answer_text {
    struct mx_address addresses[MX_EXCHANGERS_MAX][MX_ADDRESSES_MAX];
    struct mx_exchanger exchangers[MX_EXCHANGERS_MAX];
    struct mx_answer answer; /* points into this */
};

/* Valid for an hour; hosts point into the text. */
void mx_answer_read(struct mx_answer_text *answer, const char *text);

/* The route's chain is of so many of its servers, `place` of them before the exchangers. Before the
 * world is opened. */
void mx_follow(struct world *world, uint32_t route, uint32_t servers, uint32_t place);
/* DNS says so; `error` is that of the whole answer. */
void mx_answer(struct world *world, const char *domain, const char *text, enum error error,
               uint32_t ttl_s);
/* This was asked in the last input, once. */
bool mx_is_asked(const struct world *world, const char *domain);
/* The session asked for in the last input, to the exchanger of this name; or 0. */
uint32_t mx_called(const struct world *world, const char *host);
/* The lane of this name, as shown; without a server if there is none. */
struct relay_lane_view mx_lane(struct world *world, const char *name);

#endif
