/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of the recipients' tables. A file is made as a whole under a name that begins with "~", and
 * renamed: if we die, there is the old one or the new one. It is not synced, for only the journal's
 * promise is worth that: after a power cut it may be neither, which its sums show, and then what
 * was learned is learned again. The table is put into memory in slices between other work, then
 * written by a thread; what changes meanwhile is in the next file.
 */
#include "service/core_recipients.h"

#include "service/whole_file.h"
#include "sys/log.h"
#include "sys/random.h"
#include "sys/worker.h"

#include <stdlib.h>

enum {
    READ_BYTES = 1 << 20,
    BLOCKS_A_TICK = 64,       /* 4 MB */
    LEAST_BETWEEN_MS = 10000, /* two files of one domain */
    NAMES_A_SECOND = 10000,   /* of large ones more rarely: as long as these take */
    CLEANED_A_TICK = 2000,
    NAME_BYTES = 256 + 1,
    RETRY_MS = 60000,
};

/* What was last written of a domain. */
struct written {
    uint64_t serial;
    int64_t steady_ms;
    size_t length;
    uint8_t domain[];
};

/* A file on its way. */
struct writing {
    struct recipients_files *files;
    struct written *of;
    uint64_t serial; /* of the table when it began */
    uint64_t at;
    bool is_given; /* to the thread */
    enum error error;
    struct buffer bytes;
    char name[NAME_BYTES];
};

struct recipients_files {
    struct core *core;
    struct disk *disk;
    struct worker *worker; /* made when there is something to write */
    struct map written;    /* by hash of the domain */
    struct hash_key key;
    struct writing *writing; /* NULL: none */
    int64_t retry_ms;        /* steady: not before; a write has failed */
};

/* ---- reading --------------------------------------------------------------------------------- */

static void report_file(const char *name, enum error error)
{
    log_event(LOG_LEVEL_WARNING, "recipients-file", LOG_TEXT("domain", name),
              LOG_TEXT("error", error_text(error)));
}

/* Bytes of a file, from its beginning on; the rest of the last piece is kept for the next. */
static enum error read_table(struct disk *disk, struct disk_file *file, struct mailboxes *table,
                             uint8_t *buffer)
{
    uint64_t size = 0, offset = 0;
    size_t kept = 0;
    bool end = false;
    enum error error = disk->ops->size(file, &size);
    while (error == ERROR_NONE && !end && offset < size) {
        size_t room = READ_BYTES - kept;
        size_t piece = size - offset < room ? (size_t)(size - offset) : room;
        size_t used = 0;
        error = disk->ops->read(file, offset, buffer + kept, piece);
        if (error == ERROR_NONE) {
            offset += piece;
            error = mailboxes_read(table, slice_make(buffer, kept + piece), size, &used, &end);
            kept = kept + piece - used;
            memmove(buffer, buffer + used, kept);
        }
    }
    if (error == ERROR_NONE && !end) {
        error = ERROR_CORRUPT; /* cut */
    }
    mailboxes_list_give_up(table);
    return error;
}

static struct written *written_of(const struct recipients_files *files, struct slice domain)
{
    struct written *written = map_get(&files->written, hash_bytes(files->key, domain));
    bool is_it =
        written != NULL && slice_equal(slice_make(written->domain, written->length), domain);
    return is_it ? written : NULL;
}

/* NULL: memory, or another domain has its hash. */
static struct written *written_new(struct recipients_files *files, struct slice domain)
{
    uint64_t hash = hash_bytes(files->key, domain);
    struct written *written =
        map_get(&files->written, hash) != NULL ? NULL : calloc(1, sizeof(*written) + domain.length);
    if (written == NULL || map_put(&files->written, hash, written) != ERROR_NONE) {
        free(written);
        return NULL;
    }
    written->length = domain.length;
    memcpy(written->domain, domain.data, domain.length);
    written->steady_ms = core_now(files->core).steady_ms - LEAST_BETWEEN_MS;
    return written;
}

