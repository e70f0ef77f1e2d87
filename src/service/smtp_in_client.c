/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose a session is: its peer's, unless that is a load balancer that says who is behind it (PROXY
 * protocol), or a mail server that is trusted to say whose mail it brings (XCLIENT). Everything
 * that is decided by the client is decided by that one from then on, who may say XCLIENT included.
 */
#include "service/smtp_in_internal.h"

#include <stdlib.h>

#include "base/utf8.h"
#include "proto/proxy.h"
#include "proto/xclient.h"
#include "service/login.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"

enum { PROXY_PATIENCE_MS = 10000 }; /* its sender has it ready when it connects */

/* ---- listeners --------------------------------------------------------------------------- */

static bool copy_networks(struct ip_networks from, struct ip_networks *ret_networks)
{
    struct ip_network *all = from.count == 0 ? NULL : calloc(from.count, sizeof(*all));
    if (from.count == 0 || all == NULL) {
        return from.count == 0;
    }
    memcpy(all, from.all, from.count * sizeof(*all));
    *ret_networks = (struct ip_networks){all, from.count};
    return true;
}

bool listener_take_peers(struct listener *listener, const struct listener_config *from)
{
    return copy_networks(from->trusted, &listener->trusted) &&
           copy_networks(from->proxies, &listener->proxies);
}

void listener_drop_peers(struct listener *listener)
{
    free((void *)listener->trusted.all);
    free((void *)listener->proxies.all);
}

static bool is_among(const struct ip_networks *networks, const struct ip_address *address)
{
    for (uint32_t i = 0; i < networks->count; i++) {
        if (ip_network_contains(&networks->all[i], address)) {
            return true;
        }
    }
    return false;
}

const struct ip_address *listener_counts(const struct listener *listener,
                                         const struct ip_address *peer)
{
    return is_among(&listener->trusted, peer) || is_among(&listener->proxies, peer) ? NULL : peer;
}

struct smtp_answer admission_answer(enum smtp_in_admission admission)
{
    static const struct smtp_answer answers[] = {
        [SMTP_IN_FULL] = {421, "4.3.2", SLICE_LITERAL("Too many connections")},
        [SMTP_IN_CLIENT_FULL] = {421, "4.7.0",
                                 SLICE_LITERAL("Too many connections from your address")},
        [SMTP_IN_NETWORK_FULL] = {421, "4.7.0",
                                  SLICE_LITERAL("Too many connections from your network")},
    };
    return answers[admission];
}

/* ---- sessions ---------------------------------------------------------------------------- */

bool client_is_trusted(const struct session *session)
{
    return is_among(&session->listener->trusted, &session->client.address);
}

bool client_connected(struct session *session)
{
    const struct ip_address *peer = &session->client.address;
    session->is_uncounted = listener_counts(session->listener, peer) == NULL;
    session->awaits_proxy = is_among(&session->listener->proxies, peer);
    return !session->awaits_proxy;
}

static const struct ip_address *counted(const struct session *session)
{
    return session->is_uncounted ? NULL : &session->client.address;
}

void client_left(struct session *session)
{
    smtp_in_leave(session->in->shared, counted(session));
}

/* Too many of it: the greeting says so. */
static void become(struct session *session, const struct ip_endpoint *client)
{
    struct smtp_in *in = session->in;
    const struct ip_address *now = listener_counts(session->listener, &client->address);
    enum smtp_in_admission admission =
        smtp_in_change(in->shared, &in->config->limits, counted(session), now);
    session->admission = (uint8_t)admission;
    if (admission != SMTP_IN_ADMITTED) {
        /* It is counted as nobody's, since it is no longer the old one's. */
        (void)smtp_in_change(in->shared, &in->config->limits, counted(session), NULL);
    }
    session->client = *client;
    session->is_uncounted = now == NULL || admission != SMTP_IN_ADMITTED;
    session->is_allowed = false;
}

struct smtp_answer client_admission(const struct session *session)
{
    if (session->admission == SMTP_IN_ADMITTED) {
        return SMTP_ACCEPT;
    }
    struct smtp_answer answer = admission_answer((enum smtp_in_admission)session->admission);
    counter_add(session->in->counters, COUNTER_SESSIONS_REFUSED, 1);
    session_log_refused(session, "connect", SLICE_EMPTY, &answer);
    return answer;
}

