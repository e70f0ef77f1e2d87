/* SPDX-License-Identifier: Apache-2.0
 *
 * Mail about an alert: looks by core's "status" for a chain that works and is not the one that the
 * alert is about, and puts the message into the queue by "queue import", with a null reverse-path,
 * for a server of that chain.
 */
#ifndef HOLDFAST_APP_HOOK_MAIL_H
#define HOLDFAST_APP_HOOK_MAIL_H

#include "app/hook_core.h"
#include "app/hook_text.h"

struct hook_mail;

/* `problem` is NULL, or says why it could not be put there now. */
typedef void hook_mailed_fn(void *context, uint32_t queue, const char *problem);

/* NULL: memory. */
struct hook_mail *hook_mail_new(struct hook_core *core, const struct service_config *config,
                                hook_mailed_fn *fn, void *context);
void hook_mail_free(struct hook_mail *mail); /* NULL is allowed */
/* False, and nobody is called: it is busy with another, or core is. The letter may change when this
 * has returned. */
bool hook_mail_send(struct hook_mail *mail, uint32_t queue, struct slice to,
                    const struct hook_letter *letter);

/* Which way: the servers by name with their state, as "status" tells. False: none works. Else
 * *ret_server is empty if the address' own route will do, or the server to send it to. Order of
 * choice: chains whose first server works before those that stand in, the own route before relays,
 * what the alert is about (`about`: "domain:example.com" or a server's name) last. */
struct hook_way {
    const struct relay_config *config;
    const bool *works; /* by server */
};
bool hook_mail_way(const struct hook_way *way, struct slice to, struct slice about,
                   struct slice *ret_server);

#endif
