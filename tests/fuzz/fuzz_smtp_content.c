/* SPDX-License-Identifier: Apache-2.0
 *
 * The content scanner against a model of a few lines that looks at one byte after the other, and
 * against itself with the input cut in pieces. The first byte chooses the piece and DATA or BDAT.
 */
#include "proto/smtp_content.h"

#include "base/buffer.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    struct buffer content;
    bool ended;
    size_t used;
    uint64_t bare;
};

/* R10 as it is written. */
static void model(struct slice input, bool is_dotted, struct outcome *ret)
{
    bool at_line = true, true_line = true;
    size_t at = 0;
    while (at < input.length) {
        struct slice rest = slice_skip(input, at);
        if (is_dotted && true_line && rest.length >= 3 && memcmp(rest.data, ".\r\n", 3) == 0) {
            ret->ended = true;
            ret->used = at + 3;
            return;
        }
        bool was_line = at_line;
        at_line = true_line = false;
        if (is_dotted && was_line && rest.data[0] == '.') {
            at++;
        } else if (rest.length >= 2 && memcmp(rest.data, "\r\n", 2) == 0) {
            buffer_append_text(&ret->content, "\r\n");
            at += 2;
            at_line = true_line = true;
        } else if (rest.data[0] == '\n') {
            buffer_append_text(&ret->content, "\r\n");
            ret->bare++;
            at++;
            at_line = true;
        } else {
            ret->bare += rest.data[0] == '\r';
            buffer_put_u8(&ret->content, rest.data[0] == '\r' ? ' ' : rest.data[0]);
            at++;
        }
    }
    if (!at_line) {
        buffer_append_text(&ret->content, "\r\n");
    }
    ret->used = at;
}

static void scan(struct slice input, bool is_dotted, size_t piece, struct outcome *ret,
                 struct smtp_content *content)
{
    struct smtp_content_limits limits = {.own_host = SLICE_LITERAL("b")};
    smtp_content_init(content, &limits, is_dotted);
    while (ret->used < input.length && !ret->ended) {
        struct slice window = slice_take(slice_skip(input, ret->used), piece);
        struct slice rest = window, run;
        enum smtp_content_result result = smtp_content_next(content, &rest, &run);
        ret->used += window.length - rest.length;
        if (result == SMTP_CONTENT_RUN) {
            assert(run.length > 0);
            buffer_append(&ret->content, run);
        }
        assert(result != SMTP_CONTENT_MORE || rest.length == 0);
        ret->ended = result == SMTP_CONTENT_END;
    }
    if (!ret->ended) {
        buffer_append(&ret->content, smtp_content_finish(content));
    }
    ret->bare = content->bare_newlines;
    assert(content->length == ret->content.length);
}

static void check_header(const struct smtp_content *content, struct slice bytes)
{
    uint64_t length = smtp_content_header_length(content);
    assert(length <= bytes.length);
    struct slice id = smtp_header_message_id(&content->header);
    assert(slice_find(id, '\0') == id.length && slice_find(id, '\n') == id.length);
    for (size_t i = 0; i + 4 <= length; i++) {
        assert(i + 4 == length || memcmp(bytes.data + i, "\r\n\r\n", 4) != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t pieces[] = {SIZE_MAX, 1, 2, 3, 7, 63, 64, 65};
    struct outcome expected = {0}, whole = {0}, cut = {0};
    struct smtp_content content, again;
    if (size == 0) {
        return 0;
    }
    struct slice input = slice_make(data + 1, size - 1);
    bool is_dotted = (data[0] & 8) != 0;
    model(input, is_dotted, &expected);
    scan(input, is_dotted, SIZE_MAX, &whole, &content);
    scan(input, is_dotted, pieces[data[0] & 7], &cut, &again);
    assert(content.header.is_ours == again.header.is_ours);
    assert(smtp_header_needs_no_tls(&content.header) == smtp_header_needs_no_tls(&again.header));
    /* An unfinished ".CR" at the end of DATA is neither content nor end: the model says so, too,
     * in its own way. */
    if (expected.ended || !is_dotted) {
        assert(whole.ended == expected.ended && whole.used == expected.used);
        assert(slice_equal(buffer_slice(&whole.content), buffer_slice(&expected.content)));
        assert(whole.bare == expected.bare);
    }
    assert(cut.ended == whole.ended && cut.used == whole.used && cut.bare == whole.bare);
    assert(slice_equal(buffer_slice(&whole.content), buffer_slice(&cut.content)));
    assert(smtp_content_header_length(&content) == smtp_content_header_length(&again));
    assert(content.header.received == again.header.received);
    assert(content.has_8bit == again.has_8bit);
    check_header(&content, buffer_slice(&whole.content));
    buffer_done(&expected.content);
    buffer_done(&whole.content);
    buffer_done(&cut.content);
    return 0;
}
