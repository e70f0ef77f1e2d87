/* SPDX-License-Identifier: Apache-2.0
 *
 * A duplex channel between two processes (or two loops of one): a ring of records in each
 * direction in shared memory, single producer and single consumer, and an eventfd each way that is
 * written only when the other side sleeps.
 *
 * The two sides need not trust each other. What a receiver gets lies in memory that the sender can
 * still change: copy first, then check. Positions and lengths are copied and bounded before use; a
 * peer that breaks the ring's rules makes ring_receive() report ERROR_CORRUPT, nothing worse.
 *
 * Over plain memory in simulation (ring_pair_local), with the loop's wake in place of eventfds.
 */
#ifndef HOLDFAST_SYS_RING_H
#define HOLDFAST_SYS_RING_H

#include "base/slice.h"
#include "sys/loop.h"

struct ring; /* one side of a channel */

/* What must reach the other process to attach: descriptors in this order. */
struct ring_descriptors {
    int memory; /* memfd, sealed against resizing */
    int wake_a; /* eventfd that side A waits on */
    int wake_b;
};

enum ring_side { RING_SIDE_A, RING_SIDE_B };

/* Called on the loop: records may wait, or space has come after there was none. It is not called
 * again before ring_receive() has said ERROR_AGAIN, so who stops earlier comes back by himself. May
 * free its ring. */
typedef void ring_ready_fn(void *context);

/* Sizes are powers of two, bytes per direction, at least a page is taken. Owns nothing of either
 * side yet: the descriptors are the caller's. */
enum error ring_create(size_t a_to_b_bytes, size_t b_to_a_bytes,
                       struct ring_descriptors *ret_descriptors) MUST_CHECK;
void ring_descriptors_close(struct ring_descriptors *descriptors); /* -1 is allowed in each */
/* Takes the descriptors over (also on failure). ERROR_CORRUPT: not a ring. */
enum error ring_attach(struct ring_descriptors descriptors, enum ring_side side, struct loop *loop,
                       ring_ready_fn *fn, void *context, struct ring **ret_ring) MUST_CHECK;
/* Both sides in one process, possibly on two loops. */
enum error ring_pair_local(size_t a_to_b_bytes, size_t b_to_a_bytes, struct loop *loop_a,
                           struct loop *loop_b, struct ring **ret_a,
                           struct ring **ret_b) MUST_CHECK;
void ring_set_handler(struct ring *ring, ring_ready_fn *fn, void *context);
void ring_free(struct ring *ring); /* NULL is allowed */

/* Largest record that can ever be sent from this side. */
size_t ring_record_limit(const struct ring *ring);

/* Sending: reserve, fill, publish. NULL when there is no room now; the handler runs when there is
 * again a good part of the ring, or the peer has turned out to be broken. One reservation at a
 * time, at most ring_record_limit() bytes. publish may be given less than was reserved. */
void *ring_reserve(struct ring *ring, size_t length);
void ring_publish(struct ring *ring, size_t length);
/* Copies one record in. ERROR_AGAIN: no room now. ERROR_LIMIT: never. ERROR_CORRUPT: peer is
 * broken.
 */
enum error ring_send(struct ring *ring, struct slice record) MUST_CHECK;

/* The next record, valid until ring_release(); ERROR_AGAIN: none; ERROR_CORRUPT: peer is broken. */
enum error ring_receive(struct ring *ring, struct slice *ret_record) MUST_CHECK;
void ring_release(struct ring *ring);

#endif
