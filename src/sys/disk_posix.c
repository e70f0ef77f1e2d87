/* SPDX-License-Identifier: Apache-2.0
 *
 * A real directory. Everything goes by its descriptor, so it works without the path (chroot,
 * Landlock) and a renamed parent does not matter. Names are single components.
 */
#include "sys/disk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct posix_disk {
    struct disk disk;
    int directory;
};

struct posix_file {
    struct disk_file file;
    int fd;
};

static const struct disk_ops posix_ops;

static struct posix_disk *posix_disk(struct disk *disk)
{
    return (struct posix_disk *)disk;
}

static int posix_fd(const struct disk_file *file)
{
    return ((const struct posix_file *)file)->fd;
}

static bool is_component(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* ---- files ------------------------------------------------------------------------------- */

static enum error posix_open(struct disk *disk, const char *name, unsigned flags,
                             struct disk_file **ret_file)
{
    if (!is_component(name)) {
        return ERROR_INVALID;
    }
    int how = (flags & DISK_WRITE) != 0 ? O_RDWR : O_RDONLY;
    if ((flags & DISK_CREATE) != 0) {
        assert((flags & DISK_WRITE) != 0);
        how |= O_CREAT | O_EXCL;
    }
    struct posix_file *file = malloc(sizeof(*file));
    if (file == NULL) {
        return ERROR_MEMORY;
    }
    do {
        file->fd = openat(posix_disk(disk)->directory, name,
                          how | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    } while (file->fd < 0 && errno == EINTR);
    if (file->fd < 0) {
        enum error error = error_from_errno(errno);
        free(file);
        return error;
    }
    file->file.disk = disk;
    *ret_file = &file->file;
    return ERROR_NONE;
}

static void posix_close(struct disk_file *file)
{
    if (file != NULL) {
        close(posix_fd(file));
        free(file);
    }
}

static enum error posix_read(struct disk_file *file, uint64_t offset, void *ret_bytes,
                             size_t length)
{
    uint8_t *at = ret_bytes;
    while (length > 0) {
        ssize_t got = pread(posix_fd(file), at, length, (off_t)offset);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return error_from_errno(errno);
        }
        if (got == 0) {
            return ERROR_CORRUPT;
        }
        at += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return ERROR_NONE;
}

static enum error posix_write(struct disk_file *file, uint64_t offset, struct slice bytes)
{
    while (bytes.length > 0) {
        ssize_t put = pwrite(posix_fd(file), bytes.data, bytes.length, (off_t)offset);
        if (put < 0) {
            if (errno == EINTR) {
                continue;
            }
            return error_from_errno(errno);
        }
        if (put == 0) {
            return ERROR_IO;
        }
        offset += (uint64_t)put;
        bytes = slice_skip(bytes, (size_t)put);
    }
    return ERROR_NONE;
}

static enum error posix_sync(struct disk_file *file)
{
    /* Not repeated on any error, EINTR included: the kernel may have dropped the pages. */
    return fdatasync(posix_fd(file)) == 0 ? ERROR_NONE : ERROR_IO;
}

/* For file systems that cannot reserve: zeros beyond the present end. */
static enum error write_zeros(struct disk_file *file, uint64_t length)
{
    static const uint8_t zeros[64 << 10];
    struct stat status;
    if (fstat(posix_fd(file), &status) != 0) {
        return error_from_errno(errno);
    }
    uint64_t at = (uint64_t)status.st_size;
    while (at < length) {
        struct slice part = slice_take(slice_make(zeros, sizeof(zeros)), length - at);
        enum error error = posix_write(file, at, part);
        if (error != ERROR_NONE) {
            return error;
        }
        at += part.length;
    }
    return ERROR_NONE;
}

static enum error posix_allocate(struct disk_file *file, uint64_t length)
{
    int result;
    do {
        result = fallocate(posix_fd(file), 0, 0, (off_t)length);
    } while (result != 0 && errno == EINTR);
    if (result == 0) {
        return ERROR_NONE;
    }
    return errno == EOPNOTSUPP || errno == ENOSYS ? write_zeros(file, length)
                                                  : error_from_errno(errno);
}

static enum error posix_truncate(struct disk_file *file, uint64_t length)
{
    int result;
    do {
        result = ftruncate(posix_fd(file), (off_t)length);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? ERROR_NONE : error_from_errno(errno);
}

static enum error posix_size(struct disk_file *file, uint64_t *ret_length)
{
    struct stat status;
    if (fstat(posix_fd(file), &status) != 0) {
        return error_from_errno(errno);
    }
    *ret_length = (uint64_t)status.st_size;
    return ERROR_NONE;
}

/* ---- the directory ----------------------------------------------------------------------- */

static enum error posix_rename(struct disk *disk, const char *from, const char *to)
{
    if (!is_component(from) || !is_component(to)) {
        return ERROR_INVALID;
    }
    int directory = posix_disk(disk)->directory;
    return renameat(directory, from, directory, to) == 0 ? ERROR_NONE : error_from_errno(errno);
}

static enum error posix_unlink(struct disk *disk, const char *name)
{
    if (!is_component(name)) {
        return ERROR_INVALID;
    }
    return unlinkat(posix_disk(disk)->directory, name, 0) == 0 ? ERROR_NONE
                                                               : error_from_errno(errno);
}

static enum error posix_sync_directory(struct disk *disk)
{
    return fsync(posix_disk(disk)->directory) == 0 ? ERROR_NONE : ERROR_IO;
}

static enum error list_entries(DIR *entries, disk_list_fn *fn, void *context)
{
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(entries);
        if (entry == NULL) {
            return error_from_errno(errno);
        }
        struct stat status;
        if (fstatat(dirfd(entries), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) {
                continue;
            }
            return error_from_errno(errno);
        }
        if (S_ISREG(status.st_mode)) {
            fn(context, entry->d_name, (uint64_t)status.st_size);
        }
    }
}

static enum error posix_list(struct disk *disk, disk_list_fn *fn, void *context)
{
    /* A description of its own: a duplicate would share the reading position. */
    int fd = openat(posix_disk(disk)->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    DIR *entries = fdopendir(fd);
    if (entries == NULL) {
        enum error error = error_from_errno(errno);
        close(fd);
        return error;
    }
    enum error error = list_entries(entries, fn, context);
    closedir(entries);
    return error;
}

static enum error posix_space(struct disk *disk, struct disk_space *ret_space)
{
    struct statvfs status;
    if (fstatvfs(posix_disk(disk)->directory, &status) != 0) {
        return error_from_errno(errno);
    }
    ret_space->total_bytes = (uint64_t)status.f_blocks * status.f_frsize;
    ret_space->available_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    ret_space->available_files = status.f_files > 0 ? (uint64_t)status.f_favail : UINT64_MAX;
    return ERROR_NONE;
}

static void posix_free(struct disk *disk)
{
    close(posix_disk(disk)->directory);
    free(disk);
}

static const struct disk_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .read = posix_read,
    .write = posix_write,
    .sync = posix_sync,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .size = posix_size,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .sync_directory = posix_sync_directory,
    .list = posix_list,
    .space = posix_space,
    .free = posix_free,
};

enum error disk_from_descriptor(int directory_fd, struct disk **ret_disk)
{
    struct posix_disk *disk = malloc(sizeof(*disk));
    if (disk == NULL) {
        close(directory_fd);
        return ERROR_MEMORY;
    }
    disk->disk.ops = &posix_ops;
    disk->directory = directory_fd;
    *ret_disk = &disk->disk;
    return ERROR_NONE;
}

enum error disk_open_directory(const char *path, struct disk **ret_disk)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return error_from_errno(errno);
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    return disk_from_descriptor(fd, ret_disk);
}

int disk_file_descriptor(const struct disk_file *file)
{
    return file->disk->ops == &posix_ops ? posix_fd(file) : -1;
}

void disk_file_forget(const struct disk_file *file)
{
    int fd = disk_file_descriptor(file);
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

enum error disk_sync_all(int directory_fd)
{
    return syncfs(directory_fd) == 0 ? ERROR_NONE : error_from_errno(errno);
}
