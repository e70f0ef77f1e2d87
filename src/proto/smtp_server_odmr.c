/* SPDX-License-Identifier: Apache-2.0
 *
 * On-demand mail relay (RFC 2645): ATRN.
 */
#include "proto/smtp_server_internal.h"

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
