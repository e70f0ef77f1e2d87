/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper's parts: keeper.c the course of things (start, reload, stop), keeper_children.c the
 * processes, keeper_holdings.c what is held for them, keeper_settings.c a cluster's settings.
 */
#ifndef HOLDFAST_APP_KEEPER_INTERNAL_H
#define HOLDFAST_APP_KEEPER_INTERNAL_H

#include "app/keeper.h"
#include "app/keeper_channel.h"
#include "app/plan.h"
#include "app/role.h"
#include "app/settings_offer.h"
#include "service/metrics.h"
#include "sys/disk.h"
#include "sys/loop.h"
#include "sys/ring.h"

#include <sys/types.h>

/* ---- holdings ---------------------------------------------------------------------------- */

struct keeper_listeners {
    uint32_t count;
    int fds[LISTENERS_MAX];
};

struct holdings {
    int state;
    int spool;
    int events;
    int recipients;
    int other_state; /* core's: what is no mail and no table of recipients */
    int login;       /* where the table of users is */
    int lock;
    int control;
    int counters_fd;
    int greylist;
    struct counter_page *counters;
    struct keeper_listeners listeners;
    struct ring_descriptors rings[2][LOOPS_MAX]; /* by enum keeper_edge */
    uint32_t loops;
    int links[KEEPER_LINKS][2]; /* the ends of keeper_link_roles, in their order */
    char *empty;                /* path of the empty directory for chroot, or NULL */
};

void holdings_init(struct holdings *holdings);
/* Logs what fails. False: the daemon cannot start. */
bool holdings_open(struct holdings *holdings, const struct plan *plan, bool has_lease);
void holdings_close(struct holdings *holdings, const struct plan *plan);
/* Sockets for `plan`, those of `old_plan` at the same address kept; logs what fails, and closes
 * then what it made. */
bool listeners_bind(const struct plan *plan, const struct plan *old_plan,
                    const struct keeper_listeners *old, struct keeper_listeners *ret_listeners);
/* Closes those that `kept` (NULL: nothing) does not have. */
void listeners_close(struct keeper_listeners *listeners, const struct keeper_listeners *kept);
/* Which two roles a link joins. */
extern const enum role keeper_link_roles[KEEPER_LINKS][2];

/* New rings for one edge's loops, a new stream; the old ones are closed. */
enum error holdings_renew_rings(struct holdings *holdings, enum keeper_edge edge) MUST_CHECK;
enum error holdings_renew_link(struct holdings *holdings, enum keeper_link link) MUST_CHECK;

/* ---- children ---------------------------------------------------------------------------- */

struct keeper;

/* The other end of a link to ask for descriptors: a loop's for connections to filters, helper's for
 * lists of recipients. */
struct keeper_dial {
    struct keeper *keeper;
    enum error (*make)(const struct plan *plan, const char *name, int *ret_fd);
    int fd; /* -1: none */
    struct loop_watch *watch;
};

struct child {
    struct keeper *keeper;
    enum role role;
    pid_t pid; /* 0: none */
    int channel;
    struct loop_watch *watch;
    struct loop_timer *timer; /* until it is started again, or killed */
    bool ready;
    bool was_ready; /* ever */
    bool stopping;
    bool answered;       /* the last question whether it lives */
    uint32_t generation; /* of the configuration that it runs with */
    int64_t started_ms;
    uint32_t failures; /* one after another */
};

/* The process that reads the configuration. */
struct keeper_reader {
    pid_t pid;
    int channel;
    struct loop_watch *watch;
};

enum { KEEPER_STALE_SIZE = 160 };

/* A version of a cluster's settings on its way to be taken on. */
struct keeper_settings {
    struct keeper *keeper;
    int link; /* to helper; -1: none */
    struct loop_watch *watch;
    struct loop_timer *timer;
    struct loop_timer *limit; /* of the whole */
    struct disk *disk;        /* the directory of the copies; NULL: there is none yet */
    enum {
        SETTINGS_IDLE,
        SETTINGS_READ,    /* by the reader */
        SETTINGS_TRIED,   /* given to all, who have not all said that they are ready */
        SETTINGS_WATCHED, /* for TRIAL_MS */
        SETTINGS_ASKED,   /* whether they live */
    } phase;
    uint32_t question;               /* the last */
    bool hung;                       /* what is killed now has not answered in time */
    uint64_t number;                 /* if not idle */
    int before[KEEPER_TEXTS];        /* what is gone back to; -1: nothing */
    uint64_t bad;                    /* never again; 0: none */
    char trouble[KEEPER_STALE_SIZE]; /* with the version that came last; empty: none */
    bool conflicts;                  /* that is, ours with the file: until they are read together */
};

