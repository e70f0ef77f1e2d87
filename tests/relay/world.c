/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "relay/notes.h"

static void set_server(struct world *world, uint32_t i, const char *name, uint8_t last_octet)
{
    world->addresses[i] = (struct server_address){.is_literal = true, .port = 25};
    memset(world->addresses[i].literal.bytes + 10, 0xff, 2);
    world->addresses[i].literal.bytes[12] = 192;
    world->addresses[i].literal.bytes[15] = last_octet;
    world->servers[i] = (struct server_config){.name = slice_from_text(name),
                                               .addresses = &world->addresses[i],
                                               .address_count = 1,
                                               .connections = 4,
                                               .connect_timeout_ms = 30000,
                                               .greeting_timeout_ms = 60000,
                                               .probe_interval_ms = 700,
                                               .failover = NO_INDEX};
}

static void set_route(struct world *world, uint32_t i, enum route_kind kind, const char *name,
                      uint32_t chain_length)
{
    world->domains[i] = (struct domain_pattern){slice_from_text(name), false};
    world->routes[i] = (struct route_config){.kind = kind,
                                             .name = slice_from_text(name),
                                             .domains = &world->domains[i],
                                             .domain_count = kind == ROUTE_DOMAIN,
                                             .chain = world->chains[i],
                                             .chain_length = chain_length,
                                             .retry_ms = world->retry_ms,
                                             .retry_count = 3,
                                             .order_patience_ms = 30000};
}

void world_configure(struct world *world)
{
    *world = (struct world){.now = {1000000, 1700000000000}, .capabilities = RELAY_CAP_PIPELINING};
    set_server(world, 0, "m1", 1);
    set_server(world, 1, "m2", 2);
    set_server(world, 2, "m3", 3);
    uint32_t retry[3] = {600000, 1200000, 3600000};
    memcpy(world->retry_ms, retry, sizeof retry);
    uint32_t chains[WORLD_ROUTES][WORLD_SERVERS] = {{0, 1, 2}, {0, 2}, {1}, {2}};
    memcpy(world->chains, chains, sizeof chains);
    set_route(world, 0, ROUTE_DOMAIN, "one.example", 3);
    set_route(world, 1, ROUTE_DOMAIN, "two.example", 2);
    set_route(world, 2, ROUTE_RELAY, "out", 1);
    set_route(world, 3, ROUTE_DOMAIN, "wild.example", 1);
    world->domains[3].wild = true;
    assert_true(ip_network_from_text(SLICE_LITERAL("198.51.100.0/24"), &world->from));
    world->routes[2].from = &world->from;
    world->routes[2].from_count = 1;
    world->config = (struct relay_config){.servers = world->servers,
                                          .server_count = WORLD_SERVERS,
                                          .routes = world->routes,
                                          .route_count = WORLD_ROUTES,
                                          .bounces = 2,
                                          .hostname = SLICE_LITERAL("mx2.example.net"),
                                          .postmaster = SLICE_LITERAL("pm@one.example")};
}

void world_open(struct world *world)
{
    world->relay = relay_new(&world->config, 42 + world->seed, world->now);
    assert_non_null(world->relay);
}

void world_close(struct world *world)
{
    relay_free(world->relay);
    world->relay = NULL;
}

static void keep_global(struct world *world, struct slice key, struct slice payload)
{
    size_t at = 0;
    while (at < world->global_count &&
           !slice_equal(key, slice_make(world->globals[at].key, world->globals[at].key_length))) {
        at++;
    }
    world->global_writes++;
    if (at == WORLD_GLOBALS) {
        return;
    }
    struct world_global *global = &world->globals[at];
    world->global_count += at == world->global_count;
    assert_true(key.length <= sizeof global->key && payload.length <= sizeof global->payload);
    memcpy(global->key, key.data, key.length);
    global->key_length = key.length;
    global->length = payload.length;
    if (payload.length > 0) {
        memcpy(global->payload, payload.data, payload.length);
    }
}

