/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/disk_sim.h"

#include "base/buffer.h"
#include "base/list.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

enum { SECTOR = 512, NAME_MAX_BYTES = 64 };

struct inode {
    uint64_t number; /* for the record */
    struct buffer data;
    unsigned users; /* names and open files */
};

struct name {
    struct link link;
    char text[NAME_MAX_BYTES];
    struct inode *inode;
};

enum kind {
    OP_CREATE,
    OP_WRITE,
    OP_RESIZE,
    OP_SYNC,
    OP_LOSE, /* a failed sync */
    OP_RENAME,
    OP_UNLINK,
    OP_SYNC_DIRECTORY,
    OP_MARK
};

struct operation {
    enum kind kind;
    uint64_t inode;
    uint64_t offset; /* or the size, or the mark */
    struct slice bytes;
    char from[NAME_MAX_BYTES], to[NAME_MAX_BYTES];
};

struct disk_sim {
    pthread_mutex_t lock;
    struct link names;
    uint64_t next_inode;
    uint64_t capacity;
    uint64_t changes;
    uint64_t fail_at; /* 0: never */
    enum disk_sim_fault fault;
    enum error fault_error;
    bool directory_fails;
    const char *held; /* NULL: nothing */
    pthread_cond_t held_changed;
    const struct inode *unreadable;
    uint64_t unreadable_from, unreadable_to;
    size_t open_files;
    bool recording;
    struct operation *record;
    size_t record_count, record_capacity;
};

struct view {
    struct disk disk;
    struct disk_sim *sim;
};

struct sim_file {
    struct disk_file file;
    struct inode *inode;
};

static const struct disk_ops sim_ops;

static struct disk_sim *sim_of(const struct disk *disk)
{
    return ((const struct view *)disk)->sim;
}

static void *must(void *memory)
{
    if (memory == NULL) {
        abort();
    }
    return memory;
}

/* Zeroed. Tries twice: a test that fails the N-th allocation does not mean ours. */
static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    return memory != NULL ? memory : must(calloc(1, size));
}

/* ---- files in memory --------------------------------------------------------------------- */

static void inode_release(struct inode *inode)
{
    if (--inode->users == 0) {
        buffer_done(&inode->data);
        free(inode);
    }
}

static void resize(struct buffer *data, uint64_t length)
{
    if (length > data->length) {
        if (buffer_reserve(data, (size_t)length - data->length) != ERROR_NONE &&
            buffer_reserve(data, (size_t)length - data->length) != ERROR_NONE) {
            abort();
        }
        data->failed = false;
        memset(data->data + data->length, 0, (size_t)length - data->length);
    }
    data->length = (size_t)length;
}

static void put(struct buffer *data, uint64_t offset, struct slice bytes)
{
    if (offset + bytes.length > data->length) {
        resize(data, offset + bytes.length);
    }
    if (bytes.length > 0) {
        memcpy(data->data + offset, bytes.data, bytes.length);
    }
}

static struct name *find(struct link *names, const char *text)
{
    LIST_EACH(names, at, after)
    {
        struct name *name = LIST_ENTRY(at, struct name, link);
        if (strcmp(name->text, text) == 0) {
            return name;
        }
    }
    return NULL;
}

static void name_free(struct name *name)
{
    list_remove(&name->link);
    inode_release(name->inode);
    free(name);
}

static struct name *name_add(struct link *names, const char *text, struct inode *inode)
{
    struct name *name = allocate(sizeof(*name));
    assert(strlen(text) < NAME_MAX_BYTES);
    strcpy(name->text, text);
    name->inode = inode;
    inode->users++;
    list_append(names, &name->link);
    return name;
}

static bool rename_in(struct link *names, const char *from, const char *to)
{
    struct name *name = find(names, from), *old = find(names, to);
    if (name == NULL) {
        return false;
    }
    if (old != NULL && old != name) {
        name_free(old);
    }
    strcpy(name->text, to);
    return true;
}

static uint64_t used(const struct link *names)
{
    uint64_t total = 0;
    for (struct link *at = names->next; at != names; at = at->next) {
        total += LIST_ENTRY(at, struct name, link)->inode->data.length;
    }
    return total;
}

