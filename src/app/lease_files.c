/* SPDX-License-Identifier: Apache-2.0 */
#include "app/lease_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_SIZE = LEASE_NAME_MAX + 16,
    TOKEN_DIGITS = 6,
    TOKENS_MAX = 256, /* looked at; older ones go when they have ended */
};

static void token_name(const char *kind, uint32_t token, char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "%s-%06x", kind, token);
}

static void machine_name(const char *kind, struct slice machine, char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "%s-%.*s", kind, SLICE_PRINT(slice_take(machine, LEASE_NAME_MAX)));
}

/* ---- looking ----------------------------------------------------------------------------- */

struct listing {
    uint32_t leases[TOKENS_MAX], ended[TOKENS_MAX];
    size_t lease_count, ended_count;
    uint32_t newest;
};

static bool parse_token(const char *file, const char *kind, uint32_t *ret_token)
{
    size_t length = strlen(kind);
    if (strncmp(file, kind, length) != 0 ||
        strspn(file + length, "0123456789abcdef") != TOKEN_DIGITS ||
        file[length + TOKEN_DIGITS] != '\0') {
        return false;
    }
    *ret_token = (uint32_t)strtoul(file + length, NULL, 16);
    return *ret_token != 0;
}

static void list_one(void *context, const char *file, uint64_t size)
{
    struct listing *listing = context;
    uint32_t token;
    (void)size;
    if (parse_token(file, "lease-", &token)) {
        listing->newest = token > listing->newest ? token : listing->newest;
        if (listing->lease_count < TOKENS_MAX) {
            listing->leases[listing->lease_count++] = token;
        }
    } else if (parse_token(file, "ended-", &token) && listing->ended_count < TOKENS_MAX) {
        listing->ended[listing->ended_count++] = token;
    }
}

static bool has_ended(const struct listing *listing, uint32_t token)
{
    for (size_t i = 0; i < listing->ended_count; i++) {
        if (listing->ended[i] == token) {
            return true;
        }
    }
    return false;
}

/* ERROR_CORRUPT: shorter. */
static enum error read_file(struct disk *disk, const char *name, uint8_t *ret_bytes, size_t length)
{
    struct disk_file *file;
    enum error error = disk->ops->open(disk, name, DISK_READ, &file);
    if (error == ERROR_NONE) {
        error = disk->ops->read(file, 0, ret_bytes, length);
        disk->ops->close(file);
    }
    return error;
}

static bool read_record(struct disk *disk, const char *name, struct lease_record *ret_record)
{
    uint8_t bytes[LEASE_BYTES];
    return read_file(disk, name, bytes, sizeof(bytes)) == ERROR_NONE &&
           lease_decode(slice_make(bytes, sizeof(bytes)), ret_record);
}

static enum lease_end read_end(struct disk *disk, uint32_t token)
{
    char name[NAME_SIZE];
    uint8_t how;
    token_name("ended", token, name);
    if (read_file(disk, name, &how, 1) != ERROR_NONE) {
        return LEASE_STOPPED; /* it has, and that is all we know */
    }
    return how == LEASE_HANDED || how == LEASE_LOST || how == LEASE_FENCED ? (enum lease_end)how
                                                                           : LEASE_STOPPED;
}

enum error lease_files_look(struct disk *disk, struct slice other, struct lease_look *ret_look)
{
    struct listing listing = {0};
    char name[NAME_SIZE];
    *ret_look = (struct lease_look){0};
    enum error error = disk->ops->list(disk, list_one, &listing);
    if (error != ERROR_NONE) {
        return error;
    }
    for (size_t i = 0; i < listing.lease_count; i++) {
        uint32_t token = listing.leases[i];
        if (!has_ended(&listing, token) &&
            (ret_look->open_token == 0 || token < ret_look->open_token)) {
            ret_look->open_token = token;
        }
    }
    struct lease_view *view = &ret_look->view;
    view->token = listing.newest;
    if (view->token != 0) {
        token_name("lease", view->token, name);
        view->readable =
            read_record(disk, name, &view->record) && view->record.token == view->token;
        view->end = has_ended(&listing, view->token) ? read_end(disk, view->token) : LEASE_GOES_ON;
    }
    machine_name("watch", other, name);
    ret_look->other_known = read_record(disk, name, &ret_look->other);
    machine_name("want", other, name);
    uint8_t byte;
    ret_look->wanted = read_file(disk, name, &byte, 1) == ERROR_NONE;
    return ERROR_NONE;
}

/* ---- writing ----------------------------------------------------------------------------- */

static enum error write_record(struct disk_file *file, const struct lease_record *record, bool sync)
{
    uint8_t bytes[LEASE_BYTES];
    lease_encode(record, bytes);
    const struct disk_ops *ops = file->disk->ops;
    enum error error = ops->write(file, 0, slice_make(bytes, sizeof(bytes)));
    return error == ERROR_NONE && sync ? ops->sync(file) : error;
}

