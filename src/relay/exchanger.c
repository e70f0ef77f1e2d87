/* SPDX-License-Identifier: Apache-2.0
 *
 * Servers made on demand: the exchangers that MX routing has found. Each is shared by all
 * destinations that name it, has a state and sessions like a configured server, and goes when no
 * destination names it and nothing is under way there. A table of bounded size: a domain with many
 * names for its hosts must not use up our memory.
 */
#include <stdlib.h>

#include "relay/destination.h"
#include "relay/refusal.h"

/* A host may be its own domain's exchanger: the two hashes must not cancel out. */
static uint64_t key_of(const struct relay *relay, struct slice host,
                       const struct exchanger_terms *terms)
{
    uint8_t demand = (uint8_t)terms->sts;
    uint64_t other = demand == STS_NONE ? 0 : hash_bytes(relay->key, slice_make(&demand, 1));
    uint64_t by = terms->signed_by.length > 0 ? hash_bytes(relay->key, terms->signed_by) * 3 : 0;
    uint64_t waived = terms->waived ? hash_bytes(relay->key, SLICE_LITERAL("waived")) * 5 : 0;
    return hash_bytes(relay->key, host) ^ terms->filter ^ other ^ by ^ waived;
}

static void set_addresses(struct exchanger *exchanger, const struct mx_choice *choice)
{
    struct server *server = &exchanger->server;
    for (uint32_t i = 0; i < choice->address_count; i++) {
        exchanger->addresses[i] = (struct server_address){
            .literal = choice->addresses[i], .is_literal = true, .port = MX_PORT};
        server->addresses[i] = choice->addresses[i];
    }
    exchanger->config.address_count = choice->address_count;
    server->address_count = choice->address_count;
}

/* What the configuration says of all exchangers. */
static void set_config(const struct relay *relay, struct exchanger *exchanger)
{
    struct server_config *config = &exchanger->config;
    struct slice name = config->name, signed_by = config->signed_by;
    uint32_t address_count = config->address_count;
    enum sts_demand sts = config->sts;
    bool waived = config->waived;
    *config = relay->config->exchanger;
    server_config_waive(config, waived);
    config->sts = config->tls == SERVER_TLS_MTA_STS ? sts : STS_NONE;
    config->name = name;
    config->signed_by = signed_by;
    config->addresses = exchanger->addresses;
    config->address_count = address_count;
    config->failover = NO_INDEX;
}

/* ---- the table ---------------------------------------------------------------------------- */

/* NO_INDEX: it is full, or memory is out. */
static uint32_t find_place(struct relay *relay)
{
    if (relay->exchanger_count == relay->exchanger_room) {
        uint32_t room = relay->exchanger_room == 0 ? 16 : relay->exchanger_room * 2;
        if (room > RELAY_EXCHANGERS_MAX || !timers_reserve(relay, 0, room)) {
            return NO_INDEX;
        }
        struct exchanger **more = realloc(relay->exchangers, room * sizeof *more);
        if (more == NULL) {
            return NO_INDEX;
        }
        for (uint32_t i = relay->exchanger_room; i < room; i++) {
            more[i] = NULL;
        }
        relay->exchangers = more;
        relay->exchanger_room = room;
    }
    uint32_t place = 0;
    while (relay->exchangers[place] != NULL) {
        place++;
    }
    return place;
}

static void set_signer(struct exchanger *exchanger, struct slice signed_by, uint64_t key)
{
    if (signed_by.length > 0) {
        memcpy(exchanger->signed_by, signed_by.data, signed_by.length);
    }
    exchanger->config.signed_by = slice_make(exchanger->signed_by, signed_by.length);
    exchanger->key = key;
}

static struct exchanger *make(struct relay *relay, const struct mx_choice *choice, uint64_t key,
                              const struct exchanger_terms *terms)
{
    uint32_t place = choice->host.length > MX_HOST_MAX ? NO_INDEX : find_place(relay);
    struct exchanger *exchanger = place == NO_INDEX ? NULL : calloc(1, sizeof *exchanger);
    if (exchanger == NULL || map_put(&relay->exchangers_by_key, key, exchanger) != ERROR_NONE) {
        free(exchanger);
        return NULL;
    }
    memcpy(exchanger->host, choice->host.data, choice->host.length);
    exchanger->config.name = slice_make(exchanger->host, choice->host.length);
    exchanger->config.sts = terms->sts;
    exchanger->config.waived = terms->waived;
    set_signer(exchanger, terms->signed_by, key);
    set_config(relay, exchanger);
    list_init(&exchanger->uses);
    server_init(relay, &exchanger->server, &exchanger->config, RELAY_EXCHANGERS + place);
    exchanger->server.exchanger = exchanger;
    /* It is taken for a server that works until it fails: mail itself is the probe. */
    exchanger->server.on_demand = true;
    exchanger->server.state = SERVER_UP;
    exchanger->server.trouble = TROUBLE_NONE;
    exchanger->server.away_since_ms = INT64_MAX;
    relay->exchangers[place] = exchanger;
    relay->exchanger_count++;
    return exchanger;
}

