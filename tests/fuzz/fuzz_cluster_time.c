/* SPDX-License-Identifier: Apache-2.0
 *
 * Any octets as the file of a cluster's time: nothing, or a time that people may live in, which
 * goes on from there and is the same when it has been written again. As they are, and with the sum
 * that belongs to them.
 */
#include "base/crc32c.h"
#include "service/cluster_time.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(struct slice file)
{
    static const char *const boots[] = {"", "a", "0c2cc1a6-3b6f-4a9e-9e6a-5f3f5d1f8a11"};
    for (size_t i = 0; i < 3; i++) {
        struct cluster_time time = {0}, again = {0};
        memcpy(time.boot, boots[i], strlen(boots[i]));
        memcpy(again.boot, boots[i], strlen(boots[i]));
        (void)cluster_time_decode(&time, file);
        assert(!time.same_boot || i > 0);
        int64_t wall_ms = cluster_time_wall_ms(&time);
        assert(wall_ms >= time.least_ms && time.least_ms >= 0);
        struct buffer bytes;
        buffer_init(&bytes, 0);
        cluster_time_encode(&time, time.least_ms, &bytes);
        assert(!bytes.failed);
        (void)cluster_time_decode(&again, buffer_slice(&bytes));
        assert(again.ahead_ms == time.ahead_ms && again.least_ms == time.least_ms);
        assert(time.least_ms == 0 || i == 0 || again.same_boot);
        buffer_done(&bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer file;
    buffer_init(&file, 0);
    look_at(slice_make(data, size));
    buffer_append(&file, slice_make(data, size));
    buffer_put_u32(&file, crc32c(0, slice_make(data, size)));
    assert(!file.failed);
    look_at(buffer_slice(&file));
    buffer_done(&file);
    return 0;
}
