/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole messages with descriptors over a pair of Unix sockets (SOCK_SEQPACKET, unix(7)). What comes
 * is bounded; more descriptors than asked for, or a longer message, is refused and leaks nothing.
 */
#ifndef HOLDFAST_SYS_FDPASS_H
#define HOLDFAST_SYS_FDPASS_H

#include "base/error.h"
#include "base/slice.h"

enum {
    FDPASS_DESCRIPTORS_MAX = 64, /* in one message */
    FDPASS_BYTES_MAX = 64 << 10,
};

/* Both ends: close-on-exec, non-blocking. */
enum error fdpass_pair(int ret_ends[2]) MUST_CHECK;
/* The descriptors stay the caller's. ERROR_AGAIN: the other side is slow. ERROR_CLOSED. */
enum error fdpass_send(int socket, struct slice bytes, const int *descriptors,
                       size_t count) MUST_CHECK;
/* Descriptors come close-on-exec and are the caller's; *ret_count of at most
 * FDPASS_DESCRIPTORS_MAX. ERROR_AGAIN: none waits. ERROR_CLOSED. ERROR_LIMIT: too long or too many;
 * it is thrown away. */
enum error fdpass_receive(int socket, void *ret_bytes, size_t size, size_t *ret_length,
                          int ret_descriptors[FDPASS_DESCRIPTORS_MAX],
                          size_t *ret_count) MUST_CHECK;
/* A message that has no descriptors. ERROR_CORRUPT: it had some, which are closed. */
enum error fdpass_receive_bytes(int socket, void *ret_bytes, size_t size,
                                size_t *ret_length) MUST_CHECK;

#endif