/* The one of this key that is there, if it has this name; or NULL. */
static struct exchanger *find(const struct relay *relay, struct slice host, uint64_t key)
{
    struct exchanger *exchanger = map_get(&relay->exchangers_by_key, key);
    return exchanger != NULL && slice_equal(exchanger->config.name, host) ? exchanger : NULL;
}

/* One that was only expected is the one that a signed answer names: what is in doubt there must
 * find it again. */
static void recognise(struct relay *relay, struct slice host, const struct exchanger_terms *terms)
{
    struct exchanger_terms before = *terms;
    before.signed_by = SLICE_EMPTY;
    uint64_t key = key_of(relay, host, terms), plain = key_of(relay, host, &before);
    struct exchanger *exchanger = find(relay, host, plain);
    if (exchanger != NULL && exchanger->expected && key != plain &&
        map_get(&relay->exchangers_by_key, key) == NULL &&
        map_put(&relay->exchangers_by_key, key, exchanger) == ERROR_NONE) {
        (void)map_remove(&relay->exchangers_by_key, plain);
        set_signer(exchanger, terms->signed_by, key);
    }
}

/* From now on it counts as a configured server. */
static void make_lasting(struct relay *relay, struct server *server, bool is_new)
{
    server->on_demand = false;
    if (is_new) {
        server->state = SERVER_SUSPECT;
        server->trouble = TROUBLE_CONNECT;
        server->away_since_ms = relay->now.steady_ms;
    }
    noted_apply(relay, server);
    if (relay->started) {
        governor_start(relay, server);
    }
}

struct server *exchanger_take(struct relay *relay, const struct mx_choice *choice,
                              const struct exchanger_terms *terms, bool lasting)
{
    recognise(relay, choice->host, terms);
    uint64_t key = key_of(relay, choice->host, terms);
    struct exchanger *exchanger = map_get(&relay->exchangers_by_key, key);
    bool is_new = exchanger == NULL;
    if (is_new) {
        exchanger = make(relay, choice, key, terms);
    } else if (!slice_equal(exchanger->config.name, choice->host)) {
        return NULL; /* two names with one hash */
    }
    if (exchanger == NULL) {
        return NULL;
    }
    struct server *server = &exchanger->server;
    set_addresses(exchanger, choice);
    exchanger->expected = false;
    if (lasting && server->on_demand) {
        make_lasting(relay, server, is_new);
    }
    return server;
}

struct server *exchanger_expect(struct relay *relay, struct slice host,
                                const struct exchanger_terms *terms)
{
    struct exchanger *known = find(relay, host, key_of(relay, host, terms));
    if (known != NULL) {
        return &known->server;
    }
    const struct mx_choice nowhere = {.host = host};
    struct server *server = exchanger_take(relay, &nowhere, terms, false);
    if (server != NULL) {
        server->exchanger->expected = true;
    }
    return server;
}

bool exchanger_is_gone(const struct server *server)
{
    const struct exchanger *exchanger = server->exchanger;
    return exchanger != NULL && exchanger->expected && list_is_empty(&exchanger->uses);
}

bool exchanger_has_place(const struct server *server)
{
    return server->exchanger == NULL || !server->exchanger->expected;
}

void exchangers_start(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->exchanger_room; i++) {
        if (relay->exchangers[i] != NULL && !relay->exchangers[i]->server.on_demand) {
            governor_start(relay, &relay->exchangers[i]->server);
        }
    }
}

void exchanger_is_last(struct server *server)
{
    if (!server->exchanger->config.greeting_timeout_set) {
        server->exchanger->config.greeting_timeout_ms = LAST_GREETING_MS;
    }
}

/* ---- what it matters to ------------------------------------------------------------------- */

bool exchanger_is_wanted(const struct server *server)
{
    const struct exchanger *exchanger = server->exchanger;
    LIST_EACH(&exchanger->uses, at, after)
    {
        if (destination_has_mail(LIST_ENTRY(at, struct exchanger_use, link)->destination)) {
            return true;
        }
    }
    return exchanger->pin_count > 0;
}

