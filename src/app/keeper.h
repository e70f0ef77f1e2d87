/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper: starts the other processes and starts them again, holds what must outlive them
 * (listening sockets, the lock, rings, counters), and parses nothing. Its exit ends all.
 */
#ifndef HOLDFAST_APP_KEEPER_H
#define HOLDFAST_APP_KEEPER_H

/* Runs the daemon with the configuration file; returns the exit status. */
int keeper_run(const char *config_path);

#endif
