/* SPDX-License-Identifier: Apache-2.0 */
#include "app/dial.h"

#include "base/buffer.h"
#include "sys/fdpass.h"

#include <unistd.h>

enum { ANSWER_BYTES = 8 + 1 + 4 + DIAL_PROBLEM_MAX, REQUEST_BYTES = 8 + 4 + DIAL_NAME_MAX };

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

static void copy_text(struct slice text, char *ret_text)
{
    if (text.length > 0) {
        memcpy(ret_text, text.data, text.length);
    }
    ret_text[text.length] = '\0';
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
    copy_text(name, ret_request->name);
    return ERROR_NONE;
}

enum error dial_answer(int link, const struct dial_answer *answer)
{
    struct buffer bytes;
    buffer_init(&bytes, ANSWER_BYTES);
    buffer_put_u64(&bytes, answer->token);
    buffer_put_u8(&bytes, (uint8_t)answer->error);
    buffer_put_bytes(&bytes, slice_from_text(answer->problem));
    return send_all(link, &bytes, answer->fd >= 0 ? &answer->fd : NULL);
}

enum error dial_answered(int link, struct dial_answer *ret_answer)
{
    uint8_t bytes[ANSWER_BYTES];
    size_t length;
    enum error error = receive(link, bytes, sizeof(bytes), &length, &ret_answer->fd);
    if (error != ERROR_NONE) {
        return error;
    }
    struct reader reader = reader_make(slice_make(bytes, length));
    ret_answer->token = reader_u64(&reader);
    ret_answer->error = (enum error)reader_u8(&reader);
    struct slice problem = reader_bytes(&reader);
    if (reader.failed || reader.rest.length > 0 || problem.length > DIAL_PROBLEM_MAX ||
        (ret_answer->fd < 0) == (ret_answer->error == ERROR_NONE)) {
        if (ret_answer->fd >= 0) {
            close(ret_answer->fd);
        }
        return ERROR_INVALID;
    }
    copy_text(problem, ret_answer->problem);
    return ERROR_NONE;
}
