/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS of a session: when, what the server is asked to prove, and what is said of it to people.
 * Where a policy demands it, a session without it fails (R4); where not, one that failed is made
 * once more in the clear, and that is never silent: the log has it, and each delivery's trace.
 */
#include "service/smtp_out_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/log.h"

/* ---- whom we trust ------------------------------------------------------------------------- */

/* One for each file of authorities, made when a session first needs it. */
struct trusting {
    struct link link;
    struct slice authorities; /* of the configuration in force */
    struct tls_client *client;
};

void out_tls_drop_clients(struct smtp_out *out)
{
    LIST_EACH(&out->tls_clients, at, after)
    {
        struct trusting *trusting = LIST_ENTRY(at, struct trusting, link);
        list_remove(&trusting->link);
        tls_client_free(trusting->client);
        free(trusting);
    }
}

/* Servers that name the same file have the same bytes. NULL: ret_problem. */
static struct tls_client *client_for(struct smtp_out *out, struct slice authorities,
                                     char ret_problem[TLS_PROBLEM_SIZE])
{
    LIST_EACH(&out->tls_clients, at, after)
    {
        struct trusting *trusting = LIST_ENTRY(at, struct trusting, link);
        if (trusting->authorities.data == authorities.data &&
            trusting->authorities.length == authorities.length) {
            return trusting->client;
        }
    }
    struct tls_client *client = tls_client_new(authorities, ret_problem);
    struct trusting *trusting = client == NULL ? NULL : calloc(1, sizeof(*trusting));
    if (trusting != NULL) {
        trusting->authorities = authorities;
        trusting->client = client;
        list_append(&out->tls_clients, &trusting->link);
    } else if (client != NULL) {
        snprintf(ret_problem, TLS_PROBLEM_SIZE, "out of memory");
        tls_client_free(client);
    }
    return trusting != NULL ? client : NULL;
}

/* ---- policy -------------------------------------------------------------------------------- */

/* TLSA records decide, not a policy of MTA-STS (RFC 8461 2). */
static bool is_by_records(const struct out_session *session)
{
    return dane_is_wanted(session) && dane_result(session) != DANE_NONE &&
           dane_result(session) != DANE_NOT_SIGNED;
}

static bool is_by_sts(const struct out_session *session, const struct server_config *server)
{
    return server->tls == SERVER_TLS_MTA_STS && !is_by_records(session);
}

static bool is_opportunistic(const struct out_session *session, const struct server_config *server)
{
    return server->tls == SERVER_TLS_OPPORTUNISTIC ||
           (server->tls == SERVER_TLS_DANE && !is_by_records(session)) ||
           (is_by_sts(session, server) && session->sts != STS_ENFORCE);
}

/* What made of the policy what it is, for people. */
static const char *reason_of(const struct out_session *session, const struct server_config *server)
{
    static const char *const policies[] = {
        [STS_NONE] = " (no policy)",
        [STS_UNFETCHED] = " (its policy cannot be had)",
        [STS_TESTING] = " (testing)",
        [STS_TESTING_UNLISTED] = " (testing, and the policy does not list it)",
        [STS_ENFORCE] = " (enforce)",
        [STS_ENFORCE_UNLISTED] = " (enforce, and the policy does not list it)",
    };
    if (is_by_sts(session, server)) {
        return policies[session->sts];
    }
    if (!dane_is_wanted(session)) {
        return server->waived ? " (TLS-Required: No)" : "";
    }
    switch (dane_result(session)) {
    case DANE_NONE:
        return " (no TLSA records)";
    case DANE_NOT_SIGNED:
        return " (MX records not signed)";
    case DANE_UNUSABLE:
        return " (no usable TLSA record)";
    default:
        return server->tls == SERVER_TLS_MTA_STS ? " (by TLSA records)" : "";
    }
}

static void say_policy(struct out_session *session, const struct server_config *server,
                       const char *result)
{
    snprintf(session->tls_said, sizeof(session->tls_said), "%s%s: %s", server_tls_text(server->tls),
             reason_of(session, server), result);
}

enum tls_policy out_tls_decides(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    if (is_by_records(session)) {
        return TLS_POLICY_TLSA;
    }
    return server != NULL && is_by_sts(session, server) && session->sts != STS_NONE &&
                   session->sts != STS_UNFETCHED
               ? TLS_POLICY_STS
               : TLS_POLICY_NONE;
}

bool out_tls_forbids(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    return server != NULL && is_by_sts(session, server) && session->sts == STS_ENFORCE_UNLISTED;
}