void exchanger_place_lanes(struct relay *relay, const struct server *server)
{
    const struct exchanger *exchanger = server->exchanger;
    if (exchanger->pin_count > 0) { /* lanes that no longer find it in their chain */
        lanes_place(relay);
        return;
    }
    LIST_EACH(&exchanger->uses, at, after)
    {
        struct destination *destination = LIST_ENTRY(at, struct exchanger_use, link)->destination;
        LIST_EACH(&destination->lanes, lane_at, lane_after)
        {
            lane_place(relay, LIST_ENTRY(lane_at, struct lane, sibling));
        }
    }
}

/* ---- the end ------------------------------------------------------------------------------ */

static bool is_needed(const struct exchanger *exchanger)
{
    const struct server *server = &exchanger->server;
    return !list_is_empty(&exchanger->uses) || exchanger->pin_count > 0 ||
           server->state == SERVER_DISABLED || server->open > 0 || server->jobs > 0 ||
           !list_is_empty(&server->turns) || !list_is_empty(&server->guests);
}

static void exchanger_free(struct relay *relay, struct exchanger *exchanger)
{
    struct server *server = &exchanger->server;
    if (!server->on_demand) {
        buffer_clear(&relay->scratch);
        action_server_note(relay, server, GLOBAL_STATE); /* forgotten */
    }
    list_remove(&server->touched);
    if (server->timer != SCHEDULE_NOWHERE) {
        schedule_remove(&relay->schedule, server->timer);
    }
    (void)map_remove(&relay->exchangers_by_key, exchanger->key);
    relay->exchangers[server->index - RELAY_EXCHANGERS] = NULL;
    relay->exchanger_count--;
    free(exchanger);
}

/* Its place will be another one's: what it deferred, or what is in doubt there, is no longer its.
 */
static void forget_deferred(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->schedule.count; i++) {
        const struct timer *timer = schedule_at(&relay->schedule, i);
        struct delivery *delivery =
            timer->kind == TIMER_DELIVERY ? delivery_at(relay, timer->index) : NULL;
        if (delivery != NULL && delivery->server >= RELAY_EXCHANGERS &&
            delivery->server != NO_SERVER && server_at(relay, delivery->server) == NULL) {
            delivery->server = NO_SERVER;
        }
    }
}

void exchangers_sweep(struct relay *relay)
{
    bool some = false, held = false;
    for (uint32_t i = 0; i < relay->exchanger_room; i++) {
        struct exchanger *exchanger = relay->exchangers[i];
        if (exchanger == NULL || is_needed(exchanger)) {
            continue;
        }
        held |= exchanger->server.held_refusals > 0;
        exchanger_free(relay, exchanger);
        some = true;
    }
    if (some) {
        forget_deferred(relay);
    }
    if (held) {
        refusals_recount(relay); /* another's word counts for them */
    }
}

void exchangers_unplace(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->exchanger_room; i++) {
        struct exchanger *exchanger = relay->exchangers[i];
        if (exchanger != NULL) {
            set_config(relay, exchanger);
            exchanger->server.ready = exchanger->server.guests_ready = 0;
            exchanger->server.ceiling = exchanger->config.connections;
            server_touch(relay, &exchanger->server);
        }
    }
}

void exchangers_done(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->exchanger_room; i++) {
        free(relay->exchangers[i]);
    }
    free(relay->exchangers);
    map_done(&relay->exchangers_by_key);
}

/* ---- views -------------------------------------------------------------------------------- */

const struct server_config *relay_server_config(const struct relay *relay, uint32_t index)
{
    const struct server *server = server_at(relay, index);
    return server == NULL ? NULL : server->config;
}

uint32_t relay_next_exchanger(const struct relay *relay, uint32_t from)
{
    uint32_t place = from < RELAY_EXCHANGERS ? 0 : from - RELAY_EXCHANGERS;
    for (; place < relay->exchanger_room; place++) {
        if (relay->exchangers[place] != NULL) {
            return RELAY_EXCHANGERS + place;
        }
    }
    return NO_INDEX;
}

void relay_exchanger_domains(const struct relay *relay, uint32_t index,
                             void (*fn)(void *context, struct slice domain), void *context)
{
    const struct server *server = server_at(relay, index);
    if (server == NULL || server->exchanger == NULL) {
        return;
    }
    bool wanted = exchanger_is_wanted(server);
    LIST_EACH(&server->exchanger->uses, at, after)
    {
        const struct destination *destination =
            LIST_ENTRY(at, struct exchanger_use, link)->destination;
        if (!wanted || destination_has_mail(destination)) {
            fn(context, intern_text(&relay->domains, destination->domain));
        }
    }
}
