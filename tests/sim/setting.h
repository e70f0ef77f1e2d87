/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration of the simulated world: two domains and a relay over five servers, one of them
 * LMTP. One shape is plain; the others, between which the program is reloaded, have servers in
 * other places or gone, other chains, exchangers that DNS names among them, a domain missing,
 * nowhere for bounces to go.
 */
#ifndef HOLDFAST_TESTS_SETTING_H
#define HOLDFAST_TESTS_SETTING_H

#include "service/config.h"

enum { SETTING_PATIENCE_MS = 30000 }; /* order-patience of every route */

/* m1 > m2 > m3 for example.test (m2 by name), l1 (LMTP) > m3 for lmtp.test, o1 > m2 for the rest.
 */
enum setting_server { M1, M2, M3, L1, O1, SETTING_SERVERS };

struct ip_endpoint setting_server_at(enum setting_server server);
const char *setting_server_name(enum setting_server server);
bool setting_server_is_lmtp(enum setting_server server);
/* Where clients connect to. */
struct ip_endpoint setting_listener(void);
/* Where the site calls, as whom: it may have the mail of example.test. */
struct ip_endpoint setting_odmr_listener(void);
#define SETTING_SITE "site"
#define SETTING_SITE_PASSWORD "a tin can and a string"
/* A client of the relay's network. */
struct ip_address setting_relay_client(void);

struct setting;
struct setting *setting_new_plain(void);
/* The same servers, but those of example.test and of the rest as DNS names them (sim.h), l1 > mx
 * for lmtp.test. */
struct setting *setting_new_mx(void);
/* Plain, but that the site has to call for the mail of example.test. */
struct setting *setting_new_odmr(void);
/* Plain, but that some servers want to be told whose mail it is by a PROXY header, chains drawn. */
struct setting *setting_new_told(void);
/* As the dice fall. */
struct setting *setting_new_drawn(void);
void setting_free(struct setting *setting);
const struct service_config *setting_config(const struct setting *setting);

#endif
