/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a value in a filter and in a name: what comes out has nothing that means something
 * to a directory, and says the value again when its escapes are undone. Up to the first line end
 * they are a template and a URL.
 */
#include "proto/ldap_text.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9'   ? byte - '0'
           : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
                                        : -1;
}

static void check_escaped(struct slice text, struct slice value, const char *special)
{
    size_t at = 0;
    for (size_t i = 0; i < text.length; i++, at++) {
        uint8_t byte = text.data[i];
        assert(byte >= ' ' && byte < 0x7f && at < value.length);
        if (byte == '\\') {
            assert(i + 2 < text.length);
            byte = (uint8_t)(digit(text.data[i + 1]) * 16 + digit(text.data[i + 2]));
            i += 2;
        } else {
            assert(strchr(special, byte) == NULL);
        }
        assert(byte == value.data[at]);
    }
    assert(at == value.length);
}

static void check_template(enum ldap_template kind, struct slice text, struct slice value)
{
    struct buffer filled;
    buffer_init(&filled, 0);
    if (ldap_template_fault(kind, text) == NULL && ldap_template_fill(kind, text, value, &filled)) {
        assert(memchr(filled.data, '\0', filled.length) == NULL);
        int depth = 0;
        for (size_t i = 0; kind == LDAP_TEMPLATE_FILTER && i < filled.length; i++) {
            depth += (filled.data[i] == '(') - (filled.data[i] == ')');
            assert(depth > 0 || (depth == 0 && i + 1 == filled.length));
        }
    }
    buffer_done(&filled);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    struct slice first = slice_take(input, slice_find(input, '\n'));
    struct slice value = slice_skip(input, first.length + 1);
    struct buffer text;
    struct ldap_url url;
    buffer_init(&text, 0);
    ldap_escape_filter(&text, value);
    check_escaped(buffer_slice(&text), value, "*()");
    buffer_clear(&text);
    ldap_escape_name(&text, value);
    check_escaped(buffer_slice(&text), value, "\"+,;<=>");
    buffer_done(&text);
    check_template(LDAP_TEMPLATE_FILTER, first, value);
    check_template(LDAP_TEMPLATE_NAME, first, value);
    if (ldap_filter_fault(first) == NULL) {
        assert(first.data[0] == '(' && first.data[first.length - 1] == ')');
    }
    if (ldap_url_read(first, &url)) {
        assert(url.port > 0 && url.host.length > 0 && url.host.data >= first.data &&
               url.host.data + url.host.length <= first.data + first.length);
    }
    return 0;
}
