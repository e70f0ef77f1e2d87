/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers of DNS written as text: "10 a 192.0.2.1 192.0.2.2; 20 b -". After a host come its
 * addresses; "-": it has none; "?": there is no answer for it; "!192.0.2.9": this machine's.
 */
#ifndef HOLDFAST_TESTS_RELAY_MX_ANSWER_H
#define HOLDFAST_TESTS_RELAY_MX_ANSWER_H

#include "relay/mx.h"

struct mx_answer_text {
    struct mx_address addresses[MX_EXCHANGERS_MAX][MX_ADDRESSES_MAX];
    struct mx_exchanger exchangers[MX_EXCHANGERS_MAX];
    struct mx_answer answer; /* points into this */
};

/* Valid for an hour; hosts point into the text. */
void mx_answer_read(struct mx_answer_text *answer, const char *text);

#endif
