/* SPDX-License-Identifier: Apache-2.0
 *
 * How a session comes to a connection. An ordinary session tries the server's addresses one after
 * the other, each for as long as connect-timeout says. A probe, which waits for a server that may
 * be switched off, in addition knocks: at each interval it makes a fresh attempt, at the addresses
 * in turn, and keeps the few newest ones; the first to connect carries the session.
 */
#include "service/smtp_out_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/net.h"

enum { STALE_PATIENCE_MS = 1000 }; /* for a fresh answer when older addresses are at hand */

/* A connection under way. */
struct attempt {
    struct link link;
    struct out_session *session;
    struct loop_watch *watch;
    int fd;
    uint32_t endpoint;
};

static void attempt_free(struct attempt *attempt)
{
    list_remove(&attempt->link);
    loop_watch_free(attempt->watch);
    if (attempt->fd >= 0) {
        net_close(attempt->fd);
    }
    free(attempt);
}

void connect_drop(struct out_session *session)
{
    LIST_EACH(&session->attempts, at, after)
    {
        attempt_free(LIST_ENTRY(at, struct attempt, link));
    }
}

void connect_failed(struct out_session *session, enum relay_stage stage, enum error error)
{
    char text[160];
    char address[IP_TEXT_SIZE] = "";
    uint16_t port = 0;
    if (session->tried > 0 || session->first_endpoint > 0) {
        const struct ip_endpoint *at = &session->endpoints[session->endpoint];
        ip_to_text(&at->address, address);
        port = at->port;
    }
    const char *what = error == ERROR_CLOSED ? "connection refused"
                       : error == ERROR_IO   ? "cannot be reached"
                                             : error_text(error);
    /* Core has a new configuration before us: a server that is new there is no server's failure. */
    bool unknown = stage == RELAY_AT_RESOLVE && session_config(session) == NULL;
    bool local = unknown || error == ERROR_SPACE || error == ERROR_MEMORY;
    snprintf(text, sizeof(text), "[%s]:%u: %s", address, port, what);
    struct relay_reply reply = {.stage = stage,
                                .how = local                    ? RELAY_LOCAL
                                       : error == ERROR_TIMEOUT ? RELAY_TIMEOUT
                                                                : RELAY_LOST,
                                .text = slice_from_text(text)};
    if (stage == RELAY_AT_RESOLVE) {
        snprintf(text, sizeof(text), "no address%s%s",
                 error == ERROR_DENIED ? " that deliver-only-to allows" : ": ",
                 error == ERROR_DENIED ? ""
                 : unknown             ? "its configuration is not here yet"
                                       : error_text(error));
        reply.text = slice_from_text(text);
    }
    session_over(session, &reply);
}

static void connected(struct attempt *attempt)
{
    struct out_session *session = attempt->session;
    int fd = attempt->fd;
    attempt->fd = -1;
    session->endpoint = attempt->endpoint;
    session->first_endpoint = attempt->endpoint + 1; /* should it not greet, those follow */
    session->tried = 0;
    connect_drop(session);
    session_connected(session, fd);
}

/* The older attempts at that address will hear the same. */
static void failed(struct attempt *attempt, enum error error)
{
    struct out_session *session = attempt->session;
    uint32_t endpoint = attempt->endpoint;
    LIST_EACH(&session->attempts, at, after)
    {
        struct attempt *other = LIST_ENTRY(at, struct attempt, link);
        if (other->endpoint == endpoint) {
            attempt_free(other);
        }
    }
    if (list_is_empty(&session->attempts)) {
        connect_next(session, error);
    }
}

static void attempt_ready(void *context, unsigned readiness)
{
    (void)readiness;
    struct attempt *attempt = context;
    enum error error = net_connected(attempt->fd);
    if (error == ERROR_NONE) {
        connected(attempt);
    } else if (error != ERROR_AGAIN) {
        failed(attempt, error);
    }
}

/* At the address whose turn it is. */
static enum error attempt_begin(struct out_session *session)
{
    const struct server_config *server = session_config(session);
    struct attempt *attempt = server == NULL ? NULL : calloc(1, sizeof(*attempt));
    if (attempt == NULL) {
        return server == NULL ? ERROR_MISSING : ERROR_MEMORY;
    }
    bool again = session->tried == 0 || session->endpoint + 1 == session->endpoint_count;
    session->endpoint = again ? session->first_endpoint : session->endpoint + 1;
    session->tried++;
    attempt->session = session;
    attempt->endpoint = session->endpoint;
    list_append(&session->attempts, &attempt->link);
    enum error error = net_connect(&session->endpoints[session->endpoint],
                                   server->has_source ? &server->source : NULL, &attempt->fd);
    if (error != ERROR_NONE) {
        attempt->fd = -1;
        attempt_free(attempt);
        return error;
    }
    attempt->watch = loop_watch_new(session->out->loop, attempt->fd, attempt_ready, attempt);
    if (attempt->watch == NULL) {
        attempt_free(attempt);
        return ERROR_MEMORY;
    }
    loop_watch_set(attempt->watch, LOOP_WRITE);
    counter_add(session->out->counters, COUNTER_SERVER_CONNECTIONS, 1);
    return ERROR_NONE;
}

