/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of hosts(5). What cannot be read, as an address with a scope, is passed over, as the C
 * library does.
 */
#ifndef HOLDFAST_BASE_HOSTS_H
#define HOLDFAST_BASE_HOSTS_H

#include "base/network.h"

/* Begins as `rest` alone, the whole text. */
struct hosts_reader {
    struct slice rest;
    struct slice names; /* of the line that is being read */
    struct slice text;  /* its address as it stands there */
    struct ip_address address;
};

/* The next name, and its address in the reader. False: that was the last. */
bool hosts_next(struct hosts_reader *reader, struct slice *ret_name);

#endif
