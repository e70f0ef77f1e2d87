/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers as people read them.
 */
#ifndef HOLDFAST_BASE_HUMAN_H
#define HOLDFAST_BASE_HUMAN_H

#include <stdint.h>

enum { HUMAN_TEXT = 64 };

/* Both write a string and return `buffer`. */
const char *human_age(int64_t seconds, char buffer[HUMAN_TEXT]); /* "3h12m"; below 0: "0s" */
const char *human_bytes(int64_t bytes, char buffer[HUMAN_TEXT]); /* "4.2K", in powers of 1024 */

#endif
