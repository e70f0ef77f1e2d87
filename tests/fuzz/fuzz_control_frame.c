/* SPDX-License-Identifier: Apache-2.0
 *
 * The control protocol's frame reader, fed in pieces whose sizes the input chooses.
 */
#include "service/control_frame.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct control_reader reader;
    control_reader_init(&reader);
    size_t step = size == 0 ? 1 : 1 + data[0];
    for (size_t at = 1; at < size;) {
        json_t *object;
        enum error error = control_reader_next(&reader, &object);
        if (error == ERROR_NONE) {
            struct buffer out;
            buffer_init(&out, 0);
            error = control_put(&out, object);
            assert(error == ERROR_NONE || error == ERROR_LIMIT);
            buffer_done(&out);
            json_decref(object);
            continue;
        }
        if (error != ERROR_AGAIN) {
            break;
        }
        size_t room;
        uint8_t *space = control_reader_space(&reader, &room);
        size_t length = size - at < step ? size - at : step;
        length = length < room ? length : room;
        memcpy(space, data + at, length);
        control_reader_filled(&reader, length);
        at += length;
    }
    control_reader_done(&reader);
    json_t *string = control_string(slice_make(data, size));
    assert(string != NULL);
    json_decref(string);
    return 0;
}
