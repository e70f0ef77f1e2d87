/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the control socket is, for who listens there and who asks.
 */
#ifndef HOLDFAST_APP_CONTROL_ADDRESS_H
#define HOLDFAST_APP_CONTROL_ADDRESS_H

#include "base/slice.h"

#include <stdbool.h>
#include <sys/un.h>

/* state/control.sock as an address. A longer path than an address can hold, 107 octets, goes by way
 * of `directory`, a descriptor of the state directory (O_PATH will do) that must stay open for as
 * long as the address is used; -1 if there is none. False: it is too long, and there is none. */
bool control_address(struct slice state, int directory, struct sockaddr_un *ret_address);

#endif
