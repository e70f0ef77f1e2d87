/* SPDX-License-Identifier: Apache-2.0
 *
 * What a resolver must know of this machine (resolv.conf(5), hosts(5)), read while there are still
 * files to read.
 */
#ifndef HOLDFAST_APP_NAME_SERVERS_H
#define HOLDFAST_APP_NAME_SERVERS_H

#include "service/config.h"
#include "sys/dns.h"

struct name_servers;

/* Forwarders of the configuration, else those of the machine. NULL: memory. A missing file is an
 * empty one. */
struct name_servers *name_servers_read(const struct service_config *config);
const struct dns_settings *name_servers_settings(const struct name_servers *names);
void name_servers_free(struct name_servers *names);

#endif
