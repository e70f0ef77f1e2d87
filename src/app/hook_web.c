/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hook_web.h"

#include "base/digest.h"

#include <stdio.h>

enum { SIGNATURE_SIZE = 40 + 2 * DIGEST_SHA256_BYTES };

static bool sign(struct slice secret, struct slice body, char ret_header[SIGNATURE_SIZE])
{
    uint8_t digest[DIGEST_MAX_BYTES];
    if (digest_hmac(DIGEST_SHA256, secret, body, digest) != ERROR_NONE) {
        return false;
    }
    int length = snprintf(ret_header, SIGNATURE_SIZE, "X-Holdfast-Signature: sha256=");
    for (int i = 0; i < DIGEST_SHA256_BYTES; i++) {
        length += snprintf(ret_header + length, SIGNATURE_SIZE - (size_t)length, "%02x", digest[i]);
    }
    return true;
}

void hook_web_post(struct fetcher *fetcher, const struct hook_post *post)
{
    char signature[SIGNATURE_SIZE];
    bool is_signed = post->secret.length > 0;
    if (is_signed && !sign(post->secret, post->body, signature)) {
        const struct fetch_answer answer = {.problem = "out of memory"};
        post->fn(post->context, post->slot, &answer);
        return;
    }
    const struct fetch what = {.fn = post->fn,
                               .context = post->context,
                               .slot = post->slot,
                               .url = post->url,
                               .may_be_plain = true,
                               .post = post->body,
                               .post_type = "application/json",
                               .header = is_signed ? signature : NULL,
                               .timeout_ms = post->timeout_ms};
    fetch_begin(fetcher, &what);
}
