/* SPDX-License-Identifier: Apache-2.0 */
#include "app/settings_offer.h"

#include "base/buffer.h"
#include "sys/fdpass.h"

#include <unistd.h>

enum { OFFER_BYTES = 8, RESULT_BYTES = 8 + 1 + 4 + SETTINGS_PROBLEM_MAX };

static enum error send_all(int link, struct buffer *bytes, const int *fd)
{
    enum error error =
        bytes->failed ? ERROR_MEMORY : fdpass_send(link, buffer_slice(bytes), fd, fd != NULL);
    buffer_done(bytes);
    return error;
}

enum error settings_offer_send(int link, uint64_t number, int fd)
{
    struct buffer bytes;
    buffer_init(&bytes, OFFER_BYTES);
    buffer_put_u64(&bytes, number);
    return send_all(link, &bytes, &fd);
}

enum error settings_offer_receive(int link, uint64_t *ret_number, int *ret_fd)
{
    uint8_t bytes[OFFER_BYTES];
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    size_t length, count;
    enum error error = fdpass_receive(link, bytes, sizeof(bytes), &length, descriptors, &count);
    if (error != ERROR_NONE) {
        return error == ERROR_LIMIT ? ERROR_INVALID : error;
    }
    struct reader reader = reader_make(slice_make(bytes, length));
    *ret_number = reader_u64(&reader);
    if (count != 1 || reader.failed || *ret_number > INT64_MAX) {
        for (size_t i = 0; i < count; i++) {
            close(descriptors[i]);
        }
        return ERROR_INVALID;
    }
    *ret_fd = descriptors[0];
    return ERROR_NONE;
}

enum error settings_result_send(int link, const struct settings_result *result)
{
    struct buffer bytes;
    buffer_init(&bytes, RESULT_BYTES);
    buffer_put_u64(&bytes, result->number);
    buffer_put_u8(&bytes, (uint8_t)result->outcome);
    buffer_put_bytes(&bytes, slice_from_text(result->problem));
    return send_all(link, &bytes, NULL);
}

enum error settings_result_receive(int link, struct settings_result *ret_result)
{
    uint8_t bytes[RESULT_BYTES];
    size_t length;
    enum error error = fdpass_receive_bytes(link, bytes, sizeof(bytes), &length);
    if (error != ERROR_NONE) {
        return error == ERROR_LIMIT || error == ERROR_CORRUPT ? ERROR_INVALID : error;
    }
    struct reader reader = reader_make(slice_make(bytes, length));
    ret_result->number = reader_u64(&reader);
    uint8_t outcome = reader_u8(&reader);
    struct slice problem = reader_bytes(&reader);
    if (reader.failed || reader.rest.length > 0 || outcome > SETTINGS_BUSY ||
        problem.length > SETTINGS_PROBLEM_MAX) {
        return ERROR_INVALID;
    }
    ret_result->outcome = (enum settings_outcome)outcome;
    if (problem.length > 0) {
        memcpy(ret_result->problem, problem.data, problem.length);
    }
    ret_result->problem[problem.length] = '\0';
    return ERROR_NONE;
}
