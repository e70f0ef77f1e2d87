/* SPDX-License-Identifier: Apache-2.0
 *
 * XCLIENT (postfix.org, XCLIENT_README), of who is trusted.
 */
#include "proto/smtp_server_internal.h"

#include "proto/xclient.h"

enum smtp_server_step smtp_server_command_xclient(struct smtp_server *server,
                                                  struct slice arguments,
                                                  struct smtp_server_event *event)
{
    struct xclient_storage storage;
    struct xclient facts;
    if (xclient_read(arguments, XCLIENT_OF_XCLIENT, &storage, &facts) != ERROR_NONE) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: XCLIENT attribute=value...");
    }
    event->bytes = arguments;
    return smtp_server_ask(server, event, SMTP_SERVER_XCLIENT);
}
