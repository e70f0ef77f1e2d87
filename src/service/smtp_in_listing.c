/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that DNS lists know (RFC 5782): asked for before the greeting, by way of core, and
 * remembered for as long as DNS allows. Who cannot be asked about is not listed.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    PLACES = 1 << 12, /* of a loop's memory; who comes to a taken one drives out the other */
    REMEMBERED_LEAST_S = 30,
    REMEMBERED_MOST_S = 3600,
};

struct listed_client {
    struct ip_address client;
    int64_t until_ms; /* 0: nobody */
    int32_t score;
    uint8_t name_length;
    uint8_t name[CHANNEL_LIST_NAME_MAX];
};

static struct listed_client *place_of(const struct smtp_in *in, const struct ip_address *client)
{
    uint64_t hash = hash_bytes(in->key, slice_make(client->bytes, sizeof(client->bytes)));
    return &in->listed[hash % PLACES];
}

static void remember(struct smtp_in *in, const struct channel_listing *found)
{
    uint32_t ttl_s = found->ttl_s > REMEMBERED_MOST_S ? REMEMBERED_MOST_S : found->ttl_s;
    ttl_s = ttl_s < REMEMBERED_LEAST_S ? REMEMBERED_LEAST_S : ttl_s;
    if (in->listed == NULL || found->ttl_s == 0) {
        return;
    }
    struct listed_client *place = place_of(in, &found->client);
    place->client = found->client;
    place->until_ms = clock_steady_ms() + (int64_t)ttl_s * 1000;
    place->score = found->score;
    place->name_length = (uint8_t)found->name.length;
    memcpy(place->name, found->name.data, found->name.length);
}

static struct slice zone_of(const struct service_config *config, struct slice name)
{
    for (uint32_t i = 0; i < config->dnsbl_count; i++) {
        if (slice_equal(config->dnsbls[i].name, name)) {
            return config->dnsbls[i].zone;
        }
    }
    return SLICE_EMPTY;
}

static struct smtp_answer judge(struct session *session, int32_t score, struct slice name)
{
    struct smtp_in *in = session->in;
    char client[IP_TEXT_SIZE];
    if (score < (int32_t)session->listener->dnsbl_score) {
        return SMTP_ACCEPT;
    }
    ip_to_text(&session->client.address, client);
    int length = snprintf(in->text, sizeof(in->text), "Your address %s is listed by %.*s (%.*s)",
                          client, SLICE_PRINT(name), SLICE_PRINT(zone_of(in->config, name)));
    struct smtp_answer answer = {554, "5.7.1", slice_make(in->text, (size_t)length)};
    counter_add(in->counters, COUNTER_LISTED, 1);
    counter_add(in->counters, COUNTER_SESSIONS_REFUSED, 1);
    session_log_refused(session, "connect", SLICE_EMPTY, &answer);
    return answer;
}

static bool is_asked_for(const struct session *session)
{
    return session->listener->dnsbl_score != 0 && session->in->config->dnsbl_count > 0 &&
           !ip_is_loopback(&session->client.address) && !guard_spares(session);
}

bool listing_check(struct session *session, struct smtp_answer *ret_answer)
{
    struct smtp_in *in = session->in;
    uint64_t token;
    if (!is_asked_for(session)) {
        return true;
    }
    if (in->listed == NULL) {
        in->listed = calloc(PLACES, sizeof(*in->listed));
    }
    if (in->listed != NULL) {
        const struct listed_client *place = place_of(in, &session->client.address);
        if (place->until_ms > clock_steady_ms() &&
            ip_equal(&place->client, &session->client.address)) {
            *ret_answer = judge(session, place->score, slice_make(place->name, place->name_length));
            return true;
        }
    }
    (void)request_begin(session, CHANNEL_LISTING, &token);
    if (!request_send(session, REQUEST_LISTING, token)) {
        return true;
    }
    counter_add(in->counters, COUNTER_LISTS_ASKED, 1);
    return false;
}

static void go_on(struct session *session, struct smtp_answer answer)
{
    request_forget(session);
    if (answer.code == 0 && session->is_early) {
        answer = guard_early(session);
    }
    if (guard_holds(session, SMTP_SERVER_GREETING, &answer)) {
        session_resume(session);
    } else {
        session_answer(session, SMTP_SERVER_GREETING, &answer);
    }
}

bool listing_take(struct smtp_in *in, struct reader *reader)
{
    struct channel_listing found;
    struct session *session;
    if (!channel_get_listing(reader, &found) ||
        !request_find(in, found.token, REQUEST_LISTING, &session)) {
        return false;
    }
    remember(in, &found);
    if (session != NULL) {
        go_on(session, judge(session, found.score, found.name));
    }
    return true;
}

void listing_give_up(struct session *session)
{
    go_on(session, SMTP_ACCEPT);
}
