/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/machine.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The length; 0: not to be had. */
static ssize_t read_file(const char *path, char buffer[MACHINE_NAME_SIZE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, buffer, MACHINE_NAME_SIZE - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    return length > 0 ? length : 0;
}

struct slice machine_boot(char buffer[MACHINE_NAME_SIZE])
{
    return slice_make(buffer, (size_t)read_file("/proc/sys/kernel/random/boot_id", buffer));
}

struct slice machine_name(char buffer[MACHINE_NAME_SIZE])
{
    ssize_t length = read_file("/etc/machine-id", buffer);
    if (length == 0) {
        bool is_named = gethostname(buffer, MACHINE_NAME_SIZE - 1) == 0;
        length = is_named ? (ssize_t)strnlen(buffer, MACHINE_NAME_SIZE - 1) : 0;
    }
    return slice_make(buffer, (size_t)length);
}
