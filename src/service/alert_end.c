/* SPDX-License-Identifier: Apache-2.0 */
#include "service/alert_end.h"

#include <stdio.h>

enum { SUBJECT_SHOWN = 110 };

const char *alert_ending_text(enum alert_ending ending)
{
    static const char *const texts[ALERT_ENDING_COUNT] = {"over", "disabled", "removed"};
    return texts[ending];
}

/* What is said before and behind the subject. */
static const struct {
    const char *before, *behind;
} words[ALERT_KIND_COUNT] = {
    [ALERT_STOPPED] = {"a server of ", " works again, and takes what was kept"},
    [ALERT_SWITCHED] = {"", " goes to the first server of its chain again"},
    [ALERT_EXPIRY] = {"mail of ", " no longer waits for its end"},
    [ALERT_DRILL] = {"mail of ", " is held back by a drill no more,"},
    [ALERT_SERVER] = {"server ", " answers again"},
    [ALERT_CREDENTIALS] = {"server ", " takes our login again"},
    [ALERT_REFUSES] = {"server ", " takes messages again"},
    [ALERT_LOOP] = {"server ", " is up again, and no mail has come back lately"},
    [ALERT_DEAD_LETTERS] = {"there are no dead letters any more", ""},
    [ALERT_IN_DOUBT] = {"no delivery is in doubt any more", ""},
    [ALERT_HELD] = {"no delivery waits for the operator's word any more", ""},
    [ALERT_ORPHAN] = {"no mail waits without a route any more", ""},
    [ALERT_STORAGE] = {"mail is accepted again", ""},
    [ALERT_QUARANTINE] = {"no damaged records are set aside any more", ""},
    [ALERT_JOURNAL] = {"fates and notes are written again", ""},
    [ALERT_LOAD] = {"the journal can be read again", ""},
    [ALERT_TRACE] = {"trace-keep is covered by events again", ""},
    [ALERT_SAFETY_COPY] = {"safety-copy is covered again", ""},
    [ALERT_HOOK] = {"alerts reach ", " again"},
    [ALERT_RELOAD] = {"the configuration in force is that of its file again", ""},
    [ALERT_EDGE_IN] = {"mail can come in again", ""},
    [ALERT_EDGE_OUT] = {"mail can go out again", ""},
    [ALERT_MILTER] = {"filter ", " can be reached again"},
    [ALERT_RECIPIENTS] = {"list ", " is taken again"},
    [ALERT_LOGIN_ACCOUNT] = {"strangers may try again to log in as ", ""},
    [ALERT_LOGIN_CLIENT] = {"client ", " may try again to log in"},
    [ALERT_GUARD] = {"the standby of ", " was ended"},
    [ALERT_GUARD_FAILED] = {"the guard of ", " is well again"},
    [ALERT_TAKEN_OVER] = {"the other machine of the pair stands by again", ""},
    [ALERT_UNFENCED] = {"the other machine of the pair is known to have stopped", ""},
    [ALERT_SPLIT] = {"nothing more comes late from the other machine of the pair", ""},
    [ALERT_NO_STANDBY] = {"the other machine of the pair stands by again", ""},
    [ALERT_CLUSTER] = {"this node has joined its cluster", ""},
    [ALERT_DATABASE] = {"the cluster's database answers again", ""},
    [ALERT_LAPSED] = {"this node hands mail over again", ""},
    [ALERT_NODE] = {"node ", " is here again"},
    [ALERT_TAKEOVER_LATE] = {"what node ", " owned has owners again"},
    [ALERT_MORE] = {"all conditions are listed again", ""},
};

static void put_span(char *text, size_t size, int64_t ms)
{
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "days"}, {3600, "hours"}, {60, "minutes"}, {1, "seconds"}};
    int64_t seconds = ms > 0 ? ms / 1000 : 0;
    size_t i = 0;
    while (i < 3 && seconds < 2 * units[i].seconds) {
        i++;
    }
    int64_t count = seconds / units[i].seconds;
    snprintf(text, size, "%lld %s", (long long)count, count == 1 ? "second" : units[i].unit);
}

void alert_end_text(enum alert_kind kind, struct slice subject, enum alert_ending ending,
                    int64_t lasted_ms, char *ret_text, size_t size)
{
    char span[32];
    struct slice shown = slice_take(subject, SUBJECT_SHOWN);
    put_span(span, sizeof(span), lasted_ms);
    if (ending == ALERT_DISABLED) {
        snprintf(ret_text, size, "server %.*s was taken out by hand after %s of this",
                 SLICE_PRINT(shown), span);
    } else if (ending == ALERT_REMOVED && (kind == ALERT_GUARD || kind == ALERT_GUARD_FAILED)) {
        snprintf(ret_text, size, "%.*s has no guard block any more", SLICE_PRINT(shown));
    } else if (ending == ALERT_REMOVED) {
        snprintf(ret_text, size, "%.*s is named no more, neither here nor by DNS",
                 SLICE_PRINT(shown));
    } else {
        const char *before = words[kind].before;
        const char *behind = words[kind].behind;
        snprintf(ret_text, size, "%s%.*s%s after %s", before != NULL ? before : "",
                 SLICE_PRINT(shown), behind != NULL ? behind : " is over", span);
    }
}
