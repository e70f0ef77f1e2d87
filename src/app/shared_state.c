/* SPDX-License-Identifier: Apache-2.0
 *
 * The mark is the file `standby.id` of the state, 32 hexadecimal digits and LF. What is remembered
 * is a file KNOWN/NAME-HASH, HASH that of the state's path: the same, and the place, each with LF.
 */
#include "app/shared_state.h"

#include "base/hash.h"
#include "sys/disk.h"
#include "sys/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char mark_name[] = "standby.id";

enum shared_verdict shared_state_judge(bool exists, bool own, const struct shared_identity *here,
                                       const struct shared_identity *remembered)
{
    bool same_place = exists && strcmp(here->place, remembered->place) == 0;
    bool marked = exists && here->id[0] != '\0', known = remembered->id[0] != '\0';
    if (!known || same_place) {
        return marked ? SHARED_OURS : own && !known ? SHARED_OWN : SHARED_NEW;
    }
    if (!exists) {
        return SHARED_MISSING;
    }
    if (here->id[0] == '\0') {
        return SHARED_UNMARKED;
    }
    return strcmp(here->id, remembered->id) == 0 ? SHARED_OURS : SHARED_OTHER;
}

const char *shared_verdict_text(enum shared_verdict verdict)
{
    switch (verdict) {
    case SHARED_OWN:
        return "this is on the file system of known-state, so no other machine has it: is its "
               "storage mounted?";
    case SHARED_MISSING:
    case SHARED_UNMARKED:
        return "this is not the shared state: is its storage mounted?";
    case SHARED_OTHER:
        return "this is not the shared state that this machine knows, but another one";
    case SHARED_FAILED:
        return strerror(errno);
    default:
        return "";
    }
}

/* ---- files ------------------------------------------------------------------------------- */

bool shared_identity_read(struct slice text, bool with_place, struct shared_identity *ret_identity)
{
    size_t end = slice_find(text, '\n');
    struct slice rest = slice_skip(text, end + 1);
    size_t more = slice_find(rest, '\n');
    *ret_identity = (struct shared_identity){0};
    if (end != SHARED_ID || end == text.length ||
        (with_place && (more == rest.length || more > SHARED_PLACE))) {
        return false;
    }
    for (size_t i = 0; i < end; i++) {
        if (strchr("0123456789abcdef", text.data[i]) == NULL || text.data[i] == '\0') {
            return false;
        }
    }
    memcpy(ret_identity->id, text.data, end);
    if (with_place) {
        memcpy(ret_identity->place, rest.data, more);
    }
    return true;
}

/* False: it cannot be read. errno is 0 if it is there and breaks its grammar, or is empty: a crash
 * may have left it so. */
static bool read_file(int directory, const char *path, bool with_place,
                      struct shared_identity *ret_identity)
{
    char text[SHARED_ID + SHARED_PLACE + 4];
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t length = fd >= 0 ? read(fd, text, sizeof(text)) : -1;
    int error = errno;
    *ret_identity = (struct shared_identity){0};
    if (fd >= 0) {
        close(fd);
    }
    errno = length < 0 ? error : 0;
    return length >= 0 &&
           shared_identity_read(slice_make(text, (size_t)length), with_place, ret_identity);
}

/* Whole or not at all, on stable storage. With `keep` what is there stays: errno EEXIST. */
static bool write_text(int directory, const char *name, const char *text, bool keep)
{
    char other[SHARED_PATH_MAX];
    size_t length = strlen(text);
    snprintf(other, sizeof(other), "%s.%016llx", name, (unsigned long long)random_u64());
    int fd = openat(directory, other, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return false;
    }
    bool done = write(fd, text, length) == (ssize_t)length;
    done = close(fd) == 0 && done && disk_sync_all(directory) == ERROR_NONE;
    bool whole = done;
    if (whole && keep) {
        done = linkat(directory, other, directory, name, 0) == 0;
        keep = done || errno == EEXIST; /* or there are no links here */
    }
    if (whole && !keep) {
        done = renameat(directory, other, directory, name) == 0;
    }
    int error = errno;
    if (!done || keep) {
        (void)unlinkat(directory, other, 0);
    }
    if (done) {
        done = disk_sync_all(directory) == ERROR_NONE;
        error = errno;
    }
    errno = error;
    return done;
}