/* By authorities, whatever follows if it cannot. */
static bool is_to_prove_name(const struct out_session *session, const struct server_config *server)
{
    return server_tls_asks_authorities(server->tls) ||
           (is_by_sts(session, server) && session->sts != STS_NONE &&
            session->sts != STS_UNFETCHED);
}

enum smtp_client_tls out_tls_policy(const struct out_session *session)
{
    static const enum smtp_client_tls policies[] = {
        [SERVER_TLS_NONE] = SMTP_CLIENT_TLS_NEVER,
        [SERVER_TLS_OPPORTUNISTIC] = SMTP_CLIENT_TLS_IF_OFFERED,
        [SERVER_TLS_ENCRYPT] = SMTP_CLIENT_TLS_DEMANDED,
        [SERVER_TLS_REQUIRED] = SMTP_CLIENT_TLS_DEMANDED,
        [SERVER_TLS_IMPLICIT] = SMTP_CLIENT_TLS_FIRST,
        [SERVER_TLS_DANE] = SMTP_CLIENT_TLS_DEMANDED,
        [SERVER_TLS_MTA_STS] = SMTP_CLIENT_TLS_DEMANDED,
    };
    const struct server_config *server = session_config(session);
    if (server != NULL && !session->without_tls && is_opportunistic(session, server)) {
        return SMTP_CLIENT_TLS_IF_OFFERED;
    }
    return server == NULL || session->without_tls ? SMTP_CLIENT_TLS_NEVER : policies[server->tls];
}

/* One that nobody asks for a proof is looked at all the same where it is known who could sign. */
static struct tls_peer peer_of(const struct out_session *session,
                               const struct server_config *server, struct slice names[],
                               size_t most)
{
    bool demanded = is_to_prove_name(session, server) && !is_opportunistic(session, server);
    struct tls_peer peer = {.trust = demanded || server->tls_ca.length > 0 ? TLS_TRUST_AUTHORITIES
                                                                           : TLS_TRUST_ANYBODY,
                            .only_look = !demanded,
                            .names = names};
    if (server->tls_name.length > 0) {
        names[peer.name_count++] = server->tls_name;
    } else if (session->exchanger != NULL) {
        names[peer.name_count++] = server->name;
    }
    bool told = peer.name_count > 0;
    for (uint32_t i = 0; !told && i < server->address_count && peer.name_count < most; i++) {
        if (!server->addresses[i].is_literal) {
            names[peer.name_count++] = server->addresses[i].host;
        }
    }
    peer.name = peer.name_count > 0 ? names[0] : SLICE_EMPTY;
    if (is_by_records(session)) {
        peer.name_count = 0; /* its name in DNS, and nothing else */
        peer.name = session->exchanger != NULL ? server->name : server->addresses[0].host;
        dane_peer(session, &peer);
    }
    return peer;
}

/* ---- the handshake ------------------------------------------------------------------------- */

/* The result of a handshake that has ended with this fault, whatever asked for the proof. */
static enum tls_result result_of(enum tls_fault fault)
{
    static const enum tls_result results[] = {
        [TLS_FAULT_NONE] = TLS_RESULT_VALIDATION, [TLS_FAULT_NAME] = TLS_RESULT_NAME,
        [TLS_FAULT_TIME] = TLS_RESULT_EXPIRED,    [TLS_FAULT_UNTRUSTED] = TLS_RESULT_UNTRUSTED,
        [TLS_FAULT_RECORDS] = TLS_RESULT_TLSA,    [TLS_FAULT_OTHER] = TLS_RESULT_VALIDATION};
    return results[fault];
}

static void fail(struct out_session *session, const char *problem)
{
    char text[TLS_PROBLEM_SIZE + 8];
    if (session->tls != NULL) {
        tls_result_note(session, result_of(tls_fault(session->tls)), slice_from_text(problem));
    }
    snprintf(text, sizeof(text), "TLS: %s", problem);
    tls_free(session->tls);
    session->tls = NULL;
    session->shaking = false;
    smtp_client_lost(session->client, slice_from_text(text), clock_steady_ms());
}

void out_tls_begin(struct out_session *session)
{
    char problem[TLS_PROBLEM_SIZE] = "out of memory";
    struct slice names[ENDPOINTS_MAX];
    char address[IP_TEXT_SIZE];
    const struct server_config *server = session_config(session);
    if (server == NULL) {
        fail(session, "the server is no longer configured");
        return;
    }
    struct tls_client *client = client_for(session->out, server->tls_ca, problem);
    struct tls_peer peer = peer_of(session, server, names, ENDPOINTS_MAX);
    if (peer.name.length == 0) { /* its certificate may prove its address */
        ip_to_text(&session->endpoints[session->endpoint].address, address);
        peer.name = slice_from_text(address);
    }
    session->tls = client == NULL ? NULL : tls_connect(client, &peer, session->fd);
    if (session->tls == NULL) {
        fail(session, problem);
        return;
    }
    session->shaking = true;
    out_tls_go_on(session);
}

