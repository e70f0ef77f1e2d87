/* SPDX-License-Identifier: Apache-2.0
 *
 * The link by which a loop of edge-in asks the keeper for connections to filters, and helper for
 * files with lists of recipients; and by which helper asks directory for lists out of LDAP, which
 * come as sealed files in memory. They can make none themselves, and name what the configuration
 * names: taken over by a stranger they reach that and nothing else. Whole messages on a
 * SOCK_SEQPACKET; never waits.
 */
#ifndef HOLDFAST_APP_DIAL_H
#define HOLDFAST_APP_DIAL_H

#include "base/error.h"
#include "base/slice.h"
#include "service/config.h"

enum { DIAL_NAME_MAX = 255, DIAL_PROBLEM_MAX = 255 };

struct dial_request {
    uint64_t token;               /* comes back with the answer */
    char name[DIAL_NAME_MAX + 1]; /* of the filter, or of the ldap block; the file's path */
};

struct dial_answer {
    uint64_t token;
    enum error error;                   /* why there is none */
    int fd;                             /* -1: none; may still be connecting */
    char problem[DIAL_PROBLEM_MAX + 1]; /* the error in words; empty: there are no better ones */
};

enum error dial_ask(int link, uint64_t token, struct slice name) MUST_CHECK;
/* ERROR_AGAIN: none waits. ERROR_CLOSED. ERROR_INVALID: that was none. */
enum error dial_receive(int link, struct dial_request *ret_request) MUST_CHECK;
/* The descriptor stays the caller's. */
enum error dial_answer(int link, const struct dial_answer *answer) MUST_CHECK;
/* As dial_receive(). The descriptor is the caller's. */
enum error dial_answered(int link, struct dial_answer *ret_answer) MUST_CHECK;

#endif
