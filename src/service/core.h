/* SPDX-License-Identifier: Apache-2.0
 *
 * The middle: brings spool and relay together, answers the edges' frames and the operator's
 * commands, writes the event journal. No network, parses nothing hostile but bounded frames.
 */
#ifndef HOLDFAST_SERVICE_CORE_H
#define HOLDFAST_SERVICE_CORE_H

#include "service/config.h"
#include "service/metrics.h"
#include "spool/spool.h"
#include "sys/loop.h"
#include "sys/ring.h"

struct core;
struct lease_page; /* service/lease_page.h */
struct greylist;   /* service/greylist.h */

/* Takes the spool's open function's place as owner: core opens the spool on spool_disk (the log
 * back-end), loads it in slices, and keeps its event journal on events_disk. Both are taken over.
 * With a `lease` (NULL: nobody shares the disk) it works while that lasts; then its process ends.
 */
enum error core_new(struct loop *loop, const struct service_config *config, uint32_t generation,
                    struct disk *spool_disk, struct disk *events_disk, struct counters *counters,
                    const struct lease_page *lease, struct core **ret_core) MUST_CHECK;
/* Where what is known of recipients is kept (taken over); before the loop runs. Without it, it is
 * forgotten at the end. What cannot be read is reported, and begins anew. */
void core_keep_recipients(struct core *core, struct disk *disk);
/* Where other things are kept that outlive us and are no mail (taken over): policies of MTA-STS,
 * what is to be reported of TLS, a cluster's time. As above. `boot` is machine_boot()'s. */
void core_keep_state(struct core *core, struct disk *disk, struct slice boot);
/* And what greylisting knows, which edge-in's loops share: read unless it has begun; then it
 * begins. After core_keep_state(). It must outlive core. */
void core_keep_greylist(struct core *core, struct greylist *greylist);
/* The rings to the edges' loops; a NULL detaches (the edge has died). The core owns them. All rings
 * of edge-out must be set before dispatch begins. */
void core_set_edge_in(struct core *core, uint32_t index, struct ring *ring);
void core_set_edge_out(struct core *core, uint32_t index, uint32_t count, struct ring *ring);
enum core_edge { CORE_EDGE_IN, CORE_EDGE_OUT };
/* From now on `fn` is called when an edge has broken its ring or does not read it. The ring is cut
 * off, and the edge of no use until it is given a new one. `fn` must not call core. */
void core_set_broken_handler(struct core *core, void (*fn)(void *context, enum core_edge edge),
                             void *context);
/* A connected control stream (from the listening socket or the web process). `privileged`: may
 * change things; otherwise reads status only. The descriptor is taken over. */
void core_add_control(struct core *core, int fd, bool privileged);
/* One end of fdpass_pair(), taken over: who knows of logins tells of them (service/login.h). -1:
 * there is nobody. */
void core_set_logins(struct core *core, int fd);
/* The configuration in force is not that of the file, for this reason; empty: it is. An alert says
 * so while it lasts. */
void core_set_stale(struct core *core, struct slice why);
/* On success nothing points into the old configuration. */
enum error core_reconfigure(struct core *core, const struct service_config *config,
                            uint32_t generation) MUST_CHECK;
/* The same, when what must be read of queued mail has been: in slices, between which core works by
 * the old one. `done` says how it ended, perhaps within the call. Once it is called again for
 * another, the first is forgotten without a word; until then `config` must live. */
void core_reconfigure_soon(struct core *core, const struct service_config *config,
                           uint32_t generation, void (*done)(void *context, enum error error),
                           void *context);
/* Writes out what is under way, then calls `done`. */
void core_stop(struct core *core, void (*done)(void *context), void *context);
void core_free(struct core *core);

#endif
