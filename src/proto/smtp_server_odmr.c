/* SPDX-License-Identifier: Apache-2.0
 *
 * On-demand mail relay (RFC 2645): logging in, of which this core knows the course and the caller
 * the secrets, and ATRN.
 */
#include "proto/smtp_server_internal.h"

enum smtp_server_step smtp_server_command_auth(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    struct slice mechanism = slice_take(arguments, slice_find(arguments, ' '));
    if (!slice_equal_fold(mechanism, SLICE_LITERAL("CRAM-MD5"))) {
        return smtp_server_mistake(server, "504 5.5.4 Only CRAM-MD5 here");
    }
    if (mechanism.length < arguments.length) { /* RFC 4954 section 4: the server speaks first */
        return smtp_server_mistake(server, "501 5.5.2 No initial response with CRAM-MD5");
    }
    return smtp_server_ask(server, event, SMTP_SERVER_AUTH);
}

enum smtp_server_step smtp_server_step_response(struct smtp_server *server,
                                                struct smtp_server_event *event)
{
    struct slice line;
    enum smtp_server_step next = STEP_RESPONSE;
    switch (smtp_server_take_line(server, &line, &next)) {
    case ERROR_NONE:
        break;
    case ERROR_LIMIT:
        return STEP_SKIP_LINE;
    default:
        return next;
    }
    if (slice_equal(line, SLICE_LITERAL("*"))) {
        return smtp_server_mistake(server, "501 5.7.0 Authentication cancelled");
    }
    event->name = line;
    return smtp_server_ask(server, event, SMTP_SERVER_RESPONSE);
}

static bool are_domains(struct slice list)
{
    for (bool more = list.length > 0; more;) {
        struct slice domain = slice_take(list, slice_find(list, ','));
        if (!smtp_domain_is_valid(domain) || domain.data[0] == '[') {
            return false;
        }
        more = domain.length < list.length;
        list = slice_skip(list, domain.length + 1);
    }
    return true;
}

enum smtp_server_step smtp_server_command_atrn(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    if (!are_domains(arguments)) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: ATRN [domain[,domain...]]");
    }
    event->name = arguments;
    return smtp_server_ask(server, event, SMTP_SERVER_ATRN);
}