/* What must not go to anybody else may be sent (RFC 8689). Names that DNS alone has said count for
 * nothing, but where the domain's policy lists them. */
static bool is_proved(const struct out_session *session, const struct server_config *server)
{
    struct tls_facts facts;
    tls_facts(session->tls, &facts);
    bool named = session->exchanger == NULL || (server != NULL && server->signed_by.length > 0) ||
                 (server != NULL && is_by_sts(session, server) && session->sts == STS_ENFORCE);
    return facts.proved && named;
}

static void describe(struct out_session *session)
{
    const struct server_config *server = session_config(session);
    char cipher[TLS_TEXT_SIZE];
    struct tls_facts facts;
    tls_facts(session->tls, &facts);
    tls_describe(session->tls, cipher);
    if (server == NULL) {
        return;
    }
    bool asked = is_by_records(session)
                     ? dane_result(session) == DANE_USABLE
                     : is_to_prove_name(session, server) || server->tls_ca.length > 0;
    bool decides = out_tls_decides(session) != TLS_POLICY_NONE;
    bool listed =
        out_tls_decides(session) != TLS_POLICY_STS || session->sts != STS_TESTING_UNLISTED;
    if (is_by_records(session) && dane_result(session) == DANE_UNUSABLE) {
        tls_result_note(session, TLS_RESULT_TLSA, SLICE_LITERAL("no usable TLSA record"));
    } else if (decides && asked && (!facts.proved || !listed)) {
        tls_result_note(session,
                        facts.proved ? TLS_RESULT_VALIDATION : result_of(tls_fault(session->tls)),
                        facts.proved ? SLICE_LITERAL("the policy does not list this server")
                                     : slice_from_text(facts.problem));
    } else {
        tls_result_note(session, TLS_RESULT_SUCCESS, SLICE_EMPTY);
    }
    char text[sizeof(session->tls_said)];
    snprintf(text, sizeof(text), "%s, %s%s", cipher,
             facts.proved ? "verified"
             : asked      ? "not verified: "
                          : "not asked to prove itself",
             facts.proved || !asked ? "" : facts.problem);
    say_policy(session, server, text);
}

void out_tls_go_on(struct out_session *session)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    enum error error = tls_shake_hands(session->tls, problem);
    if (error == ERROR_AGAIN) {
        return;
    }
    if (error != ERROR_NONE) {
        fail(session, problem);
        return;
    }
    session->shaking = false;
    session->proved = is_proved(session, session_config(session));
    describe(session);
    smtp_client_secured(session->client, session->proved, clock_steady_ms());
}

/* ---- without it ---------------------------------------------------------------------------- */

void out_tls_opened(struct out_session *session)
{
    const struct server_config *server = session_config(session);
    if (session->tls == NULL && !session->without_tls && server != NULL &&
        server->tls != SERVER_TLS_NONE) {
        tls_result_note(session, TLS_RESULT_NOT_SUPPORTED, SLICE_EMPTY);
        say_policy(session, server, "not offered");
    }
}

bool out_tls_do_without(struct out_session *session, const struct smtp_client_cause *cause)
{
    const struct server_config *server = session_config(session);
    if (server == NULL || !is_opportunistic(session, server) || session->without_tls ||
        session->closing || session->endpoint_count == 0 || cause->how == SMTP_CLIENT_LOCAL) {
        return false;
    }
    static const char after[] = "in the clear, after: ";
    char text[240], code[8] = "";
    if (cause->code != 0) {
        snprintf(code, sizeof(code), "%u ", cause->code);
    }
    snprintf(text, sizeof(text), "%s%s%.*s", after, code, SLICE_PRINT(cause->text));
    struct slice why = slice_from_text(text + sizeof(after) - 1);
    session->without_tls = true;
    say_policy(session, server, text);
    log_event(LOG_LEVEL_WARNING, "tls-failed", LOG_SLICE("server", server->name),
              LOG_SLICE("reason", why), LOG_TEXT("then", "in the clear"));
    session->first_endpoint = session->endpoint;
    session->tried = 0;
    connect_next(session, ERROR_CLOSED);
    return true;
}
