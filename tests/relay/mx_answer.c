/* SPDX-License-Identifier: Apache-2.0 */
#include "mx_answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct slice word(struct slice *rest)
{
    *rest = slice_trim(*rest);
    struct slice got = slice_take(*rest, slice_find(*rest, ' '));
    *rest = slice_skip(*rest, got.length);
    return got;
}

static void add(struct mx_answer_text *test, struct slice text)
{
    struct mx_exchanger *exchanger = &test->exchangers[test->answer.count];
    struct mx_address *addresses = test->addresses[test->answer.count++];
    uint64_t preference = 0;
    assert_true(slice_to_u64(word(&text), &preference));
    *exchanger = (struct mx_exchanger){
        .preference = (uint16_t)preference, .host = word(&text), .addresses = addresses};
    for (struct slice at = word(&text); at.length > 0; at = word(&text)) {
        struct mx_address *address = &addresses[exchanger->address_count];
        if (slice_equal(at, SLICE_LITERAL("-"))) {
            exchanger->error = ERROR_MISSING;
        } else if (slice_equal(at, SLICE_LITERAL("?"))) {
            exchanger->error = ERROR_TIMEOUT;
        } else {
            address->ours = at.data[0] == '!';
            assert_true(ip_from_text(slice_skip(at, address->ours), &address->address));
            exchanger->address_count++;
        }
    }
}

void mx_answer_read(struct mx_answer_text *answer, const char *text)
{
    memset(answer, 0, sizeof *answer);
    answer->answer.exchangers = answer->exchangers;
    answer->answer.ttl_s = 3600;
    struct slice rest = slice_from_text(text);
    while (slice_trim(rest).length > 0) {
        size_t end = slice_find(rest, ';');
        add(answer, slice_take(rest, end));
        rest = slice_skip(rest, end + 1);
    }
}

/* ---- in a world ---------------------------------------------------------------------------- */

void mx_follow(struct world *world, uint32_t route, uint32_t servers, uint32_t place)
{
    world->routes[route].mx = true;
    world->routes[route].mx_place = place;
    world->routes[route].chain_length = servers;
    world->config.exchanger = (struct server_config){.connections = 4,
                                                     .connect_timeout_ms = 30000,
                                                     .greeting_timeout_ms = 60000,
                                                     .probe_interval_ms = 700,
                                                     .failover = NO_INDEX};
}

void mx_answer(struct world *world, const char *domain, const char *text, enum error error,
               uint32_t ttl_s)
{
    struct mx_answer_text answer;
    mx_answer_read(&answer, text);
    answer.answer.error = error;
    answer.answer.ttl_s = ttl_s;
    relay_resolved(world->relay, slice_from_text(domain), &answer.answer, world->now);
    world_take(world);
}

bool mx_is_asked(const struct world *world, const char *domain)
{
    size_t asked = 0;
    for (size_t i = 0; i < world_count(world, RELAY_RESOLVE); i++) {
        asked +=
            slice_equal(world_action(world, RELAY_RESOLVE, i)->domain, slice_from_text(domain));
    }
    return asked == 1;
}

uint32_t mx_called(const struct world *world, const char *host)
{
    for (size_t i = 0; i < world_count(world, RELAY_CONNECT); i++) {
        const struct relay_action *call = world_action(world, RELAY_CONNECT, i);
        const struct server_config *config = relay_server_config(world->relay, call->server);
        assert_non_null(config);
        if (slice_equal(config->name, slice_from_text(host))) {
            return call->session;
        }
    }
    return 0;
}

struct relay_lane_view mx_lane(struct world *world, const char *name)
{
    struct relay_lane_view view = {.server = NO_INDEX};
    for (uint32_t i = 0; i < relay_lane_count(world->relay); i++) {
        relay_lane(world->relay, i, &view);
        if (slice_equal(view.route, slice_from_text(name))) {
            return view;
        }
    }
    return (struct relay_lane_view){.server = NO_INDEX};
}
