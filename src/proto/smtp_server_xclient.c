/* SPDX-License-Identifier: Apache-2.0
 *
 * XCLIENT and XFORWARD (postfix.org, XCLIENT_README, XFORWARD_README), of who is trusted.
 */
#include "proto/smtp_server_internal.h"

#include "proto/xclient.h"

static bool is_valid(struct slice arguments, unsigned allowed)
{
    struct xclient_storage storage;
    struct xclient facts;
    return xclient_read(arguments, allowed, &storage, &facts) == ERROR_NONE;
}

enum smtp_server_step smtp_server_command_xclient(struct smtp_server *server,
                                                  struct slice arguments,
                                                  struct smtp_server_event *event)
{
    if (!is_valid(arguments, XCLIENT_OF_XCLIENT)) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: XCLIENT attribute=value...");
    }
    server->has_told_login = false;
    event->bytes = arguments;
    return smtp_server_ask(server, event, SMTP_SERVER_XCLIENT);
}

enum smtp_server_step smtp_server_command_xforward(struct smtp_server *server,
                                                   struct slice arguments,
                                                   struct smtp_server_event *event)
{
    if (!is_valid(arguments, XCLIENT_OF_XFORWARD)) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: XFORWARD attribute=value...");
    }
    event->bytes = arguments;
    event->is_forwarded = server->has_forward;
    return smtp_server_ask(server, event, SMTP_SERVER_XFORWARD);
}
