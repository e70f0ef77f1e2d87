/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy of the cluster's settings on a disk. The checksum of the input is made right, so that
 * what lies behind it is reached; what is good must be written as it was.
 */
#include "base/crc32c.h"
#include "cluster/settings_version.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct slice bytes)
{
    static struct settings_file files[SETTINGS_FILES_MAX];
    struct settings_version version;
    if (settings_version_get(bytes, &version, files) != ERROR_NONE) {
        return;
    }
    struct buffer again;
    buffer_init(&again, 0);
    assert(settings_version_fault(&version) == NULL);
    settings_version_put(&again, &version);
    assert(again.failed || slice_equal(buffer_slice(&again), bytes));
    buffer_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer bytes;
    check(slice_make(data, size));
    buffer_init(&bytes, 0);
    buffer_append(&bytes, slice_make(data, size));
    buffer_put_u32(&bytes, crc32c(0, slice_make(data, size)));
    if (!bytes.failed) {
        check(buffer_slice(&bytes));
    }
    buffer_done(&bytes);
    return 0;
}
