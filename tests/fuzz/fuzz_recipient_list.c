/* SPDX-License-Identifier: Apache-2.0
 *
 * A list of recipients, as a page (JSON or lines) and as a file that comes in pieces: whatever is
 * taken for an address is one line's, and lines are the same however they were cut. And as values
 * of a directory: what is taken for an address is a line of a list, and names nobody but that. The
 * input is an octet for the cut and the page.
 */
#include "app/list_text.h"
#include "app/recipient_list.h"
#include "base/utf8.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct told {
    uint64_t names;
    uint32_t line;
    const char *why;
};

static void take(struct recipient_lines *lines, struct told *told)
{
    struct recipient_line line;
    while (told->why == NULL && recipient_lines_next(lines, &line, &told->why)) {
        assert(line.local.length <= 255 && line.domain.length <= 255);
        assert(slice_find(line.local, '\n') == line.local.length);
        assert(line.local.length + line.domain.length > 0);
        assert(utf8_is_valid(line.local) && utf8_is_valid(line.domain));
        assert(!slice_equal(line.local, SLICE_LITERAL("\"\"")));
        told->names++;
    }
    told->line = lines->line;
}

/* As a file is read: `piece` bytes more each time. */
static struct told read_in_pieces(struct slice text, size_t piece)
{
    struct told told = {0};
    struct recipient_lines lines = {.rest = slice_take(text, 0)};
    size_t at = 0, seen = 0;
    while (told.why == NULL && !lines.is_end) {
        seen = text.length - at < piece + (seen - at) ? text.length : seen + piece;
        lines.rest = slice_make(text.data + at, seen - at);
        lines.is_end = seen == text.length;
        take(&lines, &told);
        at = seen - lines.rest.length;
    }
    return told;
}

static void take_value(struct slice value)
{
    struct slice address;
    struct recipient_line line;
    const char *why = NULL;
    if (!list_text_from_value(value, &address)) {
        return;
    }
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append(&text, address);
    buffer_append_text(&text, "\nx@y\n");
    struct recipient_lines lines = {.rest = buffer_slice(&text), .is_end = true};
    assert(!list_text_is_of_other_kind(value));
    assert(recipient_lines_next(&lines, &line, &why) && line.local.length > 0);
    assert(slice_find(line.local, '*') == line.local.length);
    assert(line.local.data == text.data);
    assert(recipient_lines_next(&lines, &line, &why) &&
           slice_equal_fold(line.domain, slice_from_text("y")));
    assert(!recipient_lines_next(&lines, &line, &why) && why == NULL);
    buffer_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    take_value(slice_make(data + 1, size - 1));
    struct buffer text;
    buffer_init(&text, 0);
    if (list_text_from_page(slice_make(data + 1, size - 1), &text) == NULL && text.length > 0) {
        struct told whole = read_in_pieces(buffer_slice(&text), text.length);
        struct told cut = read_in_pieces(buffer_slice(&text), (size_t)data[0] + 1);
        assert(whole.why == cut.why && whole.names == cut.names && whole.line == cut.line);
    }
    buffer_done(&text);
    return 0;
}
