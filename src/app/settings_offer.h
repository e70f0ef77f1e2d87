/* SPDX-License-Identifier: Apache-2.0
 *
 * The link by which helper, which follows the cluster's settings in the database, gives a version
 * to the keeper, and hears what came of it. Whole messages on a SOCK_SEQPACKET; never waits. The
 * version itself is a sealed file in memory (cluster/settings_version.h), which the keeper keeps on
 * the disk unread.
 */
#ifndef HOLDFAST_APP_SETTINGS_OFFER_H
#define HOLDFAST_APP_SETTINGS_OFFER_H

#include "base/error.h"
#include "base/slice.h"

#include <stdint.h>

enum { SETTINGS_PROBLEM_MAX = 255 };

enum settings_outcome {
    SETTINGS_TAKEN,   /* all processes run with it, and have done so for a second */
    SETTINGS_REFUSED, /* it is wrong, or does not go with the node's own file */
    SETTINGS_DIED,    /* a process died of it: it is not taken again, however often it is offered */
    SETTINGS_BUSY,    /* not now */
};

struct settings_result {
    uint64_t number;
    enum settings_outcome outcome;
    char problem[SETTINGS_PROBLEM_MAX + 1]; /* in words; empty if it was taken */
};

/* The descriptor stays the caller's. */
enum error settings_offer_send(int link, uint64_t number, int fd) MUST_CHECK;
/* ERROR_AGAIN: none waits. ERROR_CLOSED. ERROR_INVALID: that was none. The descriptor is the
 * caller's. */
enum error settings_offer_receive(int link, uint64_t *ret_number, int *ret_fd) MUST_CHECK;
enum error settings_result_send(int link, const struct settings_result *result) MUST_CHECK;
enum error settings_result_receive(int link, struct settings_result *ret_result) MUST_CHECK;

#endif
