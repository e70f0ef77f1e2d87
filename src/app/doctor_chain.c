/* SPDX-License-Identifier: Apache-2.0
 *
 * The servers that the domain's mail is handed over to, as the daemon would reach them: at their
 * own addresses and ports. Their addresses tell which exchangers are the primary.
 */
#include "app/doctor_internal.h"

#include <stdio.h>

bool is_served(const struct doctor *doctor, const struct ip_address *address)
{
    for (size_t i = 0; i < doctor->served_count; i++) {
        if (ip_equal(&doctor->served[i], address)) {
            return true;
        }
    }
    return false;
}

static void examine_endpoint(struct doctor *doctor, const struct server_config *server,
                             const struct ip_endpoint *to)
{
    struct conversation conversation;
    if (doctor->served_count < DOCTOR_ADDRESSES_MAX && !is_served(doctor, &to->address)) {
        doctor->served[doctor->served_count++] = to->address;
    }
    if (conversation_begin(doctor, &conversation, to, "server", server->name,
                           "if this is the outage, the mail waits here; else look at the server, "
                           "its address and what lies between")) {
        conversation_close(&conversation);
    }
}

static void examine_address(struct doctor *doctor, const struct server_config *server,
                            const struct server_address *address)
{
    struct ip_endpoint to = {address->literal, address->port};
    if (address->is_literal) {
        examine_endpoint(doctor, server, &to);
        return;
    }
    struct dns_answer answer = ask_addresses(doctor, address->host);
    if (answer.error != ERROR_NONE) {
        tell(doctor, "server", server->name, DOCTOR_BAD,
             "correct the server's address, or give the name one", "%.*s has no address: %s",
             SLICE_PRINT(address->host), error_text(answer.error));
        return;
    }
    for (size_t i = 0; i < answer.count; i++) {
        to.address = answer.addresses[i];
        examine_endpoint(doctor, server, &to);
    }
}

void examine_chain(struct doctor *doctor)
{
    const struct route_config *route = doctor->route;
    for (uint32_t i = 0; route != NULL && i < route->chain_length; i++) {
        const struct server_config *server =
            &doctor->settings->config->relay.servers[route->chain[i]];
        if (server->protocol == SERVER_ODMR) {
            tell(doctor, "server", server->name, DOCTOR_GOOD, NULL,
                 "calls for its mail (odmr): there is nothing to connect to");
        }
        for (uint32_t k = 0; k < server->address_count; k++) {
            examine_address(doctor, server, &server->addresses[k]);
        }
    }
}
