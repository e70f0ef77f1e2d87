/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream sockets, never blocking. Simulated twin: tests/sim/net_sim.c, where a descriptor is an
 * index and connections can be delayed, cut, refused or silent.
 */
#ifndef HOLDFAST_SYS_NET_H
#define HOLDFAST_SYS_NET_H

#include "base/error.h"
#include "base/network.h"

/* All descriptors: close-on-exec, non-blocking; TCP_NODELAY on connections. */
enum error net_listen(const struct ip_endpoint *at, int backlog, int *ret_fd) MUST_CHECK;
/* ERROR_AGAIN: none waiting. ERROR_SPACE: out of descriptors. */
enum error net_accept(int listener, int *ret_fd, struct ip_endpoint *ret_peer) MUST_CHECK;
/* Starts connecting; writable when decided, then net_connected() tells. `source` may be NULL. */
enum error net_connect(const struct ip_endpoint *to, const struct ip_address *source,
                       int *ret_fd) MUST_CHECK;
enum error net_connected(int fd) MUST_CHECK;
/* ERROR_AGAIN, ERROR_CLOSED (orderly end gives ERROR_CLOSED too) or ERROR_NONE with a length. */
enum error net_receive(int fd, void *ret_bytes, size_t size, size_t *ret_length) MUST_CHECK;
/* Something waits to be received, or the end has come. */
bool net_has_input(int fd);
enum error net_send(int fd, struct slice bytes, size_t *ret_sent) MUST_CHECK;
/* Sends from several slices at once; at most 8. */
enum error net_send_slices(int fd, const struct slice *slices, size_t count,
                           size_t *ret_sent) MUST_CHECK;
/* Acknowledges at once what has been received. A peer that does not set TCP_NODELAY sends its next
 * small piece only then; without data to carry it the acknowledgement would take 40 ms. */
void net_acknowledge(int fd);
/* The connection fails when the other side has not acknowledged for so long what was sent (RFC
 * 5482): its host is gone, as opposed to a program that takes its time. 0: as long as TCP itself
 * tries. */
void net_give_up_after(int fd, uint32_t ms);
/* Asks an idle peer's host each second whether it still has the connection: one that has begun anew
 * says no, and one that has gone falls silent (RFC 9293 3.8.4). */
void net_ask_for_life(int fd, bool ask);
/* The local address of a connection. */
enum error net_local(int fd, struct ip_endpoint *ret_local) MUST_CHECK;
/* Who is at its other end. An error when nobody is any more, or fd is no TCP connection. */
enum error net_peer(int fd, struct ip_endpoint *ret_peer) MUST_CHECK;
/* A connected stream, by TCP or within this machine, whose other end is still there. */
bool net_is_stream(int fd);
/* Two ends of a stream within this machine. */
enum error net_pair(int ret_ends[2]) MUST_CHECK;
/* What is sent is held back until it fills a packet, or this ends. */
void net_hold(int fd, bool hold);
/* Nothing more is sent; the other end reads what was, and then the end. */
void net_end(int fd);
/* An interface of this machine has the address; false also if that cannot be found out. */
bool net_is_ours(const struct ip_address *address);
void net_close(int fd);

#endif
