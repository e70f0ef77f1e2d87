/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a cluster's database is in trouble, and in which words: by what the member says, whose
 * heartbeat it does not take, and the spool, whose mail it does not: its disk is full, a right is
 * missing. One trouble, from the first word of either until both are well.
 *
 * The member's word counts at once. A group that fails is tried again in a moment, so the spool's
 * counts when it has lasted, and a database that takes some of its groups in time and some not is
 * well when it has taken all for a while. A value: times are arguments.
 */
#ifndef HOLDFAST_SERVICE_DATABASE_TROUBLE_H
#define HOLDFAST_SERVICE_DATABASE_TROUBLE_H

#include "service/alerts.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    DATABASE_TROUBLE_LASTS_MS = 2000,
    DATABASE_TROUBLE_OVER_MS = 6000,
};

/* Begins as zeroes: none. */
struct database_trouble {
    char member[ALERT_TEXT_SIZE]; /* what it has said last; empty: it is well */
    char spool[ALERT_TEXT_SIZE];  /* what is told of it; empty: nothing */
    bool is_spools;               /* it has lasted without the member's word */
    int64_t failing_ms;           /* the spool, since then without that word; 0: not */
    int64_t well_ms;              /* the spool, since then; 0: not */
};

/* `text`: empty when the database answers. */
void database_trouble_member(struct database_trouble *trouble, const char *text);
/* So it is now. True: what is told of the spool begins. */
bool database_trouble_spool(struct database_trouble *trouble, bool up, const char *reason,
                            int64_t now_ms);
/* NULL: there is none. */
const char *database_trouble_text(const struct database_trouble *trouble);

#endif
