/* SPDX-License-Identifier: Apache-2.0
 *
 * What of the cluster's settings gives way to the node's own file: each setting at the top that
 * stands in both, and each title of a block that a block of the same kind has there. Only at a
 * start, for a node must start; while it runs, and where settings are made, both are in error.
 */
#include "app/settings_internal.h"

static bool has_title(const struct block *block, struct slice title)
{
    for (uint32_t i = 0; i < block->title_count; i++) {
        if (block->titles[i].text.data != NULL && slice_equal_fold(block->titles[i].text, title)) {
            return true;
        }
    }
    return false;
}

static bool is_own(const struct settings *settings, struct slice kind, struct slice title)
{
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        if (!settings_is_shared(settings, block->at) && slice_equal(block->kind, kind) &&
            has_title(block, title)) {
            return true;
        }
    }
    return false;
}

/* False: there is nothing left of it. */
static bool yield_titles(struct settings *settings, struct block *block)
{
    struct value *kept =
        settings_allocate_tree(settings, block->title_count + 1, sizeof(struct value));
    uint32_t count = 0;
    for (uint32_t i = 0; kept != NULL && i < block->title_count; i++) {
        struct slice title = block->titles[i].text;
        if (title.data == NULL || !is_own(settings, block->kind, title)) {
            kept[count++] = block->titles[i];
        } else {
            settings_warn(settings, block->at,
                          "%.*s '%.*s' gives way to that of the node's own file",
                          SHOWN(block->kind), SHOWN(title));
        }
    }
    bool is_left = count > 0 || block->title_count == 0;
    block->titles = kept;
    block->title_count = kept != NULL ? count : 0;
    return is_left;
}

static bool is_own_entry(const struct settings *settings, struct slice key)
{
    for (const struct entry *entry = settings->top.first; entry != NULL; entry = entry->next) {
        if (!settings_is_shared(settings, entry->at) && slice_equal(entry->key, key)) {
            return true;
        }
    }
    return false;
}

void settings_yield(struct settings *settings)
{
    for (struct block **link = &settings->first_block; *link != NULL;) {
        struct block *block = *link;
        if (settings_is_shared(settings, block->at) && !yield_titles(settings, block)) {
            *link = block->next;
        } else {
            link = &block->next;
        }
    }
    for (struct entry **link = &settings->top.first; *link != NULL;) {
        struct entry *entry = *link;
        if (settings_is_shared(settings, entry->at) && is_own_entry(settings, entry->key)) {
            settings_warn(settings, entry->at, "'%.*s' gives way to that of the node's own file",
                          SHOWN(entry->key));
            *link = entry->next;
        } else {
            link = &entry->next;
        }
    }
}
