/* SPDX-License-Identifier: Apache-2.0
 *
 * Webhooks: a JSON object is posted to a URL, signed with HMAC-SHA256 when there is a secret.
 */
#ifndef HOLDFAST_APP_HOOK_WEB_H
#define HOLDFAST_APP_HOOK_WEB_H

#include "app/fetch.h"

struct hook_post {
    fetch_ended_fn *fn;
    void *context;
    uint64_t slot; /* the caller's */
    const char *url;
    struct slice secret; /* empty: not signed */
    struct slice body;
    uint32_t timeout_ms;
};
/* The answer may come before this returns. Keeps nothing of what it is given. */
void hook_web_post(struct fetcher *fetcher, const struct hook_post *post);

#endif