static bool find_place(int fd, char place[SHARED_PLACE + 1])
{
    struct statfs system;
    struct stat status;
    uint64_t id = 0;
    if (fstatfs(fd, &system) != 0 || fstat(fd, &status) != 0) {
        return false;
    }
    memcpy(&id, &system.f_fsid,
           sizeof(id) < sizeof(system.f_fsid) ? sizeof(id) : sizeof(system.f_fsid));
    snprintf(place, SHARED_PLACE + 1, "%lx %llx %llx", (unsigned long)system.f_type,
             (unsigned long long)id, (unsigned long long)status.st_dev);
    return true;
}

/* ---- all --------------------------------------------------------------------------------- */

static bool look_here(struct shared_state *state)
{
    return (read_file(state->fd, mark_name, false, &state->here) || errno == ENOENT) &&
           find_place(state->fd, state->here.place);
}

/* The file system that the path is on, or would be. */
static bool find_device(const char *path, dev_t *ret_device)
{
    char part[SHARED_PATH_MAX];
    struct stat status;
    snprintf(part, sizeof(part), "%s", path);
    while (stat(part, &status) != 0) {
        char *slash = strrchr(part, '/');
        if (slash == NULL || strcmp(part, "/") == 0) {
            return false;
        }
        slash[slash == part] = '\0';
    }
    *ret_device = status.st_dev;
    return true;
}

static bool is_own(const char *state, const char *known)
{
    dev_t here, there;
    return find_device(state, &here) && find_device(known, &there) && here == there;
}

enum shared_verdict shared_state_look(const char *state, const char *known, const char *name,
                                      struct shared_state *ret_state)
{
    const struct hash_key key = {UINT64_C(0x686f6c6466617374), 2};
    *ret_state = (struct shared_state){.fd = -1};
    snprintf(ret_state->memory, sizeof(ret_state->memory), "%s/%s-%016llx", known, name,
             (unsigned long long)hash_bytes(key, slice_from_text(state)));
    struct shared_identity *remembered = &ret_state->remembered;
    if (!read_file(AT_FDCWD, ret_state->memory, true, remembered) && errno != ENOENT &&
        errno != ENOTDIR && errno != 0) {
        return SHARED_FAILED; /* or we would think that nothing is */
    }
    ret_state->fd = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ret_state->fd < 0 && errno != ENOENT) {
        return SHARED_FAILED;
    }
    if (ret_state->fd >= 0 && !look_here(ret_state)) {
        errno = errno == 0 ? EBADMSG : errno;
        return SHARED_FAILED;
    }
    return shared_state_judge(ret_state->fd >= 0, is_own(state, known), &ret_state->here,
                              remembered);
}

static bool mark(const char *path, struct shared_state *state)
{
    uint8_t random[SHARED_ID / 2];
    char text[SHARED_ID + 2];
    if (state->fd < 0) {
        state->fd = mkdir(path, 0755) == 0 || errno == EEXIST
                        ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                        : -1;
    }
    if (state->fd < 0) {
        return false;
    }
    random_bytes(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++) {
        snprintf(text + 2 * i, sizeof(text) - 2 * i, "%02x", random[i]);
    }
    text[SHARED_ID] = '\n';
    text[SHARED_ID + 1] = '\0';
    /* The other machine may have been faster. */
    return (write_text(state->fd, mark_name, text, true) || errno == EEXIST) && look_here(state) &&
           state->here.id[0] != '\0';
}

enum shared_verdict shared_state_settle(const char *state, const char *known,
                                        struct shared_state *shared, bool *ret_remembered)
{
    char text[SHARED_ID + SHARED_PLACE + 4];
    struct shared_identity *here = &shared->here, *remembered = &shared->remembered;
    *ret_remembered = true;
    if (here->id[0] == '\0' && !mark(state, shared)) {
        return SHARED_FAILED;
    }
    if (strcmp(here->id, remembered->id) != 0 || strcmp(here->place, remembered->place) != 0) {
        int length = snprintf(text, sizeof(text), "%s\n%s\n", here->id, here->place);
        int directory = -1;
        if ((size_t)length < sizeof(text) && (mkdir(known, 0755) == 0 || errno == EEXIST)) {
            directory = open(known, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
        *ret_remembered =
            directory >= 0 && write_text(directory, strrchr(shared->memory, '/') + 1, text, false);
        if (directory >= 0) {
            int error = errno;
            close(directory);
            errno = error;
        }
    }
    return SHARED_OURS;
}
