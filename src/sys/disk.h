/* SPDX-License-Identifier: Apache-2.0
 *
 * One directory and its files: the only way the spool and the event journal touch storage.
 * A table of functions, because tests put fault injection, recording and a simulated disk with
 * unsynced, torn and dropped writes in its place (tests/sim/disk_sim.c).
 *
 * Calls block. They may be made from one worker thread and the loop's thread at once, on different
 * files. A failed sync or write leaves the file untrustworthy: the caller must not sync it again.
 */
#ifndef HOLDFAST_SYS_DISK_H
#define HOLDFAST_SYS_DISK_H

#include "base/error.h"
#include "base/slice.h"

#include <sys/uio.h>

struct disk;
struct disk_file;

enum {
    DISK_READ = 1,
    DISK_WRITE = 2,
    DISK_CREATE = 4, /* with DISK_WRITE; fails with ERROR_EXISTS */
};

typedef void disk_list_fn(void *context, const char *name, uint64_t size);

struct disk_space {
    uint64_t total_bytes;
    uint64_t available_bytes; /* to this user */
    uint64_t available_files; /* that may still be made; UINT64_MAX: there is no limit */
};

struct disk_ops {
    enum error (*open)(struct disk *disk, const char *name, unsigned flags,
                       struct disk_file **ret_file);
    void (*close)(struct disk_file *file);
    /* Reads exactly length bytes; ERROR_CORRUPT at a short file. */
    enum error (*read)(struct disk_file *file, uint64_t offset, void *ret_bytes, size_t length);
    /* Writes all or fails. A short write is continued inside; its failure is the error. */
    enum error (*write)(struct disk_file *file, uint64_t offset, struct slice bytes);
    enum error (*sync)(struct disk_file *file);                      /* fdatasync */
    enum error (*allocate)(struct disk_file *file, uint64_t length); /* blocks reserved, size set */
    enum error (*truncate)(struct disk_file *file, uint64_t length);
    enum error (*size)(struct disk_file *file, uint64_t *ret_length);
    enum error (*rename)(struct disk *disk, const char *from, const char *to);
    enum error (*unlink)(struct disk *disk, const char *name);
    enum error (*sync_directory)(struct disk *disk);
    enum error (*list)(struct disk *disk, disk_list_fn *fn, void *context);
    enum error (*space)(struct disk *disk, struct disk_space *ret_space);
    void (*free)(struct disk *disk);
};

/* Implementations embed these as their first member. */
struct disk {
    const struct disk_ops *ops;
};
struct disk_file {
    struct disk *disk;
};

/* A real directory, made with mode 0700 if absent (its parent must exist). */
enum error disk_open_directory(const char *path, struct disk **ret_disk) MUST_CHECK;
/* The same from a descriptor (taken over), for sandboxed processes. */
enum error disk_from_descriptor(int directory_fd, struct disk **ret_disk) MUST_CHECK;
/* The descriptor of a real file, for passing to another process; -1 for simulated ones. */
int disk_file_descriptor(const struct disk_file *file);
/* A hint: what is on stable storage of a real file need not stay in memory. Another open of the
 * same file may be given. */
void disk_file_forget(const struct disk_file *file);

/* Puts all that was written to the file system of this directory on stable storage, names included.
 * For a tool that writes many small files; the spool's promises are made by disk_ops.sync alone. */
enum error disk_sync_all(int directory_fd) MUST_CHECK;

static inline void disk_free(struct disk *disk)
{
    if (disk != NULL) {
        disk->ops->free(disk);
    }
}

#endif
