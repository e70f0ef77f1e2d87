/* SPDX-License-Identifier: Apache-2.0 */
#include "service/gzip.h"

#include <limits.h>
#include <zlib.h>

enum { WINDOW_BITS = 15, GZIP_FRAME = 16, MEMORY_LEVEL = 8 };

enum error gzip(struct slice bytes, struct buffer *ret_packed)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)bytes.data, .avail_in = (uInt)bytes.length};
    if (bytes.length > INT_MAX ||
        deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS + GZIP_FRAME,
                     MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        return bytes.length > INT_MAX ? ERROR_LIMIT : ERROR_MEMORY;
    }
    size_t room = deflateBound(&stream, (uLong)bytes.length);
    enum error error = buffer_reserve(ret_packed, room);
    if (error == ERROR_NONE) {
        stream.next_out = ret_packed->data + ret_packed->length;
        stream.avail_out = (uInt)room;
        /* There is room for all of it. */
        error = deflate(&stream, Z_FINISH) == Z_STREAM_END ? ERROR_NONE : ERROR_MEMORY;
    }
    if (error == ERROR_NONE) {
        ret_packed->length += stream.total_out;
    }
    (void)deflateEnd(&stream);
    return error;
}
