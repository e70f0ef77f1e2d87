/* SPDX-License-Identifier: Apache-2.0
 *
 * The dnsbl blocks: which DNS lists are asked for a client.
 */
#include "app/settings_internal.h"
#include "service/channel.h"

enum { LISTS_MAX = 32 };

/* 127.0.0.0/24 */
static const struct ip_network usual_answers[] = {
    {{{[10] = 0xff, [11] = 0xff, [12] = 127}}, 120},
};

static void take_answers(struct settings *settings, struct dnsbl_config *list,
                         const struct entry *entry)
{
    list->answers = usual_answers;
    list->answer_count = 1;
    if (entry == NULL) {
        return;
    }
    struct ip_network *networks = settings_allocate(settings, entry->count + 1, sizeof(*networks));
    list->answers = networks;
    list->answer_count = 0;
    for (uint32_t i = 0; networks != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        struct ip_network *network = &networks[list->answer_count];
        const char *why;
        if (!value_network(value->text, network, &why)) {
            settings_complain(settings, value->at, "answers: '%.*s' %s", SHOWN(value->text), why);
        } else if (!ip_is_v4(&network->address)) {
            settings_complain(settings, value->at, "answers: '%.*s' is no IPv4 network",
                              SHOWN(value->text));
        } else {
            list->answer_count++;
        }
    }
}

static void take_block(struct settings *settings, const struct block *block,
                       const struct entry **entries, struct dnsbl_config *list)
{
    settings_fill(settings, BLOCK_DNSBL, block, list, entries);
    list->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    take_answers(settings, list, settings_entry(entries, BLOCK_DNSBL, "answers"));
    if (list->name.length > CHANNEL_LIST_NAME_MAX) {
        settings_complain(settings, block->at, "the name '%.*s' has more than %d characters",
                          SHOWN(list->name), CHANNEL_LIST_NAME_MAX);
    }
}

static bool is_used(const struct settings *settings)
{
    for (uint32_t i = 0; i < settings->config.listener_count; i++) {
        if (settings->config.listeners[i].dnsbl_score != 0) {
            return true;
        }
    }
    return false;
}

void settings_dnsbl(struct settings *settings, const struct entry **entries)
{
    struct dnsbl_config *lists = settings_allocate(settings, LISTS_MAX, sizeof(*lists));
    const struct block *last = NULL;
    struct names names;
    names_init(&names);
    for (const struct block *block = settings->first_block; block != NULL && lists != NULL;
         block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_DNSBL) {
            continue;
        }
        if (settings->config.dnsbl_count == LISTS_MAX) {
            settings_complain(settings, block->at, "more than %d dnsbl blocks", LISTS_MAX);
            break;
        }
        last = block;
        struct dnsbl_config *list = &lists[settings->config.dnsbl_count++];
        take_block(settings, block, entries, list);
        (void)names_once(settings, &names, list->name, block->at, "dnsbl");
    }
    names_done(&names);
    settings->config.dnsbls = lists;
    if (last != NULL && !is_used(settings)) {
        settings_warn(settings, last->at,
                      "no listener has a dnsbl-score: dnsbl lists are not asked");
    } else if (last == NULL && is_used(settings)) {
        settings_warn(settings, settings->top.at,
                      "a listener has a dnsbl-score, but there is no dnsbl block to ask");
    }
}