/* ---- recording and faults ---------------------------------------------------------------- */

static struct operation *record(struct disk_sim *sim, enum kind kind, uint64_t inode)
{
    static struct operation unused;
    if (!sim->recording) {
        return memset(&unused, 0, sizeof(unused));
    }
    if (sim->record_count == sim->record_capacity) {
        sim->record_capacity = sim->record_capacity == 0 ? 256 : sim->record_capacity * 2;
        sim->record = must(realloc(sim->record, sim->record_capacity * sizeof(struct operation)));
    }
    struct operation *operation = &sim->record[sim->record_count++];
    *operation = (struct operation){.kind = kind, .inode = inode};
    return operation;
}

static void record_write(struct disk_sim *sim, uint64_t inode, uint64_t offset, struct slice bytes)
{
    if (sim->recording) {
        uint8_t *copy = must(malloc(bytes.length + 1));
        if (bytes.length > 0) {
            memcpy(copy, bytes.data, bytes.length);
        }
        struct operation *operation = record(sim, OP_WRITE, inode);
        operation->offset = offset;
        operation->bytes = slice_make(copy, bytes.length);
    }
}

/* Counts a change; the error with which it is to fail. */
static enum error change(struct disk_sim *sim)
{
    sim->changes++;
    bool fails = sim->fail_at != 0 && (sim->fault == DISK_SIM_STUCK ? sim->changes >= sim->fail_at
                                                                    : sim->changes == sim->fail_at);
    return fails ? sim->fault_error : ERROR_NONE;
}

static void wait_while_held(struct disk_sim *sim, const char *name)
{
    while (sim->held != NULL && strncmp(name, sim->held, strlen(sim->held)) == 0) {
        pthread_cond_wait(&sim->held_changed, &sim->lock);
    }
}

/* ---- sys/disk.h -------------------------------------------------------------------------- */

