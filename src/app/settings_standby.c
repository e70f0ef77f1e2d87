/* SPDX-License-Identifier: Apache-2.0
 *
 * The standby block: two machines that share a state directory, of which one works.
 */
#include "app/lease.h"
#include "app/settings_internal.h"

static void check_name(struct settings *settings, const struct block *block, const char *key,
                       struct slice name)
{
    if (!lease_name_is_good(name)) {
        settings_complain(settings, block->at,
                          "%s: '%.*s' is not 1 to %d of a-z, 0-9, '-', '.', '_' that begin with a "
                          "letter or digit",
                          key, SHOWN(name), LEASE_NAME_MAX);
    }
}

static void take_watch(struct settings *settings, const struct entry *entry,
                       struct standby_config *standby)
{
    struct ip_endpoint *all =
        entry == NULL ? NULL : settings_allocate(settings, STANDBY_WATCH_MAX, sizeof(*all));
    standby->watch = all;
    for (uint32_t i = 0; all != NULL && i < entry->count; i++) {
        struct server_address address;
        const struct value *value = &entry->values[i];
        const char *why = "is one more than can be watched";
        bool good = i < STANDBY_WATCH_MAX && value_address(value->text, 25, &address, &why);
        if (good && !address.is_literal) {
            good = false;
            why = "is a name: write the address";
        }
        if (!good) {
            settings_complain(settings, value->at, "watch: '%.*s' %s", SHOWN(value->text), why);
            continue;
        }
        all[standby->watch_count++] = (struct ip_endpoint){address.literal, address.port};
    }
}

static struct slice take_program(struct settings *settings, const struct entry **entries,
                                 const char *key)
{
    return settings_program(settings, settings_entry(entries, BLOCK_STANDBY, key));
}

/* There an empty mount point would have nothing that says so. */
static void check_known(struct settings *settings, const struct block *block,
                        const struct entry *entry)
{
    struct slice state = settings->config.state, known = settings->config.standby.known;
    struct place at = entry != NULL ? entry->at : block->at;
    while (state.length > 1 && state.data[state.length - 1] == '/') {
        state.length--;
    }
    bool begins = slice_equal(slice_take(known, state.length), state);
    if (known.length > 0 && known.data[0] != '/') {
        settings_complain(settings, at, "known-state: '%.*s' is not an absolute path",
                          SHOWN(known));
    } else if (begins && (known.length == state.length || known.data[state.length] == '/')) {
        settings_complain(settings, at,
                          "known-state: '%.*s' is in the shared state: name a directory of this "
                          "machine's own",
                          SHOWN(known));
    }
}

void settings_standby(struct settings *settings, const struct entry **entries)
{
    const struct block *block = settings_only_block(settings, BLOCK_STANDBY);
    struct standby_config *standby = &settings->config.standby;
    if (block == NULL) {
        return;
    }
    settings_fill(settings, BLOCK_STANDBY, block, &settings->config, entries);
    if (standby->name.length == 0) {
        standby->name = settings_first_label(settings, settings->config.hostname);
    }
    check_name(settings, block, "name", standby->name);
    if (standby->of.length > 0) {
        check_name(settings, block, "of", standby->of);
    }
    if (slice_equal(standby->name, standby->of)) {
        settings_complain(settings, block->at, "of: '%.*s' is this machine's own name; see name",
                          SHOWN(standby->of));
    }
    standby->fence = take_program(settings, entries, "fence");
    standby->before = take_program(settings, entries, "before-takeover");
    standby->after_takeover = take_program(settings, entries, "after-takeover");
    standby->after_release = take_program(settings, entries, "after-release");
    take_watch(settings, settings_entry(entries, BLOCK_STANDBY, "watch"), standby);
    check_known(settings, block, settings_entry(entries, BLOCK_STANDBY, "known-state"));
    if (settings->config.cluster.database.length > 0) {
        settings_complain(
            settings, block->at,
            "standby is for machines without a database; a cluster has no need of it");
    }
}
