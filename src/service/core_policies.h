/* SPDX-License-Identifier: Apache-2.0
 *
 * Policies of MTA-STS (RFC 8461): what domains demand of the servers that their mail is given to.
 * edge-out asks DNS whether there is one, the helper fetches it, and it is kept here and in a file
 * until it expires. docs/decisions/0033 says why so.
 */
#ifndef HOLDFAST_SERVICE_CORE_POLICIES_H
#define HOLDFAST_SERVICE_CORE_POLICIES_H

#include "service/core_internal.h"
#include "service/whole_file.h"

#include <jansson.h>

void core_policies_init(struct core *core);
void core_policies_done(struct core *core);
/* Reads what was kept; before anything is loaded. The files must outlive it. */
void core_policies_keep(struct core *core, struct whole_files *files);
void core_policies_tick(struct core *core);
/* Writes what has changed, at the end. */
void core_policies_stop(struct core *core);

/* Who waits for what is known of a domain to be as new as it is to be. */
struct policy_waiter {
    struct link link; /* alone while it does not wait */
    void (*fn)(void *context);
    void *context;
};
/* True: it is. False: `waiter` is called once it is, or when it has taken too long, which is
 * logged: core_policy_demand() then goes by what is known. */
bool core_policy_settle(struct core *core, struct slice domain, struct policy_waiter *waiter);
/* What a domain's policy says of a server. */
enum sts_demand core_policy_demand(struct core *core, struct slice domain, struct slice host);
/* For so many seconds that need not be asked again. */
uint32_t core_policy_valid_s(struct core *core, struct slice domain);
/* The lines of the policy as reports show them (RFC 8460 4.4), a JSON array; NULL: there is none.
 */
json_t *core_policy_lines(const struct core *core, struct slice domain);

/* And whom it lists. */
json_t *core_policy_hosts(const struct core *core, struct slice domain);

/* CHANNEL_TEXTS of "_mta-sts.DOMAIN". */
void core_policies_announced(struct core *core, struct slice domain,
                             const struct channel_texts *texts);

#endif
