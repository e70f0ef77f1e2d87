/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper: starts the other processes and starts them again, holds what must outlive them
 * (listening sockets, the lock, rings, counters), and parses nothing. Its exit ends all.
 */
#ifndef HOLDFAST_APP_KEEPER_H
#define HOLDFAST_APP_KEEPER_H

/* By whom it is allowed to work (app/warden.h). */
struct keeper_lease {
    int page;  /* a struct lease_page (service/lease_page.h); -1: there is none */
    int ready; /* to be told, by one octet, that all is up */
};

/* Runs the daemon with the configuration file; returns the exit status. Without a lease, and with a
 * standby block, the process becomes a warden. */
int keeper_run(const char *config_path, const struct keeper_lease *lease);

#endif
