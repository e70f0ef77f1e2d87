/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole program in the simulated world: what the keeper does, without processes. Two loops of
 * edge-in, core, two loops of edge-out, each a simulated process that can be killed and comes back.
 */
#ifndef HOLDFAST_TESTS_PROGRAM_H
#define HOLDFAST_TESTS_PROGRAM_H

#include "service/config.h"
#include "sim/disk_sim.h"

struct program;

enum role { ROLE_EDGE_IN, ROLE_CORE, ROLE_EDGE_OUT, ROLE_COUNT };

/* config must outlive it, as must every one that follows. The spool lies on `spool_store`, the
 * event journal on `events_store`. */
struct program *program_start(const struct service_config *config, struct disk_sim *spool_store,
                              struct disk_sim *events_store);
/* A new configuration, with the same listeners: each process and loop takes it at a moment of its
 * own; what starts from now on starts with it. */
void program_reload(struct program *program, const struct service_config *config);
/* kill -9 of one role; it is started again after a drawn pause of at most 300 ms. */
void program_kill(struct program *program, enum role role);
/* All at once, and the disks lose what was not synced. Started again like that. */
void program_power_failure(struct program *program);
/* A write, sync or other change of the journal's disk fails soon, as drawn; for once, or from then
 * on until program_mend_disk(). */
void program_break_disk(struct program *program);
void program_mend_disk(struct program *program);
/* An operator's request (service/control.h), one JSON object; the answer is not awaited. Nothing
 * happens while core is down. */
void program_command(struct program *program, const char *request);
/* Deliveries that have no fate, dead letters included. UINT64_MAX while core is down or loading. */
uint64_t program_unfinished(const struct program *program);
/* Whose code runs now; ROLE_COUNT: the keeper's, or an edge is being started. */
enum role program_running(const struct program *program);
/* The most deliveries that can have been in flight: what a kill may double. */
uint32_t program_connections(const struct program *program);

#endif
