/* SPDX-License-Identifier: Apache-2.0
 *
 * Webhooks: a JSON object is posted to a URL, by libcurl on the loop. Signed with HMAC-SHA256 when
 * there is a secret. No redirects, no proxies, no cookies; names are resolved by our resolver.
 *
 * libcurl brings thirty libraries along. It is opened by this process alone, when it starts, so
 * that no process that parses what strangers send has any of them (docs/decisions/0018).
 */
#ifndef HOLDFAST_APP_HOOK_WEB_H
#define HOLDFAST_APP_HOOK_WEB_H

#include "base/buffer.h"
#include "sys/dns.h"

struct hook_web;

/* `problem` is NULL when the answer was 2xx, else says what went wrong. */
typedef void hook_posted_fn(void *context, uint64_t slot, const char *problem);

/* Before the walls are raised: opens libcurl and reads the certificates of this machine. Logs
 * nothing; what is missing fails each post. NULL: memory. */
struct hook_web *hook_web_new(void);
void hook_web_start(struct hook_web *web, struct loop *loop, struct dns *dns, hook_posted_fn *fn,
                    void *context);
void hook_web_free(struct hook_web *web); /* NULL is allowed; nobody is called any more */

struct hook_post {
    uint64_t slot; /* the caller's */
    const char *url;
    struct slice secret; /* empty: not signed */
    struct slice body;
    uint32_t timeout_ms;
};
/* The answer may come before this returns. Keeps nothing of what it is given. */
void hook_web_post(struct hook_web *web, const struct hook_post *post);
/* Of all that are under way: nobody is called for them. */
void hook_web_cancel(struct hook_web *web);

#endif