static void set_next_knock(struct out_session *session)
{
    session->knock_at_ms = session->knock_interval_ms == 0
                               ? INT64_MAX
                               : clock_steady_ms() + session->knock_interval_ms;
    session_set_timer(session);
}

bool connect_has_next(const struct out_session *session)
{
    return session->tried < session->endpoint_count - session->first_endpoint && !session->closing;
}

void connect_next(struct out_session *session, enum error error)
{
    session_disconnect(session);
    while (connect_has_next(session)) {
        error = attempt_begin(session);
        if (error == ERROR_NONE) {
            const struct server_config *server = session_config(session);
            session->state = OUT_CONNECTING;
            session->limit_ms = clock_steady_ms() + server->connect_timeout_ms;
            set_next_knock(session);
            return;
        }
    }
    connect_failed(session, RELAY_AT_CONNECT, error);
}

void connect_knock(struct out_session *session)
{
    if (session->state != OUT_CONNECTING) {
        return; /* it waits for a name, or for the greeting */
    }
    uint32_t count = 0;
    LIST_EACH(&session->attempts, at, after)
    {
        count++;
    }
    if (count == ATTEMPTS_MAX) {
        attempt_free(LIST_ENTRY(session->attempts.next, struct attempt, link));
    }
    (void)attempt_begin(session); /* if not, the older ones go on */
    set_next_knock(session);
}

/* True: its TLSA records are awaited, or it is over for want of them. */
static bool await_records(struct out_session *session, bool patient)
{
    const struct server_config *server = session_config(session);
    if (!dane_is_wanted(session)) {
        return false;
    }
    if (dane_begin(session)) {
        session->limit_ms = clock_steady_ms() + server->connect_timeout_ms;
        session_set_timer(session);
        return true;
    }
    enum dane_result result = dane_result(session);
    if (result == DANE_FAILED || (result == DANE_ASKING && !patient)) {
        dane_failed(session);
    }
    return result == DANE_FAILED || result == DANE_ASKING;
}

static void refuse_unlisted(struct out_session *session)
{
    tls_result_note(session, TLS_RESULT_VALIDATION,
                    SLICE_LITERAL("the policy does not list this server"));
    const struct relay_reply reply = {
        .stage = RELAY_AT_TLS,
        .how = RELAY_LOST,
        .text = SLICE_LITERAL("the MTA-STS policy of the domain does not list this server")};
    session_over(session, &reply);
}

/* `patient`: wait for answers under way, even if there are older addresses. */
static void resolve(struct out_session *session, bool patient)
{
    const struct server_config *server = session_config(session);
    bool waiting = false;
    enum error error = ERROR_MISSING;
    session->endpoint_count =
        server == NULL
            ? 0
            : names_endpoints(session->out, server, session->endpoints, &waiting, &error);
    if (waiting && patient) {
        int64_t patience =
            session->endpoint_count > 0 ? STALE_PATIENCE_MS : (int64_t)server->connect_timeout_ms;
        if (session->limit_ms == INT64_MAX) {
            session->limit_ms = clock_steady_ms() + patience;
        }
        session_set_timer(session);
    } else if (session->endpoint_count == 0) {
        connect_failed(session, RELAY_AT_RESOLVE, waiting ? ERROR_TIMEOUT : error);
    } else if (!await_records(session, patient)) {
        if (out_tls_forbids(session)) {
            refuse_unlisted(session);
        } else {
            connect_next(session, ERROR_MISSING);
        }
    }
}

void connect_begin(struct out_session *session)
{
    if (session_is_called(session)) {
        turned_begin(session);
        return;
    }
    if (session_config(session) != NULL) {
        names_ask(session->out, session_config(session));
    }
    resolve(session, true);
}

void connect_resolved(struct out_session *session)
{
    assert(session->state == OUT_RESOLVING);
    resolve(session, true);
}

void connect_limit(struct out_session *session)
{
    if (session->state == OUT_RESOLVING && session_is_called(session)) {
        turned_limit(session);
    } else if (session->state == OUT_RESOLVING) {
        resolve(session, false);
    } else if (session->state == OUT_CONNECTING) {
        connect_next(session, ERROR_TIMEOUT);
    }
}
