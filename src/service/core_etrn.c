/* SPDX-License-Identifier: Apache-2.0
 *
 * ETRN: edge-in asks for a client, relay decides and counts, the answer goes back. Nothing is kept:
 * if the ring has no room for the answer, edge-in gives up by itself.
 */
#include "service/core_internal.h"

#include "relay/etrn.h"
#include "sys/log.h"

enum {
    ETRN_BYTES_MAX = 1 + 8 + 16 + 1 + 4 + CHANNEL_DOMAIN_MAX,
    DENIED_EACH_MS = 60000, /* one line for all that strangers ask for meanwhile */
};

static const char *outcome_text(enum relay_etrn_outcome outcome)
{
    static const char *const texts[RELAY_ETRN_OUTCOMES] = {
        [RELAY_ETRN_DENIED] = "denied",
        [RELAY_ETRN_NOTHING] = "nothing waits",
        [RELAY_ETRN_COUNTED] = "started",
        [RELAY_ETRN_UNCOUNTED] = "started, not counted",
        [RELAY_ETRN_STARTED] = "not counted",
        [RELAY_ETRN_LATER] = "not started yet",
        [RELAY_ETRN_HELD] = "held by the operator",
        [RELAY_ETRN_REFUSED] = "held after refusals",
        [RELAY_ETRN_TAKEN_OUT] = "servers taken out by hand",
        [RELAY_ETRN_CALLS] = "the server calls",
        [RELAY_ETRN_DRILL] = "held back by a drill",
    };
    return texts[outcome];
}

/* Anybody may ask, as often as he likes: the log must not grow with that. */
static void report_denied(struct core *core, const char *client, struct slice domain)
{
    int64_t now_ms = core_now(core).steady_ms;
    core->etrn_denied++;
    if (core->etrn_denied_told_ms != 0 && now_ms - core->etrn_denied_told_ms < DENIED_EACH_MS) {
        return;
    }
    log_event(LOG_LEVEL_INFO, "etrn-denied", LOG_TEXT("client", client),
              LOG_SLICE("domain", domain), LOG_NUMBER("count", core->etrn_denied));
    core->etrn_denied = 0;
    core->etrn_denied_told_ms = now_ms;
}

static void report(struct core *core, const struct ip_address *client, struct slice domain,
                   bool subdomains, const struct relay_etrn *etrn)
{
    char address[IP_TEXT_SIZE];
    ip_to_text(client, address);
    counter_add(core->counters, COUNTER_ETRN, 1);
    if (etrn->outcome == RELAY_ETRN_DENIED) {
        report_denied(core, address, domain);
        return;
    }
    log_event(LOG_LEVEL_INFO, "etrn", LOG_SLICE("domain", domain),
              LOG_TEXT("subdomains", subdomains ? "yes" : "no"), LOG_TEXT("client", address),
              LOG_TEXT("outcome", outcome_text(etrn->outcome)),
              LOG_NUMBER("messages", etrn->messages));
}

/* ---- a request of edge-in ----------------------------------------------------------------------
 */

bool core_request_read(struct slice frame, uint8_t *copy, size_t size, struct reader *ret_reader,
                       uint64_t *ret_token, struct ip_address *ret_client)
{
    if (frame.length > size) {
        return false;
    }
    memcpy(copy, frame.data, frame.length);
    *ret_reader = reader_make(slice_make(copy, frame.length));
    (void)reader_u8(ret_reader);
    *ret_token = reader_u64(ret_reader);
    struct slice address = reader_take(ret_reader, sizeof(ret_client->bytes));
    if (ret_reader->failed) {
        return false;
    }
    memcpy(ret_client->bytes, address.data, sizeof(ret_client->bytes));
    return true;
}

void core_answer_begin(struct core *core, enum channel_frame type, uint64_t token, uint8_t outcome)
{
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, (uint8_t)type);
    buffer_put_u64(&core->frame, token);
    buffer_put_u8(&core->frame, outcome);
}

void core_answer_send(struct core_edge_in *in)
{
    if (!in->core->frame.failed) {
        (void)!ring_send(in->ring, buffer_slice(&in->core->frame));
    }
}

bool core_etrn_take(struct core_edge_in *in, struct slice frame)
{
    struct core *core = in->core;
    uint8_t copy[ETRN_BYTES_MAX];
    struct ip_address client;
    struct reader reader;
    uint64_t token;
    if (!core_request_read(frame, copy, sizeof(copy), &reader, &token, &client)) {
        return false;
    }
    bool subdomains = reader_u8(&reader) != 0;
    struct slice domain = reader_bytes(&reader);
    if (reader.failed || domain.length == 0 || reader.rest.length > 0) {
        return false;
    }
    struct relay_etrn etrn = relay_etrn(core->relay, domain, subdomains, &client, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    report(core, &client, domain, subdomains, &etrn);
    core_answer_begin(core, CHANNEL_ETRN_DONE, token, (uint8_t)etrn.outcome);
    buffer_put_u64(&core->frame, etrn.messages);
    core_answer_send(in);
    return true;
}
