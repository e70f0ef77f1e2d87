/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose mail a job is, as XCLIENT and XFORWARD tell it (R9, docs/decisions/0025).
 */
#include "service/smtp_out_internal.h"

static const struct ip_address no_address; /* as the journal keeps one that is not known */

static void use_protocol(struct xclient *origin, struct slice protocol)
{
    bool extended = slice_starts_fold(protocol, SLICE_LITERAL("ESMTP")) ||
                    slice_starts_fold(protocol, SLICE_LITERAL("UTF8SMTP"));
    origin->is_extended = extended;
    origin->has_protocol = extended || slice_equal_fold(protocol, SLICE_LITERAL("SMTP"));
}

const struct xclient *job_origin(struct out_job *job)
{
    const struct spool_message *message = &job->message;
    const struct ip_address *client = &message->origin.client.address;
    const struct out_session *session = job->session;
    bool same_machine = ip_is_loopback(&session->endpoints[session->endpoint].address);
    if ((message->flags & (SPOOL_OWN_DSN | SPOOL_ENVELOPE_ONLY)) != 0 ||
        (ip_is_loopback(client) && !same_machine)) {
        return NULL;
    }
    struct xclient *origin = &job->origin;
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(message->id, id);
    *origin = (struct xclient){
        .given = XCLIENT_ADDR | XCLIENT_NAME | XCLIENT_REVERSE_NAME | XCLIENT_PORT | XCLIENT_PROTO |
                 XCLIENT_HELO | XCLIENT_LOGIN | XCLIENT_IDENT | XCLIENT_SOURCE,
        .client = message->origin.client,
        .has_address = !ip_equal(client, &no_address),
        .has_port = message->origin.client.port != 0,
        .helo = message->origin.helo,
        .login = message->origin.user,
        .ident = arena_copy(&job->arena, slice_from_text(id)),
    };
    use_protocol(origin, message->origin.protocol);
    return origin;
}
