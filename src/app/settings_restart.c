/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings that the table marks as bound to the life of the program, in a form to compare.
 */
#include "app/settings_internal.h"
#include "base/hash.h"

#include <assert.h>

static struct slice text_at(const struct service_config *config, uint32_t offset)
{
    struct slice text;
    memcpy(&text, (const uint8_t *)config + offset, sizeof(text));
    return text;
}

static uint64_t digest_of(const struct service_config *config, const struct setting *setting)
{
    const struct hash_key key = {0}; /* no stranger chooses these */
    uint64_t digest = 0;
    switch (setting->type) {
    case SETTING_COUNT:
    case SETTING_DURATION:
    case SETTING_SIZE:
    case SETTING_CHOICE:
        return hash_bytes(key,
                          slice_make((const uint8_t *)config + setting->offset, setting->width));
    case SETTING_TEXT:
    case SETTING_PATH:
    case SETTING_PROGRAM:
    case SETTING_ANCHOR:
        return hash_bytes(key, text_at(config, setting->offset));
    case SETTING_RESOLVERS:
        for (uint32_t i = 0; i < config->dns_forwarder_count; i++) {
            struct hash_key next = {digest, i + 1}; /* their order counts */
            digest = hash_bytes(next, config->dns_forwarders[i]);
        }
        return digest;
    case SETTING_ENDPOINTS: /* of the standby block */
        return hash_bytes(key,
                          slice_make(config->standby.watch, config->standby.watch_count *
                                                                sizeof(config->standby.watch[0])));
    default:
        assert(!"a type that no restart setting has");
        return 0;
    }
}

uint32_t settings_restart(const struct service_config *config,
                          struct restart_setting ret_settings[SETTINGS_RESTART_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < settings_table_length; i++) {
        const struct setting *setting = &settings_table[i];
        if (setting->restart) {
            assert((setting->block == BLOCK_TOP || setting->block == BLOCK_CLUSTER ||
                    setting->block == BLOCK_STANDBY) &&
                   count < SETTINGS_RESTART_MAX);
            ret_settings[count++] =
                (struct restart_setting){setting->name, digest_of(config, setting)};
        }
    }
    return count;
}
