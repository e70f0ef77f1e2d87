/* SPDX-License-Identifier: Apache-2.0
 *
 * This node in its cluster (docs/decisions/0043): what brings its membership (cluster/member.h),
 * the spool on PostgreSQL (spool/postgres.h) and relay together.
 */
#ifndef HOLDFAST_SERVICE_CORE_CLUSTER_H
#define HOLDFAST_SERVICE_CORE_CLUSTER_H

#include "service/config.h"
#include "spool/postgres.h"

struct core;
struct core_cluster;
struct whole_files;

/* For a configuration with a cluster, before core: it opens core's spool. NULL: memory. */
struct core_cluster *core_cluster_new(struct loop *loop, const struct service_config *config);
/* core_open_spool_fn; `journal` is what core_cluster_set_journal() was given. */
enum error core_cluster_open(void *cluster, struct loop *loop, const struct spool_owner *owner,
                             struct spool **ret_spool) MUST_CHECK;
void core_cluster_set_journal(struct core_cluster *cluster, struct disk *journal,
                              const struct spool_settings *settings);
/* Joins, as `instance`. The spool is open. */
enum error core_cluster_join(struct core_cluster *cluster, struct core *core,
                             struct message_id instance) MUST_CHECK;
/* The routes that say which share a recipient is in. ERROR_MEMORY: the old ones stay. */
enum error core_cluster_reconfigure(struct core_cluster *cluster,
                                    const struct service_config *config) MUST_CHECK;
/* Gives up what we own, in order; core_check_stopped() is called when that is done. True: it is. */
bool core_cluster_stop(struct core_cluster *cluster);
/* Before the spool is closed, and after. NULL is allowed. */
void core_cluster_leave(struct core_cluster *cluster);
void core_cluster_free(struct core_cluster *cluster);

/* ---- while loading --------------------------------------------------------------------------- */

/* A message that the spool hands over: false, if its share is being left, and it is not for relay;
 * nor is what follows about it. */
bool core_cluster_wants(struct core_cluster *cluster, struct spool_handle handle);
/* The spool has handed something over: what came of it is carried out when the turn ends. */
void core_cluster_loading(struct core_cluster *cluster);

/* What the cluster and this node have noted before (servers' states, odometers) is here: dispatch
 * may begin. */
bool core_cluster_is_loaded(const struct core_cluster *cluster);
/* The database does not take what it is given. */
bool core_cluster_is_away(const struct core_cluster *cluster);
/* Whether a dot may be sent now: by the lease itself, and because the database knows what became of
 * all dots before. */
bool core_cluster_may_send(const struct core_cluster *cluster);

/* ---- state ------------------------------------------------------------------------------------
 */

/* What the database's clock was found to say goes into a file, and so over a restart. */
void core_cluster_keep_clock(struct core_cluster *cluster, struct whole_files *files,
                             struct slice boot);
/* The database's time; until it has been heard in this life, what our own clock and the file make
 * of it. Nothing is owned until then, so nothing can end by it. */
int64_t core_cluster_wall_ms(struct core_cluster *cluster);
struct member *core_cluster_member(struct core_cluster *cluster); /* NULL: not joined */
struct core_post *core_cluster_post(struct core_cluster *cluster);
/* Who hands over mail of this domain, if that is another node alone; else empty: it is this one,
 * nobody yet, or recipients of the domain belong to several. Good until the loop goes on. */
struct slice core_cluster_owner(const struct core_cluster *cluster, struct slice domain);
/* The spool's. */
void core_cluster_database(const struct core_cluster *cluster,
                           struct spool_postgres_state *ret_state);

#endif
