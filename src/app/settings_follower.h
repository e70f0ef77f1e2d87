/* SPDX-License-Identifier: Apache-2.0
 *
 * Follows the cluster's settings in the database, for helper: brings the keeper the version that is
 * approved, or a new one that this member has claimed to try, and tells the database what came of
 * it. A thread of its own waits for the database; without it everything stays as it is.
 */
#ifndef HOLDFAST_APP_SETTINGS_FOLLOWER_H
#define HOLDFAST_APP_SETTINGS_FOLLOWER_H

#include "service/config.h"
#include "sys/loop.h"

struct settings_follower;

/* `link` (taken over) leads to the keeper. What it needs of libraries it opens now, so before the
 * process confines itself. NULL: memory. */
struct settings_follower *settings_follower_new(const struct service_config *config, int link);
/* Begins; within the walls. */
enum error settings_follower_start(struct settings_follower *follower,
                                   struct loop *loop) MUST_CHECK;
/* What this process runs with now. */
void settings_follower_configure(struct settings_follower *follower,
                                 const struct service_config *config);
void settings_follower_free(struct settings_follower *follower); /* NULL is allowed */

#endif