enum keeper_phase { KEEPER_STARTING, KEEPER_RUNNING, KEEPER_STOPPING };

struct keeper {
    struct loop *loop;
    const char *config_path;
    enum keeper_phase phase;
    int exit_status;
    struct keeper_lease lease;
    bool stands_by; /* without a lease there is nothing to do but to become a warden */
    int signals;
    struct loop_watch *signals_watch;
    struct plan plan;
    int texts[KEEPER_TEXTS]; /* the configuration in force; -1: none yet */
    uint32_t generation;
    struct holdings holdings;
    struct child children[ROLE_COUNT];
    struct keeper_dial dials[LOOPS_MAX];
    struct keeper_dial lists;
    struct keeper_reader reader;
    struct keeper_settings settings;
    bool others_wait;   /* with a reload, until core has it, or has died */
    bool reload_wanted; /* SIGHUP while a reload was on its way */
    bool announced;
    char stale[KEEPER_STALE_SIZE]; /* why the last reload was refused; empty: it was not */
    uint8_t buffer[KEEPER_MESSAGE_MAX];
};

bool children_init(struct keeper *keeper);
void children_done(struct keeper *keeper);
void child_start(struct child *child);
/* Asks it to end; it is killed when it has not after grace_ms and a little. */
void child_stop(struct child *child, uint32_t grace_ms);
/* Gives the configuration in force and the listeners anew. */
void child_reload(struct child *child);
/* Asks whether it lives. */
void child_ask(struct child *child, uint32_t question);
/* Tells core of keeper->stale. */
void child_tell_stale(struct child *core);
/* A new stream, given to both of its ends. */
void children_renew_link(struct keeper *keeper, enum keeper_link link);
/* A process has ended; false: it was none of the children. */
bool children_ended(struct keeper *keeper, pid_t pid, int status);
/* `path` and `copy` are the reader's, and may be NULL. A child's own descriptor 3 and program:
 * never returns to the caller in the child. */
pid_t keeper_spawn(const char *role, const char *path, const char *copy, int *ret_channel);
enum { KEEPER_CHILD_CHANNEL = 3 };

/* ---- keeper_dial.c: connections to filters, for edge-in; files with lists, for helper ---------
 */

void dials_init(struct keeper *keeper);
/* A new link for the loop `index`, and a file for it. Both are the caller's. */
enum error dial_open(struct keeper *keeper, uint32_t index, int *ret_link,
                     int *ret_scratch) MUST_CHECK;
void dials_close(struct keeper *keeper);
/* A new link to ask for the files of lists; the caller's. */
enum error dial_open_lists(struct keeper *keeper, int *ret_link) MUST_CHECK;
void dial_close_lists(struct keeper *keeper);

/* ---- keeper_settings.c -------------------------------------------------------------------- */

bool keeper_settings_init(struct keeper *keeper);
/* When the state directory is there, and before the children are started. */
void keeper_settings_start(struct keeper *keeper);
void keeper_settings_done(struct keeper *keeper);
/* A new link, for helper; the caller's. */
enum error keeper_settings_link(struct keeper *keeper, int *ret_link) MUST_CHECK;
/* The reader's answer to a version, or why it cannot be taken on, has come; empty: all will be
 * given it. False: it was no version that was read. */
bool keeper_settings_read(struct keeper *keeper, const char *problem);
/* keeper->texts are about to be replaced. */
void keeper_settings_replaces(struct keeper *keeper, const struct plan *new);
/* A child has said that it is ready. */
void keeper_settings_ready(struct keeper *keeper);
/* A child has answered a question. */
void keeper_settings_answered(struct keeper *keeper, struct child *child, uint32_t question);
/* A child has died; true: of the version, and keeper->texts are those before it, if they are known.
 * The configuration must be read again. */
bool keeper_settings_died(struct keeper *keeper, enum role role);

/* An operator wants another try: a version that was bad may be brought again. */
void keeper_settings_forgive(struct keeper *keeper);

/* Called by that part: whether a reload can begin; one that begins, with the copy of that name; a
 * version was taken. */
bool keeper_may_reload(const struct keeper *keeper);
void keeper_read_with(struct keeper *keeper, const char *copy);
void keeper_settings_settled(struct keeper *keeper);
/* The reader is not waited for any more. */
void keeper_end_reader(struct keeper *keeper);

/* Called by the children's part. */
void keeper_reload(struct keeper *keeper);
void keeper_child_ready(struct keeper *keeper, struct child *child, uint32_t generation,
                        enum error error);
void keeper_child_stopped(struct keeper *keeper, struct child *child);
void keeper_stop(struct keeper *keeper, int exit_status);

#endif
