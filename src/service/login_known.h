/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known here of the name that somebody logs in with: by the table of users, by files of
 * hashes and by the sites of a listener, or which of those elsewhere is to be asked next.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_KNOWN_H
#define HOLDFAST_SERVICE_LOGIN_KNOWN_H

#include "service/config.h"
#include "service/login_store.h"

/* All of it lies in the configuration, the table and the name that was asked for. */
struct login_known {
    struct slice name;                 /* as it is written there */
    struct slice hash;                 /* empty: nobody has it */
    struct slice decoy;                /* to be checked then */
    const struct login_source *remote; /* not NULL: it is to be asked, of the index `at` */
    uint32_t at;
    const struct login_user *user;
    const struct odmr_user *site; /* of a listener with protocol = odmr, which asks nobody else */
    const struct slice *addresses;
    uint32_t address_count;
};

/* Of those that are elsewhere the ones before `first` do not know it. A listener that is NULL knows
 * nobody. */
struct login_known login_look_up(const struct login_store *store,
                                 const struct listener_config *listener, struct slice name,
                                 uint32_t first);
/* Some of its users are known elsewhere. NULL is allowed. */
bool login_asks_others(const struct listener_config *listener);

#endif
