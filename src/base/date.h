/* SPDX-License-Identifier: Apache-2.0
 *
 * Dates as mail writes them (RFC 5322 section 3.3), always in UTC. No time zone files, no locale.
 */
#ifndef HOLDFAST_BASE_DATE_H
#define HOLDFAST_BASE_DATE_H

#include <stdint.h>

enum { DATE_TEXT_SIZE = 64 };

/* "Sat, 21 Nov 2026 23:49:20 +0000"; Unix time in ms. Outside the years 0 to 9999 it is the nearest
 * end of that range. */
void date_to_text(int64_t unix_ms, char ret_text[DATE_TEXT_SIZE]);

#endif
