/* SPDX-License-Identifier: Apache-2.0 */
#include "app/control_address.h"

#include <stdio.h>
#include <sys/socket.h>

bool control_address(struct slice state, int directory, struct sockaddr_un *ret_address)
{
    char *path = ret_address->sun_path;
    size_t size = sizeof(ret_address->sun_path);
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length = snprintf(path, size, "%.*s/control.sock", SLICE_PRINT(state));
    if (length >= (int)size && directory >= 0) {
        length = snprintf(path, size, "/proc/self/fd/%d/control.sock", directory);
    }
    return length > 0 && length < (int)size;
}
