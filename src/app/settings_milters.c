/* SPDX-License-Identifier: Apache-2.0
 *
 * The milter blocks: filters, and which listener asks which.
 */
#include "app/settings_internal.h"

#include "base/hosts.h"

/* A name is what /etc/hosts says when the configuration is read. DNS is not asked: whoever answers
 * for it would tell the keeper where to connect to. The file becomes a part of the configuration,
 * so that all processes see the same. */
static bool find_host(struct settings *settings, struct place at, struct slice name,
                      struct ip_address *ret_address, const char **ret_why)
{
    uint32_t source;
    *ret_why = NULL;
    if (slice_equal_fold(name, SLICE_LITERAL("localhost"))) {
        return ip_from_text(SLICE_LITERAL("127.0.0.1"), ret_address);
    }
    if (settings_is_shared(settings, at)) {
        *ret_why = "names a host, which is another one for each node; write its IP address";
        return false;
    }
    if (!settings_source(settings, &at, SLICE_LITERAL("/etc/hosts"), &source)) {
        return false;
    }
    struct hosts_reader hosts = {.rest = settings->sources[source].content};
    for (struct slice known; hosts_next(&hosts, &known);) {
        if (slice_equal_fold(known, name)) {
            *ret_address = hosts.address;
            return true;
        }
    }
    *ret_why = "names a host that is not in /etc/hosts; write its IP address, or add it there";
    return false;
}

/* "inet:25@host" is Sendmail's way to write "inet:host:25". */
static bool take_inet(struct settings *settings, struct place at, struct slice text,
                      struct ip_endpoint *ret_at, const char **ret_why)
{
    struct server_address address;
    size_t sign = slice_find(text, '@');
    if (sign < text.length) {
        char *turned = settings_allocate(settings, text.length, 1);
        if (turned == NULL) {
            return false;
        }
        struct slice host = slice_skip(text, sign + 1);
        memcpy(turned, host.data, host.length);
        turned[host.length] = ':';
        memcpy(turned + host.length + 1, text.data, sign);
        text = slice_make(turned, text.length);
    }
    if (!value_address(text, 0, &address, ret_why)) {
        return false;
    }
    if (!address.is_literal && !find_host(settings, at, address.host, &address.literal, ret_why)) {
        return false;
    }
    *ret_at = (struct ip_endpoint){address.literal, address.port};
    return true;
}

/* The keeper connects, with its rights: who can write to the cluster's database shall not say to
 * which socket of a machine. */
static bool take_path(struct settings *settings, struct place at, struct slice text,
                      struct slice *ret_path, const char **ret_why)
{
    *ret_path = text;
    if (settings_is_shared(settings, at)) {
        *ret_why = "is a socket of one machine; such a milter stands in each node's own file only";
        return false;
    }
    *ret_why = "is no absolute path";
    if (text.length == 0 || text.data[0] != '/' || slice_find(text, 0) != text.length) {
        return false;
    }
    *ret_why = "is longer than a socket's path may be";
    return text.length <= MILTER_PATH_MAX;
}

static void take_address(struct settings *settings, const struct entry *entry,
                         struct milter_config *milter)
{
    if (entry == NULL || entry->count != 1 || entry->list) {
        return;
    }
    struct slice text = entry->values[0].text;
    struct slice rest = slice_skip(text, slice_find(text, ':') + 1);
    const char *why = "";
    bool good;
    if (slice_starts_fold(text, SLICE_LITERAL("unix:")) ||
        slice_starts_fold(text, SLICE_LITERAL("local:"))) {
        good = take_path(settings, entry->at, rest, &milter->path, &why);
    } else {
        bool inet = slice_starts_fold(text, SLICE_LITERAL("inet:")) ||
                    slice_starts_fold(text, SLICE_LITERAL("inet6:"));
        good = take_inet(settings, entry->at, inet ? rest : text, &milter->at, &why);
    }
    if (!good && why != NULL) { /* NULL: it has been said */
        settings_complain(settings, entry->at, "address: '%.*s' %s", SHOWN(text), why);
    }
}

void settings_milters(struct settings *settings, const struct entry **entries)
{
    struct milter_config *milters = settings_allocate(settings, MILTERS_MAX, sizeof(*milters));
    struct names names;
    names_init(&names);
    for (const struct block *block = settings->first_block; block != NULL && milters != NULL;
         block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_MILTER) {
            continue;
        }
        if (settings->config.milter_count == MILTERS_MAX) {
            settings_complain(settings, block->at, "more than %d milter blocks", MILTERS_MAX);
            break;
        }
        struct milter_config *milter = &milters[settings->config.milter_count++];
        milter->otherwise = MILTER_DEFAULT_LISTENER;
        settings_fill(settings, BLOCK_MILTER, block, milter, entries);
        take_address(settings, settings_entry(entries, BLOCK_MILTER, "address"), milter);
        milter->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
        if (milter->name.length > MILTER_NAME_MAX) {
            settings_complain(settings, block->at, "milter '%.*s': the name is longer than %d",
                              SHOWN(milter->name), MILTER_NAME_MAX);
        }
        (void)names_once(settings, &names, milter->name, block->at, "milter");
    }
    names_done(&names);
    settings->config.milters = milters;
}

static void add_milter(struct settings *settings, const struct value *value,
                       struct listener_config *listener)
{
    const struct service_config *config = &settings->config;
    struct slice nearest = SLICE_EMPTY;
    unsigned best = UINT32_MAX;
    for (uint32_t i = 0; i < config->milter_count; i++) {
        struct slice name = config->milters[i].name;
        if (!slice_equal_fold(name, value->text)) {
            nearest = settings_is_near(value->text, name, &best) ? name : nearest;
            continue;
        }
        for (uint32_t k = 0; k < listener->milter_count; k++) {
            if (listener->milters[k] == i) {
                settings_complain(settings, value->at, "milters: '%.*s' is there twice",
                                  SHOWN(value->text));
                return;
            }
        }
        listener->milters[listener->milter_count++] = (uint8_t)i;
        return;
    }
    if (settings_waits(settings, value->at, value->text)) {
        return;
    }
    settings_complain(settings, value->at, "milters: there is no milter '%.*s'%s%.*s%s",
                      SHOWN(value->text), nearest.length > 0 ? "; did you mean '" : "",
                      SHOWN(nearest), nearest.length > 0 ? "'?" : "");
}

void settings_listener_milters(struct settings *settings, const struct entry *entry,
                               struct listener_config *listener)
{
    bool takes_mail =
        listener->protocol == LISTENER_SMTP || listener->protocol == LISTENER_SUBMISSION;
    if (entry != NULL && !takes_mail) {
        settings_complain(settings, entry->at, "milters are for listeners that take mail");
        return;
    }
    for (uint32_t i = 0; entry != NULL && i < entry->count; i++) {
        add_milter(settings, &entry->values[i], listener);
    }
}
