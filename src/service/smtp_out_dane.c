/* SPDX-License-Identifier: Apache-2.0
 *
 * TLSA records of a server (RFC 7672), asked for before it is connected. Only what DNSSEC has
 * proved counts: records that are not signed are none, and an answer that is forged or does not
 * come is a failure of the server, never a reason to do without.
 *
 *   ADDRESSES  of its name: whether its zone is signed, and of what it is an alias
 *   ALIAS      the alias alone, where that leads into a zone that is not (2.1.3)
 *   RECORDS    at each base domain, the last alias first (2.2.2), until there are some
 *   DOMAIN     of an authority's records: what the domain itself is an alias of, by which name,
 * too, the server may prove itself (3.2.2). Who has the domain's MX records was signed when they
 * named the exchanger; if that cannot be had now, there is one name less
 *
 * An exchanger that no signed MX records name is asked nothing: whoever could forge its name could
 * have forged one of his own (2.2.1). The name of a configured server is its operator's word, and
 * its records are asked for whatever is signed: they are what was wanted.
 */
#include "service/smtp_out_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/tls.h"

enum { BASES_MAX = 2 };

struct session_dane {
    struct out_session *session;
    struct dns_query *query; /* under way, or NULL */
    enum error error;        /* of the answer */
    enum dane_result result;
    struct slice host; /* the server's name, in `names` as the bases are */
    struct slice bases[BASES_MAX];
    uint32_t base_count, base; /* the one that is asked, or has records */
    uint32_t name_count;
    struct slice expanded; /* the domain's name behind its aliases; or empty */
    struct slice peer_names[3];
    uint32_t count;
    struct slice records[DNS_RECORDS_MAX]; /* in `bytes` */
    struct buffer bytes;
    uint8_t names[3][DNS_NAME_MAX];
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

static void settle(struct session_dane *dane, enum dane_result result, enum error error)
{
    dane->result = result;
    dane->error = error;
    if (dane->session->state == OUT_RESOLVING) {
        connect_resolved(dane->session);
    }
}

/* ---- the records --------------------------------------------------------------------------- */

static enum dane_result keep(struct session_dane *dane, const struct dns_records *found)
{
    for (size_t i = 0; i < found->count; i++) {
        buffer_append(&dane->bytes, found->records[i].data);
    }
    if (dane->bytes.failed) {
        return DANE_FAILED;
    }
    size_t at = 0;
    for (size_t i = 0; i < found->count && i < DNS_RECORDS_MAX; i++) {
        struct slice record = slice_make(dane->bytes.data + at, found->records[i].data.length);
        at += record.length;
        if (tls_tlsa_is_usable(record)) {
            dane->records[dane->count++] = record;
        }
    }
    return dane->count > 0 ? DANE_USABLE : DANE_UNUSABLE;
}

/* A name is checked, which an authority may have signed for others, too. */
static bool has_authority(const struct session_dane *dane)
{
    enum { USAGE_DANE_TA = 2 };
    for (uint32_t i = 0; i < dane->count; i++) {
        if (dane->records[i].data[0] == USAGE_DANE_TA) {
            return true;
        }
    }
    return false;
}

static void domain_answered(void *context, const struct dns_records *found)
{
    struct session_dane *dane = context;
    dane->query = NULL;
    if (found->error == ERROR_NONE && found->secure && found->owner.length > 0) {
        memcpy(dane->names[2], found->owner.data, found->owner.length);
        dane->expanded = slice_make(dane->names[2], found->owner.length);
    }
    settle(dane, DANE_USABLE, ERROR_NONE);
}

/* True: domain_answered() follows. */
static bool ask_for_domain(struct session_dane *dane)
{
    const struct server_config *server = session_config(dane->session);
    bool is_asked = server != NULL && dane->session->exchanger != NULL && has_authority(dane) &&
                    !slice_equal_fold(server->signed_by, dane->host);
    dane->query = is_asked ? dns_lookup(dane->session->out->dns, server->signed_by, DNS_MX,
                                        domain_answered, dane)
                           : NULL;
    return dane->query != NULL;
}

static void ask_for_records(struct session_dane *dane);

static void records_answered(void *context, const struct dns_records *found)
{
    struct session_dane *dane = context;
    dane->query = NULL;
    if (found->error == ERROR_NONE && found->secure && found->count > 0) {
        enum dane_result result = keep(dane, found);
        if (result != DANE_USABLE || !ask_for_domain(dane)) {
            settle(dane, result, result == DANE_FAILED ? ERROR_MEMORY : ERROR_NONE);
        }
    } else if (found->error != ERROR_NONE && found->error != ERROR_MISSING) {
        settle(dane, DANE_FAILED, found->error);
    } else {
        dane->base++;
        ask_for_records(dane);
    }
}

/* "_25._tcp.mail.example.com" */
static void ask_for_records(struct session_dane *dane)
{
    const struct server_config *server = session_config(dane->session);
    char name[DNS_NAME_MAX + 16];
    if (server == NULL || dane->base == dane->base_count) {
        settle(dane, DANE_NONE, ERROR_NONE);
        return;
    }
    int length = snprintf(name, sizeof(name), "_%u._tcp.%.*s", server->addresses[0].port,
                          SLICE_PRINT(dane->bases[dane->base]));
    dane->query = dns_lookup(dane->session->out->dns, slice_make(name, (size_t)length), DNS_TLSA,
                             records_answered, dane);
    if (dane->query == NULL) {
        settle(dane, DANE_FAILED, ERROR_MEMORY);
    }
}

/* ---- the names ----------------------------------------------------------------------------- */

static void add_base(struct session_dane *dane, struct slice name)
{
    dane->bases[dane->base_count++] = name;
}

static void alias_answered(void *context, const struct dns_records *found)
{
    struct session_dane *dane = context;
    dane->query = NULL;
    if (found->error != ERROR_NONE && found->error != ERROR_MISSING) {
        settle(dane, DANE_FAILED, found->error);
        return;
    }
    if (found->error == ERROR_NONE && found->secure) {
        add_base(dane, dane->host);
    }
    ask_for_records(dane);
}

static void addresses_answered(void *context, const struct dns_answer *found)
{
    struct session_dane *dane = context;
    bool is_alias = found->canonical.length > 0 && found->canonical.length <= DNS_NAME_MAX &&
                    !slice_equal_fold(found->canonical, dane->host);
    dane->query = NULL;
    if (!found->is_whole || (found->error != ERROR_NONE && found->error != ERROR_MISSING)) {
        settle(dane, DANE_FAILED, found->is_whole ? found->error : ERROR_TIMEOUT);
        return;
    }
    if (is_alias && found->secure) {
        memcpy(dane->names[1], found->canonical.data, found->canonical.length);
        add_base(dane, slice_make(dane->names[1], found->canonical.length));
    }
    if (found->secure || dane->session->exchanger == NULL) {
        add_base(dane, dane->host);
    } else if (is_alias) {
        dane->query =
            dns_lookup(dane->session->out->dns, dane->host, DNS_CNAME, alias_answered, dane);
        if (dane->query == NULL) {
            settle(dane, DANE_FAILED, ERROR_MEMORY);
        }
        return;
    }
    ask_for_records(dane);
}

/* ---- for the session ----------------------------------------------------------------------- */

static bool begin(struct session_dane *dane, const struct server_config *server)
{
    bool is_exchanger = dane->session->exchanger != NULL;
    struct slice host = is_exchanger ? server->name : server->addresses[0].host;
    if (is_exchanger && server->signed_by.length == 0) {
        dane->result = DANE_NOT_SIGNED;
        return false;
    }
    if (host.length > DNS_NAME_MAX) {
        dane->result = DANE_NONE; /* no such name in DNS */
        return false;
    }
    memcpy(dane->names[0], host.data, host.length);
    dane->host = slice_make(dane->names[0], host.length);
    dane->query = dns_resolve(dane->session->out->dns, dane->host, addresses_answered, dane);
    if (dane->query == NULL) {
        dane->result = DANE_FAILED;
        dane->error = ERROR_MEMORY;
    }
    return dane->query != NULL;
}

bool dane_is_wanted(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    if (server == NULL || server->tls != SERVER_TLS_MTA_STS) {
        return server != NULL && server->tls == SERVER_TLS_DANE;
    }
    return session->out->config->dns_trust_anchor.length > 0 &&
           (session->exchanger == NULL || server->signed_by.length > 0);
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
    return begin(dane, server);
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
    tls_result_note(session, error == ERROR_CORRUPT ? TLS_RESULT_DNSSEC : TLS_RESULT_VALIDATION,
                    slice_from_text(text));
    struct relay_reply reply = {.stage = RELAY_AT_TLS,
                                .how = error == ERROR_MEMORY    ? RELAY_LOCAL
                                       : error == ERROR_TIMEOUT ? RELAY_TIMEOUT
                                                                : RELAY_LOST,
                                .text = slice_from_text(text)};
    session_over(session, &reply);
}

/* The base domain, and with it the names that have led there (RFC 7672 3.2.2). */
void dane_peer(const struct out_session *session, struct tls_peer *peer)
{
    const struct server_config *server = session_config(session);
    struct session_dane *dane = session->dane;
    peer->trust = TLS_TRUST_ANYBODY;
    if (dane_result(session) != DANE_USABLE || server == NULL) {
        return;
    }
    struct slice base = dane->bases[dane->base];
    struct slice before = session->exchanger != NULL ? server->signed_by : dane->host;
    size_t count = 0;
    dane->peer_names[count++] = base;
    if (!slice_equal_fold(base, before)) {
        dane->peer_names[count++] = before;
    }
    if (dane->expanded.length > 0 && !slice_equal_fold(dane->expanded, before)) {
        dane->peer_names[count++] = dane->expanded;
    }
    peer->trust = TLS_TRUST_DANE;
    peer->only_look = false;
    peer->name = base;
    peer->names = dane->peer_names;
    peer->name_count = count;
    peer->tlsa = dane->records;
    peer->tlsa_count = dane->count;
}
