/* SPDX-License-Identifier: Apache-2.0
 *
 * What was known before a restart of exchangers that count as configured servers (R3): those of
 * domain blocks. Two lists, both bounded:
 *
 *   mx_known   for each domain what DNS last said that was good, as a note of notes.h. It stands in
 *              for DNS when that fails: whole, or for an exchanger without an answer of its own
 *   noted      states and hands of exchangers, as loaded: states until the start, hands until they
 *              are taken away, for an exchanger that mail or DNS brings back later
 */
#include <stdlib.h>

#include "relay/destination.h"

enum {
    MX_KNOWN_MAX = 1024, /* domains; more are not kept: a configuration has some dozens */
    NOTED_MAX = 4096,
};

struct mx_known {
    struct link link;
    size_t domain_length;
    size_t length;
    uint8_t bytes[]; /* the domain's name, then the payload */
};

struct noted {
    struct link link;
    enum global_note_kind kind;
    size_t host_length;
    size_t length;
    uint8_t bytes[]; /* the host's name, then the payload */
};

/* ---- what DNS said last -------------------------------------------------------------------- */

static struct slice domain_of(const struct mx_known *known)
{
    return slice_make(known->bytes, known->domain_length);
}

static struct slice payload_of(const struct mx_known *known)
{
    return slice_make(known->bytes + known->domain_length, known->length);
}

static struct mx_known *find(const struct relay *relay, struct slice domain)
{
    LIST_EACH(&relay->mx_known, at, after)
    {
        struct mx_known *known = LIST_ENTRY(at, struct mx_known, link);
        if (slice_equal(domain_of(known), domain)) {
            return known;
        }
    }
    return NULL;
}

static void drop(struct relay *relay, struct mx_known *known)
{
    list_remove(&known->link);
    relay->mx_known_count--;
    free(known);
}

/* False: memory, or there are too many. */
static bool add(struct relay *relay, struct slice domain, struct slice payload)
{
    if (relay->mx_known_count >= MX_KNOWN_MAX) {
        return false;
    }
    struct mx_known *known = malloc(sizeof *known + domain.length + payload.length);
    if (known == NULL) {
        return false;
    }
    known->domain_length = domain.length;
    known->length = payload.length;
    memcpy(known->bytes, domain.data, domain.length);
    memcpy(known->bytes + domain.length, payload.data, payload.length);
    list_append(&relay->mx_known, &known->link);
    relay->mx_known_count++;
    return true;
}

/* An empty payload forgets it. */
static void write_note(struct relay *relay, struct slice domain, struct slice payload)
{
    struct slice copy = action_copy(relay, payload);
    buffer_clear(&relay->scratch);
    if (note_mx_key(&relay->scratch, domain)) {
        struct relay_action *action = action_add(relay, RELAY_GLOBAL);
        action->payload = copy;
        action->key = action_copy(relay, buffer_slice(&relay->scratch));
    }
}

static int compare_addresses(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct ip_address));
}

static int compare_choices(const void *a, const void *b)
{
    const struct mx_choice *one = a, *other = b;
    if (one->preference != other->preference) {
        return one->preference < other->preference ? -1 : 1;
    }
    size_t common = one->host.length < other->host.length ? one->host.length : other->host.length;
    int order = memcmp(one->host.data, other->host.data, common);
    return order != 0
               ? order
               : (one->host.length > other->host.length) - (one->host.length < other->host.length);
}

/* In one order, so that nothing is written only because equals were drawn anew. */
static void encode(struct relay *relay, const struct mx_decision *decision)
{
    struct mx_decision sorted = *decision;
    for (uint32_t i = 0; i < sorted.count; i++) {
        qsort(sorted.choices[i].addresses, sorted.choices[i].address_count,
              sizeof(struct ip_address), compare_addresses);
    }
    qsort(sorted.choices, sorted.count, sizeof sorted.choices[0], compare_choices);
    buffer_clear(&relay->scratch);
    note_encode_mx(&relay->scratch, &sorted);
}

void mx_known_keep(struct relay *relay, struct slice domain, const struct mx_decision *decision)
{
    struct mx_known *known = find(relay, domain);
    encode(relay, decision);
    struct slice payload = buffer_slice(&relay->scratch);
    if (relay->scratch.failed || (known != NULL && slice_equal(payload_of(known), payload))) {
        return;
    }
    if (known != NULL) {
        drop(relay, known);
    }
    if (add(relay, domain, payload)) {
        write_note(relay, domain, action_copy(relay, payload));
    }
}

bool mx_known_read(const struct relay *relay, struct slice domain, struct mx_decision *ret_decision)
{
    const struct mx_known *known = find(relay, domain);
    return known != NULL && note_decode_mx(payload_of(known), ret_decision);
}

void mx_known_load(struct relay *relay, struct slice domain, struct slice payload)
{
    struct mx_decision decision;
    if (find(relay, domain) != NULL || !note_decode_mx(payload, &decision) ||
        !add(relay, domain, payload)) {
        return;
    }
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        struct destination *destination = destination_find(relay, i, domain);
        if (destination != NULL) {
            destination_recall(relay, destination);
        }
    }
}

