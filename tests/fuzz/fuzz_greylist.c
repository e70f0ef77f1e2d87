/* SPDX-License-Identifier: Apache-2.0
 *
 * The file of what greylisting knows. The first byte chooses: 0 is the file as it is; else the
 * input is a file without its sum, which is put right here, so that what is behind it is reached.
 * What was read writes a file that says the same; what was not has left nothing.
 */
#include "base/crc32c.h"
#include "service/greylist.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct greylist_time now = {INT64_C(1000), INT64_C(1700000000000)};

static void write_again(const struct greylist *list)
{
    struct greylist *again = calloc(1, greylist_bytes());
    struct buffer file, second;
    buffer_init(&file, GREYLIST_FILE_MAX);
    buffer_init(&second, GREYLIST_FILE_MAX);
    greylist_write(list, now, &file);
    assert(again != NULL && !file.failed);
    enum error error = greylist_read(again, buffer_slice(&file), now);
    assert(error == ERROR_NONE);
    greylist_write(again, now, &second);
    assert(slice_equal(buffer_slice(&file), buffer_slice(&second)));
    buffer_done(&file);
    buffer_done(&second);
    greylist_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct greylist *list = calloc(1, greylist_bytes());
    struct slice input = slice_make(data, size);
    struct buffer file;
    buffer_init(&file, 0);
    buffer_append(&file, slice_skip(input, 1));
    if (size > 0 && data[0] != 0) {
        buffer_put_u32(&file, crc32c(0, slice_skip(input, 1)));
    }
    assert(list != NULL && !file.failed);
    enum error error = greylist_read(list, buffer_slice(&file), now);
    if (error == ERROR_NONE) {
        write_again(list);
    } else {
        assert(error == ERROR_CORRUPT || error == ERROR_NEWER);
        assert(!greylist_has_begun(list) && greylist_serial(list) == 0);
    }
    buffer_done(&file);
    greylist_free(list);
    return 0;
}
