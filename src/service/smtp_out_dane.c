/* SPDX-License-Identifier: Apache-2.0
 *
 * TLSA records of a server (RFC 7672), asked for before it is connected. Only what DNSSEC has
 * proved counts: records that are not signed are none, and an answer that is forged or does not
 * come is a failure of the server, never a reason to do without.
 */
#include "service/smtp_out_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/tls.h"

struct session_dane {
    struct out_session *session;
    struct dns_query *query; /* under way, or NULL */
    enum error error;        /* of the answer */
    enum dane_result result;
    uint32_t count;
    struct slice records[DNS_RECORDS_MAX]; /* in `bytes` */
    struct buffer bytes;
};

void dane_forget(struct out_session *session)
{
    struct session_dane *dane = session->dane;
    if (dane != NULL) {
        if (dane->query != NULL) {
            dns_cancel(dane->query);
        }
        buffer_done(&dane->bytes);
        free(dane);
        session->dane = NULL;
    }
}

static void keep(struct session_dane *dane, const struct dns_records *found)
{
    for (size_t i = 0; i < found->count; i++) {
        buffer_append(&dane->bytes, found->records[i].data);
    }
    if (dane->bytes.failed) {
        dane->error = ERROR_MEMORY;
        dane->result = DANE_FAILED;
        return;
    }
    size_t at = 0;
    dane->result = DANE_UNUSABLE;
    for (size_t i = 0; i < found->count && i < DNS_RECORDS_MAX; i++) {
        struct slice record = slice_make(dane->bytes.data + at, found->records[i].data.length);
        at += record.length;
        if (tls_tlsa_is_usable(record)) {
            dane->records[dane->count++] = record;
            dane->result = DANE_USABLE;
        }
    }
}

static void answered(void *context, const struct dns_records *found)
{
    struct session_dane *dane = context;
    dane->query = NULL;
    dane->error = found->error;
    if (found->error == ERROR_NONE && found->secure && found->count > 0) {
        keep(dane, found);
    } else if (found->error == ERROR_NONE || found->error == ERROR_MISSING) {
        dane->result = DANE_NONE;
    } else {
        dane->result = DANE_FAILED;
    }
    if (dane->session->state == OUT_RESOLVING) {
        connect_resolved(dane->session);
    }
}

/* "_25._tcp.mail.example.com" */
static bool ask(struct session_dane *dane, const struct server_address *address)
{
    char name[300];
    int length =
        snprintf(name, sizeof(name), "_%u._tcp.%.*s", address->port, SLICE_PRINT(address->host));
    dane->query = length < 0 || (size_t)length >= sizeof(name)
                      ? NULL
                      : dns_lookup(dane->session->out->dns, slice_make(name, (size_t)length),
                                   DNS_TLSA, answered, dane);
    return dane->query != NULL;
}

bool dane_is_wanted(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    return server != NULL && (server->tls == SERVER_TLS_DANE ||
                              (server->tls == SERVER_TLS_MTA_STS && session->exchanger == NULL &&
                               session->out->config->dns_trust_anchor.length > 0));
}

bool dane_begin(struct out_session *session)
{
    const struct server_config *server = session_config(session);
    if (!dane_is_wanted(session) || session->dane != NULL) {
        return false;
    }
    struct session_dane *dane = calloc(1, sizeof(*dane));
    if (dane == NULL) {
        return false; /* and dane_result() says that it has failed */
    }
    session->dane = dane;
    dane->session = session;
    dane->result = DANE_ASKING;
    buffer_init(&dane->bytes, 0);
    if (!ask(dane, &server->addresses[0])) {
        dane->result = DANE_FAILED;
        dane->error = ERROR_MEMORY;
        return false;
    }
    return true;
}

enum dane_result dane_result(const struct out_session *session)
{
    return session->dane == NULL ? DANE_FAILED : session->dane->result;
}

void dane_failed(struct out_session *session)
{
    const struct session_dane *dane = session->dane;
    enum error error = dane == NULL                  ? ERROR_MEMORY
                       : dane->result == DANE_ASKING ? ERROR_TIMEOUT
                                                     : dane->error;
    char text[80];
    snprintf(text, sizeof(text), "the server's TLSA records cannot be had: %s",
             error == ERROR_CORRUPT ? "the answer is forged" : error_text(error));
    struct relay_reply reply = {.stage = RELAY_AT_TLS,
                                .how = error == ERROR_MEMORY    ? RELAY_LOCAL
                                       : error == ERROR_TIMEOUT ? RELAY_TIMEOUT
                                                                : RELAY_LOST,
                                .text = slice_from_text(text)};
    session_over(session, &reply);
}

void dane_peer(const struct out_session *session, struct tls_peer *peer)
{
    peer->trust = TLS_TRUST_ANYBODY;
    if (dane_result(session) == DANE_USABLE) {
        peer->trust = TLS_TRUST_DANE;
        peer->only_look = false;
        peer->tlsa = session->dane->records;
        peer->tlsa_count = session->dane->count;
    }
}
