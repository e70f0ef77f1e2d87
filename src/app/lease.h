/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may work where two machines share a state directory (docs/decisions/0047): the lease's
 * record, and what each side concludes from its own clock. Pure: no file, no clock.
 *
 * The holder's side. A renewal that began at S and came back says that nobody may take over before
 * S + 2 * hold, so it works until S + hold, and not a moment longer.
 * The other's side. What it has seen change at C was renewed before C. If a read that began at or
 * after C + after, after >= 2 * hold, still shows the same, no renewal has come back between; the
 * holder's last S is before C, so it has stopped at C + hold at the latest. after - hold is the
 * margin, for what is already on its way to the disk or to a server. Clocks are never compared;
 * they only must not run at half or double speed.
 */
#ifndef HOLDFAST_APP_LEASE_H
#define HOLDFAST_APP_LEASE_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    LEASE_BYTES = 512, /* one sector, so that a renewal is not torn by what the disk is */
    LEASE_NAME_MAX = 63,
    LEASE_MACHINE = 16,
    LEASE_RENEW_MS = 1000,
    LEASE_AFTER_LEAST_MS = 4000,
    LEASE_AFTER_MOST_MS = 600000,
};

/* How a token's writer has ended; in a file of its own, for the lease is its holder's alone. */
enum lease_end {
    LEASE_GOES_ON = 0,
    LEASE_STOPPED = 's', /* for a restart, perhaps: it may come back at once, others wait */
    LEASE_HANDED = 'h',  /* by command: the other one is to take over */
    LEASE_LOST = 'l',    /* it could not renew it, or could not work: likewise */
    LEASE_FENCED = 'f',  /* somebody else has seen to it */
};

/* Why who stands by has not taken over when it tried. */
enum lease_trouble {
    LEASE_WELL = 0,
    LEASE_FENCE_FAILED = 1,
    LEASE_PROGRAM_FAILED = 2, /* before-takeover */
    LEASE_DAEMON_FAILED = 3,  /* it ended by itself, or was not started */
};
/* NULL: none. */
const char *lease_trouble_text(enum lease_trouble trouble);

/* Of a holder, and in a file of another name of who stands by. */
struct lease_record {
    uint32_t token;
    uint32_t hold_ms;
    uint64_t counter;
    int64_t since_ms; /* Unix time, for people */
    uint8_t machine[LEASE_MACHINE];
    char name[LEASE_NAME_MAX + 1];
    enum lease_trouble trouble; /* of who stands by */
};

void lease_encode(const struct lease_record *record, uint8_t ret_bytes[LEASE_BYTES]);
/* False: none, torn, or out of bounds. */
bool lease_decode(struct slice bytes, struct lease_record *ret_record);
/* 1 to LEASE_NAME_MAX of a-z, 0-9, '-', '.', '_', beginning with a letter or digit. */
bool lease_name_is_good(struct slice name);

static inline uint32_t lease_hold_ms(uint32_t after_ms)
{
    return after_ms / 2;
}

/* What has been seen of the newest lease. */
struct lease_watch {
    uint32_t token;
    bool begun;
    bool known; /* its record could be read once */
    uint64_t counter;
    uint32_t hold_ms;
    int64_t seen_ms; /* when what it shows was seen first */
};

struct lease_view;
/* A look that ended at `now_ms`. */
void lease_watch_saw(struct lease_watch *watch, const struct lease_view *view, int64_t now_ms);
/* From when on a look must begin that shows no change, before the holder is given up. */
int64_t lease_watch_due(const struct lease_watch *watch, uint32_t after_ms);

/* All that a look shows. */
struct lease_view {
    uint32_t token; /* the newest; 0: there is none */
    uint32_t used;  /* one that somebody is known to have had, by the journal or a look before */
    enum lease_end end;
    bool readable;
    struct lease_record record; /* if readable */
};

/* Leases were there that are not any more: whoever holds one sees that, too, and stops. */
static inline bool lease_view_is_short(const struct lease_view *view)
{
    return view->token < view->used;
}

/* The next token to take. */
static inline uint32_t lease_view_next(const struct lease_view *view)
{
    return (view->token > view->used ? view->token : view->used) + 1;
}

/* Whether `name` on `machine`, which does not work, may take the next token. The look at `view`
 * began at `began_ms`, and lease_watch_saw() has been told of it. */
bool lease_may_take(const struct lease_view *view, const struct lease_watch *watch,
                    struct slice name, const uint8_t machine[LEASE_MACHINE], uint32_t after_ms,
                    int64_t began_ms);

#endif
