/* SPDX-License-Identifier: Apache-2.0
 *
 * What the keeper must know of a configuration, in a form that needs no parser of text: made by the
 * reader process, which has parsed, and read by the keeper, which must not.
 */
#ifndef HOLDFAST_APP_PLAN_H
#define HOLDFAST_APP_PLAN_H

#include "app/keeper_channel.h"
#include "app/role.h"
#include "app/settings.h"
#include "service/config.h"

enum { PLAN_NAME_MAX = 64 };

struct plan_listener {
    char name[PLAN_NAME_MAX];
    struct ip_endpoint at;
    enum listener_protocol protocol;
};

/* Where a filter listens. */
struct plan_milter {
    char name[MILTER_NAME_MAX + 1];
    char path[MILTER_PATH_MAX + 1]; /* empty: `at` */
    struct ip_endpoint at;
};

enum { PLAN_PROGRAM_MAX = 1023, PLAN_CONFLICT_MAX = 127 };

/* Of the standby block; `of` is empty if there is none. */
struct plan_standby {
    char name[PLAN_NAME_MAX], of[PLAN_NAME_MAX];
    uint32_t after_ms;
    char fence[PLAN_PROGRAM_MAX + 1], before[PLAN_PROGRAM_MAX + 1],
        after_takeover[PLAN_PROGRAM_MAX + 1], after_release[PLAN_PROGRAM_MAX + 1],
        known[PLAN_PROGRAM_MAX + 1];
    uint32_t watch_count;
    struct ip_endpoint watch[STANDBY_WATCH_MAX];
};

/* A setting that cannot change while the program runs, as in settings_restart(). */
struct plan_fixed {
    char key[PLAN_NAME_MAX];
    uint64_t digest;
};

struct plan {
    char state[STATE_PATH_MAX + 1]; /* absolute */
    struct keeper_identity identity;
    uint32_t loops; /* 1 to LOOPS_MAX */
    enum log_target log_target;
    enum log_level log_level;
    uint32_t fixed_count;
    struct plan_fixed fixed[SETTINGS_RESTART_MAX];
    uint32_t listener_count;
    struct plan_listener listeners[LISTENERS_MAX];
    uint32_t milter_count;
    struct plan_milter milters[MILTERS_MAX];
    uint32_t list_count;
    char lists[LIST_FILES_MAX][LIST_PATH_MAX + 1]; /* of recipients, which helper may have opened */
    struct plan_standby standby;
    char conflict[PLAN_CONFLICT_MAX + 1]; /* of the file with the cluster's settings; or empty */
};

/* From a configuration that settings_read() found good. Resolves accounts; if one has gone since,
 * that goes to `errors` like those of settings_read(), and false. A warning may go there, too. */
bool plan_make(const struct service_config *config, const char *path, struct plan *ret_plan,
               struct buffer *errors);
/* Takes the first line of it. */
void plan_set_conflict(struct plan *plan, struct slice conflict);
void plan_put(struct buffer *buffer, const struct plan *plan);
/* False: malformed or out of bounds. */
bool plan_get(struct slice bytes, struct plan *ret_plan);

#endif