static enum error sim_open(struct disk *disk, const char *text, unsigned flags,
                           struct disk_file **ret_file)
{
    struct disk_sim *sim = sim_of(disk);
    pthread_mutex_lock(&sim->lock);
    struct name *name = find(&sim->names, text);
    enum error error = ERROR_NONE;
    if ((flags & DISK_CREATE) != 0) {
        error = name != NULL ? ERROR_EXISTS : change(sim);
        if (error == ERROR_NONE) {
            struct inode *inode = allocate(sizeof(*inode));
            inode->number = sim->next_inode++;
            name = name_add(&sim->names, text, inode);
            struct operation *operation = record(sim, OP_CREATE, inode->number);
            strcpy(operation->to, text);
        }
    } else if (name == NULL) {
        error = ERROR_MISSING;
    }
    if (error == ERROR_NONE) {
        struct sim_file *file = allocate(sizeof(*file));
        file->file.disk = disk;
        file->inode = name->inode;
        name->inode->users++;
        sim->open_files++;
        *ret_file = &file->file;
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static struct inode *inode_of(struct disk_file *file)
{
    return ((struct sim_file *)file)->inode;
}

static void sim_close(struct disk_file *file)
{
    if (file != NULL) {
        struct disk_sim *sim = sim_of(file->disk);
        pthread_mutex_lock(&sim->lock);
        inode_release(inode_of(file));
        sim->open_files--;
        pthread_mutex_unlock(&sim->lock);
        free(file);
    }
}

static enum error sim_read(struct disk_file *file, uint64_t offset, void *ret_bytes, size_t length)
{
    struct disk_sim *sim = sim_of(file->disk);
    pthread_mutex_lock(&sim->lock);
    struct slice data = slice_skip(buffer_slice(&inode_of(file)->data), (size_t)offset);
    enum error error = data.length < length ? ERROR_CORRUPT : ERROR_NONE;
    if (inode_of(file) == sim->unreadable && offset < sim->unreadable_to &&
        offset + length > sim->unreadable_from) {
        error = ERROR_IO;
    }
    if (error == ERROR_NONE && length > 0) {
        memcpy(ret_bytes, data.data, length);
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static bool too_much(const struct disk_sim *sim, const struct inode *inode, uint64_t length)
{
    return length > inode->data.length &&
           used(&sim->names) + (length - inode->data.length) > sim->capacity;
}

static enum error sim_write(struct disk_file *file, uint64_t offset, struct slice bytes)
{
    struct disk_sim *sim = sim_of(file->disk);
    struct inode *inode = inode_of(file);
    pthread_mutex_lock(&sim->lock);
    enum error error = change(sim);
    if (error == ERROR_NONE && too_much(sim, inode, offset + bytes.length)) {
        error = ERROR_SPACE;
    }
    if (error != ERROR_NONE && sim->fault == DISK_SIM_SHORT) {
        bytes.length /= 2;
    }
    if (error == ERROR_NONE || sim->fault == DISK_SIM_SHORT) {
        put(&inode->data, offset, bytes);
        record_write(sim, inode->number, offset, bytes);
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static enum error sim_sync(struct disk_file *file)
{
    struct disk_sim *sim = sim_of(file->disk);
    pthread_mutex_lock(&sim->lock);
    enum error error = change(sim);
    record(sim, error == ERROR_NONE ? OP_SYNC : OP_LOSE, inode_of(file)->number);
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static enum error set_size(struct disk_file *file, uint64_t length, bool grow_only)
{
    struct disk_sim *sim = sim_of(file->disk);
    struct inode *inode = inode_of(file);
    pthread_mutex_lock(&sim->lock);
    enum error error = change(sim);
    if (error == ERROR_NONE && too_much(sim, inode, length)) {
        error = ERROR_SPACE;
    }
    if (error == ERROR_NONE && (!grow_only || length > inode->data.length)) {
        resize(&inode->data, length);
        record(sim, OP_RESIZE, inode->number)->offset = length;
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static enum error sim_allocate(struct disk_file *file, uint64_t length)
{
    return set_size(file, length, true);
}

static enum error sim_truncate(struct disk_file *file, uint64_t length)
{
    return set_size(file, length, false);
}

static enum error sim_size(struct disk_file *file, uint64_t *ret_length)
{
    struct disk_sim *sim = sim_of(file->disk);
    pthread_mutex_lock(&sim->lock);
    *ret_length = inode_of(file)->data.length;
    pthread_mutex_unlock(&sim->lock);
    return ERROR_NONE;
}

static enum error sim_rename(struct disk *disk, const char *from, const char *to)
{
    struct disk_sim *sim = sim_of(disk);
    pthread_mutex_lock(&sim->lock);
    wait_while_held(sim, from);
    enum error error = change(sim);
    if (error == ERROR_NONE) {
        error = rename_in(&sim->names, from, to) ? ERROR_NONE : ERROR_MISSING;
    }
    if (error == ERROR_NONE) {
        struct operation *operation = record(sim, OP_RENAME, 0);
        strcpy(operation->from, from);
        strcpy(operation->to, to);
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static enum error sim_unlink(struct disk *disk, const char *text)
{
    struct disk_sim *sim = sim_of(disk);
    pthread_mutex_lock(&sim->lock);
    wait_while_held(sim, text);
    enum error error = change(sim);
    struct name *name = find(&sim->names, text);
    if (error == ERROR_NONE && name == NULL) {
        error = ERROR_MISSING;
    }
    if (error == ERROR_NONE) {
        name_free(name);
        strcpy(record(sim, OP_UNLINK, 0)->from, text);
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static enum error sim_sync_directory(struct disk *disk)
{
    struct disk_sim *sim = sim_of(disk);
    pthread_mutex_lock(&sim->lock);
    enum error error = change(sim);
    if (error == ERROR_NONE && sim->directory_fails) {
        error = ERROR_IO;
    }
    if (error == ERROR_NONE) {
        record(sim, OP_SYNC_DIRECTORY, 0);
    }
    pthread_mutex_unlock(&sim->lock);
    return error;
}

static enum error sim_list(struct disk *disk, disk_list_fn *fn, void *context)
{
    struct disk_sim *sim = sim_of(disk);
    pthread_mutex_lock(&sim->lock);
    LIST_EACH(&sim->names, at, after)
    {
        struct name *name = LIST_ENTRY(at, struct name, link);
        fn(context, name->text, name->inode->data.length);
    }
    pthread_mutex_unlock(&sim->lock);
    return ERROR_NONE;
}

static enum error sim_space(struct disk *disk, struct disk_space *ret_space)
{
    struct disk_sim *sim = sim_of(disk);
    pthread_mutex_lock(&sim->lock);
    uint64_t taken = used(&sim->names);
    *ret_space = (struct disk_space){
        .total_bytes = sim->capacity,
        .available_bytes = taken < sim->capacity ? sim->capacity - taken : 0,
        .available_files = UINT64_MAX,
    };
    pthread_mutex_unlock(&sim->lock);
    return ERROR_NONE;
}

static void sim_free(struct disk *disk)
{
    free(disk);
}

static const struct disk_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .read = sim_read,
    .write = sim_write,
    .sync = sim_sync,
    .allocate = sim_allocate,
    .truncate = sim_truncate,
    .size = sim_size,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .sync_directory = sim_sync_directory,
    .list = sim_list,
    .space = sim_space,
    .free = sim_free,
};

/* ---- the disk ---------------------------------------------------------------------------- */

struct disk_sim *disk_sim_new(void)
{
    struct disk_sim *sim = allocate(sizeof(*sim));
    pthread_mutex_init(&sim->lock, NULL);
    pthread_cond_init(&sim->held_changed, NULL);
    list_init(&sim->names);
    sim->next_inode = 1;
    sim->capacity = (uint64_t)1 << 40;
    return sim;
}

void disk_sim_free(struct disk_sim *sim)
{
    if (sim == NULL) {
        return;
    }
    assert(sim->open_files == 0);
    LIST_EACH(&sim->names, at, after)
    {
        name_free(LIST_ENTRY(at, struct name, link));
    }
    for (size_t i = 0; i < sim->record_count; i++) {
        free((void *)(uintptr_t)sim->record[i].bytes.data);
    }
    free(sim->record);
    pthread_cond_destroy(&sim->held_changed);
    pthread_mutex_destroy(&sim->lock);
    free(sim);
}

struct disk *disk_sim_open(struct disk_sim *sim)
{
    struct view *view = allocate(sizeof(*view));
    view->disk.ops = &sim_ops;
    view->sim = sim;
    return &view->disk;
}

void disk_sim_set_capacity(struct disk_sim *sim, uint64_t bytes)
{
    pthread_mutex_lock(&sim->lock);
    sim->capacity = bytes;
    pthread_mutex_unlock(&sim->lock);
}

uint64_t disk_sim_changes(struct disk_sim *sim)
{
    pthread_mutex_lock(&sim->lock);
    uint64_t changes = sim->changes;
    pthread_mutex_unlock(&sim->lock);
    return changes;
}

void disk_sim_fail(struct disk_sim *sim, uint64_t nth, enum disk_sim_fault fault, enum error error)
{
    pthread_mutex_lock(&sim->lock);
    sim->fail_at = nth == 0 ? 0 : sim->changes + nth;
    sim->fault = fault;
    sim->fault_error = error;
    pthread_mutex_unlock(&sim->lock);
}

void disk_sim_fail_directory(struct disk_sim *sim, bool fails)
{
    pthread_mutex_lock(&sim->lock);
    sim->directory_fails = fails;
    pthread_mutex_unlock(&sim->lock);
}

void disk_sim_fail_reads(struct disk_sim *sim, const char *text, uint64_t from, uint64_t to)
{
    pthread_mutex_lock(&sim->lock);
    const struct name *name = text == NULL ? NULL : find(&sim->names, text);
    assert(text == NULL || name != NULL);
    sim->unreadable = name == NULL ? NULL : name->inode;
    sim->unreadable_from = from;
    sim->unreadable_to = to;
    pthread_mutex_unlock(&sim->lock);
}

void disk_sim_hold(struct disk_sim *sim, const char *prefix)
{
    pthread_mutex_lock(&sim->lock);
    sim->held = prefix;
    pthread_cond_broadcast(&sim->held_changed);
    pthread_mutex_unlock(&sim->lock);
}

bool disk_sim_flip(struct disk_sim *sim, const char *text, uint64_t byte, unsigned bit)
{
    pthread_mutex_lock(&sim->lock);
    struct name *name = find(&sim->names, text);
    bool there = name != NULL && byte < name->inode->data.length;
    if (there) {
        name->inode->data.data[byte] ^= (uint8_t)(1u << bit);
    }
    pthread_mutex_unlock(&sim->lock);
    return there;
}

void disk_sim_cut(struct disk_sim *sim, const char *text, uint64_t length)
{
    pthread_mutex_lock(&sim->lock);
    struct name *name = find(&sim->names, text);
    assert(name != NULL);
    resize(&name->inode->data, length);
    pthread_mutex_unlock(&sim->lock);
}

uint64_t disk_sim_used(struct disk_sim *sim)
{
    pthread_mutex_lock(&sim->lock);
    uint64_t total = used(&sim->names);
    pthread_mutex_unlock(&sim->lock);
    return total;
}

size_t disk_sim_open_files(struct disk_sim *sim)
{
    pthread_mutex_lock(&sim->lock);
    size_t count = sim->open_files;
    pthread_mutex_unlock(&sim->lock);
    return count;
}

void disk_sim_record(struct disk_sim *sim)
{
    pthread_mutex_lock(&sim->lock);
    assert(!sim->recording);
    sim->recording = true;
    /* What is there already is durable. */
    for (struct link *at = sim->names.next; at != &sim->names; at = at->next) {
        const struct name *name = LIST_ENTRY(at, struct name, link);
        strcpy(record(sim, OP_CREATE, name->inode->number)->to, name->text);
        record_write(sim, name->inode->number, 0, buffer_slice(&name->inode->data));
        record(sim, OP_SYNC, name->inode->number);
    }
    record(sim, OP_SYNC_DIRECTORY, 0);
    pthread_mutex_unlock(&sim->lock);
}

void disk_sim_mark(struct disk_sim *sim, uint64_t mark)
{
    pthread_mutex_lock(&sim->lock);
    record(sim, OP_MARK, 0)->offset = mark;
    pthread_mutex_unlock(&sim->lock);
}

/* ---- replay ------------------------------------------------------------------------------ */

/* A file as far as it is durable, and which operations on it are not. */
struct replay_inode {
    struct buffer data;
    struct buffer pending; /* size_t: indexes of operations */
};

struct disk_replay {
    struct disk_sim *sim;
    bool ignore_directory_syncs;
    size_t next;
    struct replay_inode *inodes; /* by number */
    struct link names;           /* durable; inode->number tells which */
    struct buffer pending;       /* size_t: changes of the directory */
};

struct disk_replay *disk_replay_new(struct disk_sim *sim, bool ignore_directory_syncs)
{
    struct disk_replay *replay = allocate(sizeof(*replay));
    replay->sim = sim;
    replay->ignore_directory_syncs = ignore_directory_syncs;
    replay->inodes = must(calloc((size_t)sim->next_inode, sizeof(struct replay_inode)));
    list_init(&replay->names);
    return replay;
}

static void free_names(struct link *names)
{
    LIST_EACH(names, at, after)
    {
        name_free(LIST_ENTRY(at, struct name, link));
    }
}

void disk_replay_free(struct disk_replay *replay)
{
    for (uint64_t i = 0; i < replay->sim->next_inode; i++) {
        buffer_done(&replay->inodes[i].data);
        buffer_done(&replay->inodes[i].pending);
    }
    free_names(&replay->names);
    buffer_done(&replay->pending);
    free(replay->inodes);
    free(replay);
}

static void apply_to_names(struct link *names, const struct operation *operation)
{
    struct name *name;
    switch (operation->kind) {
    case OP_CREATE:
        if (find(names, operation->to) == NULL) {
            struct inode *inode = allocate(sizeof(*inode));
            inode->number = operation->inode;
            name_add(names, operation->to, inode);
        }
        break;
    case OP_RENAME:
        rename_in(names, operation->from, operation->to);
        break;
    case OP_UNLINK:
        name = find(names, operation->from);
        if (name != NULL) {
            name_free(name);
        }
        break;
    default:
        break;
    }
}

static void apply_to_data(struct buffer *data, const struct operation *operation)
{
    if (operation->kind == OP_RESIZE) {
        resize(data, operation->offset);
    } else {
        put(data, operation->offset, operation->bytes);
    }
}

static void settle_data(struct disk_replay *replay, struct replay_inode *inode)
{
    const size_t *pending = (const void *)inode->pending.data;
    for (size_t i = 0; i < inode->pending.length / sizeof(*pending); i++) {
        apply_to_data(&inode->data, &replay->sim->record[pending[i]]);
    }
    buffer_clear(&inode->pending);
}

static void settle_names(struct disk_replay *replay)
{
    const size_t *pending = (const void *)replay->pending.data;
    for (size_t i = 0; i < replay->pending.length / sizeof(*pending); i++) {
        apply_to_names(&replay->names, &replay->sim->record[pending[i]]);
    }
    buffer_clear(&replay->pending);
}

bool disk_replay_step(struct disk_replay *replay, uint64_t *ret_mark)
{
    *ret_mark = 0;
    if (replay->next == replay->sim->record_count) {
        return false;
    }
    size_t index = replay->next++;
    const struct operation *operation = &replay->sim->record[index];
    struct replay_inode *inode = &replay->inodes[operation->inode];
    switch (operation->kind) {
    case OP_CREATE:
    case OP_RENAME:
    case OP_UNLINK:
        buffer_append(&replay->pending, slice_make(&index, sizeof(index)));
        break;
    case OP_WRITE:
    case OP_RESIZE:
        buffer_append(&inode->pending, slice_make(&index, sizeof(index)));
        break;
    case OP_SYNC:
        settle_data(replay, inode);
        break;
    case OP_LOSE:
        buffer_clear(&inode->pending);
        break;
    case OP_SYNC_DIRECTORY:
        if (!replay->ignore_directory_syncs) {
            settle_names(replay);
        }
        break;
    case OP_MARK:
        *ret_mark = operation->offset;
        break;
    }
    return true;
}

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Some of its sectors. */
static void apply_torn(struct buffer *data, const struct operation *operation, uint64_t *state)
{
    struct slice rest = operation->bytes;
    uint64_t offset = operation->offset;
    while (rest.length > 0) {
        size_t part = SECTOR - (size_t)(offset % SECTOR);
        struct slice sector = slice_take(rest, part);
        if (draw(state) % 2 == 0) {
            put(data, offset, sector);
        }
        offset += sector.length;
        rest = slice_skip(rest, sector.length);
    }
}

static void crash_data(const struct disk_replay *replay, const struct replay_inode *inode,
                       uint64_t seed, uint64_t *state, struct buffer *data)
{
    const size_t *pending = (const void *)inode->pending.data;
    buffer_append(data, buffer_slice(&inode->data));
    for (size_t i = 0; i < inode->pending.length / sizeof(*pending) && seed != 0; i++) {
        const struct operation *operation = &replay->sim->record[pending[i]];
        uint64_t choice = seed == 1 ? 0 : draw(state) % 3;
        if (choice == 0) {
            apply_to_data(data, operation);
        } else if (choice == 1 && operation->kind == OP_WRITE) {
            apply_torn(data, operation, state);
        }
    }
}

struct disk_sim *disk_replay_crash(const struct disk_replay *replay, uint64_t seed)
{
    struct disk_sim *sim = disk_sim_new();
    uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
    const size_t *pending = (const void *)replay->pending.data;
    for (struct link *at = replay->names.next; at != &replay->names; at = at->next) {
        const struct name *name = LIST_ENTRY(at, struct name, link);
        struct inode *inode = allocate(sizeof(*inode));
        inode->number = name->inode->number;
        name_add(&sim->names, name->text, inode);
    }
    for (size_t i = 0; i < replay->pending.length / sizeof(*pending) && seed != 0; i++) {
        if (seed == 1 || draw(&state) % 2 == 0) {
            apply_to_names(&sim->names, &replay->sim->record[pending[i]]);
        }
    }
    LIST_EACH(&sim->names, at, after)
    {
        struct inode *inode = LIST_ENTRY(at, struct name, link)->inode;
        crash_data(replay, &replay->inodes[inode->number], seed, &state, &inode->data);
    }
    sim->next_inode = replay->sim->next_inode;
    return sim;
}
