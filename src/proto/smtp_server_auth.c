/* SPDX-License-Identifier: Apache-2.0
 *
 * AUTH (RFC 4954): this core knows its course, the caller the words of the mechanisms and who is
 * who.
 */
#include "proto/smtp_server_internal.h"

unsigned smtp_server_mechanisms(const struct smtp_server *server)
{
    return server->is_secure || server->may_log_in ? server->settings->mechanisms
                                                   : server->settings->clear_mechanisms;
}

enum smtp_server_step smtp_server_command_auth(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    struct slice name = slice_take(arguments, slice_find(arguments, ' '));
    struct slice response = slice_trim(slice_skip(arguments, name.length));
    enum sasl_mechanism mechanism = sasl_find(name);
    if (!server->is_extended) {
        return smtp_server_mistake(server, "503 5.5.1 Send EHLO first");
    }
    if (mechanism == SASL_NONE || (server->settings->mechanisms & 1u << mechanism) == 0) {
        return smtp_server_mistake(server, "504 5.5.4 Mechanism not offered");
    }
    if ((smtp_server_mechanisms(server) & 1u << mechanism) == 0) {
        return smtp_server_mistake(server, "538 5.7.11 Encryption required to log in");
    }
    event->mechanism = mechanism;
    event->has_response = response.length > 0;
    if (!slice_equal(response, SLICE_LITERAL("="))) { /* that is an empty one */
        event->bytes = response;
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
    event->bytes = line;
    return smtp_server_ask(server, event, SMTP_SERVER_RESPONSE);
}
