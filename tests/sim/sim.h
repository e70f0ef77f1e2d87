/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated world: one seed gives one history. Everything that the production code asks of the
 * kernel through sys/ - loops, timers, worker threads, sockets, names, clocks, randomness - happens
 * here as events on one queue, in virtual time. The twins of sys/ (loop_sim.c, net_sim.c ...) are
 * linked in place of the real ones.
 *
 * A "process" is a group of loops that can be killed: its events never fire again, its sockets are
 * closed as the kernel would close them, its memory is simply left (reachable through the world).
 */
#ifndef HOLDFAST_TESTS_SIM_H
#define HOLDFAST_TESTS_SIM_H

#include "base/network.h"
#include "sys/loop.h"

typedef void sim_fn(void *context);

struct sim_process;

/* Starts the world anew. Virtual time begins at 2026-01-01 00:00:00 UTC. */
void sim_begin(uint64_t seed);
void sim_end(void);

/* Runs events until virtual time `until_ns` or until there are none; then time is `until_ns`. */
void sim_run_until(int64_t until_ns);
/* Runs one event. False: there is none. */
bool sim_step(void);
int64_t sim_now_ns(void);
/* The wall clock jumps; the steady one does not. */
void sim_wall_jump(int64_t delta_ms);

/* Draws from the world's generator. */
uint64_t sim_draw(uint64_t bound);
bool sim_chance(unsigned per_mille);

/* Processes. Loops, sockets and workers made while one is current belong to it. */
struct sim_process *sim_process_new(const char *name);
void sim_process_enter(struct sim_process *process);
void sim_process_kill(struct sim_process *process);
bool sim_process_alive(const struct sim_process *process);

/* A bare event, not bound to a loop; dropped if its process has been killed. */
void sim_after(struct sim_process *process, int64_t delay_ns, sim_fn *fn, void *context);
struct sim_process *sim_current(void);

/* ---- the net ---- */

enum sim_reach {
    SIM_REACHABLE,   /* connects if somebody listens, else is refused */
    SIM_REFUSED,     /* connection refused */
    SIM_UNREACHABLE, /* no answer at all, as long as it is so: the SYN is repeated as TCP does */
};
/* How an endpoint answers connection attempts from now on. */
void sim_net_reach(const struct ip_endpoint *at, enum sim_reach reach);
/* Cuts every connection that touches the endpoint, losing what is on its way. */
void sim_net_cut(const struct ip_endpoint *at);
/* Two ends already connected, each belonging to a process: a socketpair(2). */
void sim_net_pair(struct sim_process *first, struct sim_process *second, int *ret_first,
                  int *ret_second);
/* Copies what has come, up to `size` bytes of it, and leaves it there. */
size_t sim_net_peek(int fd, void *ret_bytes, size_t size);
/* The connection belongs to the process `to` from now on, under the descriptor returned; what is
 * sent over `fd` still arrives, before what is sent over that, and to close it closes nothing. -1:
 * there are no more descriptors. Nothing may be on its way to us. */
int sim_net_give(int fd, struct sim_process *to);
/* What names are there: "aN.test" is 192.0.2.N; example.test has the exchangers a1.test, a2.test,
 * a3.test in this order, crowd.test twenty without addresses and then mx2.test, all alike, every
 * other name below "test" a5.test and a2.test; each IPv4 address that ends in N is called
 * "aN.test". So often asking comes to nothing: no answer, a failure, a bogus one. At first never.
 */
void sim_dns_fail(uint32_t permille);
/* Where this end of a connection is. */
struct ip_endpoint sim_net_local(int fd);
/* Connections now open, over the whole world. */
size_t sim_net_open(void);
/* Called by sim_process_kill(). */
void sim_net_kill(struct sim_process *process);
/* Travel on the net happens in this process: one that is never killed. */
void sim_net_in_process(struct sim_process *process);
void sim_net_begin(void);
void sim_net_end(void);

/* Readiness changed: called by the net for the loops' watches. */
void sim_loop_begin(void);
void sim_loop_ready(int fd);
unsigned sim_net_readiness(int fd);

#endif
