/* SPDX-License-Identifier: Apache-2.0
 *
 * The clocks. Only service/ and app/ read them; rooms below take time as an argument.
 * Has a simulated twin (tests/sim/clock_sim.c), chosen when linking.
 */
#ifndef HOLDFAST_SYS_CLOCK_H
#define HOLDFAST_SYS_CLOCK_H

#include <stdint.h>

/* Unix time in ms UTC: for what people and other programs read, never for waiting. */
int64_t clock_wall_ms(void);
/* CLOCK_BOOTTIME in ms: never goes back, counts suspend. All deadlines and ages use it. */
int64_t clock_steady_ms(void);
int64_t clock_steady_ns(void);

#endif
