/* SPDX-License-Identifier: Apache-2.0
 *
 * A stranger's header, changed by a hostile filter: lengths stay right, and what nobody changed
 * keeps its bytes. The input is the header, a NUL, and changes: an octet what, an octet where, a
 * name and a value that end in NUL.
 */
#include "proto/header_list.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice next(struct slice *rest)
{
    struct slice text = slice_take(*rest, slice_find(*rest, 0));
    *rest = slice_skip(*rest, text.length + 1);
    return text;
}

static void check(const struct header_list *list)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct header_field *field = &list->fields[i];
        bytes += field->whole.length;
        assert(field->whole.length > 0 && field->name.length <= field->whole.length);
        assert(header_field_value(field).length <= field->whole.length);
    }
    assert(bytes == list->bytes && bytes <= list->most);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    struct slice block = next(&rest);
    struct arena arena;
    struct header_list list;
    arena_init(&arena);
    if (header_list_take(&list, block, 1 << 16, &arena)) {
        check(&list);
        assert(list.bytes + list.tail.length == block.length);
        if (rest.length % 2 == 1) {
            (void)!header_list_put_own(&list, SLICE_LITERAL("Received: own\r\n"));
        }
        while (rest.length > 2) {
            unsigned what = rest.data[0], where = rest.data[1];
            rest = slice_skip(rest, 2);
            struct slice name = next(&rest), value = next(&rest);
            if (what % 3 == 0) {
                (void)!header_list_add(&list, name, value, what > 9);
            } else if (what % 3 == 1) {
                (void)!header_list_insert(&list, where, name, value, what > 9);
            } else {
                (void)!header_list_change(&list, where, name, value, what > 9);
            }
            check(&list);
        }
    }
    header_list_done(&list);
    arena_done(&arena);
    return 0;
}
