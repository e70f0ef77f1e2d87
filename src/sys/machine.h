/* SPDX-License-Identifier: Apache-2.0
 *
 * Which machine this is, as far as such a thing is known.
 */
#ifndef HOLDFAST_SYS_MACHINE_H
#define HOLDFAST_SYS_MACHINE_H

#include "base/slice.h"

enum { MACHINE_NAME_SIZE = 64 };

/* /etc/machine-id (machine-id(5)) as it stands there, else the host's name; in `buffer`. */
struct slice machine_name(char buffer[MACHINE_NAME_SIZE]);
/* The kernel's name for the time since it was booted (random(4)); empty if it tells none. */
struct slice machine_boot(char buffer[MACHINE_NAME_SIZE]);

#endif
