/* SPDX-License-Identifier: Apache-2.0
 *
 * Greylisting (RFC 6647): mail of an unknown client, sender and recipient is put off once, since a
 * mail server tries again and much of what sends spam does not. What has come back is known, and so
 * is, after some such mail, the client's network as a whole.
 *
 * A table of fixed size in memory, shared by all loops, and by the process that keeps it in a file,
 * without a lock. When strangers fill it, mail passes rather than waits for ever. Any thread; what
 * another process writes there is believed as far as it goes: it puts off more mail, or less.
 */
#ifndef HOLDFAST_SERVICE_GREYLIST_H
#define HOLDFAST_SERVICE_GREYLIST_H

#include "base/buffer.h"
#include "base/network.h"

struct greylist;

struct greylist_query {
    const struct ip_address *client; /* counted by IPv4 /24 or IPv6 /64 */
    struct slice sender;
    struct slice recipient;
    int64_t delay_ms; /* before which it is not let through, 1 or more */
    int64_t now_ms;   /* steady */
};

/* Bytes of memory that one is; all zero at first, and touched as it fills. */
size_t greylist_bytes(void);
/* Knows nobody, and has begun. NULL: memory. */
struct greylist *greylist_new(void);
void greylist_free(struct greylist *list); /* one of greylist_new(); NULL is allowed */
/* Before it has begun it puts nobody off: it may be about to hear whom it knows. Once it has,
 * nothing. */
void greylist_begin(struct greylist *list);
bool greylist_has_begun(const struct greylist *list);
/* 0: let it through; else how long it should wait. */
int64_t greylist_wait_ms(struct greylist *list, const struct greylist_query *query);

/* ---- in a file ------------------------------------------------------------------------------- */

enum { GREYLIST_FILE_MAX = (12 << 20) + 64 };

struct greylist_time {
    int64_t steady_ms, wall_ms; /* of one moment */
};
/* Changes with each change. */
uint64_t greylist_serial(const struct greylist *list);
/* Appends all that is not over. */
void greylist_write(const struct greylist *list, struct greylist_time now, struct buffer *file);
/* Into one that has not begun. ERROR_CORRUPT, ERROR_NEWER: it knows nobody. What a clock that has
 * gone back would make younger than it was is as old as it was when it was written. */
enum error greylist_read(struct greylist *list, struct slice file,
                         struct greylist_time now) MUST_CHECK;

#endif
