/* SPDX-License-Identifier: Apache-2.0
 *
 * The link by which a loop of edge-in asks the keeper for connections to filters. edge-in can make
 * none itself, and names filters, not addresses: taken over by a stranger it reaches those that the
 * configuration names and nobody else. Whole messages on a SOCK_SEQPACKET; never waits.
 */
#ifndef HOLDFAST_APP_DIAL_H
#define HOLDFAST_APP_DIAL_H

#include "base/error.h"
#include "base/slice.h"
#include "service/config.h"

struct dial_request {
    uint64_t token; /* comes back with the answer */
    char name[MILTER_NAME_MAX + 1];
};

enum error dial_ask(int link, uint64_t token, struct slice name) MUST_CHECK;
/* ERROR_AGAIN: none waits. ERROR_CLOSED. ERROR_INVALID: that was none. */
enum error dial_receive(int link, struct dial_request *ret_request) MUST_CHECK;
/* `fd` may still be connecting, and stays the caller's; -1: `error` says why there is none. */
enum error dial_answer(int link, uint64_t token, enum error error, int fd) MUST_CHECK;
/* As dial_receive(). *ret_fd is the caller's, or -1 with *ret_error. */
enum error dial_answered(int link, uint64_t *ret_token, enum error *ret_error,
                         int *ret_fd) MUST_CHECK;

#endif
