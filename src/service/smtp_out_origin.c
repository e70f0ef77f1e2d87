/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose mail a job is, as XCLIENT and XFORWARD tell it (R9, docs/decisions/0025). A server that
 * takes the client's name is told what it would have found in DNS by itself: the name of the
 * address if that leads back to it, and the name as such.
 */
#include "service/smtp_out_internal.h"

#include "proto/proxy.h"
#include "proto/smtp_address.h"
#include "sys/dns.h"
#include "sys/net.h"

enum { NAME_PATIENCE_MS = 5000 }; /* after that the server is told that DNS fails */

static const struct ip_address no_address; /* as the journal keeps one that is not known */

static void use_protocol(struct xclient *origin, struct slice protocol)
{
    bool extended = slice_starts_fold(protocol, SLICE_LITERAL("ESMTP")) ||
                    slice_starts_fold(protocol, SLICE_LITERAL("UTF8SMTP"));
    origin->is_extended = extended;
    origin->has_protocol = extended || slice_equal_fold(protocol, SLICE_LITERAL("SMTP"));
}

bool session_tells_origin(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    /* A client that calls has one connection; we cannot take another for another's mail. */
    return server != NULL && server->xclient && !session_is_proxied(session) &&
           !session_is_called(session);
}

void job_origin_begin(struct out_job *job)
{
    struct xclient_storage *storage = arena_allocate(&job->arena, sizeof(*storage));
    if (storage == NULL || xclient_read(job->message.origin.forwarded, XCLIENT_OF_XFORWARD, storage,
                                        &job->forwarded) != ERROR_NONE) {
        job->forwarded = (struct xclient){0};
    }
}

/* Who sent it, as far as it is known: it may have come by another server that told us. */
static const struct ip_endpoint *client_of(const struct out_job *job)
{
    return job->forwarded.has_address ? &job->forwarded.client : &job->message.origin.client;
}

static bool is_ours(const struct out_job *job)
{
    const struct ip_address *client = &client_of(job)->address;
    const struct out_session *session = job->session;
    bool same_machine = ip_is_loopback(&session->endpoints[session->endpoint].address);
    return (job->message.flags & (SPOOL_OWN_DSN | SPOOL_ENVELOPE_ONLY)) != 0 ||
           (ip_is_loopback(client) && !same_machine);
}

const struct xclient *job_origin(struct out_job *job)
{
    const struct spool_message *message = &job->message;
    const struct ip_endpoint *client = client_of(job);
    const struct client_name *name = &job->client_name;
    if (is_ours(job)) {
        return NULL;
    }
    struct xclient *origin = &job->origin;
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(message->id, id);
    *origin = (struct xclient){
        .given = XCLIENT_ADDR | XCLIENT_NAME | XCLIENT_REVERSE_NAME | XCLIENT_PORT | XCLIENT_PROTO |
                 XCLIENT_HELO | XCLIENT_LOGIN | XCLIENT_IDENT | XCLIENT_SOURCE,
        .client = *client,
        .has_address = !ip_equal(&client->address, &no_address),
        .has_port = client->port != 0,
        .helo = message->origin.helo,
        .login = message->origin.user,
        .name = name->is_true ? name->reverse : SLICE_EMPTY,
        .name_later = name->later,
        .reverse_name = name->reverse,
        .reverse_name_later = name->reverse_later,
        .ident = arena_copy(&job->arena, slice_from_text(id)),
    };
    use_protocol(origin, message->origin.protocol);
    if (job->forwarded.has_address) {
        origin->helo = job->forwarded.helo;
        origin->login = SLICE_EMPTY; /* that one has not logged in here */
        origin->has_protocol = job->forwarded.has_protocol;
        origin->is_extended = job->forwarded.is_extended;
    }
    return origin;
}

/* ---- PROXY --------------------------------------------------------------------------------- */

bool session_is_proxied(const struct out_session *session)
{
    const struct server_config *server = session_config(session);
    return server != NULL && server->proxy == SERVER_PROXY_V2 && !session_is_called(session);
}

