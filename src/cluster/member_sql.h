/* SPDX-License-Identifier: Apache-2.0
 *
 * What a member asks of the database, as blocking calls for its thread. Each of them is one
 * statement, committed by itself: a node that stops in the middle leaves no lock behind.
 */
#ifndef HOLDFAST_CLUSTER_MEMBER_SQL_H
#define HOLDFAST_CLUSTER_MEMBER_SQL_H

#include "base/arena.h"
#include "cluster/holding.h"
#include "cluster/member.h"

/* Connected, the schema there. ERROR_NONE; else why not is in ret_problem, and the outcome in
 * *ret_outcome if the database has said something. */
enum database_outcome member_sql_connect(struct database *database,
                                         char ret_problem[MEMBER_TEXT_SIZE]) MUST_CHECK;

/* Who has our name. */
struct member_sql_name {
    bool known; /* else all is empty */
    int number;
    struct message_id instance;
    bool removed;
    struct message_id incarnation; /* null: nobody since it was left in order */
    int64_t beat_us, age_ms;
    char place[MEMBER_PLACE_MAX + 1];
    char machine[MEMBER_PLACE_MAX + 1];
    int64_t since_ms; /* when that life began, Unix time of the database */
};
/* Makes a node of this name if there is none. */
enum database_outcome member_sql_find(struct database *database,
                                      const struct member_settings *settings,
                                      struct member_sql_name *ret_name) MUST_CHECK;
/* Begins a life of the node; *ret_joined is false if another has, since it was found. `behind_ms`
 * as in its health. */
enum database_outcome member_sql_join(struct database *database,
                                      const struct member_settings *settings,
                                      const struct member_sql_name *found,
                                      struct message_id incarnation, int64_t behind_ms,
                                      bool *ret_joined) MUST_CHECK;

/* What a heartbeat says of mail that is still to be brought is good for a moment; the database may
 * carry it out seconds after it was sent. */
struct member_word {
    int64_t good_until_ms; /* the database's Unix time; INT64_MAX: it is not known */
    int64_t
        unsaid_ms; /* carried out later it says that mail accepted from then on may be missing */
};
/* *ret_ours is false if this life has ended. *ret_wall_us: the database's Unix time. */
enum database_outcome
member_sql_renew(struct database *database, const struct member_settings *settings, int number,
                 struct message_id incarnation, const struct node_health *health,
                 const struct member_word *word, bool *ret_ours, int64_t *ret_wall_us) MUST_CHECK;
/* Slices and arrays live in the arena. *ret_server: which one has answered. */
enum database_outcome member_sql_read(struct database *database, struct arena *arena, int own,
                                      struct view *ret_view, uint64_t *ret_server) MUST_CHECK;

/* The steps that are claims; sets `done` and the new token of those that we have got. */
struct member_sql_claim {
    struct holding_step step;
    bool done;
    int64_t token;
};
enum database_outcome member_sql_claim(struct database *database, int own,
                                       struct message_id incarnation,
                                       struct member_sql_claim *claims, size_t count) MUST_CHECK;
struct member_sql_release {
    uint32_t share;
    int64_t token;
};
enum database_outcome member_sql_release(struct database *database, int own,
                                         const struct member_sql_release *releases,
                                         size_t count) MUST_CHECK;
/* This life ends in order. */
enum database_outcome member_sql_leave(struct database *database, int own,
                                       struct message_id incarnation) MUST_CHECK;

enum database_outcome member_sql_name_share(struct database *database, struct slice name,
                                            int64_t *ret_number) MUST_CHECK;
/* *ret_number: 0 if there is no such node. */
enum database_outcome member_sql_drain(struct database *database, struct slice node, bool drains,
                                       int64_t *ret_number) MUST_CHECK;
/* A node whose last heartbeat is still this one. *ret_number: 0 if it is not. */
enum database_outcome member_sql_remove(struct database *database, int number, int64_t beat_us,
                                        int64_t *ret_number) MUST_CHECK;

#endif
