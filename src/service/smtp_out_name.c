/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of servers. The last good addresses of a name are used beyond their time to live when no
 * newer ones are to be had (R3): a failure of DNS must not stop mail to a server that stands.
 */
#include "service/smtp_out_internal.h"

#include <stdlib.h>

#include "sys/clock.h"

enum {
    TTL_MIN_S = 5, /* a TTL of 0 must not mean a question per connection */
    TTL_MAX_S = 24 * 3600,
};

static struct name *find(struct smtp_out *out, struct slice host)
{
    LIST_EACH(&out->names, at, after)
    {
        struct name *name = LIST_ENTRY(at, struct name, link);
        if (slice_equal_fold(slice_make(name->host, name->length), host)) {
            return name;
        }
    }
    return NULL;
}

static struct name *add(struct smtp_out *out, struct slice host)
{
    struct name *name = calloc(1, sizeof(*name) + host.length);
    if (name == NULL) {
        return NULL;
    }
    name->out = out;
    name->length = host.length;
    memcpy(name->host, host.data, host.length);
    name->error = ERROR_TIMEOUT;
    name->expires_ms = INT64_MIN;
    list_append(&out->names, &name->link);
    return name;
}

/* In whatever order: many name servers turn it round with each answer. */
static bool same_addresses(const struct name *name, const struct dns_answer *answer)
{
    bool same = name->count == answer->count;
    for (size_t i = 0; same && i < name->count; i++) {
        bool found = false;
        for (size_t j = 0; j < answer->count; j++) {
            found = found || ip_equal(&name->addresses[i], &answer->addresses[j]);
        }
        same = found;
    }
    return same;
}

static void keep(struct name *name, const struct dns_answer *answer)
{
    uint32_t ttl_s = answer->ttl_s < TTL_MIN_S ? TTL_MIN_S : answer->ttl_s;
    ttl_s = ttl_s > TTL_MAX_S ? TTL_MAX_S : ttl_s;
    name->expires_ms = clock_steady_ms() + (int64_t)ttl_s * 1000;
    bool changed = !same_addresses(name, answer);
    memcpy(name->addresses, answer->addresses, answer->count * sizeof(answer->addresses[0]));
    name->count = answer->count;
    if (changed) {
        name->changed = true;
        loop_later_ask(name->out->later);
    }
}

static void answered(void *context, const struct dns_answer *answer)
{
    struct name *name = context;
    struct smtp_out *out = name->out;
    name->query = NULL;
    name->error = answer->error;
    if (answer->error == ERROR_NONE && answer->count > 0) {
        keep(name, answer);
    } else if (answer->error == ERROR_NONE) {
        name->error = ERROR_MISSING;
    }
    LIST_EACH(&out->sessions, at, after)
    {
        struct out_session *session = LIST_ENTRY(at, struct out_session, link);
        if (session->state == OUT_RESOLVING) {
            connect_resolved(session);
        }
    }
}

void names_ask(struct smtp_out *out, const struct server_config *server)
{
    for (uint32_t i = 0; i < server->address_count; i++) {
        const struct server_address *address = &server->addresses[i];
        if (address->is_literal) {
            continue;
        }
        struct name *name = find(out, address->host);
        if (name == NULL) {
            name = add(out, address->host);
        }
        if (name == NULL || name->query != NULL || out->dns == NULL ||
            clock_steady_ms() < name->expires_ms) {
            continue;
        }
        name->query = dns_resolve(out->dns, address->host, answered, name);
        if (name->query == NULL) {
            name->error = ERROR_MEMORY;
        }
    }
}

static uint32_t put(struct ip_endpoint endpoints[ENDPOINTS_MAX], uint32_t count,
                    const struct ip_address *address, uint16_t port)
{
    if (count < ENDPOINTS_MAX) {
        endpoints[count++] = (struct ip_endpoint){*address, port};
    }
    return count;
}

static bool is_allowed(const struct server_config *server, const struct ip_address *address)
{
    for (uint32_t i = 0; i < server->only_count; i++) {
        bool inside = false;
        for (uint32_t j = 0; j < server->only[i].count && !inside; j++) {
            inside = ip_network_contains(&server->only[i].all[j], address);
        }
        if (!inside) {
            return false;
        }
    }
    return true;
}

