/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast queue export DIR`: per message ID.eml (content) and ID.json (envelope, origin, state,
 * as core's head row has them). Core opens no file outside its state; this process writes them.
 *
 * A message is there when its ID.json is: files are written under names with a dot in front,
 * synced, then renamed, the .eml first. Messages are finished in batches, so that one sync serves
 * many; what a crash leaves is either whole or has a dot. Writing again replaces a file by the
 * same.
 */
#include "app/tool.h"
#include "base/base64.h"
#include "base/id.h"
#include "sys/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH = 256, NAME_SIZE = ID_TEXT_LENGTH + 16 };

struct exported {
    char id[ID_TEXT_LENGTH + 1];
    int64_t bytes;
    size_t recipients;
};

struct export
{
    const struct tool *tool;
    const char *path;
    int directory;
    struct tool_progress progress;
    struct exported batch[BATCH];
    unsigned batched;
    uint64_t messages, unreadable;
    int64_t bytes;
    bool failed;   /* nothing more can be written */
    json_t *parts; /* heads by id, whose content is written, of parts of messages in a cluster */

    json_t *head; /* of the message being written, or NULL */
    int content;  /* its file */
    int64_t offset;
};

static void fail(struct export *export, const char *name, const char *why)
{
    if (!export->failed) {
        tool_progress_end(&export->progress);
        tool_error("%s/%s: %s", export->path, name, why);
    }
    export->failed = true;
}

static bool write_all(int fd, struct slice bytes)
{
    while (bytes.length > 0) {
        ssize_t written = write(fd, bytes.data, bytes.length);
        if (written < 0 && errno != EINTR) {
            return false;
        }
        bytes = slice_skip(bytes, written < 0 ? 0 : (size_t)written);
    }
    return true;
}

static int create(struct export *export, const char *id, const char *suffix)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof(name), ".%s.%s", id, suffix);
    int fd = openat(export->directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                    0600);
    if (fd < 0) {
        fail(export, name, strerror(errno));
    }
    return fd;
}

static bool publish(struct export *export, const char *id, const char *suffix)
{
    char hidden[NAME_SIZE];
    snprintf(hidden, sizeof(hidden), ".%s.%s", id, suffix);
    if (renameat(export->directory, hidden, export->directory, hidden + 1) != 0) {
        fail(export, hidden + 1, strerror(errno));
        return false;
    }
    return true;
}

static void sync_batch(struct export *export)
{
    enum error error = ERROR_NONE;
    if (export->batched > 0 && !export->failed) {
        error = disk_sync_all(export->directory);
    }
    if (error != ERROR_NONE) {
        fail(export, "", error_text(error));
    }
}

/* Makes the batch durable, then visible. */
static void finish_batch(struct export *export)
{
    sync_batch(export);
    for (unsigned i = 0; i < export->batched && !export->failed; i++) {
        const struct exported *exported = &export->batch[i];
        if (!publish(export, exported->id, "eml") || !publish(export, exported->id, "json")) {
            break;
        }
        export->messages++;
        export->bytes += exported->bytes;
        if (export->tool->json) {
            json_t *row =
                json_pack("{sssIsI}", "id", exported->id, "bytes", (json_int_t)exported->bytes,
                          "recipients", (json_int_t)exported->recipients);
            tool_print_json(row);
            json_decref(row);
        }
    }
    sync_batch(export);
    export->batched = 0;
}

static void drop_message(struct export *export)
{
    if (export->content >= 0) {
        close(export->content);
        export->content = -1;
    }
    json_decref(export->head);
    export->head = NULL;
}

/* One message is damaged; the others are all the more worth saving. */
static void skip_message(struct export *export, const char *id, const char *why)
{
    char name[NAME_SIZE], clean[256];
    export->unreadable++;
    tool_clean(why, clean, sizeof(clean));
    if (export->tool->json) {
        json_t *row = json_pack("{ssss}", "id", id, "error", clean);
        tool_print_json(row);
        json_decref(row);
    } else {
        tool_progress_end(&export->progress);
        tool_error("%s: %s", id, clean);
    }
    snprintf(name, sizeof(name), ".%s.eml", id);
    unlinkat(export->directory, name, 0);
    drop_message(export);
}

/* What others had of it may be there from an export before, of them: recipients keep their places.
 */
static void join_record(const struct export *export, json_t *head)
{
    char name[NAME_SIZE];
    const char *id = tool_string(head, "id");
    snprintf(name, sizeof(name), "%s.json", id);
    int fd = openat(export->directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    json_t *before = fd < 0 ? NULL : json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
    if (tool_integer(before, "format") == 1 && strcmp(tool_string(before, "id"), id) == 0) {
        tool_join_rows(head, before, MERGE_QUEUE);
    }
    json_decref(before);
    if (fd >= 0) {
        close(fd);
    }
}

/* The content is there: the record beside it. */
static void write_record(struct export *export, json_t *head)
{
    const char *id = tool_string(head, "id");
    int fd = create(export, id, "json");
    if (fd < 0) {
        return;
    }
    static const char *const of_cluster[] = {"part", "sequence", "missing_nodes"};
    for (size_t i = 0; i < sizeof(of_cluster) / sizeof(of_cluster[0]); i++) {
        json_object_del(head, of_cluster[i]);
    }
    if (json_dumpfd(head, fd, JSON_INDENT(1)) != 0 || !write_all(fd, SLICE_LITERAL("\n"))) {
        fail(export, id, strerror(errno));
    }
    close(fd);
    struct exported *exported = &export->batch[export->batched++];
    snprintf(exported->id, sizeof(exported->id), "%s", id);
    exported->bytes = tool_integer(head, "bytes");
    exported->recipients = json_array_size(json_object_get(head, "recipients"));
    if (export->batched == BATCH) {
        finish_batch(export);
    }
}

static void finish_message(struct export *export)
{
    json_t *head = export->head;
    const char *id = tool_string(head, "id");
    if (export->offset != tool_integer(head, "bytes")) {
        skip_message(export, id, "its content is not complete");
        return;
    }
    if (tool_is_part(head)) {
        json_object_set(export->parts, id, head);
    } else {
        write_record(export, head);
        json_object_del(export->parts, id);
    }
    drop_message(export);
}

/* Those of which others have nothing, or do not answer. */
static void finish_parts(struct export *export)
{
    const char *id;
    json_t *head;
    json_object_foreach(export->parts, id, head)
    {
        join_record(export, head);
        write_record(export, head);
    }
    json_decref(export->parts);
    export->parts = NULL;
}

static void begin_message(struct export *export, json_t *head)
{
    const char *id = tool_string(head, "id");
    struct message_id parsed; /* it becomes a file name: nothing but an id will do */
    drop_message(export);
    if (!id_from_text(slice_from_text(id), &parsed)) {
        fail(export, "", "holdfastd named a message that is none");
        return;
    }
    export->content = create(export, id, "eml");
    export->head = json_incref(head);
    export->offset = 0;
    const json_t *other = json_object_get(export->parts, id);
    if (other != NULL) {
        tool_join_rows(head, other, MERGE_QUEUE);
    }
}

static void add_content(struct export *export, const json_t *row)
{
    const json_t *content = json_object_get(row, "content");
    struct slice text = slice_make(json_string_value(content), json_string_length(content));
    const char *id = tool_string(export->head, "id");
    struct buffer bytes;
    buffer_init(&bytes, CONTROL_FRAME_MAX);
    if (export->head == NULL || strcmp(id, tool_string(row, "id")) != 0 ||
        tool_integer(row, "offset") != export->offset ||
        base64_decode(&bytes, text) != ERROR_NONE) {
        fail(export, id, "holdfastd sent its content out of order");
    } else if (!write_all(export->content, buffer_slice(&bytes))) {
        fail(export, id, strerror(errno));
    }
    export->offset += (int64_t)bytes.length;
    buffer_done(&bytes);
    if (!export->failed && !tool_is_null(row, "error")) {
        skip_message(export, id, tool_string(row, "error"));
    } else if (!export->failed && json_is_true(json_object_get(row, "last"))) {
        finish_message(export);
    }
}

static void export_row(void *context, json_t *row)
{
    struct export *export = context;
    if (export->failed) {
        return;
    }
    if (json_object_get(row, "content") != NULL) {
        add_content(export, row);
    } else {
        begin_message(export, row);
    }
}

static void export_progress(void *context, uint64_t done, uint64_t all)
{
    struct export *export = context;
    tool_progress_step(&export->progress, done, all);
}

static int open_directory(const char *path)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return -1;
    }
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

enum control_exit tool_queue_export(struct tool *tool)
{
    struct export *export = calloc(1, sizeof(*export));
    if (export == NULL) {
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    export->tool = tool;
    export->path = tool->operands[0];
    export->content = -1;
    export->parts = json_object();
    export->directory = open_directory(export->path);
    enum control_exit code = CONTROL_FAILED;
    if (export->directory < 0) {
        tool_error("%s: %s", export->path, strerror(errno));
    } else {
        tool->operands++; /* the rest are ids */
        tool->operand_count--;
        struct tool_answer answer = {.context = export,
                                     .row = export_row,
                                     .progress = export_progress,
                                     .stop = &export->failed};
        tool_progress_begin(&export->progress, tool, "messages");
        code = tool_ask_selected(tool, "queue export", NULL, &answer, MERGE_AFTER);
        finish_parts(export);
        finish_batch(export);
        tool_progress_end(&export->progress);
        drop_message(export);
        close(export->directory);
        code = export->failed                                   ? CONTROL_FAILED
               : export->unreadable > 0 && code == CONTROL_DONE ? CONTROL_NOTHING_MATCHED
                                                                : code;
        if (!tool->json && export->messages > 0) {
            char bytes[TOOL_TEXT];
            printf("Exported %llu %s, %s, to %s.\n", (unsigned long long)export->messages,
                   export->messages == 1 ? "message" : "messages", tool_bytes(export->bytes, bytes),
                   export->path);
        }
    }
    json_decref(export->parts);
    free(export);
    return code;
}
