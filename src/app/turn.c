/* SPDX-License-Identifier: Apache-2.0 */
#include "app/turn.h"

#include "sys/fdpass.h"

#include <unistd.h>

enum { TURN_BYTES = 4 };

enum error turn_send(int link, uint32_t session, int fd)
{
    const uint8_t bytes[TURN_BYTES] = {(uint8_t)(session >> 24), (uint8_t)(session >> 16),
                                       (uint8_t)(session >> 8), (uint8_t)session};
    return fdpass_send(link, slice_make(bytes, sizeof(bytes)), &fd, 1);
}

enum error turn_receive(int link, uint32_t *ret_session, int *ret_fd)
{
    uint8_t bytes[TURN_BYTES];
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    size_t length, count;
    enum error error = fdpass_receive(link, bytes, sizeof(bytes), &length, descriptors, &count);
    if (error != ERROR_NONE) {
        return error == ERROR_LIMIT ? ERROR_INVALID : error;
    }
    if (length != TURN_BYTES || count != 1) {
        for (size_t i = 0; i < count; i++) {
            close(descriptors[i]);
        }
        return ERROR_INVALID;
    }
    *ret_session =
        (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    *ret_fd = descriptors[0];
    return ERROR_NONE;
}