uint32_t names_endpoints(struct smtp_out *out, const struct server_config *server,
                         struct ip_endpoint ret_endpoints[ENDPOINTS_MAX], bool *ret_waiting,
                         enum error *ret_error)
{
    uint32_t count = 0;
    *ret_waiting = false;
    *ret_error = ERROR_MEMORY;
    for (uint32_t i = 0; i < server->address_count; i++) {
        const struct server_address *address = &server->addresses[i];
        if (address->is_literal) {
            count = put(ret_endpoints, count, &address->literal, address->port);
            continue;
        }
        const struct name *name = find(out, address->host);
        if (name == NULL) {
            continue;
        }
        *ret_waiting = *ret_waiting || name->query != NULL;
        *ret_error = name->error;
        for (size_t j = 0; j < name->count; j++) {
            if (is_allowed(server, &name->addresses[j])) {
                count = put(ret_endpoints, count, &name->addresses[j], address->port);
            } else {
                *ret_error = ERROR_DENIED;
            }
        }
    }
    return count;
}

static bool has_host(const struct server_config *server, struct slice host)
{
    for (uint32_t i = 0; i < server->address_count; i++) {
        if (!server->addresses[i].is_literal && slice_equal_fold(server->addresses[i].host, host)) {
            return true;
        }
    }
    return false;
}

static bool is_configured(const struct smtp_out *out, struct slice host)
{
    for (uint32_t i = 0; i < out->config->relay.server_count; i++) {
        if (has_host(&out->config->relay.servers[i], host)) {
            return true;
        }
    }
    return false;
}

static struct slice host_of(const struct name *name)
{
    return slice_make(name->host, name->length);
}

bool names_take(struct smtp_out *out, struct reader *reader)
{
    struct slice host = reader_bytes(reader);
    uint32_t count = reader_u32(reader);
    struct slice addresses = reader_take(reader, (size_t)count * 16);
    if (reader->failed || count == 0 || count > DNS_ADDRESSES_MAX) {
        return false;
    }
    struct name *name = is_configured(out, host) ? find(out, host) : NULL;
    if (name == NULL && is_configured(out, host)) {
        name = add(out, host);
    }
    if (name != NULL && name->count == 0) { /* what we know ourselves is newer */
        memcpy(name->addresses, addresses.data, addresses.length);
        name->count = count;
        name->changed = true; /* for the servers; the name itself is old news */
        loop_later_ask(out->later);
    }
    return true;
}

static bool report_server(struct smtp_out *out, uint32_t index)
{
    struct ip_endpoint endpoints[ENDPOINTS_MAX];
    bool waiting;
    enum error error;
    uint32_t count =
        names_endpoints(out, &out->config->relay.servers[index], endpoints, &waiting, &error);
    struct buffer *frame = smtp_out_frame(out, CHANNEL_ADDRESSES);
    buffer_put_u32(frame, channel_server_key(&out->config->relay, index));
    buffer_put_u32(frame, count);
    for (uint32_t i = 0; i < count; i++) {
        buffer_append(frame, slice_make(endpoints[i].address.bytes, 16));
    }
    return smtp_out_send(out);
}

static bool report_name(struct smtp_out *out, const struct name *name)
{
    struct buffer *frame = smtp_out_frame(out, CHANNEL_NAME);
    buffer_put_bytes(frame, host_of(name));
    buffer_put_u32(frame, (uint32_t)name->count);
    buffer_append(frame, slice_make(name->addresses, name->count * 16));
    return smtp_out_send(out);
}

bool names_report(struct smtp_out *out)
{
    LIST_EACH(&out->names, at, after)
    {
        struct name *name = LIST_ENTRY(at, struct name, link);
        if (!name->changed || name->count == 0) {
            continue;
        }
        for (uint32_t i = 0; i < out->config->relay.server_count; i++) {
            if (has_host(&out->config->relay.servers[i], host_of(name)) && !report_server(out, i)) {
                return false;
            }
        }
        if (!report_name(out, name)) {
            return false;
        }
        name->changed = false;
    }
    return true;
}

static void name_free(struct name *name)
{
    if (name->query != NULL) {
        dns_cancel(name->query);
    }
    list_remove(&name->link);
    free(name);
}

void names_repeat(struct smtp_out *out)
{
    LIST_EACH(&out->names, at, after)
    {
        LIST_ENTRY(at, struct name, link)->changed = true;
    }
}

void names_prune(struct smtp_out *out)
{
    LIST_EACH(&out->names, at, after)
    {
        struct name *name = LIST_ENTRY(at, struct name, link);
        name->changed = true; /* under the servers' new numbers */
        if (name->query == NULL && !is_configured(out, host_of(name))) {
            name_free(name);
        }
    }
    loop_later_ask(out->later);
}

void names_free(struct smtp_out *out)
{
    LIST_EACH(&out->names, at, after)
    {
        name_free(LIST_ENTRY(at, struct name, link));
    }
}
