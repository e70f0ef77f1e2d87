/* SPDX-License-Identifier: Apache-2.0
 *
 * One page of memory by which who holds the lease tells core of it, without a message that could
 * wait behind another: core reads it before each answer that depends on it (docs/decisions/0047).
 * Written by one process, which alone can.
 */
#ifndef HOLDFAST_SERVICE_LEASE_PAGE_H
#define HOLDFAST_SERVICE_LEASE_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { LEASE_PAGE_NAME = 64 };

struct lease_page {
    _Atomic int64_t until_ms;      /* steady: the lease is good before that */
    _Atomic uint32_t ended_token;  /* writers up to this one are known to write no more */
    _Atomic int64_t other_seen_ms; /* steady: when the other machine was last seen to stand by; 0 */
    uint32_t token;
    uint32_t after_ms;
    int64_t since_ms;           /* Unix time */
    bool taken_over;            /* from a machine that did not hand over */
    char name[LEASE_PAGE_NAME]; /* ours; ends in NUL */
    char of[LEASE_PAGE_NAME];   /* the other's */
};

#endif