static void log_presented(const char *how, const struct ip_address *by,
                          const struct session *session)
{
    char client[IP_TEXT_SIZE], peer[IP_TEXT_SIZE];
    ip_to_text(&session->client.address, client);
    ip_to_text(by, peer);
    log_event(LOG_LEVEL_DEBUG, "presented", LOG_TEXT("client", client), LOG_TEXT("by", peer),
              LOG_TEXT("how", how));
}

/* ---- XCLIENT ----------------------------------------------------------------------------- */

static const struct smtp_answer no_memory = {421, "4.3.0", SLICE_LITERAL("Out of memory")};

/* The name as EHLO could have said it. */
static bool take_helo(struct session *session, struct slice name)
{
    free(session->helo);
    session->helo = NULL;
    session->helo_length = 0;
    session->has_told_helo = name.length > 0 && name.length <= SMTP_DOMAIN_MAX &&
                             slice_find(name, ' ') == name.length && utf8_is_valid(name);
    if (session->has_told_helo) {
        session->helo = malloc(name.length);
        if (session->helo == NULL) {
            return false;
        }
        memcpy(session->helo, name.data, name.length);
        session->helo_length = (uint32_t)name.length;
    }
    return true;
}

static bool is_host_name(struct slice name)
{
    return name.length > 0 && name.length <= UINT8_MAX && name.data[0] != '[';
}

/* As Postfix takes them: a name that leads back is the other one, too, unless that is told. Of
 * another client than before the names are not known. */
static bool take_names(struct session *session, const struct xclient *facts)
{
    struct slice name = is_host_name(facts->name) ? facts->name : SLICE_EMPTY;
    struct slice reverse = is_host_name(facts->reverse_name) ? facts->reverse_name : SLICE_EMPTY;
    if ((facts->given & (XCLIENT_NAME | XCLIENT_REVERSE_NAME | XCLIENT_ADDR)) == 0) {
        return true;
    }
    free(session->told_names);
    session->told_names = NULL;
    if ((facts->given & XCLIENT_REVERSE_NAME) == 0) {
        reverse = name;
    }
    if (name.length + reverse.length == 0) {
        return true;
    }
    struct told_names *names = malloc(sizeof(*names) + name.length + reverse.length);
    if (names == NULL) {
        return false;
    }
    names->name_length = (uint8_t)name.length;
    names->reverse_length = (uint8_t)reverse.length;
    for (size_t i = 0; i < name.length + reverse.length; i++) {
        names->bytes[i] = i < name.length ? name.data[i] : reverse.data[i - name.length];
    }
    session->told_names = names;
    return true;
}

struct slice client_name(const struct session *session)
{
    const struct told_names *names = session->told_names;
    return names == NULL ? SLICE_EMPTY : slice_make(names->bytes, names->name_length);
}

struct slice client_reverse_name(const struct session *session)
{
    const struct told_names *names = session->told_names;
    return names == NULL ? SLICE_EMPTY
                         : slice_make(names->bytes + names->name_length, names->reverse_length);
}

struct smtp_answer client_present(struct session *session, const struct smtp_server_event *event)
{
    static const struct ip_address nobody; /* has no rights anywhere */
    struct xclient_storage storage;
    struct xclient facts;
    struct ip_endpoint client = session->client;
    struct ip_address by = session->client.address;
    if (xclient_read(event->bytes, XCLIENT_OF_XCLIENT, &storage, &facts) != ERROR_NONE ||
        !take_helo(session, facts.helo) || !take_names(session, &facts)) {
        return no_memory;
    }
    if ((facts.given & XCLIENT_ADDR) != 0) {
        client.address = facts.has_address ? facts.client.address : nobody;
        client.port = 0;
    }
    if ((facts.given & XCLIENT_PORT) != 0) {
        client.port = facts.has_port ? facts.client.port : 0;
    }
    milters_meet_again(session);
    become(session, &client);
    session->is_presented = true;
    session->has_told_protocol = facts.has_protocol;
    session->is_extended = facts.is_extended;
    session->misses = 0;
    login_forget(session);
    bool has_login = session->listener->believes_login && facts.login.length > 0 &&
                     facts.login.length <= LOGIN_NAME_MAX && utf8_is_valid(facts.login);
    if (has_login && !login_present(session, facts.login)) {
        return no_memory;
    }
    smtp_server_tell_login(&session->server, has_login);
    login_let(session);
    log_presented("xclient", &by, session);
    core_contact(session->in, &session->client.address);
    smtp_server_set_trusted(&session->server, client_is_trusted(session));
    return SMTP_ACCEPT;
}

