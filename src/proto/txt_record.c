/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/txt_record.h"

bool txt_record_find(struct slice record, struct slice version, struct slice name,
                     struct slice *ret_value)
{
    for (bool first = true; record.length > 0; first = false) {
        size_t end = slice_find(record, ';');
        struct slice field = slice_trim(slice_take(record, end));
        record = slice_skip(record, end + 1);
        if (first && !slice_equal(field, version)) {
            return false;
        }
        size_t equals = slice_find(field, '=');
        if (slice_equal(slice_take(field, equals), name)) {
            *ret_value = slice_skip(field, equals + 1);
            return true;
        }
    }
    return false;
}
