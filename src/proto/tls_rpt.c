/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/tls_rpt.h"

#include "proto/txt_record.h"

/* What may stand in a URI, and in a log, a header or a command without a thought. */
static bool is_plain(struct slice uri)
{
    for (size_t i = 0; i < uri.length; i++) {
        uint8_t c = uri.data[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' || c == '\\') {
            return false;
        }
    }
    return true;
}

static bool is_target(struct slice uri)
{
    static const char *const schemes[] = {"mailto:", "https://"};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        struct slice scheme = slice_from_text(schemes[i]);
        if (slice_starts_fold(uri, scheme) && uri.length > scheme.length) {
            return uri.length <= TLS_RPT_URI_MAX && is_plain(uri);
        }
    }
    return false;
}

static void take_targets(struct slice value, struct tls_rpt_record *record)
{
    while (value.length > 0) {
        size_t end = slice_find(value, ',');
        struct slice uri = slice_trim(slice_take(value, end));
        value = slice_skip(value, end + 1);
        if (is_target(uri) && record->count < TLS_RPT_TARGETS_MAX) {
            record->targets[record->count++] = uri;
        }
    }
}

bool tls_rpt_read(struct slice record, struct tls_rpt_record *ret_record)
{
    struct slice targets;
    *ret_record = (struct tls_rpt_record){0};
    if (!txt_record_find(record, SLICE_LITERAL("v=TLSRPTv1"), SLICE_LITERAL("rua"), &targets)) {
        return false;
    }
    take_targets(targets, ret_record);
    return true;
}

static int hex_of(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool tls_rpt_mailbox(struct slice target, char *ret_address, size_t size)
{
    struct slice rest = slice_skip(target, sizeof("mailto:") - 1);
    size_t length = 0;
    if (!slice_starts_fold(target, SLICE_LITERAL("mailto:"))) {
        return false;
    }
    rest = slice_take(rest, slice_find(rest, '?'));
    for (size_t i = 0; i < rest.length; i++) {
        int c = rest.data[i];
        if (c == '%') {
            int high = i + 2 < rest.length ? hex_of(rest.data[i + 1]) : -1;
            int low = i + 2 < rest.length ? hex_of(rest.data[i + 2]) : -1;
            c = high < 0 || low < 0 ? -1 : high * 16 + low;
            i += 2;
        }
        if (c <= ' ' || c >= 0x7f || length + 1 >= size) {
            return false;
        }
        ret_address[length++] = (char)c;
    }
    ret_address[length] = '\0';
    return length > 0;
}
