/* SPDX-License-Identifier: Apache-2.0
 *
 * The versions of the cluster's settings in the database. Calls block, on a connection that is the
 * caller's; what they hand out is the caller's, too.
 *
 * A version is made new, by whoever was told of the one that it is made from. One member claims it
 * for a trial. If that goes well it is approved, and the others follow: they take on no version
 * that is not. If the member finds it wrong, which kills nobody, another one may try. If the member
 * dies of it, or does not come back, nobody tries it again.
 *
 *      new --claim--> trial --approve--> approved
 *       | ^             |
 *       | +---refuse----+-bad, expire--> bad
 *       +--make another--> replaced
 *
 * What is bad comes into no other version: one is made from the newest that is approved, or from
 * one that nobody has claimed, which it replaces; none while a member tries one. And no two members
 * are down at once: none claims a version while another is tried, nor soon after one was found bad.
 */
#ifndef HOLDFAST_CLUSTER_SETTINGS_STORE_H
#define HOLDFAST_CLUSTER_SETTINGS_STORE_H

#include "cluster/settings_version.h"
#include "sys/database.h"

enum {
    SETTINGS_AUTHOR_MAX = 128,
    SETTINGS_COMMENT_MAX = 1024,
    SETTINGS_VERSIONS_KEPT = 1000, /* older ones go when another is made */
    SETTINGS_PAUSE_MS = 30000,    /* after a bad version nobody claims one: its member comes back */
    SETTINGS_OVERDUE_MS = 120000, /* after a claim its member is not waited for any more */
};

enum settings_state {
    SETTINGS_NEW,
    SETTINGS_TRIAL,
    SETTINGS_APPROVED,
    SETTINGS_BAD,
    SETTINGS_REPLACED, /* before anybody had tried it; a program before this one takes it for bad */
};

/* With the tables as this program needs them. False: why not, and there is no connection. */
bool settings_store_connect(struct database *database,
                            char ret_problem[DATABASE_ERROR_SIZE]) MUST_CHECK;
/* What a connection must have said to be woken by database_wait(). */
extern const char *const settings_store_listen;

/* What a member must know to follow. */
struct settings_heads {
    uint64_t newest; /* 0: there is none */
    enum settings_state state;
    bool is_mine;      /* this member tries it, or has */
    bool is_overdue;   /* a version is, and settings_store_expire() will say so */
    uint64_t approved; /* the newest that is; 0: none */
};
enum database_outcome settings_store_heads(struct database *database, struct slice member,
                                           struct settings_heads *ret_heads) MUST_CHECK;

/* Appends the form of settings_version_put(). *ret_found false: there is no such version. */
enum database_outcome settings_store_fetch(struct database *database, uint64_t number,
                                           struct buffer *ret_bytes, bool *ret_found) MUST_CHECK;

/* Each: *ret_done false, and nothing has changed, if the version is not in the state for it, or
 * another member's. */
enum database_outcome settings_store_claim(struct database *database, uint64_t number,
                                           struct slice member, bool *ret_done) MUST_CHECK;
enum database_outcome settings_store_approve(struct database *database, uint64_t number,
                                             struct slice member, bool *ret_done) MUST_CHECK;
/* `outcome`: SETTINGS_NEW (refused: another may try) or SETTINGS_BAD. `problem` in words. */
enum database_outcome settings_store_give_up(struct database *database, uint64_t number,
                                             struct slice member, enum settings_state outcome,
                                             struct slice problem, bool *ret_done) MUST_CHECK;

/* Whatever has been tried for too long is bad. */
enum database_outcome settings_store_expire(struct database *database) MUST_CHECK;

/* What this member runs with, and what is wrong with a newer one (or empty). */
enum database_outcome settings_store_report(struct database *database, struct slice member,
                                            uint64_t number, struct slice problem) MUST_CHECK;

/* Makes `version`, whose number must be one more than that of the newest, from that of the number
 * `made_from` (0: from nothing), which must be the newest that is approved, or the newest of all if
 * that is new. *ret_done false: it is not, somebody has made one meanwhile, or one is on trial. The
 * texts are UTF-8 without NUL, and within their bounds. */
enum database_outcome settings_store_make(struct database *database,
                                          const struct settings_version *version,
                                          uint64_t made_from, struct slice author,
                                          struct slice comment, bool *ret_done) MUST_CHECK;

/* One of the history. Texts are good during the call. */
struct settings_entry {
    uint64_t number;
    enum settings_state state;
    int64_t made_ms; /* Unix */
    struct slice author, comment;
    struct slice tried_by;   /* or empty */
    struct slice refused_by; /* names, ", " between them */
    struct slice problem;    /* or empty */
    struct slice members;    /* that run with it, likewise */
    uint64_t text_bytes;
    uint32_t file_count;
};
typedef void settings_entry_fn(void *context, const struct settings_entry *entry);
/* The newest first, `most` of them, from `first` downwards (0: from the newest). */
enum database_outcome settings_store_history(struct database *database, uint64_t first,
                                             uint32_t most, settings_entry_fn *fn,
                                             void *context) MUST_CHECK;

#endif
