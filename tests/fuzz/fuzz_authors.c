/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a From field: what is found is an address, and found again when it stands alone.
 */
#include "proto/authors.h"

#include "proto/smtp_address.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(void *context, struct slice address)
{
    return slice_equal(address, *(const struct slice *)context);
}

static bool check(void *context, struct slice address)
{
    struct smtp_mailbox mailbox;
    uint32_t *told = context, count;
    assert(address.length <= AUTHOR_MAX && smtp_mailbox_parse(address, &mailbox));
    assert(authors_read(address, same, &address, &count) == AUTHORS_READ && count == 1);
    (*told)++;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t told = 0, count;
    assert(authors_read(slice_make(data, size), check, &told, &count) != AUTHORS_REFUSED);
    assert(told == count);
    return 0;
}
