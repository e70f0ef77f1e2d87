/* SPDX-License-Identifier: Apache-2.0
 *
 * The warden's parts: warden.c the course of things, warden_round.c what is done with files and
 * ports, on a thread, warden_storage.c where these files are, warden_program.c the processes that
 * it starts.
 */
#ifndef HOLDFAST_APP_WARDEN_INTERNAL_H
#define HOLDFAST_APP_WARDEN_INTERNAL_H

#include "app/lease_files.h"
#include "app/plan.h"
#include "app/shared_state.h"
#include "service/lease_page.h"
#include "sys/loop.h"
#include "sys/worker.h"

#include <sys/stat.h>
#include <sys/types.h>

/* One after the other; from CLAIMING to MARKING the lease is held, and renewed. */
enum warden_state {
    WARDEN_WATCHING,  /* the other one works, or nobody */
    WARDEN_FENCING,   /* `fence` runs */
    WARDEN_CLAIMING,  /* the next token is being taken */
    WARDEN_PREPARING, /* `before-takeover` runs */
    WARDEN_WORKING,   /* a keeper does */
    WARDEN_ENDING,    /* its processes are awaited */
    WARDEN_RELEASING, /* all have ended; `after-release` runs, whether the storage lives or not */
    WARDEN_MARKING,   /* and that it is over is being said */
};

/* A turn of work with files. */
struct warden_round {
    struct warden *warden;
    /* What to do. */
    bool settle;        /* say that earlier lives of ours have ended, if they have */
    bool renew;         /* else what says that we stand by is */
    bool ask;           /* the other one to hand over */
    bool forget_wanted; /* nobody stands by who could take over */
    struct lease_record record;
    /* What came of it. */
    bool settled;
    enum error renew_error, look_error;
    int64_t renew_began_ms, look_began_ms, look_ended_ms;
    bool answers; /* the other one, at one of its ports; true if there is none to ask */
    bool gone;    /* another directory lies where the state was */
    struct lease_look look;
};

struct warden_claim {
    struct warden *warden;
    bool fenced;     /* all others' */
    uint32_t newest; /* as seen when it was decided */
    bool was_short;  /* leases were missing then: nobody knows who has ended */
    struct lease_record record;
    struct disk_file *file;
    int64_t began_ms;
    uint32_t open_token; /* the lowest not ended */
    int alone;           /* keeps those without the block away */
    enum error error;
};

struct warden_mark {
    struct warden *warden;
    uint32_t token;
    enum lease_end how;
    enum error error;
};

struct warden {
    struct loop *loop;
    const char *config_path;
    const struct plan *plan;
    int state_fd, lock;
    struct disk *disk;  /* NULL: the shared state is not there. These three are the worker's */
    struct stat leases; /* its directory */
    char storage_reason[128]; /* the worker's while it works */
    uint32_t journal_token;   /* likewise */
    struct worker *worker;
    int signals;
    struct loop_watch *signals_watch;
    struct loop_timer *beat, *check, *limit;
    enum warden_state state;
    bool quitting;
    int exit_status;

    uint8_t machine[LEASE_MACHINE];
    struct lease_watch watch;
    struct lease_look look; /* the last one */
    bool under_way;         /* a round, claim or mark */
    struct warden_round round;
    struct warden_claim claim;
    struct warden_mark mark;
    uint32_t used;       /* the highest token of which is known that somebody had it */
    int64_t marking_ms;  /* since when we want to say that it is over */
    int64_t answered_ms; /* when the other one's ports last did */
    uint64_t counter;
    int64_t since_ms;
    bool settled;           /* what is left of earlier lives has been said to have ended */
    bool storage_fails;     /* has been said */
    enum error claim_error; /* likewise */
    bool is_short;          /* likewise: leases are missing */

    struct lease_page *page;
    int page_fd;
    struct disk_file *lease;
    int alone; /* with the lease; -1: none */
    struct lease_record record;
    enum lease_end how;
    uint64_t other_counter; /* that of a file of long ago is no sign of life */
    bool other_looked;
    enum lease_trouble trouble;
    bool took_from_other; /* who did not hand over */
    bool begun;           /* before-takeover was run */

    pid_t keeper; /* and its group; 0: none */
    bool keeper_gone;
    int ready_fd; /* readable when it works */
    struct loop_watch *ready_watch;
    pid_t program; /* 0: none */
    const char *program_name;
    bool program_late;
};

/* ---- warden_round.c: on the worker's thread ---------------------------------------------- */

void warden_round_run(void *round);
void warden_claim_run(void *claim);
void warden_mark_run(void *mark);
/* Of this machine, not of this start of it. */
void warden_machine(uint8_t ret_machine[LEASE_MACHINE]);
/* The descriptor, locked by `how` of flock(2); -1 with errno EWOULDBLOCK: somebody else has it. */
int warden_lock(int directory, const char *name, int how);

/* ---- warden_storage.c -------------------------------------------------------------------- */

/* Opens what is the shared state for certain, and marks what may become it. ERROR_AGAIN: another
 * process has our name. After an error nothing is open, and storage_reason says why. */
enum error warden_storage_open(struct warden *warden) MUST_CHECK;
void warden_storage_close(struct warden *warden);
/* False: storage_reason says what is at its path instead. */
bool warden_storage_is_there(struct warden *warden);
/* The newest in the names of the journal's files. */
enum error warden_storage_tokens(struct warden *warden, uint32_t *ret_token) MUST_CHECK;

/* ---- warden_program.c -------------------------------------------------------------------- */

/* False: there is none to run, or it cannot be. */
bool warden_program_start(struct warden *warden, const char *path, const char *event);
bool warden_keeper_start(struct warden *warden);
/* True: none of its group is left. */
bool warden_keeper_bury(struct warden *warden);

#endif
