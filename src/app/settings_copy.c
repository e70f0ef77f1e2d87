/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy of the cluster's settings that a member keeps in its state directory, so that it starts
 * without the database.
 */
#include "app/settings_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Its own files are there from before: it cannot be a link to a file elsewhere. */
static int open_copy(struct settings *settings, const char *name)
{
    char path[STATE_PATH_MAX + 64];
    struct slice state = settings_peek_state(settings);
    int length = snprintf(path, sizeof(path), "%.*s/" SETTINGS_COPY_DIRECTORY "/%s",
                          SLICE_PRINT(state), name);
    if (state.length == 0 || length < 0 || (size_t)length >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
}

static enum error read_whole(int fd, struct buffer *ret_bytes)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return error_from_errno(errno);
    }
    if (!S_ISREG(status.st_mode) || status.st_size > SETTINGS_VERSION_BYTES_MAX) {
        return ERROR_CORRUPT;
    }
    enum error error = buffer_reserve(ret_bytes, (size_t)status.st_size);
    while (error == ERROR_NONE && ret_bytes->length < (size_t)status.st_size) {
        ssize_t got = read(fd, ret_bytes->data + ret_bytes->length,
                           (size_t)status.st_size - ret_bytes->length);
        if (got < 0 && errno != EINTR) {
            error = error_from_errno(errno);
        } else if (got == 0) {
            break; /* shorter now: its checksum will tell */
        }
        ret_bytes->length += got > 0 ? (size_t)got : 0;
    }
    return error;
}

enum error settings_take_copy(struct settings *settings, const char *name)
{
    struct settings_file *files =
        settings_allocate_tree(settings, SETTINGS_FILES_MAX, sizeof(*files));
    struct settings_version version;
    struct buffer bytes;
    if (files == NULL) {
        return ERROR_MEMORY;
    }
    int fd = open_copy(settings, name);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    buffer_init(&bytes, 0);
    enum error error = read_whole(fd, &bytes);
    close(fd);
    if (error == ERROR_NONE) {
        error = settings_version_get(buffer_slice(&bytes), &version, files);
    }
    if (error == ERROR_NONE && !settings_take_version(settings, &version)) {
        error = ERROR_MEMORY;
    }
    buffer_done(&bytes);
    return error;
}