enum error lease_files_claim(struct disk *disk, const struct lease_record *record,
                             struct disk_file **ret_file)
{
    char name[NAME_SIZE];
    token_name("lease", record->token, name);
    enum error error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE | DISK_CREATE, ret_file);
    if (error != ERROR_NONE) {
        return error;
    }
    error = write_record(*ret_file, record, true);
    if (error == ERROR_NONE) {
        error = disk->ops->sync_directory(disk);
    }
    if (error != ERROR_NONE) {
        disk->ops->close(*ret_file);
        (void)!lease_files_end(disk, record->token, LEASE_LOST); /* nobody has worked by it */
    }
    return error;
}

enum error lease_files_renew(struct disk_file *file, const struct lease_record *record)
{
    return write_record(file, record, true);
}

/* A file of one octet. */
static enum error put_mark(struct disk *disk, const char *name, uint8_t byte, bool sync)
{
    struct disk_file *file;
    enum error error = disk->ops->open(disk, name, DISK_WRITE | DISK_CREATE, &file);
    if (error != ERROR_NONE) {
        return error == ERROR_EXISTS ? ERROR_NONE : error;
    }
    error = disk->ops->write(file, 0, slice_make(&byte, 1));
    if (error == ERROR_NONE && sync) {
        error = disk->ops->sync(file);
    }
    disk->ops->close(file);
    return error == ERROR_NONE && sync ? disk->ops->sync_directory(disk) : error;
}

enum error lease_files_end(struct disk *disk, uint32_t token, enum lease_end how)
{
    char name[NAME_SIZE];
    token_name("ended", token, name);
    return put_mark(disk, name, (uint8_t)how, true);
}

enum error lease_files_settle(struct disk *disk, struct slice owner, const uint8_t *machine,
                              uint32_t below, enum lease_end how)
{
    struct listing listing = {0};
    enum error error = disk->ops->list(disk, list_one, &listing);
    for (size_t i = 0; i < listing.lease_count && error == ERROR_NONE; i++) {
        char name[NAME_SIZE];
        struct lease_record record;
        token_name("lease", listing.leases[i], name);
        bool concerned = listing.leases[i] < below && !has_ended(&listing, listing.leases[i]);
        if (concerned && machine != NULL) {
            concerned = read_record(disk, name, &record) &&
                        slice_equal(slice_from_text(record.name), owner) &&
                        memcmp(record.machine, machine, LEASE_MACHINE) == 0;
        }
        if (concerned) {
            error = lease_files_end(disk, listing.leases[i], how);
        }
    }
    return error;
}

enum error lease_files_take(struct disk *disk, struct slice other, bool fenced,
                            const struct lease_record *record, struct lease_look *ret_look,
                            struct disk_file **ret_file)
{
    enum error error = lease_files_look(disk, other, ret_look);
    if (error == ERROR_NONE && ret_look->view.token + 1 != record->token) {
        return ERROR_EXISTS;
    }
    if (error == ERROR_NONE && fenced) {
        error = lease_files_settle(disk, SLICE_EMPTY, NULL, record->token, LEASE_FENCED);
    }
    if (error == ERROR_NONE) {
        error = lease_files_claim(disk, record, ret_file);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    /* While this took its time the name may have been taken, ended and removed by others. */
    error = lease_files_look(disk, other, ret_look);
    if (error == ERROR_NONE && ret_look->view.token != record->token) {
        error = ERROR_EXISTS;
    }
    if (error != ERROR_NONE) {
        disk->ops->close(*ret_file);
        (void)!lease_files_end(disk, record->token, LEASE_LOST); /* nobody has worked by it */
    }
    return error;
}

enum error lease_files_watch(struct disk *disk, const struct lease_record *record)
{
    char name[NAME_SIZE];
    struct disk_file *file;
    machine_name("watch", slice_from_text(record->name), name);
    enum error error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE, &file);
    if (error == ERROR_MISSING) {
        error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE | DISK_CREATE, &file);
    }
    if (error == ERROR_NONE) {
        error = write_record(file, record, false);
        disk->ops->close(file);
    }
    return error;
}

enum error lease_files_want(struct disk *disk, struct slice machine, bool want)
{
    char name[NAME_SIZE];
    machine_name("want", machine, name);
    if (want) {
        return put_mark(disk, name, 'w', false);
    }
    enum error error = disk->ops->unlink(disk, name);
    return error == ERROR_MISSING ? ERROR_NONE : error;
}

/* The lease first: without it nobody looks for its end. */
void lease_files_clean(struct disk *disk, uint32_t below)
{
    struct listing listing = {0};
    if (disk->ops->list(disk, list_one, &listing) != ERROR_NONE) {
        return;
    }
    char name[NAME_SIZE];
    for (size_t i = 0; i < listing.lease_count; i++) {
        if (listing.leases[i] < below) {
            token_name("lease", listing.leases[i], name);
            (void)!disk->ops->unlink(disk, name);
        }
    }
    if (disk->ops->sync_directory(disk) != ERROR_NONE) {
        return;
    }
    for (size_t i = 0; i < listing.ended_count; i++) {
        if (listing.ended[i] < below) {
            token_name("ended", listing.ended[i], name);
            (void)!disk->ops->unlink(disk, name);
        }
    }
}