const struct xclient *session_first_origin(struct out_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->state == JOB_WAITING) {
            return job_origin(job);
        }
    }
    return NULL;
}

/* It fits into the room of a connection that has carried nothing yet. */
bool session_send_proxy(struct out_session *session, const struct xclient *client)
{
    uint8_t bytes[PROXY_V2_MAX];
    size_t length, sent = 0;
    struct ip_endpoint server = session->endpoints[session->endpoint];
    if (client == NULL) {
        length = proxy_write_local(bytes);
    } else {
        if (ip_is_v4(&client->client.address) && !ip_is_v4(&server.address)) {
            /* A header is of one family; what the client has connected to decides nothing. */
            (void)ip_from_text(SLICE_LITERAL("0.0.0.0"), &server.address);
        }
        length = proxy_write(&client->client, &server, bytes);
    }
    return net_send(session->fd, slice_make(bytes, length), &sent) == ERROR_NONE && sent == length;
}

/* ---- the client's name --------------------------------------------------------------------- */

void job_origin_forget(struct out_job *job)
{
    struct client_name *name = &job->client_name;
    if (name->query != NULL) {
        dns_cancel(name->query);
        name->query = NULL;
    }
    loop_timer_free(name->timer);
    name->timer = NULL;
    name->step = NAME_SETTLED;
}

static void settle(struct out_job *job)
{
    job_origin_forget(job);
    session_take_job(job->session, job);
}

static bool has_failed(enum error error)
{
    return error != ERROR_NONE && error != ERROR_MISSING;
}

static void take_addresses(void *context, const struct dns_answer *answer)
{
    struct out_job *job = context;
    struct client_name *name = &job->client_name;
    name->query = NULL;
    name->later = has_failed(answer->error);
    for (size_t i = 0; answer->error == ERROR_NONE && i < answer->count; i++) {
        name->is_true = name->is_true || ip_equal(&answer->addresses[i], &client_of(job)->address);
    }
    settle(job);
}

static void take_name(void *context, const struct dns_records *records)
{
    struct out_job *job = context;
    struct client_name *name = &job->client_name;
    name->query = NULL;
    if (records->error == ERROR_NONE && records->count > 0 &&
        smtp_domain_is_valid(records->records[0].name)) {
        name->reverse = arena_copy(&job->arena, records->records[0].name);
        name->query = dns_resolve(job->session->out->dns, name->reverse, take_addresses, job);
        name->later = name->query == NULL;
    } else {
        name->later = name->reverse_later = has_failed(records->error);
    }
    if (name->query == NULL) {
        settle(job);
    }
}

static void lose_patience(void *context)
{
    struct out_job *job = context;
    job->client_name.later = true;
    job->client_name.reverse_later = job->client_name.reverse.length == 0;
    settle(job);
}

static bool is_wanted(const struct out_job *job)
{
    const struct smtp_client_capabilities *server = &job->session->capabilities;
    return session_tells_origin(job->session) && job->session->out->dns != NULL && !is_ours(job) &&
           ((server->xclient | server->xforward) & XCLIENT_NAME) != 0 &&
           !ip_equal(&client_of(job)->address, &no_address);
}

bool job_origin_ready(struct out_job *job)
{
    struct client_name *name = &job->client_name;
    struct smtp_out *out = job->session->out;
    if (name->step != NAME_UNKNOWN) {
        return name->step == NAME_SETTLED;
    }
    name->step = NAME_SETTLED;
    if (!is_wanted(job)) {
        return true;
    }
    char reverse[DNS_REVERSE_MAX];
    dns_reverse_name(&client_of(job)->address, reverse);
    name->timer = loop_timer_new(out->loop, lose_patience, job);
    name->query = name->timer == NULL
                      ? NULL
                      : dns_lookup(out->dns, slice_from_text(reverse), DNS_PTR, take_name, job);
    if (name->query == NULL) {
        job_origin_forget(job);
        name->later = name->reverse_later = true;
        return true;
    }
    loop_timer_set(name->timer, NAME_PATIENCE_MS);
    name->step = NAME_ASKED;
    return false;
}
