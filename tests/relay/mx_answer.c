/* SPDX-License-Identifier: Apache-2.0 */
#include "mx_answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct slice word(struct slice *rest)
{
    *rest = slice_trim(*rest);
    struct slice got = slice_take(*rest, slice_find(*rest, ' '));
    *rest = slice_skip(*rest, got.length);
    return got;
}

static void add(struct mx_answer_text *test, struct slice text)
{
    struct mx_exchanger *exchanger = &test->exchangers[test->answer.count];
    struct mx_address *addresses = test->addresses[test->answer.count++];
    uint64_t preference = 0;
    assert_true(slice_to_u64(word(&text), &preference));
    *exchanger = (struct mx_exchanger){
        .preference = (uint16_t)preference, .host = word(&text), .addresses = addresses};
    for (struct slice at = word(&text); at.length > 0; at = word(&text)) {
        struct mx_address *address = &addresses[exchanger->address_count];
        if (slice_equal(at, SLICE_LITERAL("-"))) {
            exchanger->error = ERROR_MISSING;
        } else if (slice_equal(at, SLICE_LITERAL("?"))) {
            exchanger->error = ERROR_TIMEOUT;
        } else {
            address->ours = at.data[0] == '!';
            assert_true(ip_from_text(slice_skip(at, address->ours), &address->address));
            exchanger->address_count++;
        }
    }
}

void mx_answer_read(struct mx_answer_text *answer, const char *text)
{
    memset(answer, 0, sizeof *answer);
    answer->answer.exchangers = answer->exchangers;
    answer->answer.ttl_s = 3600;
    struct slice rest = slice_from_text(text);
    while (slice_trim(rest).length > 0) {
        size_t end = slice_find(rest, ';');
        add(answer, slice_take(rest, end));
        rest = slice_skip(rest, end + 1);
    }
}
