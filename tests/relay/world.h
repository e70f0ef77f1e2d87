/* SPDX-License-Identifier: Apache-2.0
 *
 * A small world around relay for tests: a configuration in memory, messages by number, and what
 * came out, gathered per input.
 */
#ifndef HOLDFAST_TESTS_RELAY_WORLD_H
#define HOLDFAST_TESTS_RELAY_WORLD_H

#include "relay/relay.h"

enum { WORLD_SERVERS = 3, WORLD_ROUTES = 4, WORLD_ACTIONS = 4096, WORLD_GLOBALS = 32 };

/* A note about no message, as written last. */
struct world_global {
    char key[SPOOL_KEY_MAX];
    size_t key_length;
    uint8_t payload[SPOOL_NOTE_MAX];
    size_t length; /* 0: forgotten */
};

/* Routes: 0 domain one.example > m1 m2 m3; 1 domain two.example > m1 m3; 2 relay out > m2;
 * 3 domain *.wild.example > m3. */
struct world {
    struct relay_config config;
    struct server_config servers[WORLD_SERVERS];
    struct server_address addresses[WORLD_SERVERS];
    struct route_config routes[WORLD_ROUTES];
    struct domain_pattern domains[WORLD_ROUTES];
    struct ip_network from;
    uint32_t chains[WORLD_ROUTES][WORLD_SERVERS];
    uint32_t retry_ms[3];
    uint64_t seed; /* 0 at first */
    struct relay *relay;
    struct relay_time now;
    uint64_t sequence;
    bool bounces_fail;
    uint8_t notify;                     /* of recipients that are added */
    int8_t priority;                    /* of messages that are added, as is */
    int64_t deliver_by_ms;              /* this */
    uint64_t body_length;               /* this; 0: 900 */
    uint32_t capabilities;              /* RELAY_CAP_*, of sessions that open */
    uint32_t recipients_max, mails_max; /* RFC 9422, of these */
    bool keeps_actions; /* world_insert() leaves them to be taken with those of the next input */
    struct relay_action actions[WORLD_ACTIONS];
    size_t action_count;
    struct world_global globals[WORLD_GLOBALS]; /* but odometers; the first ones */
    size_t global_count;
    size_t global_writes;
    size_t odometer_notes;  /* that were taken, and are no actions here: one a minute */
    int64_t noted_clock_ms; /* as last noted; neither; 0: not yet */
};

void world_configure(struct world *world);
void world_open(struct world *world);
/* The process dies, and what it had noted about no message is loaded into the next. Its mail is
 * gone. */
void world_reopen(struct world *world);
/* Opens it with no mail, and starts. */
void world_start(struct world *world);
void world_close(struct world *world);
/* Takes the actions; the last input's only. */
void world_take(struct world *world);
/* The n-th action of a kind in what was taken last, or NULL. */
const struct relay_action *world_action(const struct world *world, enum relay_action_kind kind,
                                        size_t n);
const struct relay_action *world_event(const struct world *world, enum relay_event_kind event,
                                       size_t n);
/* The first one, which must be there: a copy, since the next input overwrites what was taken. */
struct relay_action world_one(const struct world *world, enum relay_action_kind kind);
size_t world_count(const struct world *world, enum relay_action_kind kind);
/* `recipients` separated by spaces; flags of spool.h. */
void world_add(struct world *world, uint32_t handle, const char *sender, const char *recipients,
               uint32_t flags);
void world_insert(struct world *world, uint32_t handle, uint64_t sequence, const char *sender,
                  const char *recipients, uint32_t flags);
/* Advances the clocks, ticking at every deadline on the way; takes what came last. */
void world_wait(struct world *world, int64_t ms);
void world_opened(struct world *world, uint32_t session);
void world_ended(struct world *world, uint32_t session, enum relay_stage stage, enum relay_how how,
                 uint16_t code);
/* One verdict for all deliveries of the job. */
void world_result(struct world *world, const struct relay_action *deliver,
                  enum relay_verdict verdict, enum relay_stage stage, enum relay_how how,
                  uint16_t code);
/* Brings a server up: answers its probe twice. The world must be started. */
void world_up(struct world *world, uint32_t server);
enum server_state world_state(const struct world *world, uint32_t server);
enum delivery_state world_delivery(const struct world *world, uint32_t handle, uint32_t which);
struct relay_lane_view world_lane(const struct world *world, uint32_t lane);
/* Deliveries held that wait for an operator, by no operator's doing. */
uint64_t world_held_by_rule(const struct world *world);

#endif
