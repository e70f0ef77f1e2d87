/* SPDX-License-Identifier: Apache-2.0
 *
 * ATRN: edge-in asks for a client that has logged in, relay decides, and the session that the
 * connection is to carry goes back. Nothing is kept: if the ring has no room for the answer,
 * edge-in gives up by itself, and edge-out waits for the connection in vain.
 */
#include "service/core_internal.h"

#include "relay/atrn.h"
#include "sys/log.h"

enum {
    NAME_MAX_BYTES = 255,
    ATRN_BYTES_MAX =
        1 + 8 + 16 + 4 + NAME_MAX_BYTES + 1 + RELAY_ATRN_DOMAINS_MAX * (4 + CHANNEL_DOMAIN_MAX)
};

static const char *outcome_text(enum relay_atrn_outcome outcome)
{
    static const char *const texts[RELAY_ATRN_OUTCOMES] = {
        [RELAY_ATRN_DENIED] = "denied",         [RELAY_ATRN_OUT] = "taken out by the operator",
        [RELAY_ATRN_BUSY] = "one is there",     [RELAY_ATRN_LATER] = "not now",
        [RELAY_ATRN_NOTHING] = "nothing waits", [RELAY_ATRN_TURN] = "turned",
    };
    return texts[outcome];
}

static void report(struct core *core, const struct ip_address *client, struct slice user,
                   const struct slice *domains, uint32_t count, const struct relay_atrn *atrn)
{
    char address[IP_TEXT_SIZE];
    ip_to_text(client, address);
    log_event(LOG_LEVEL_INFO, "atrn", LOG_SLICE("user", user), LOG_SLICE("domain", domains[0]),
              LOG_NUMBER("domains", count), LOG_TEXT("client", address),
              LOG_TEXT("outcome", outcome_text(atrn->outcome)),
              LOG_NUMBER("deliveries", atrn->deliveries));
    counter_add(core->counters, COUNTER_ATRN, 1);
}

static bool get_domains(struct reader *reader, struct slice ret_domains[RELAY_ATRN_DOMAINS_MAX],
                        uint32_t *ret_count)
{
    *ret_count = reader_u8(reader);
    if (*ret_count == 0 || *ret_count > RELAY_ATRN_DOMAINS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < *ret_count; i++) {
        ret_domains[i] = reader_bytes(reader);
        if (ret_domains[i].length == 0 || ret_domains[i].length > CHANNEL_DOMAIN_MAX) {
            return false;
        }
    }
    return !reader->failed && reader->rest.length == 0;
}

bool core_atrn_take(struct core_edge_in *in, struct slice frame)
{
    struct core *core = in->core;
    uint8_t copy[ATRN_BYTES_MAX];
    struct slice domains[RELAY_ATRN_DOMAINS_MAX];
    struct ip_address client;
    struct reader reader;
    uint64_t token;
    uint32_t count;
    if (!core_request_read(frame, copy, sizeof(copy), &reader, &token, &client)) {
        return false;
    }
    struct slice user = reader_bytes(&reader);
    if (!get_domains(&reader, domains, &count) || user.length > NAME_MAX_BYTES) {
        return false;
    }
    struct relay_atrn atrn = relay_atrn(core->relay, domains, count, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    report(core, &client, user, domains, count, &atrn);
    core_answer_begin(core, CHANNEL_ATRN_DONE, token, (uint8_t)atrn.outcome);
    buffer_put_u32(&core->frame, atrn.session);
    core_answer_send(in);
    return true;
}
