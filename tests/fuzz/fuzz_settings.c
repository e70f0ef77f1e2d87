/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration parser. The input is split at form feeds into up to four files, "a" to "d",
 * which may include each other; what parses must expand to a text that parses the same. Once more
 * the second is the text of a cluster's settings, and those after it are their files.
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

static void check_files(struct slice rest, bool has_cluster)
{
    static const char *const paths[2][4] = {
        {"path 1\na", "path 1\nb", "path 1\nc", "path 1\nd"},
        {"path 1\na", "shared 8\nsettings", "shared 9\ncluster:c", "shared 9\ncluster:d"}};
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, "holdfast-settings 1\nmachine 3\nm.n\ndirectory 1\n/\n");
    buffer_append_text(&text, has_cluster ? "version 1\n7\n" : "");
    for (int i = 0; i < 4 && rest.length > 0; i++) {
        struct slice part = slice_take(rest, slice_find(rest, '\f'));
        rest = slice_skip(rest, part.length + 1);
        buffer_printf(&text, "%s\ncontent %zu\n", paths[has_cluster][i], part.length);
        buffer_append(&text, part);
        buffer_append_text(&text, "\n");
    }
    check(buffer_slice(&text));
    buffer_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    check(input);
    check_files(input, false);
    check_files(input, true);
    return 0;
}
