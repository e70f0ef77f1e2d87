/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of users of a cluster, for holdfast user: a file of the cluster's settings, of which
 * each change is a version.
 */
#ifndef HOLDFAST_APP_TOOL_USER_SHARED_H
#define HOLDFAST_APP_TOOL_USER_SHARED_H

#include "app/tool_settings.h"
#include "service/login_store.h"

struct shared_users {
    struct settings_access access;
    struct settings_base base;
    struct settings_side side;
};

/* Whether the configuration names a cluster. */
bool shared_users_are_there(const struct tool *tool);
/* The table of the version that another is made from; NULL in *ret_store: it has none. Who
 * `changes` it waits for what others change. False: with a message. To be closed in any case. */
bool shared_users_open(const struct tool *tool, struct shared_users *users, bool changes,
                       struct login_store **ret_store);
void shared_users_close(struct shared_users *users);
/* As another version. Failures are said. */
enum control_exit shared_users_write(const struct tool *tool, struct shared_users *users,
                                     const struct login_store *store);

#endif
