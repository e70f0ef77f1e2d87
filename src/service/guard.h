/* SPDX-License-Identifier: Apache-2.0
 *
 * What is decided for a server with a cold standby (the configuration's guard block): when the
 * script that starts the standby is run, and when the one that undoes that. Running them, asking
 * the machines and keeping what must be known after a restart is the caller's; no clock, no
 * descriptor: times and facts are arguments.
 *
 *   resting       nothing is counted before the server has been up once: it was never seen at work,
 *                 or not where it is now said to be, or its standby has just been undone
 *   watching      the server works, or has not been gone for long enough
 *   starting      the start script runs, or waits for another try
 *   taken over    it has ended well
 *   undoing       the undo script runs, or waits for another try
 *   start failed, undo failed    only an operator leads out of these: nobody else knows what the
 *                 script has done
 *
 *   resting --up--> watching --gone for `after`--> starting --ok--> taken over
 *   taken over --back for `back-after`--> undoing --ok--> resting
 *
 * Gone: the server cannot be connected to or does not greet (relay's governor is sure of it), and
 * its machine answers at none of the `watch` addresses, not even by refusing; and at least one
 * `witness` answers. Back: as `undo-when` says; what was started by hand is undone by hand. Both
 * count only without interruption, and only while we look: a caller that did not come for a while
 * (its machine slept) begins anew, as does one that has started again.
 *
 * A run has a number, by which its end is known whatever has started again meanwhile. A new one is
 * begun only in a state without one, so there are never two.
 */
#ifndef HOLDFAST_SERVICE_GUARD_H
#define HOLDFAST_SERVICE_GUARD_H

#include "base/buffer.h"
#include "service/config.h"

enum {
    GUARD_RETRY_MS = 60000, /* between two tries */
    GUARD_GAP_MS = 30000,   /* not called for so long: what was counted does not hold */
    GUARD_TEXT_SIZE = 512,
    GUARD_NOTE_MAX = GUARD_TEXT_SIZE + 64,
};

/* The order is in the journal: append only. */
enum guard_phase {
    GUARD_RESTING,
    GUARD_WATCHING,
    GUARD_STARTING,
    GUARD_TAKEN_OVER,
    GUARD_UNDOING,
    GUARD_START_FAILED,
    GUARD_UNDO_FAILED,
    GUARD_PHASES
};

enum guard_place { GUARD_SILENT, GUARD_REFUSED, GUARD_ACCEPTED };

struct guard_facts {
    int64_t steady_ms, wall_ms;
    bool up;                         /* the server, by its governor */
    bool down;                       /* likewise, for whatever reason */
    bool gone;                       /* it cannot be connected to, or does not greet */
    bool known;                      /* what follows was found out just now */
    enum guard_place watch, witness; /* the best answer of each; of none: GUARD_SILENT */
};

/* Why nothing is started although the server is down. */
enum guard_obstacle {
    GUARD_NO_OBSTACLE,
    GUARD_TAKES_NO_MAIL, /* but it answers */
    GUARD_MACHINE_ANSWERS,
    GUARD_CUT_OFF,
    GUARD_NOT_KNOWN, /* what the places answer */
};

struct guard {
    /* What outlives us. */
    enum guard_phase phase;
    bool by_hand;   /* an operator asked for this start or undo */
    uint32_t tries; /* of the script, those that failed */
    uint64_t run;   /* of the script; 0: none is under way */
    int64_t since_wall_ms;
    int64_t gone_since_wall_ms; /* the server, when it was taken over; 0: not known */
    char text[GUARD_TEXT_SIZE]; /* what the last script said, or why it failed */

    /* Steady times; INT64_MAX: not so. */
    int64_t last_ms;
    int64_t gone_from_ms;  /* whatever its machine answers */
    int64_t quiet_from_ms; /* gone by all that counts */
    int64_t back_from_ms;
    int64_t retry_ms;
    enum guard_obstacle obstacle;
};

/* All begin like this: resting. */
void guard_init(struct guard *guard, int64_t steady_ms, int64_t wall_ms);
/* Looks at the facts, about once a second. True: it has changed, and is to be kept. A run that this
 * begins has the number `run`, which must not be 0, and may be begun once that is kept. */
bool guard_step(struct guard *guard, const struct guard_config *config,
                const struct guard_facts *facts, uint64_t run);
/* Its server is to be found elsewhere from now on, where it was never seen at work: rests, if it is
 * watching; or, `again`, where it was seen: watches, if it rests. True: it has changed. */
bool guard_moved(struct guard *guard, bool again, int64_t wall_ms);
/* The script of run `guard->run` has ended; `text` is what it said, or what went wrong. */
void guard_ended(struct guard *guard, const struct guard_config *config, bool well,
                 struct slice text, int64_t steady_ms, int64_t wall_ms);
/* By hand. NULL: done, and to be kept; else why it cannot be. guard_undo() without an undo script
 * and guard_reset() lead to resting at once. */
const char *guard_start(struct guard *guard, uint64_t run, int64_t wall_ms);
const char *guard_undo(struct guard *guard, const struct guard_config *config, uint64_t run,
                       int64_t wall_ms);
const char *guard_reset(struct guard *guard, int64_t wall_ms);

/* In a word: a phase, or of watching "counting" and "blocked", of taken over "returning". */
const char *guard_state_text(const struct guard *guard, const struct guard_config *config);
/* Seconds until something is run if nothing changes; -1: that is not to be expected. */
int64_t guard_seconds_left(const struct guard *guard, const struct guard_config *config);
/* The server has been gone for long enough, but nothing is started. */
bool guard_is_blocked(const struct guard *guard, const struct guard_config *config);
/* Why it is as it is, for people; empty: there is nothing to say. */
void guard_why(const struct guard *guard, const struct guard_config *config, char *ret_text,
               size_t size);
/* How often its places are asked now; 0: they are not. */
uint32_t guard_look_every_ms(const struct guard *guard, const struct guard_config *config);

void guard_note_encode(const struct guard *guard, struct buffer *ret_note);
/* False: malformed, or of a later version; the guard is as it was. */
bool guard_note_decode(struct guard *guard, struct slice note);

#endif
