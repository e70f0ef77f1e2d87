/* SPDX-License-Identifier: Apache-2.0
 *
 * The block and allow blocks: who may send nothing, and who is let through.
 */
#include "app/settings_internal.h"

enum {
    RULES_MAX = 1000,
    TEXT_MAX = 200, /* of a reply line */
};

static void take_clients(struct settings *settings, struct access_rule *rule,
                         const struct value *values, uint32_t count)
{
    struct ip_network *networks = settings_allocate(settings, count + 1, sizeof(*networks));
    for (uint32_t i = 0; networks != NULL && i < count; i++) {
        const char *why;
        if (value_network(values[i].text, &networks[rule->client_count], &why)) {
            rule->client_count++;
        } else {
            settings_complain(settings, values[i].at, "clients: '%.*s' %s", SHOWN(values[i].text),
                              why);
        }
    }
    rule->clients = networks;
}

/* What could match no name or address is a mistake. */
static bool is_pattern(struct slice text, bool senders)
{
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] <= ' ' || text.data[i] == 0x7f) {
            return false;
        }
    }
    return !senders || slice_find(text, '*') < text.length || slice_find(text, '@') < text.length ||
           slice_equal(text, SLICE_LITERAL("<>"));
}

static const struct slice *take_patterns(struct settings *settings, const char *key,
                                         const struct value *values, uint32_t count, bool senders,
                                         uint32_t *ret_count)
{
    struct slice *patterns = settings_allocate(settings, count + 1, sizeof(*patterns));
    *ret_count = 0;
    for (uint32_t i = 0; patterns != NULL && i < count; i++) {
        if (is_pattern(values[i].text, senders)) {
            patterns[(*ret_count)++] = values[i].text;
        } else {
            settings_complain(settings, values[i].at, "%s: '%.*s' is no pattern; write %s", key,
                              SHOWN(values[i].text),
                              senders ? "ann@example.com, *@example.com, *.example.com or <>"
                                      : "mail.example.com or *.example.com");
        }
    }
    return patterns;
}

static void check_text(struct settings *settings, const struct access_rule *rule,
                       const struct entry *entry)
{
    bool good = rule->text.length <= TEXT_MAX;
    for (size_t i = 0; i < rule->text.length; i++) {
        good = good && rule->text.data[i] >= ' ' && rule->text.data[i] < 0x7f;
    }
    if (entry != NULL && !good) {
        settings_complain(settings, entry->at,
                          "text: must be at most %d characters of printable ASCII", TEXT_MAX);
    }
}

static void take_block(struct settings *settings, const struct block *block,
                       const struct entry **entries, struct access_rule *rule)
{
    enum setting_block kind = settings_block_find(block->kind);
    settings_fill(settings, kind, block, rule, entries);
    rule->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    rule->allows = kind == BLOCK_ALLOW;
    static const char *const keys[] = {"clients", "helo", "senders"};
    bool any = false;
    for (int i = 0; i < 3; i++) {
        const struct entry *entry = settings_entry(entries, kind, keys[i]);
        uint32_t count;
        bool good;
        if (entry == NULL) {
            continue;
        }
        any = true;
        const struct value *values =
            settings_list(settings, entry->values, entry->count, &count, &good);
        if (i == 0) {
            take_clients(settings, rule, values, count);
        } else if (i == 1) {
            rule->helos = take_patterns(settings, keys[i], values, count, false, &rule->helo_count);
        } else {
            rule->senders =
                take_patterns(settings, keys[i], values, count, true, &rule->sender_count);
        }
    }
    check_text(settings, rule, settings_entry(entries, kind, "text"));
    if (!any && !block->broken) {
        settings_complain(settings, block->at, "%.*s '%.*s' needs one of clients, helo and senders",
                          SHOWN(block->kind), SHOWN(rule->name));
    }
}

void settings_access(struct settings *settings, const struct entry **entries)
{
    struct access_rule *rules = NULL;
    struct names names;
    uint32_t count = 0;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        enum setting_block kind = settings_block_find(block->kind);
        count += kind == BLOCK_BLOCK || kind == BLOCK_ALLOW;
        if (count == RULES_MAX + 1) {
            settings_complain(settings, block->at, "more than %d block and allow blocks",
                              RULES_MAX);
            return;
        }
    }
    names_init(&names);
    rules = settings_allocate(settings, count + 1, sizeof(*rules));
    for (const struct block *block = settings->first_block; block != NULL && rules != NULL;
         block = block->next) {
        enum setting_block kind = settings_block_find(block->kind);
        if (kind != BLOCK_BLOCK && kind != BLOCK_ALLOW) {
            continue;
        }
        struct access_rule *rule = &rules[settings->config.access_count++];
        take_block(settings, block, entries, rule);
        (void)names_once(settings, &names, rule->name, block->at, "a rule");
    }
    names_done(&names);
    settings->config.access = rules;
}
