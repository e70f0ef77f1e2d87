/* SPDX-License-Identifier: Apache-2.0 */
#include "app/name_servers.h"

#include "base/arena.h"
#include "base/buffer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, SERVERS_MAX = 8 };

struct name_servers {
    struct arena arena;
    const char *forwarders[SERVERS_MAX];
    struct dns_settings settings;
};

static const char *copy(struct name_servers *names, struct slice text)
{
    return (const char *)arena_copy(&names->arena, text).data;
}

static struct slice read_file(struct name_servers *names, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return SLICE_EMPTY;
    }
    struct buffer text;
    buffer_init(&text, FILE_MAX);
    uint8_t part[4096];
    for (ssize_t length; (length = read(fd, part, sizeof(part))) > 0;) {
        buffer_append(&text, slice_make(part, (size_t)length));
    }
    close(fd);
    struct slice all = arena_copy(&names->arena, buffer_slice(&text));
    buffer_done(&text);
    return all;
}

static void add_server(struct name_servers *names, struct slice text)
{
    size_t count = names->settings.forwarder_count;
    const char *server = count < SERVERS_MAX ? copy(names, text) : NULL;
    if (server != NULL) {
        names->forwarders[count] = server;
        names->settings.forwarder_count++;
    }
}

/* Lines "nameserver ADDRESS"; an address with a scope is not for us. */
static void read_resolv_conf(struct name_servers *names)
{
    struct slice rest = read_file(names, "/etc/resolv.conf");
    const struct slice word = SLICE_LITERAL("nameserver");
    while (rest.length > 0) {
        size_t end = slice_find(rest, '\n');
        struct slice line = slice_trim(slice_take(rest, end));
        struct ip_address address;
        if (slice_starts_fold(line, word)) {
            struct slice value = slice_trim(slice_skip(line, word.length));
            if (ip_from_text(value, &address)) {
                add_server(names, value);
            }
        }
        rest = slice_skip(rest, end + 1);
    }
}

struct name_servers *name_servers_read(const struct service_config *config)
{
    struct name_servers *names = calloc(1, sizeof(*names));
    if (names == NULL) {
        return NULL;
    }
    arena_init(&names->arena);
    names->settings.forwarders = names->forwarders;
    for (uint32_t i = 0; i < config->dns_forwarder_count; i++) {
        add_server(names, config->dns_forwarders[i]);
    }
    if (config->dns_forwarder_count == 0) {
        read_resolv_conf(names);
    }
    if (config->dns_trust_anchor.length > 0) {
        names->settings.trust_anchor = copy(names, config->dns_trust_anchor);
    }
    names->settings.hosts = (const char *)read_file(names, "/etc/hosts").data;
    return names;
}

const struct dns_settings *name_servers_settings(const struct name_servers *names)
{
    return &names->settings;
}

void name_servers_free(struct name_servers *names)
{
    if (names != NULL) {
        arena_done(&names->arena);
        free(names);
    }
}
