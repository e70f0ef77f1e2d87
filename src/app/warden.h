/* SPDX-License-Identifier: Apache-2.0
 *
 * Above the keeper, where two machines share a state directory (docs/decisions/0047): it watches
 * the other machine's lease, takes one over, starts a keeper with it, renews it, and ends that
 * keeper with all its children when it cannot. It parses nothing but leases.
 */
#ifndef HOLDFAST_APP_WARDEN_H
#define HOLDFAST_APP_WARDEN_H

#include "app/plan.h"

/* Until it is told to stop. Returns the exit status. */
int warden_run(const char *config_path, const struct plan *plan);

#endif
