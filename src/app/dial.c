/* SPDX-License-Identifier: Apache-2.0 */
#include "app/dial.h"

#include "base/buffer.h"
#include "sys/fdpass.h"

#include <unistd.h>

enum { ANSWER_BYTES = 9, REQUEST_BYTES = 8 + 4 + DIAL_NAME_MAX };

static enum error send_all(int link, struct buffer *bytes, const int *fd)
{
    enum error error =
        bytes->failed ? ERROR_MEMORY : fdpass_send(link, buffer_slice(bytes), fd, fd != NULL);
    buffer_done(bytes);
    return error;
}

/* A message without more descriptors than it may have. */
static enum error receive(int link, uint8_t *bytes, size_t size, size_t *ret_length, int *ret_fd)
{
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    size_t count;
    *ret_fd = -1;
    enum error error = fdpass_receive(link, bytes, size, ret_length, descriptors, &count);
    if (error != ERROR_NONE) {
        return error == ERROR_LIMIT ? ERROR_INVALID : error;
    }
    if (count > 1) {
        for (size_t i = 0; i < count; i++) {
            close(descriptors[i]);
        }
        return ERROR_INVALID;
    }
    *ret_fd = count == 1 ? descriptors[0] : -1;
    return ERROR_NONE;
}

enum error dial_ask(int link, uint64_t token, struct slice name)
{
    struct buffer bytes;
    buffer_init(&bytes, REQUEST_BYTES);
    buffer_put_u64(&bytes, token);
    buffer_put_bytes(&bytes, name);
    return send_all(link, &bytes, NULL);
}

enum error dial_receive(int link, struct dial_request *ret_request)
{
    uint8_t bytes[REQUEST_BYTES];
    size_t length;
    int fd;
    enum error error = receive(link, bytes, sizeof(bytes), &length, &fd);
    if (error != ERROR_NONE) {
        return error;
    }
    struct reader reader = reader_make(slice_make(bytes, length));
    ret_request->token = reader_u64(&reader);
    struct slice name = reader_bytes(&reader);
    if (fd >= 0 || reader.failed || reader.rest.length > 0 || name.length > DIAL_NAME_MAX) {
        if (fd >= 0) {
            close(fd);
        }
        return ERROR_INVALID;
    }
    memset(ret_request->name, 0, sizeof(ret_request->name));
    if (name.length > 0) {
        memcpy(ret_request->name, name.data, name.length);
    }
    return ERROR_NONE;
}

enum error dial_answer(int link, uint64_t token, enum error error, int fd)
{
    struct buffer bytes;
    buffer_init(&bytes, ANSWER_BYTES);
    buffer_put_u64(&bytes, token);
    buffer_put_u8(&bytes, (uint8_t)error);
    return send_all(link, &bytes, fd >= 0 ? &fd : NULL);
}

enum error dial_answered(int link, uint64_t *ret_token, enum error *ret_error, int *ret_fd)
{
    uint8_t bytes[ANSWER_BYTES];
    size_t length;
    enum error error = receive(link, bytes, sizeof(bytes), &length, ret_fd);
    if (error != ERROR_NONE) {
        return error;
    }
    struct reader reader = reader_make(slice_make(bytes, length));
    *ret_token = reader_u64(&reader);
    *ret_error = (enum error)reader_u8(&reader);
    if (reader.failed || reader.rest.length > 0 || (*ret_fd < 0) == (*ret_error == ERROR_NONE)) {
        if (*ret_fd >= 0) {
            close(*ret_fd);
        }
        return ERROR_INVALID;
    }
    return ERROR_NONE;
}
