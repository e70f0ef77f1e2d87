/* SPDX-License-Identifier: Apache-2.0
 *
 * A child's side of its channel to the keeper: what it is given before it begins, and what comes
 * later, as calls. The child ends when the keeper does.
 */
#ifndef HOLDFAST_APP_ROLE_CHANNEL_H
#define HOLDFAST_APP_ROLE_CHANNEL_H

#include "app/keeper_channel.h"
#include "app/role.h"
#include "app/settings.h"
#include "service/metrics.h"
#include "sys/loop.h"
#include "sys/ring.h"

struct greylist; /* service/greylist.h */

/* Everything of a start. A descriptor that was not given is -1. */
struct role_start {
    int channel;
    enum role role;
    struct settings *settings;
    uint32_t generation;
    struct keeper_identity identity;
    char *root; /* the empty directory to live in, or NULL */
    struct counter_page *counters;
    const struct lease_page *lease; /* core's, if there is one; else NULL */
    struct greylist *greylist;      /* core's and edge-in's; else NULL */
    int listeners[LISTENERS_MAX];
    uint32_t loops;
    struct ring_descriptors rings[2][LOOPS_MAX]; /* by enum keeper_edge */
    int spool_directory;
    int events_directory;
    int recipients_directory;
    int state_directory;
    int lock;
    int control;
    int links[KEEPER_LINKS];
    int lists;         /* a link to ask for the files of lists */
    int settings_link; /* helper's, to bring the cluster's settings by */
    struct filter_descriptors {
        int dial;
        int scratch;
    } filters[LOOPS_MAX];
};

/* Blocks until START. On an error the child can only end. */
enum error role_receive_start(int channel, enum role role, struct role_start *ret_start) MUST_CHECK;
/* Opens the log, becomes the user, raises the walls around `directories`. */
enum error role_confine(const struct role_start *start, const int *directories,
                        size_t count) MUST_CHECK;
/* For who runs others' programs: becomes the user and ends with the keeper, but keeps the file
 * system and every right of that user. */
enum error role_become(const struct role_start *start) MUST_CHECK;
/* The last lines of an entry: says why it cannot go on. */
int role_fail(const char *what, enum error error);

struct role_channel;

struct role_handlers {
    void *context;
    /* NULL members are not sent to this role. */
    void (*ring)(void *context, enum keeper_edge edge, uint32_t index, uint32_t count,
                 struct ring_descriptors descriptors); /* takes them over */
    /* Takes it over. */
    void (*link)(void *context, enum keeper_link link, int fd);
    /* Takes on a new configuration and new listeners (a descriptor each, or -1). All are taken
     * over, also on failure; the old ones are this role's to free. ERROR_AGAIN: it goes on, and
     * role_channel_reloaded() will say how it ended, unless another comes before. */
    enum error (*reload)(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX]);
    /* Why the last reload was refused; empty: it was not. */
    void (*stale)(void *context, struct slice why);
    void (*stop)(void *context, uint32_t grace_ms);
    /* To be answered by role_channel_alive() when all loops of this process have turned; NULL:
     * there is one only, which has. */
    void (*asked)(void *context, struct role_channel *channel, uint32_t question);
};

/* Watches the channel from here on and says READY. Keeps a pointer to `handlers`. */
enum error role_channel_new(struct loop *loop, const struct role_start *start,
                            const struct role_handlers *handlers,
                            struct role_channel **ret_channel) MUST_CHECK;
void role_channel_reloaded(struct role_channel *channel, enum error error);
/* On the thread of the channel's loop. */
void role_channel_alive(struct role_channel *channel, uint32_t question);
void role_channel_free(struct role_channel *channel);

void role_close_listeners(const int listeners[LISTENERS_MAX]); /* -1 is allowed in each */

#endif