/* ---- XFORWARD ---------------------------------------------------------------------------- */

/* A second command adds to the first, but what it says again is another client's. */
struct smtp_answer client_forward(struct session *session, const struct smtp_server_event *event)
{
    struct xclient_storage storage;
    struct xclient facts;
    struct buffer words;
    buffer_init(&words, 2 * XCLIENT_LINE_MAX);
    if (event->is_forwarded) {
        buffer_append(&words, slice_make(session->forwarded, session->forwarded_length));
        buffer_append_text(&words, " ");
    }
    buffer_append(&words, event->bytes);
    if (words.failed ||
        xclient_read(buffer_slice(&words), XCLIENT_OF_XFORWARD, &storage, &facts) != ERROR_NONE) {
        buffer_clear(&words);
        buffer_append(&words, event->bytes);
    }
    char *forwarded = words.failed ? NULL : malloc(words.length);
    if (forwarded != NULL) {
        memcpy(forwarded, words.data, words.length);
        free(session->forwarded);
        session->forwarded = forwarded;
        session->forwarded_length = (uint32_t)words.length;
    }
    buffer_done(&words);
    return forwarded == NULL ? no_memory : SMTP_ACCEPT;
}

/* ---- PROXY ------------------------------------------------------------------------------- */

static void refuse_proxy(struct session *session, const char *reason)
{
    const struct smtp_answer unsaid = {0, NULL, slice_from_text(reason)};
    char peer[IP_TEXT_SIZE];
    ip_to_text(&session->client.address, peer);
    log_event(LOG_LEVEL_WARNING, "refused", LOG_TEXT("stage", "proxy"), LOG_TEXT("client", peer),
              LOG_TEXT("reason", reason));
    trace_refused(session->in, "proxy", &session->client.address, &unsaid);
    counter_add(session->in->counters, COUNTER_SESSIONS_REFUSED, 1);
    session_free(session);
}

/* What cannot be a version is none that we know. */
static void take_proxied_tls(struct session *session, struct slice version)
{
    bool good = version.length > 0 && version.length < sizeof(session->proxied_tls);
    for (size_t i = 0; good && i < version.length; i++) {
        uint8_t c = version.data[i];
        good =
            (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.';
    }
    version = good ? version : SLICE_LITERAL("TLS");
    memcpy(session->proxied_tls, version.data, version.length);
}

static void take_header(struct session *session, const struct proxy_header *header)
{
    struct ip_address by = session->client.address;
    session->awaits_proxy = false;
    if (header->is_tls) {
        take_proxied_tls(session, header->tls_version);
    }
    (void)session_keep(session, SLICE_EMPTY);
    if (header->is_known) {
        become(session, &header->source);
        log_presented("proxy", &by, session);
    }
    session_begin(session);
}

/* No more is read than is the header's: what follows may be TLS. */
void client_take_proxy(struct session *session)
{
    uint8_t bytes[PROXY_HEADER_MAX];
    size_t held = session->unread_length;
    struct proxy_header header;
    if (held > 0) {
        memcpy(bytes, session->unread, held);
    }
    for (;;) {
        size_t wanted = proxy_wanted(slice_make(bytes, held)), length = 0;
        enum error error = net_receive(session->fd, bytes + held, wanted, &length);
        if (error == ERROR_AGAIN) {
            if (!session_keep(session, slice_make(bytes, held))) {
                session_free(session);
            }
            return;
        }
        if (error != ERROR_NONE) {
            session_free(session);
            return;
        }
        held += length;
        switch (proxy_read(slice_make(bytes, held), &header)) {
        case PROXY_MORE:
            break;
        case PROXY_DONE:
            take_header(session, &header);
            return;
        case PROXY_BROKEN:
            refuse_proxy(session, "no PROXY header");
            return;
        }
    }
}

bool client_expire(struct session *session, int64_t now_ms)
{
    if (!session->awaits_proxy || now_ms - session->touched_ms < PROXY_PATIENCE_MS) {
        return false;
    }
    refuse_proxy(session, "no PROXY header in time");
    return true;
}
