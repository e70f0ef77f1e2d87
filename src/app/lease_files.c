/* SPDX-License-Identifier: Apache-2.0 */
#include "app/lease_files.h"

#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_SIZE = LEASE_NAME_MAX + 16,
    TOKEN_DIGITS = 6,
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
    struct buffer leases, ended; /* uint32_t, ascending when all are there */
    char want[NAME_SIZE];
    bool wanted;
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
        buffer_append(&listing->leases, slice_make(&token, sizeof(token)));
    } else if (parse_token(file, "ended-", &token)) {
        buffer_append(&listing->ended, slice_make(&token, sizeof(token)));
    }
    /* That it is there says it: who made it may be somebody whose files we cannot read. */
    listing->wanted |= strcmp(file, listing->want) == 0;
}

static int by_token(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static size_t count_of(const struct buffer *tokens)
{
    return tokens->length / sizeof(uint32_t);
}

static const uint32_t *tokens_of(const struct buffer *tokens)
{
    return (const void *)tokens->data;
}

static void listing_done(struct listing *listing)
{
    buffer_done(&listing->leases);
    buffer_done(&listing->ended);
}

/* All of it or nothing: a token that is not seen would be thought to have ended. `wanting` may be
 * empty. listing_done() whatever it returns. */
static enum error list_all(struct disk *disk, struct slice wanting, struct listing *ret_listing)
{
    *ret_listing = (struct listing){0};
    buffer_init(&ret_listing->leases, 0);
    buffer_init(&ret_listing->ended, 0);
    machine_name("want", wanting, ret_listing->want);
    enum error error = disk->ops->list(disk, list_one, ret_listing);
    if (error == ERROR_NONE && (ret_listing->leases.failed || ret_listing->ended.failed)) {
        error = ERROR_MEMORY;
    }
    struct buffer *const both[] = {&ret_listing->leases, &ret_listing->ended};
    for (size_t i = 0; i < 2 && error == ERROR_NONE; i++) {
        if (both[i]->length > 0) {
            qsort(both[i]->data, count_of(both[i]), sizeof(uint32_t), by_token);
        }
    }
    return error;
}

static bool has_ended(const struct listing *listing, uint32_t token)
{
    return listing->ended.length > 0 &&
           bsearch(&token, listing->ended.data, count_of(&listing->ended), sizeof(token),
                   by_token) != NULL;
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

static void look_at(struct disk *disk, const struct listing *listing, struct lease_look *look)
{
    const uint32_t *leases = tokens_of(&listing->leases);
    size_t count = count_of(&listing->leases);
    struct lease_view *view = &look->view;
    char name[NAME_SIZE];
    for (size_t i = 0; i < count && look->open_token == 0; i++) {
        look->open_token = has_ended(listing, leases[i]) ? 0 : leases[i];
    }
    look->wanted = listing->wanted;
    if (count > 0) {
        view->token = leases[count - 1];
        token_name("lease", view->token, name);
        view->readable =
            read_record(disk, name, &view->record) && view->record.token == view->token;
        view->end = has_ended(listing, view->token) ? read_end(disk, view->token) : LEASE_GOES_ON;
    }
}

enum error lease_files_look(struct disk *disk, struct slice other, struct lease_look *ret_look)
{
    struct listing listing;
    *ret_look = (struct lease_look){0};
    enum error error = list_all(disk, other, &listing);
    if (error == ERROR_NONE) {
        char name[NAME_SIZE];
        look_at(disk, &listing, ret_look);
        machine_name("watch", other, name);
        ret_look->other_known = read_record(disk, name, &ret_look->other);
    }
    listing_done(&listing);
    return error;
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

static bool is_of(struct disk *disk, uint32_t token, struct slice owner, const uint8_t *machine)
{
    char name[NAME_SIZE];
    struct lease_record record;
    token_name("lease", token, name);
    return read_record(disk, name, &record) && slice_equal(slice_from_text(record.name), owner) &&
           memcmp(record.machine, machine, LEASE_MACHINE) == 0;
}

enum error lease_files_settle(struct disk *disk, struct slice owner, const uint8_t *machine,
                              uint32_t below, enum lease_end how)
{
    struct listing listing;
    enum error error = list_all(disk, SLICE_EMPTY, &listing);
    const uint32_t *leases = tokens_of(&listing.leases);
    for (size_t i = 0; i < count_of(&listing.leases) && error == ERROR_NONE; i++) {
        if (leases[i] < below && !has_ended(&listing, leases[i]) &&
            (machine == NULL || is_of(disk, leases[i], owner, machine))) {
            error = lease_files_end(disk, leases[i], how);
        }
    }
    listing_done(&listing);
    return error;
}

enum error lease_files_take(struct disk *disk, struct slice other, bool fenced, uint32_t newest,
                            const struct lease_record *record, struct lease_look *ret_look,
                            struct disk_file **ret_file)
{
    enum error error = lease_files_look(disk, other, ret_look);
    if (error == ERROR_NONE && ret_look->view.token != newest) {
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

static void unlink_below(struct disk *disk, const char *kind, const struct buffer *tokens,
                         uint32_t below)
{
    char name[NAME_SIZE];
    for (size_t i = 0; i < count_of(tokens) && tokens_of(tokens)[i] < below; i++) {
        token_name(kind, tokens_of(tokens)[i], name);
        (void)!disk->ops->unlink(disk, name);
    }
}

/* The lease first: without it nobody looks for its end. */
void lease_files_clean(struct disk *disk, uint32_t below)
{
    struct listing listing;
    if (list_all(disk, SLICE_EMPTY, &listing) == ERROR_NONE) {
        unlink_below(disk, "lease", &listing.leases, below);
        if (disk->ops->sync_directory(disk) == ERROR_NONE) {
            unlink_below(disk, "ended", &listing.ended, below);
        }
    }
    listing_done(&listing);
}