/* A domain block follows its exchangers. */
static bool is_followed(const struct relay *relay, struct slice domain)
{
    uint32_t route = routing_domain(relay->routing, domain);
    return route != NO_INDEX && relay->config->routes[route].mx;
}

void mx_known_prune(struct relay *relay)
{
    LIST_EACH(&relay->mx_known, at, after)
    {
        struct mx_known *known = LIST_ENTRY(at, struct mx_known, link);
        if (!is_followed(relay, domain_of(known))) {
            write_note(relay, domain_of(known), SLICE_EMPTY);
            drop(relay, known);
        }
    }
}

/* ---- states and hands ----------------------------------------------------------------------- */

static struct slice host_of(const struct noted *noted)
{
    return slice_make(noted->bytes, noted->host_length);
}

static struct slice noted_payload(const struct noted *noted)
{
    return slice_make(noted->bytes + noted->host_length, noted->length);
}

/* How many of those that are there it is about. */
static uint32_t tell_all(struct relay *relay, const struct noted *noted, bool load)
{
    uint32_t count = 0;
    for (uint32_t i = relay_next_exchanger(relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(relay, i + 1)) {
        struct server *server = server_at(relay, i);
        if (server->on_demand || !slice_equal(server->config->name, host_of(noted))) {
            continue;
        }
        if (load) {
            server_load_note(relay, server, noted->kind, noted_payload(noted));
        }
        count++;
    }
    return count;
}

/* NULL: there are too many, or no memory. */
static struct noted *noted_keep(struct relay *relay, const struct note_key *key,
                                struct slice payload)
{
    uint32_t count = 0;
    LIST_EACH(&relay->noted, at, after)
    {
        count++;
    }
    struct noted *noted =
        count < NOTED_MAX ? malloc(sizeof *noted + key->name.length + payload.length) : NULL;
    if (noted == NULL) {
        return NULL;
    }
    noted->kind = key->kind;
    noted->host_length = key->name.length;
    noted->length = payload.length;
    memcpy(noted->bytes, key->name.data, key->name.length);
    memcpy(noted->bytes + key->name.length, payload.data, payload.length);
    list_append(&relay->noted, &noted->link);
    return noted;
}

void noted_load(struct relay *relay, const struct note_key *key, struct slice payload)
{
    struct hand_note hand;
    if (key->kind == GLOBAL_HAND && (!note_decode_hand(payload, &hand) || !hand.disabled)) {
        return;
    }
    const struct noted *noted = noted_keep(relay, key, payload);
    if (noted != NULL) {
        (void)tell_all(relay, noted, true);
    }
}

void noted_apply(struct relay *relay, struct server *server)
{
    LIST_EACH(&relay->noted, at, after)
    {
        const struct noted *noted = LIST_ENTRY(at, struct noted, link);
        if (slice_equal(host_of(noted), server->config->name)) {
            server_load_note(relay, server, noted->kind, noted_payload(noted));
        }
    }
}

static void noted_drop(struct noted *noted)
{
    list_remove(&noted->link);
    free(noted);
}

void noted_forget(struct relay *relay, struct slice host)
{
    LIST_EACH(&relay->noted, at, after)
    {
        struct noted *noted = LIST_ENTRY(at, struct noted, link);
        if (slice_equal(host_of(noted), host)) {
            noted_drop(noted);
        }
    }
}

void noted_hear_hand(struct relay *relay, const struct note_key *key, struct slice payload,
                     const struct hand_note *note)
{
    bool is_here = false;
    noted_forget(relay, key->name);
    for (uint32_t i = relay_next_exchanger(relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(relay, i + 1)) {
        struct server *server = server_at(relay, i);
        if (!server->on_demand && slice_equal(server->config->name, key->name)) {
            governor_hear_hand(relay, server, note);
            is_here = true;
        }
    }
    if (!is_here && note->disabled) {
        (void)noted_keep(relay, key, payload); /* for when it is */
    }
}

static void write_no_state(struct relay *relay, struct slice host)
{
    const struct note_key key = {NOTE_OF_EXCHANGER, host, GLOBAL_STATE};
    buffer_clear(&relay->scratch);
    if (note_key(&relay->scratch, &key)) {
        action_add(relay, RELAY_GLOBAL)->key = action_copy(relay, buffer_slice(&relay->scratch));
    }
}

void noted_start(struct relay *relay)
{
    LIST_EACH(&relay->noted, at, after)
    {
        struct noted *noted = LIST_ENTRY(at, struct noted, link);
        if (noted->kind == GLOBAL_HAND) {
            continue;
        }
        if (tell_all(relay, noted, false) == 0) {
            write_no_state(relay, host_of(noted));
        }
        noted_drop(noted);
    }
}

void mx_known_done(struct relay *relay)
{
    LIST_EACH(&relay->mx_known, at, after)
    {
        drop(relay, LIST_ENTRY(at, struct mx_known, link));
    }
    LIST_EACH(&relay->noted, noted_at, noted_after)
    {
        noted_drop(LIST_ENTRY(noted_at, struct noted, link));
    }
}
