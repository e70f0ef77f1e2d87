/* SPDX-License-Identifier: Apache-2.0
 *
 * A message about an alert, in the words of each way: variables for a program, a JSON object for a
 * webhook, a mail. What each holds is in holdfast.conf(5). Times are arguments.
 */
#ifndef HOLDFAST_APP_HOOK_TEXT_H
#define HOLDFAST_APP_HOOK_TEXT_H

#include "app/hook_desk.h"
#include "base/buffer.h"

#include <jansson.h>

struct hook_letter {
    const struct hook_message *message;
    struct slice hostname;
    struct slice alert; /* the block's name */
    int64_t now_ms;     /* wall: of this attempt */
};

/* NULL: memory. */
json_t *hook_environment(const struct hook_letter *letter);
/* The object of a webhook. NULL: memory. */
json_t *hook_object(const struct hook_letter *letter);
/* Header block (*ret_header_length bytes) and text. */
void hook_mail_text(const struct hook_letter *letter, struct slice to, struct buffer *ret_mail,
                    size_t *ret_header_length);

#endif
