/* SPDX-License-Identifier: Apache-2.0
 *
 * The link by which a loop of edge-in asks the keeper for connections to filters, and helper for
 * files with lists of recipients. They can make none themselves, and name what the configuration
 * names: taken over by a stranger they reach that and nothing else. Whole messages on a
 * SOCK_SEQPACKET; never waits.
 */
#ifndef HOLDFAST_APP_DIAL_H
#define HOLDFAST_APP_DIAL_H

#include "base/error.h"
#include "base/slice.h"
#include "service/config.h"

enum { DIAL_NAME_MAX = 255 };

struct dial_request {
    uint64_t token;               /* comes back with the answer */
    char name[DIAL_NAME_MAX + 1]; /* of the filter; the file's path */
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