void world_reopen(struct world *world)
{
    relay_free(world->relay);
    world_open(world);
    for (size_t i = 0; i < world->global_count; i++) {
        const struct world_global *global = &world->globals[i];
        if (global->length > 0) {
            relay_load_global(world->relay, slice_make(global->key, global->key_length),
                              slice_make(global->payload, global->length), world->now);
        }
    }
}

void world_take(struct world *world)
{
    world->action_count = 0;
    struct relay_action action;
    while (relay_next(world->relay, &action)) {
        if (action.kind == RELAY_GLOBAL &&
            slice_starts_fold(action.key, SLICE_LITERAL("odometer/"))) {
            world->odometer_notes++;
            continue;
        }
        if (action.kind == RELAY_GLOBAL && slice_equal(action.key, NOTE_CLOCK_KEY)) {
            assert_true(note_decode_clock(action.payload, &world->noted_clock_ms));
            continue;
        }
        if (action.kind == RELAY_GLOBAL) {
            keep_global(world, action.key, action.payload);
        }
        assert_true(world->action_count < WORLD_ACTIONS);
        world->actions[world->action_count++] = action;
        if (action.kind == RELAY_BOUNCE) {
            relay_bounced(world->relay, &action, !world->bounces_fail);
        }
    }
}

void world_start(struct world *world)
{
    world_open(world);
    relay_start(world->relay, world->now);
    world_take(world);
}

const struct relay_action *world_action(const struct world *world, enum relay_action_kind kind,
                                        size_t n)
{
    for (size_t i = 0; i < world->action_count; i++) {
        if (world->actions[i].kind == kind && n-- == 0) {
            return &world->actions[i];
        }
    }
    return NULL;
}

const struct relay_action *world_event(const struct world *world, enum relay_event_kind event,
                                       size_t n)
{
    for (size_t i = 0; i < world->action_count; i++) {
        if (world->actions[i].kind == RELAY_EVENT && world->actions[i].event == event && n-- == 0) {
            return &world->actions[i];
        }
    }
    return NULL;
}

struct relay_action world_one(const struct world *world, enum relay_action_kind kind)
{
    const struct relay_action *action = world_action(world, kind, 0);
    assert_non_null(action);
    return *action;
}

size_t world_count(const struct world *world, enum relay_action_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < world->action_count; i++) {
        count += world->actions[i].kind == kind;
    }
    return count;
}

void world_insert(struct world *world, uint32_t handle, uint64_t sequence, const char *sender,
                  const char *recipients, uint32_t flags)
{
    struct spool_recipient list[64];
    uint32_t count = 0;
    struct slice rest = slice_from_text(recipients);
    while (rest.length > 0) {
        size_t end = slice_find(rest, ' ');
        assert_true(count < 64);
        list[count++] =
            (struct spool_recipient){.address = slice_take(rest, end), .notify = world->notify};
        rest = slice_skip(rest, end + 1);
    }
    struct spool_message message = {.sequence = sequence,
                                    .received_ms = world->now.wall_ms,
                                    .flags = flags,
                                    .priority = world->priority,
                                    .deliver_by_ms = world->deliver_by_ms,
                                    .header_length = 100,
                                    .body_length =
                                        world->body_length > 0 ? world->body_length : 900,
                                    .sender = slice_from_text(sender),
                                    .recipients = list,
                                    .recipient_count = count};
    assert_true(ip_from_text((flags & SPOOL_SENDER_VERIFIED) != 0 ? SLICE_LITERAL("198.51.100.7")
                                                                  : SLICE_LITERAL("203.0.113.7"),
                             &message.origin.client.address));
    message.odometer_s = relay_odometer(world->relay, &message, world->now);
    assert_int_equal(relay_add(world->relay, (struct spool_handle){handle}, &message, world->now),
                     ERROR_NONE);
    if (!world->keeps_actions) {
        world_take(world);
    }
}

