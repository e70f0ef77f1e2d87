/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_known.h"

#include "base/password.h"

static const struct login_entry *find_entry(const struct login_source *source, struct slice name)
{
    const struct login_entry *found = NULL;
    for (uint32_t i = 0; i < source->entry_count; i++) {
        if (slice_equal_fold(source->entries[i].name, name)) {
            found = &source->entries[i];
        }
    }
    return found;
}

/* NULL: nobody of that name may fetch mail there. */
static const struct odmr_user *find_site(const struct listener_config *listener, struct slice name)
{
    const struct odmr_user *found = NULL;
    for (uint32_t i = 0; i < listener->odmr_user_count; i++) {
        if (slice_equal_fold(listener->odmr_users[i].name, name)) {
            found = &listener->odmr_users[i];
        }
    }
    return found;
}

static bool is_remote(const struct login_source *source)
{
    return source->kind == LOGIN_SOURCE_LDAP || source->kind == LOGIN_SOURCE_PAM;
}

struct login_known login_look_up(const struct login_store *store,
                                 const struct listener_config *listener, struct slice name,
                                 uint32_t first)
{
    struct login_known known = {.name = name, .decoy = password_nobody()};
    known.site = listener != NULL ? find_site(listener, name) : NULL;
    if (known.site != NULL) {
        known.name = known.site->name;
        known.addresses = known.site->domains;
        known.address_count = known.site->domain_count;
    }
    for (uint32_t i = 0; listener != NULL && i < listener->login_source_count; i++) {
        const struct login_source *source = &listener->login_sources[i];
        const struct login_user *user = NULL;
        const struct login_entry *entry = NULL;
        if (is_remote(source) && i >= first) {
            known.remote = source;
            known.at = i;
            return known;
        }
        if (source->kind == LOGIN_SOURCE_USERS) {
            user = login_store_find(store, name);
        } else {
            entry = find_entry(source, name);
            if (i == 0 && source->entry_count > 0) {
                known.decoy = source->entries[0].hash;
            }
        }
        if (user != NULL && known.address_count == 0) {
            known.name = user->name;
            known.addresses = user->addresses;
            known.address_count = user->address_count;
        }
        if (user != NULL && (user->password.length > 0 || user->has_keys)) {
            known.user = user;
            known.hash = user->password;
            return known;
        }
        if (entry != NULL) {
            known.hash = entry->hash;
            if (known.address_count == 0) {
                known.name = entry->name;
                known.addresses = entry->addresses;
                known.address_count = entry->address_count;
            }
            return known;
        }
    }
    return known;
}

bool login_asks_others(const struct listener_config *listener)
{
    bool asks = false;
    for (uint32_t i = 0; listener != NULL && i < listener->login_source_count; i++) {
        asks = asks || is_remote(&listener->login_sources[i]);
    }
    return asks;
}
