/* SPDX-License-Identifier: Apache-2.0
 *
 * The link between the two edges: connections that clients have made and want turned round (ATRN).
 * edge-in gives each with the number of the session that core has named; edge-out takes them on its
 * first loop and hands each to the loop of its session.
 */
#ifndef HOLDFAST_APP_TURN_H
#define HOLDFAST_APP_TURN_H

#include "base/error.h"

#include <stdint.h>

/* The descriptor stays the caller's. */
enum error turn_send(int link, uint32_t session, int fd) MUST_CHECK;
/* ERROR_AGAIN: none waits. ERROR_CLOSED. ERROR_INVALID: that was none, and nothing is kept of it.
 */
enum error turn_receive(int link, uint32_t *ret_session, int *ret_fd) MUST_CHECK;

#endif
