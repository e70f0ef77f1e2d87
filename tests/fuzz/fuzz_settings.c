/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration parser. The input is split at form feeds into up to four files, "a" to "d",
 * which may include each other; what parses must expand to a text that parses the same.
 */
#include "app/settings.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct slice text)
{
    struct buffer errors, expanded;
    buffer_init(&errors, 0);
    buffer_init(&expanded, 0);
    struct settings *settings = settings_parse(text, &errors);
    if (settings != NULL) {
        settings_expand(settings, SETTINGS_FOR_EDGE_OUT, &expanded);
        struct settings *again = settings_parse(buffer_slice(&expanded), &errors);
        assert(again != NULL);
        settings_free(again);
    } else {
        assert(errors.length > 0 && errors.data[errors.length - 1] == '\n');
    }
    settings_free(settings);
    buffer_done(&expanded);
    buffer_done(&errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    check(rest);
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, "holdfast-settings 1\nmachine 3\nm.n\ndirectory 1\n/\n");
    for (char name = 'a'; name <= 'd' && rest.length > 0; name++) {
        struct slice part = slice_take(rest, slice_find(rest, '\f'));
        rest = slice_skip(rest, part.length + 1);
        buffer_printf(&text, "path 1\n%c\ncontent %zu\n", name, part.length);
        buffer_append(&text, part);
        buffer_append_text(&text, "\n");
    }
    check(buffer_slice(&text));
    buffer_done(&text);
    return 0;
}
