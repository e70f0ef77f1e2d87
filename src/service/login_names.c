/* SPDX-License-Identifier: Apache-2.0
 *
 * What users may be called, and send as: for all who write or read that.
 */
#include "service/login.h"

#include "base/utf8.h"

static bool is_printable(struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] <= ' ' || text.data[i] == 0x7f) {
            return false;
        }
    }
    return utf8_is_valid(text);
}

const char *login_name_fault(struct slice name)
{
    return name.length == 0               ? "is empty"
           : name.length > LOGIN_NAME_MAX ? "is too long"
           : !is_printable(name)          ? "has a blank or a control character"
                                          : NULL;
}

const char *login_address_fault(struct slice address)
{
    size_t at = slice_find_last(address, '@');
    return address.length > LOGIN_ADDRESS_MAX ? "is too long"
           : !is_printable(address)           ? "has a blank or a control character"
           : !slice_equal(address, SLICE_LITERAL("*")) && (at == 0 || at + 1 >= address.length)
               ? "is no address, pattern such as *@example.com, or *"
               : NULL;
}

bool login_may_send_as(const struct slice *addresses, uint32_t count, struct slice address)
{
    for (uint32_t i = 0; i < count; i++) {
        if (slice_matches_fold(address, addresses[i])) {
            return true;
        }
    }
    return false;
}
