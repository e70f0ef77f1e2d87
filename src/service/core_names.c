/* SPDX-License-Identifier: Apache-2.0
 *
 * The last good addresses of servers' names, kept in the spool as notes (R3): a machine that starts
 * while DNS is away still finds the servers that it knew. edge-out reports what it learns; each
 * edge-out is told all of it before its first connection.
 */
#include "service/core_internal.h"

#include <stdlib.h>

enum {
    NAMES_MAX = 1024, /* more are not kept: a configuration has some dozens */
    NAME_ADDRESSES_MAX = 16,
    HOST_MAX = SPOOL_KEY_MAX - 5, /* behind "name:" */
};

struct core_name {
    struct link link;
    uint32_t count;
    struct ip_address addresses[NAME_ADDRESSES_MAX];
    size_t length;
    uint8_t host[HOST_MAX];
};

static struct core_name *find(struct core *core, struct slice host)
{
    LIST_EACH(&core->names, at, after)
    {
        struct core_name *name = LIST_ENTRY(at, struct core_name, link);
        if (slice_equal_fold(slice_make(name->host, name->length), host)) {
            return name;
        }
    }
    return NULL;
}

static bool is_configured(const struct core *core, struct slice host)
{
    for (uint32_t i = 0; i < core->config->relay.server_count; i++) {
        const struct server_config *server = &core->config->relay.servers[i];
        for (uint32_t j = 0; j < server->address_count; j++) {
            if (!server->addresses[j].is_literal &&
                slice_equal_fold(server->addresses[j].host, host)) {
                return true;
            }
        }
    }
    return false;
}

/* NULL: too many, or too long to be kept. */
static struct core_name *find_or_add(struct core *core, struct slice host)
{
    struct core_name *name = find(core, host);
    if (name != NULL || core->name_count >= NAMES_MAX || host.length == 0 ||
        host.length > HOST_MAX) {
        return name;
    }
    name = calloc(1, sizeof(*name));
    if (name == NULL) {
        core_out_of_memory();
    }
    memcpy(name->host, host.data, host.length);
    name->length = host.length;
    list_append(&core->names, &name->link);
    core->name_count++;
    return name;
}

static void drop(struct core *core, struct core_name *name)
{
    list_remove(&name->link);
    core->name_count--;
    free(name);
}

static struct slice addresses_of(const struct core_name *name)
{
    return slice_make(name->addresses, name->count * sizeof(name->addresses[0]));
}

/* An empty payload forgets it. Lazily: what is lost is asked for again. */
static void note(struct core *core, struct slice host, struct slice addresses)
{
    uint8_t key[SPOOL_KEY_MAX];
    memcpy(key, "name:", 5);
    memcpy(key + 5, host.data, host.length);
    spool_batch_begin(core->spool);
    spool_batch_global_note(core->spool, slice_make(key, 5 + host.length), addresses);
    spool_batch_submit(core->spool, SPOOL_LAZY, NULL, NULL);
}

void core_names_init(struct core *core)
{
    list_init(&core->names);
}

void core_names_done(struct core *core)
{
    LIST_EACH(&core->names, at, after)
    {
        drop(core, LIST_ENTRY(at, struct core_name, link));
    }
}

bool core_names_load(struct core *core, struct slice key, struct slice payload)
{
    if (!slice_starts_fold(key, SLICE_LITERAL("name:"))) {
        return false;
    }
    size_t count = payload.length / sizeof(struct ip_address);
    struct core_name *name = find_or_add(core, slice_skip(key, 5));
    if (name != NULL && count > 0 && count <= NAME_ADDRESSES_MAX) {
        name->count = (uint32_t)count;
        memcpy(name->addresses, payload.data, count * sizeof(name->addresses[0]));
    }
    return true;
}

bool core_names_take(struct core *core, struct reader *reader)
{
    struct slice host = reader_bytes(reader);
    uint32_t count = reader_u32(reader);
    struct slice addresses = reader_take(reader, (size_t)count * sizeof(struct ip_address));
    if (reader->failed || count == 0 || count > NAME_ADDRESSES_MAX || host.length == 0) {
        return false;
    }
    struct core_name *name = is_configured(core, host) ? find_or_add(core, host) : NULL;
    if (name != NULL && !slice_equal(addresses_of(name), addresses)) {
        name->count = count;
        memcpy(name->addresses, addresses.data, addresses.length);
        note(core, slice_make(name->host, name->length), addresses);
    }
    return true;
}

void core_names_tell(struct core_edge_out *out)
{
    struct core *core = out->core;
    LIST_EACH(&core->names, at, after)
    {
        struct core_name *name = LIST_ENTRY(at, struct core_name, link);
        struct slice host = slice_make(name->host, name->length);
        if (!is_configured(core, host)) {
            note(core, host, SLICE_EMPTY);
            drop(core, name);
            continue;
        }
        buffer_clear(&core->frame);
        buffer_put_u8(&core->frame, CHANNEL_NAME);
        buffer_put_bytes(&core->frame, host);
        buffer_put_u32(&core->frame, name->count);
        buffer_append(&core->frame, addresses_of(name));
        core_out_send(out, &core->frame);
    }
}
