/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is connected. evhttp closes connections and tells nobody, so an entry is only what was true
 * when it was made: where a bound seems reached, the kernel is asked of each whether it still is.
 * That costs a call an entry, at most WEB_CONNECTIONS_MAX, and only for the connection that meets
 * the bound.
 */
#include "service/web_internal.h"
#include "sys/net.h"

static bool same_client(const struct ip_address *a, const struct ip_address *b)
{
    size_t length = ip_is_v4(a) ? sizeof(a->bytes) : sizeof(a->bytes) / 2;
    return memcmp(a->bytes, b->bytes, length) == 0;
}

/* The descriptor may be closed by now, or another connection's. */
static bool is_connected(const struct web_client *client)
{
    struct ip_endpoint peer;
    return net_peer(client->fd, &peer) == ERROR_NONE && peer.port == client->peer.port &&
           ip_equal(&peer.address, &client->peer.address);
}

static void forget_the_gone(struct web_clients *clients)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < clients->count; i++) {
        if (is_connected(&clients->at[i])) {
            clients->at[kept++] = clients->at[i];
        }
    }
    clients->count = kept;
}

static bool has_room(const struct web_clients *clients, const struct ip_address *address)
{
    uint32_t same = 0;
    for (uint32_t i = 0; i < clients->count; i++) {
        same += same_client(&clients->at[i].peer.address, address);
    }
    return clients->count < WEB_CONNECTIONS_MAX &&
           (same < WEB_CONNECTIONS_PER_CLIENT || ip_is_loopback(address));
}

bool web_clients_enter(struct web_clients *clients, int fd)
{
    struct web_client client = {.fd = fd};
    if (net_peer(fd, &client.peer) != ERROR_NONE) {
        return false;
    }
    if (!has_room(clients, &client.peer.address)) {
        forget_the_gone(clients);
    }
    if (!has_room(clients, &client.peer.address)) {
        return false;
    }
    clients->at[clients->count++] = client;
    return true;
}
