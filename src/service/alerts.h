/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of alerts: conditions that an operator should know of, each while its cause lasts. An
 * alert is known by its kind and its subject, a lane's or server's name, or none. It begins with
 * the first alerts_raise() and ends with alerts_end(). Whoever tells people of alerts sees both
 * edges, and tells each once, however often a cause is looked at.
 *
 * Bounded: an alert without a subject always has its place; of those with one ALERTS_MAX stand at
 * once. What finds no place is an edge all the same, but not kept: it has no end.
 *
 * Knows no clock, log or counter: the time is an argument, telling is the caller's.
 */
#ifndef HOLDFAST_SERVICE_ALERTS_H
#define HOLDFAST_SERVICE_ALERTS_H

#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"

#include <stdbool.h>

enum {
    ALERTS_MAX = 4096, /* lanes that stop behind one dead server are that many */
    ALERT_TEXT_SIZE = 192,
};

/* X(name, word, what) */
#define ALERT_KIND_TABLE(X)                                                                        \
    X(STOPPED, "stopped", "lane: all its servers are down")                                        \
    X(SWITCHED, "switched", "lane: its mail goes to another server than the first of its chain")   \
    X(EXPIRY, "expiry", "lane: mail becomes dead letters soon")                                    \
    X(SERVER, "server", "server: it is down")                                                      \
    X(CREDENTIALS, "credentials", "server: we cannot log in there")                                \
    X(REFUSES, "refuses", "server: it refuses one message after the other")                        \
    X(LOOP, "loop", "server: it sends our mail back to us")                                        \
    X(DRILL, "drill", "lane: a drill holds its mail back")                                         \
    X(DEAD_LETTER, "dead-letter", "delivery: it has become one; happens, and never stands")        \
    X(DEAD_LETTERS, "dead-letters", "there are some")                                              \
    X(IN_DOUBT, "in-doubt", "deliveries are")                                                      \
    X(HELD, "held", "deliveries wait for the operator's word")                                     \
    X(ORPHAN, "orphan", "mail without a route waits")                                              \
    X(STORAGE, "storage", "no mail is accepted")                                                   \
    X(QUARANTINE, "quarantine", "damaged records were set aside")                                  \
    X(JOURNAL, "journal", "fates and notes cannot be written")                                     \
    X(LOAD, "load", "the journal cannot be read")                                                  \
    X(TRACE, "trace", "events went before their time")                                             \
    X(SAFETY_COPY, "safety-copy", "copies of what was handed over went before their time")         \
    X(HOOK, "hook", "alert block: what it is to tell cannot be sent")                              \
    X(RELOAD, "reload", "the configuration in force is not that of its file")                      \
    X(EDGE_IN, "edge-in", "a ring is cut off")                                                     \
    X(EDGE_OUT, "edge-out", "a ring is cut off")                                                   \
    X(MILTER, "milter", "filter: it cannot be reached")                                            \
    X(RECIPIENTS, "recipients", "list of recipients: it cannot be read, the last good one holds")  \
    X(LOGIN_ACCOUNT, "login-account", "account: after failed logins strangers must wait")          \
    X(LOGIN_CLIENT, "login-client", "client: after failed logins it must wait")                    \
    X(GUARD, "guard", "server: its cold standby was started")                                      \
    X(GUARD_FAILED, "guard-failed", "server: its cold standby could not be started, or ended")     \
    X(TAKEN_OVER, "taken-over", "the other machine of a pair did not hand over, and is not back")  \
    X(UNFENCED, "unfenced", "the other machine of a pair is not known to have stopped")            \
    X(NO_STANDBY, "no-standby", "the other machine of a pair does not stand by")                   \
    X(SPLIT, "split", "the other machine of a pair was still at work when taken over from")        \
    X(CLUSTER, "cluster", "this node may not join its cluster")                                    \
    X(DATABASE, "database", "the cluster's database does not answer, or takes no mail")            \
    X(LAPSED, "lapsed", "this node's lease in the cluster is over, it hands nothing over")         \
    X(NODE, "node", "node of the cluster: nothing is heard of it")                                 \
    X(TAKEOVER, "takeover", "node: what it owned has been taken over; happens, and never stands")  \
    X(TAKEOVER_LATE, "takeover-late", "node: what it owned has not been taken over")               \
    X(MORE, "more", "others found no place in the table")

enum alert_kind {
#define ALERT_KIND_ENUM(name, word, what) ALERT_##name,
    ALERT_KIND_TABLE(ALERT_KIND_ENUM)
#undef ALERT_KIND_ENUM
        ALERT_KIND_COUNT
};

struct alert {
    struct link link; /* in order of beginning; alone: it does not stand */
    enum alert_kind kind;
    struct slice subject; /* empty: none */
    int64_t since_wall_ms;
    char text[ALERT_TEXT_SIZE];
    bool marked;     /* the caller's; false at first */
    uint64_t number; /* the caller's; 0 at first */
};

struct alerts {
    struct link standing;
    struct alert alone[ALERT_KIND_COUNT]; /* those without a subject */
    struct map about;                     /* those with one */
    struct hash_key key;
    uint32_t count; /* that stand */
};

/* "stopped", as in `status` and the log. */
const char *alert_kind_text(enum alert_kind kind);

void alerts_init(struct alerts *alerts, struct hash_key key);
void alerts_done(struct alerts *alerts);
/* Copies subject and text, the latter cut if it is too long. True: it begins; false: it stands
 * already, with the new text from now on. */
bool alerts_raise(struct alerts *alerts, enum alert_kind kind, struct slice subject,
                  const char *text, int64_t now_wall_ms);
/* NULL: it does not stand. Valid until it ends. */
struct alert *alerts_find(struct alerts *alerts, enum alert_kind kind, struct slice subject);
/* One that stands; with a subject it is freed. */
void alerts_end(struct alerts *alerts, struct alert *alert);
/* No other one with a subject would be kept. */
bool alerts_full(const struct alerts *alerts);

#endif
