/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as replies: the same replies from one piece as from single bytes, all within bounds.
 */
#include "base/utf8.h"
#include "proto/smtp_reply.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct smtp_reply_parser *parser)
{
    struct smtp_reply reply;
    smtp_reply_get(parser, &reply);
    assert(reply.code >= 200 && reply.code <= 599);
    assert(reply.text.length <= SMTP_REPLY_TEXT_MAX && utf8_is_valid(reply.text));
    assert(reply.enhanced[0] == 0 || reply.enhanced[0] == reply.code / 100);
    for (size_t i = 0; i < reply.text.length; i++) {
        assert(reply.text.data[i] >= ' ' && reply.text.data[i] != 0x7f);
    }
}

/* The next reply or the end, fed `step` bytes at a time. */
static enum smtp_reply_status next(struct smtp_reply_parser *parser, struct slice *input,
                                   size_t step)
{
    while (input->length > 0) {
        struct slice piece = slice_take(*input, step);
        size_t before = piece.length;
        struct slice line;
        enum smtp_reply_status status = smtp_reply_parse(parser, &piece, &line);
        assert(before > piece.length || status == SMTP_REPLY_BROKEN);
        *input = slice_skip(*input, before - piece.length);
        if (status == SMTP_REPLY_COMPLETE) {
            check(parser);
        }
        if (status == SMTP_REPLY_COMPLETE || status == SMTP_REPLY_BROKEN) {
            return status;
        }
    }
    return SMTP_REPLY_MORE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct smtp_reply_parser whole, split;
    struct slice a = slice_make(data, size), b = a;
    smtp_reply_parser_init(&whole);
    smtp_reply_parser_init(&split);
    for (;;) {
        enum smtp_reply_status status = next(&whole, &a, SIZE_MAX);
        enum smtp_reply_status other = next(&split, &b, 1);
        assert(status == other);
        if (status != SMTP_REPLY_COMPLETE) {
            return 0;
        }
        struct smtp_reply first, second;
        smtp_reply_get(&whole, &first);
        smtp_reply_get(&split, &second);
        assert(a.length == b.length && first.code == second.code);
        assert(slice_equal(first.text, second.text));
        assert(memcmp(first.enhanced, second.enhanced, 3) == 0);
    }
}