static void read_file(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct recipients_files *files = context;
    struct disk *disk = files->disk;
    struct disk_file *file;
    struct slice domain;
    if (name[0] == '~') {
        (void)!disk->ops->unlink(disk, name);
        return;
    }
    struct mailboxes *table = relay_mailboxes(files->core->relay, slice_from_text(name), &domain);
    if (table == NULL || !slice_equal(domain, slice_from_text(name))) {
        return; /* of a domain that is not kept now, and perhaps will be again */
    }
    uint8_t *buffer = malloc(READ_BYTES);
    enum error error =
        buffer == NULL ? ERROR_MEMORY : disk->ops->open(disk, name, DISK_READ, &file);
    if (error == ERROR_NONE) {
        error = read_table(disk, file, table, buffer);
        disk->ops->close(file);
    }
    free(buffer);
    if (error != ERROR_NONE) {
        report_file(name, error);
    }
    struct written *written = written_new(files, domain);
    if (written != NULL) {
        written->serial = mailboxes_serial(table);
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_file(void *context)
{
    struct writing *writing = context;
    writing->error =
        whole_file_put(writing->files->disk, writing->name, buffer_slice(&writing->bytes));
}

static void writing_free(struct writing *writing)
{
    if (writing != NULL) {
        buffer_done(&writing->bytes);
        free(writing);
    }
}

static void file_written(void *context)
{
    struct writing *writing = context;
    struct recipients_files *files = writing->files;
    if (writing->error != ERROR_NONE) {
        report_file(writing->name, writing->error);
        files->retry_ms = core_now(files->core).steady_ms + RETRY_MS;
    } else {
        writing->of->serial = writing->serial;
    }
    writing->of->steady_ms = core_now(files->core).steady_ms;
    files->writing = NULL;
    writing_free(writing);
}

static struct writing *writing_new(struct recipients_files *files, struct written *written,
                                   uint64_t serial)
{
    struct writing *writing = calloc(1, sizeof(*writing));
    if (writing != NULL) {
        writing->files = files;
        writing->of = written;
        writing->serial = serial;
        buffer_init(&writing->bytes, 0);
        memcpy(writing->name, written->domain, written->length);
    }
    return writing;
}

static bool is_due(const struct written *written, const struct mailboxes *table, int64_t now_ms)
{
    int64_t between_ms = LEAST_BETWEEN_MS + mailboxes_count(table).names / (NAMES_A_SECOND / 1000);
    return mailboxes_serial(table) != written->serial && now_ms - written->steady_ms >= between_ms;
}

static bool may_be_name(struct slice domain)
{
    return domain.length + 2 <= NAME_BYTES && domain.length > 0 && domain.data[0] != '.' &&
           slice_find(domain, '/') == domain.length && slice_find(domain, '~') == domain.length;
}

/* The next table that has changed, if it is time for it; with `at_once` whatever the time. */
static struct writing *writing_begin(struct recipients_files *files, bool at_once)
{
    size_t cursor = 0;
    struct slice domain;
    const struct mailboxes *table;
    int64_t now_ms = core_now(files->core).steady_ms;
    while ((table = relay_next_mailboxes(files->core->relay, &cursor, &domain)) != NULL) {
        struct written *written = written_of(files, domain);
        if (written == NULL && may_be_name(domain)) {
            written = written_new(files, domain);
        }
        if (written != NULL && (at_once ? mailboxes_serial(table) != written->serial
                                        : is_due(written, table, now_ms))) {
            return writing_new(files, written, mailboxes_serial(table));
        }
    }
    return NULL;
}

/* Some more of the table. True: that was all. */
static bool fill(const struct recipients_files *files, struct writing *writing, unsigned blocks)
{
    struct slice domain, name = slice_make(writing->of->domain, writing->of->length);
    const struct mailboxes *table = relay_mailboxes(files->core->relay, name, &domain);
    bool more = table != NULL;
    writing->error = more ? ERROR_NONE : ERROR_MISSING; /* kept no more, and as it was */
    for (unsigned i = 0; more && i < blocks; i++) {
        more = mailboxes_write(table, &writing->at, &writing->bytes);
    }
    return !more;
}

static void go_on(struct recipients_files *files)
{
    struct writing *writing = files->writing;
    if (writing == NULL || writing->is_given || !fill(files, writing, BLOCKS_A_TICK)) {
        return;
    }
    if (files->worker == NULL) {
        files->worker = worker_new(files->core->loop, "recipients");
    }
    if (writing->error == ERROR_NONE &&
        (writing->bytes.failed || files->worker == NULL ||
         worker_submit(files->worker, write_file, file_written, writing) != ERROR_NONE)) {
        writing->error = ERROR_MEMORY;
    }
    if (writing->error != ERROR_NONE) {
        file_written(writing);
        return;
    }
    writing->is_given = true;
}

void recipients_files_tick(struct recipients_files *files)
{
    if (files == NULL) {
        return;
    }
    size_t cursor = 0;
    struct slice domain;
    struct mailboxes *table;
    struct relay_time now = core_now(files->core);
    while ((table = relay_next_mailboxes(files->core->relay, &cursor, &domain)) != NULL) {
        mailboxes_clean(table, CLEANED_A_TICK, now.wall_ms);
    }
    if (files->writing == NULL && now.steady_ms >= files->retry_ms) {
        files->writing = writing_begin(files, false);
    }
    go_on(files);
}

void recipients_files_stop(struct recipients_files *files)
{
    if (files == NULL) {
        return;
    }
    if (files->worker != NULL) {
        worker_drain(files->worker);
    }
    writing_free(files->writing);
    files->writing = NULL;
    for (struct writing *writing; (writing = writing_begin(files, true)) != NULL;) {
        (void)fill(files, writing, UINT32_MAX);
        writing->error = writing->bytes.failed ? ERROR_MEMORY : writing->error;
        if (writing->error == ERROR_NONE) {
            write_file(writing);
        }
        enum error error = writing->error;
        file_written(writing);
        if (error != ERROR_NONE) {
            return; /* said; the other files are as they were */
        }
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

struct recipients_files *recipients_files_new(struct core *core, struct disk *disk)
{
    struct recipients_files *files = calloc(1, sizeof(*files));
    if (files == NULL) {
        disk_free(disk);
        return NULL;
    }
    files->core = core;
    files->disk = disk;
    files->key = (struct hash_key){random_u64(), random_u64()};
    map_init(&files->written);
    enum error error = disk->ops->list(disk, read_file, files);
    if (error != ERROR_NONE) {
        report_file("(all)", error);
    }
    return files;
}

void recipients_files_free(struct recipients_files *files)
{
    if (files == NULL) {
        return;
    }
    worker_free(files->worker);
    writing_free(files->writing);
    size_t cursor = 0;
    for (struct written *written; (written = map_next(&files->written, &cursor)) != NULL;) {
        free(written);
    }
    map_done(&files->written);
    disk_free(files->disk);
    free(files);
}
