/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/machine.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct slice machine_name(char buffer[MACHINE_NAME_SIZE])
{
    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, buffer, MACHINE_NAME_SIZE - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (length <= 0) {
        bool is_named = gethostname(buffer, MACHINE_NAME_SIZE - 1) == 0;
        length = is_named ? (ssize_t)strnlen(buffer, MACHINE_NAME_SIZE - 1) : 0;
    }
    return slice_make(buffer, (size_t)length);
}
