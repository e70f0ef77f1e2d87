/* SPDX-License-Identifier: Apache-2.0
 *
 * Any octets as a lease: what is read is within its bounds, its name a file's, and the same when it
 * has been written again.
 */
#include "app/lease.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lease_record record, again;
    uint8_t bytes[LEASE_BYTES];
    if (!lease_decode(slice_make(data, size), &record)) {
        return 0;
    }
    assert(lease_name_is_good(slice_from_text(record.name)));
    assert(record.hold_ms <= LEASE_AFTER_MOST_MS);
    lease_encode(&record, bytes);
    assert(lease_decode(slice_make(bytes, sizeof(bytes)), &again));
    assert(memcmp(&record, &again, sizeof(record)) == 0);
    return 0;
}