void world_add(struct world *world, uint32_t handle, const char *sender, const char *recipients,
               uint32_t flags)
{
    world_insert(world, handle, ++world->sequence, sender, recipients, flags);
}

void world_wait(struct world *world, int64_t ms)
{
    int64_t end = world->now.steady_ms + ms;
    for (;;) {
        int64_t due = relay_deadline(world->relay);
        int64_t step = due > end ? end : due;
        if (step > world->now.steady_ms) {
            world->now.wall_ms += step - world->now.steady_ms;
            world->now.steady_ms = step;
        }
        if (due > end) {
            return;
        }
        relay_tick(world->relay, world->now);
        world_take(world);
        if (world->action_count > 0) {
            return; /* something to answer */
        }
    }
}

void world_opened(struct world *world, uint32_t session)
{
    const struct relay_capabilities capabilities = {.flags = world->capabilities,
                                                    .recipients_max = world->recipients_max,
                                                    .mails_max = world->mails_max};
    relay_session_opened(world->relay, session, &capabilities, world->now);
    world_take(world);
}

void world_ended(struct world *world, uint32_t session, enum relay_stage stage, enum relay_how how,
                 uint16_t code)
{
    struct relay_reply reply = {
        .stage = stage, .how = how, .code = code, .text = SLICE_LITERAL("said so")};
    relay_session_ended(world->relay, session, &reply, world->now);
    world_take(world);
}

void world_result(struct world *world, const struct relay_action *deliver,
                  enum relay_verdict verdict, enum relay_stage stage, enum relay_how how,
                  uint16_t code)
{
    struct relay_delivery_result results[64];
    assert_non_null(deliver);
    uint64_t job = deliver->job;
    uint32_t session = deliver->session, count = deliver->delivery_count;
    assert_true(count <= 64);
    for (uint32_t i = 0; i < count; i++) {
        results[i] = (struct relay_delivery_result){
            .delivery = deliver->deliveries[i],
            .verdict = verdict,
            .reply = {.stage = stage, .how = how, .code = code, .text = SLICE_LITERAL("said so")}};
    }
    relay_result(world->relay, job, session, false, results, count, world->now);
    world_take(world);
}

void world_up(struct world *world, uint32_t server)
{
    for (int i = 0; i < 100 && world_state(world, server) != SERVER_UP; i++) {
        bool answered = false;
        struct relay_action actions[64];
        size_t count = world->action_count < 64 ? world->action_count : 64;
        memcpy(actions, world->actions, count * sizeof actions[0]);
        for (size_t j = 0; j < count; j++) {
            if (actions[j].kind == RELAY_CONNECT && actions[j].server == server) {
                world_opened(world, actions[j].session);
                answered = true;
            } else if (actions[j].kind == RELAY_CONNECT) {
                world_ended(world, actions[j].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
            }
        }
        if (!answered || world_state(world, server) != SERVER_UP) {
            world_wait(world, 2000);
        }
    }
    assert_int_equal(world_state(world, server), SERVER_UP);
}

enum server_state world_state(const struct world *world, uint32_t server)
{
    struct relay_server_view view;
    relay_server(world->relay, server, &view);
    return view.state;
}

enum delivery_state world_delivery(const struct world *world, uint32_t handle, uint32_t which)
{
    struct relay_delivery_view view;
    if (!relay_delivery(world->relay, (struct spool_handle){handle}, which, &view)) {
        return DELIVERY_FINISHED;
    }
    return view.state;
}

struct relay_lane_view world_lane(const struct world *world, uint32_t lane)
{
    struct relay_lane_view view;
    relay_lane(world->relay, lane, &view);
    return view;
}

uint64_t world_held_by_rule(const struct world *world)
{
    struct relay_totals totals;
    relay_totals(world->relay, &totals);
    return totals.held_by_rule;
}
