/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast queue import DIR`: sends what `queue export` wrote, in the order of the ids, which is
 * the order of time. A message goes in one request where it fits, else in several.
 *
 * The daemon knows a message's id only until the message has its fate. What it has stored is
 * therefore marked here, ID.json becomes ID.imported, before the next one is sent: said again, the
 * command takes nothing in twice, even when the mail has gone on meanwhile. On the way it is
 * ID.sending; a run that finds one, of a run that was killed, asks the trace whether the daemon has
 * had anything to do with the message since.
 */
#include "app/tool.h"
#include "base/base64.h"
#include "base/id.h"
#include "sys/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NAME_SIZE = ID_TEXT_LENGTH + 16,
    RECIPIENTS_A_REQUEST = 400, /* with long ORCPT parameters they fill half a frame */
    RECORD_BYTES_MAX = 64 << 20,
};

struct exported {
    char id[ID_TEXT_LENGTH + 1];
    bool begun; /* by an earlier run, and nobody knows how that ended */
};

struct import {
    const struct tool *tool;
    const char *path;
    int directory;
    struct disk *disk; /* the same, to rename in */
    struct tool_client *client;
    struct exported *messages;
    size_t count, capacity;
    uint64_t imported, present, failed;
    uint64_t before;  /* marked by an earlier run */
    bool cannot_mark; /* said once */
    struct tool_progress progress;
};

/* ---- the folder --------------------------------------------------------------------------- */

static const char fresh[] = "json", begun[] = "sending", done[] = "imported";

static bool has_suffix(struct slice suffix, const char *name)
{
    return suffix.length > 0 && suffix.data[0] == '.' &&
           slice_equal(slice_skip(suffix, 1), slice_from_text(name));
}

static bool add_name(struct import *import, const char *name)
{
    struct slice text = slice_from_text(name);
    struct slice suffix = slice_skip(text, ID_TEXT_LENGTH);
    struct message_id id;
    if (!id_from_text(slice_take(text, ID_TEXT_LENGTH), &id)) {
        return true; /* not ours */
    }
    bool is_begun = has_suffix(suffix, begun);
    if (!is_begun && !has_suffix(suffix, fresh)) {
        import->before += has_suffix(suffix, done);
        return true;
    }
    if (import->count == import->capacity) {
        size_t capacity = import->capacity == 0 ? 256 : import->capacity * 2;
        void *messages = reallocarray(import->messages, capacity, sizeof(*import->messages));
        if (messages == NULL) {
            tool_error("out of memory");
            return false;
        }
        import->messages = messages;
        import->capacity = capacity;
    }
    struct exported *message = &import->messages[import->count++];
    *message = (struct exported){.begun = is_begun};
    memcpy(message->id, name, ID_TEXT_LENGTH);
    return true;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(((const struct exported *)a)->id, ((const struct exported *)b)->id);
}

static bool list_folder(struct import *import)
{
    DIR *listing = opendir(import->path);
    import->directory = open(import->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = listing != NULL && import->directory >= 0;
    if (!good) {
        tool_error("%s: %s", import->path, strerror(errno));
    } else if (disk_from_descriptor(dup(import->directory), &import->disk) != ERROR_NONE) {
        tool_error("%s: cannot be used", import->path);
        good = false;
    }
    for (struct dirent *entry; good && (entry = readdir(listing)) != NULL;) {
        good = add_name(import, entry->d_name);
    }
    if (listing != NULL) {
        closedir(listing);
    }
    if (good && import->count > 0) {
        qsort(import->messages, import->count, sizeof(*import->messages), compare_ids);
    }
    return good;
}

/* ---- one message -------------------------------------------------------------------------- */

static int open_part(const struct import *import, const char *id, const char *suffix,
                     int64_t *ret_size)
{
    char name[NAME_SIZE];
    struct stat status;
    snprintf(name, sizeof(name), "%s.%s", id, suffix);
    int fd = openat(import->directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    *ret_size = fd < 0 ? 0 : status.st_size;
    return fd;
}

/* NULL with a reason. */
static json_t *read_record(const struct import *import, const struct exported *message,
                           const char **ret_why)
{
    int64_t size;
    const char *id = message->id;
    int fd = open_part(import, id, message->begun ? begun : fresh, &size);
    *ret_why = "its .json cannot be read";
    if (fd < 0) {
        return NULL;
    }
    json_t *record = size > RECORD_BYTES_MAX ? NULL : json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
    close(fd);
    if (record == NULL) {
        return NULL;
    }
    if (tool_integer(record, "format") != 1) {
        *ret_why = "its .json is of another version";
    } else if (strcmp(tool_string(record, "id"), id) != 0) {
        *ret_why = "its .json is about another message";
    } else if (!json_is_array(json_object_get(record, "recipients"))) {
        *ret_why = "its .json has no recipients";
    } else {
        return record;
    }
    json_decref(record);
    return NULL;
}

struct reply {
    const struct import *import;
    char result[32];
};

static void import_row(void *context, json_t *row)
{
    struct reply *reply = context;
    snprintf(reply->result, sizeof(reply->result), "%s", tool_string(row, "result"));
    if (reply->import->tool->json) {
        tool_print_json(row);
    }
}

/* Takes at most RECIPIENTS_A_REQUEST from the front of the record's recipients. */
static json_t *some_recipients(json_t *recipients, size_t *from)
{
    json_t *some = json_array();
    size_t all = json_array_size(recipients);
    for (size_t i = 0; i < RECIPIENTS_A_REQUEST && *from < all; i++) {
        json_array_append(some, json_array_get(recipients, *from));
        (*from)++;
    }
    return some;
}

enum { PIECE = CONTROL_CONTENT_MAX / 2 }; /* record and recipients are in the same frame */

/* The next piece of content, or NULL if it cannot be read. */
static json_t *some_content(int fd, int64_t *left)
{
    size_t length = *left < PIECE ? (size_t)*left : PIECE;
    uint8_t *bytes = malloc(PIECE);
    bool good = bytes != NULL;
    for (size_t at = 0; good && at < length;) {
        ssize_t got = read(fd, bytes + at, length - at);
        good = got > 0 || (got < 0 && errno == EINTR);
        at += got > 0 ? (size_t)got : 0;
    }
    struct buffer text;
    buffer_init(&text, 0);
    json_t *piece = NULL;
    if (good) {
        base64_encode(&text, slice_make(bytes, length));
        piece =
            text.length == 0 ? json_string("") : json_stringn((const char *)text.data, text.length);
        *left -= (int64_t)length;
    }
    buffer_done(&text);
    free(bytes);
    return piece;
}

/* NULL or why not; *ret_code is what core said. */
static const char *send_message(struct import *import, json_t *record, int content, int64_t left,
                                struct reply *reply, enum control_exit *ret_code)
{
    struct tool_answer answer = {.context = reply, .row = import_row};
    json_t *recipients = json_incref(json_object_get(record, "recipients"));
    json_object_del(record, "recipients");
    const char *why = NULL;
    size_t from = 0;
    bool first = true, last = false;
    *ret_code = CONTROL_DONE;
    while (!last && *ret_code == CONTROL_DONE) {
        json_t *arguments = json_object();
        if (first) {
            json_object_set(arguments, "record", record);
        }
        first = false;
        json_object_set_new(arguments, "recipients", some_recipients(recipients, &from));
        json_t *piece = some_content(content, &left);
        if (piece == NULL) {
            why = "its .eml cannot be read";
            json_decref(arguments);
            break;
        }
        json_object_set_new(arguments, "content", piece);
        last = left == 0 && from == json_array_size(recipients);
        json_object_set_new(arguments, "last", json_boolean(last));
        *ret_code = tool_client_ask(import->client, "queue import", arguments, &answer);
    }
    json_decref(recipients);
    return why;
}

static void complain(struct import *import, const char *id, const char *why)
{
    import->failed++;
    tool_progress_end(&import->progress);
    if (import->tool->json) {
        json_t *row = json_pack("{ssssss}", "id", id, "result", "failed", "error", why);
        tool_print_json(row);
        json_decref(row);
    } else {
        tool_error("%s: %s", id, why);
    }
}

static void mark(struct import *import, const char *id, const char *from, const char *to)
{
    char name[NAME_SIZE], marked[NAME_SIZE];
    snprintf(name, sizeof(name), "%s.%s", id, from);
    snprintf(marked, sizeof(marked), "%s.%s", id, to);
    const struct disk_ops *ops = import->disk->ops;
    enum error error = ops->rename(import->disk, name, marked);
    if (error == ERROR_NONE) {
        error = ops->sync_directory(import->disk);
    }
    if (error != ERROR_NONE && !import->cannot_mark) {
        import->cannot_mark = true;
        tool_progress_end(&import->progress);
        tool_error("%s/%s: %s; what is taken in cannot be marked, so do not import it again",
                   import->path, marked, error_text(error));
    }
}

/* ---- one that an earlier run was killed over ---------------------------------------------- */

struct look {
    int64_t since_ms;
    bool found;
};

static void look_at_event(void *context, json_t *row)
{
    struct look *look = context;
    look->found = look->found || tool_integer(row, "time") >= look->since_ms;
}

/* The daemon has said or done anything about it since it was marked as begun: then it is, or was,
 * in the queue there. What happened to it before, if it was exported from there, does not count.
 * False: that cannot be found out now. */
static bool ask_whether_stored(struct import *import, const char *id, bool *ret_stored)
{
    char name[NAME_SIZE];
    struct stat status;
    snprintf(name, sizeof(name), "%s.%s", id, begun);
    if (fstatat(import->directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return false;
    }
    struct look look = {.since_ms = (int64_t)status.st_ctim.tv_sec * 1000 +
                                    status.st_ctim.tv_nsec / 1000000};
    struct tool_answer answer = {.context = &look, .row = look_at_event, .quiet = true};
    enum control_exit code =
        tool_client_ask(import->client, "trace", json_pack("{ss}", "what", id), &answer);
    *ret_stored = look.found;
    return code == CONTROL_DONE || code == CONTROL_NOTHING_MATCHED;
}

/* False: it must not be sent. */
static bool begin(struct import *import, const struct exported *message)
{
    bool stored = false;
    if (!message->begun) {
        mark(import, message->id, fresh, begun);
        return true;
    }
    if (!ask_whether_stored(import, message->id, &stored)) {
        complain(import, message->id, "nothing is known of what became of it");
        return false;
    }
    if (stored) {
        if (import->tool->json) {
            json_t *row = json_pack("{ssss}", "id", message->id, "result", "exists");
            tool_print_json(row);
            json_decref(row);
        }
        mark(import, message->id, begun, done);
        import->present++;
    }
    return !stored;
}

/* What core said, and what becomes of the mark. NULL or what is wrong. */
static const char *conclude(struct import *import, const char *id, const char *why,
                            enum control_exit code, const struct reply *reply)
{
    bool imported = strcmp(reply->result, "imported") == 0;
    bool present = strcmp(reply->result, "exists") == 0;
    if (why == NULL && code != CONTROL_DONE) {
        why = "was refused";
    }
    if (why != NULL && code != CONTROL_NOT_RUNNING) {
        mark(import, id, begun, fresh); /* it is not there */
    } else if (why == NULL && (imported || present)) {
        mark(import, id, begun, done);
        import->imported += imported;
        import->present += present;
    } else if (why == NULL) {
        why = "nothing is known of what became of it";
    }
    return why;
}

/* False: it is no use going on. */
static bool import_one(struct import *import, const struct exported *message)
{
    const char *why;
    int64_t size;
    struct reply reply = {.import = import};
    json_t *record = read_record(import, message, &why);
    if (record == NULL) {
        complain(import, message->id, why);
        return true;
    }
    why = NULL;
    enum control_exit code = CONTROL_DONE;
    int content = open_part(import, message->id, "eml", &size);
    if (content < 0) {
        why = "its .eml cannot be read";
    } else if (size != tool_integer(record, "bytes")) {
        why = "its .eml has not the size that its .json says";
    } else if (begin(import, message)) {
        why = send_message(import, record, content, size, &reply, &code);
        why = conclude(import, message->id, why, code, &reply);
    }
    if (content >= 0) {
        close(content);
    }
    json_decref(record);
    if (why != NULL) {
        complain(import, message->id, why);
    }
    return code != CONTROL_NOT_RUNNING;
}

static enum control_exit import_all(struct import *import)
{
    enum control_exit code = tool_client_open(import->tool, &import->client);
    if (code != CONTROL_DONE) {
        return code;
    }
    tool_progress_begin(&import->progress, import->tool, "messages");
    bool going = true;
    for (size_t i = 0; i < import->count && going; i++) {
        going = import_one(import, &import->messages[i]);
        tool_progress_step(&import->progress, i + 1, import->count);
    }
    tool_progress_end(&import->progress);
    tool_client_close(import->client);
    if (!import->tool->json) {
        printf("Imported %llu, here already %llu, failed %llu.\n",
               (unsigned long long)import->imported, (unsigned long long)import->present,
               (unsigned long long)import->failed);
        if (import->before > 0) {
            printf("%llu had been imported before.\n", (unsigned long long)import->before);
        }
    }
    return !going               ? CONTROL_NOT_RUNNING
           : import->failed > 0 ? CONTROL_NOTHING_MATCHED
                                : CONTROL_DONE;
}

enum control_exit tool_queue_import(struct tool *tool)
{
    struct import import = {.tool = tool, .path = tool->operands[0], .directory = -1};
    enum control_exit code = CONTROL_FAILED;
    if (list_folder(&import)) {
        if (import.count == 0 && import.before == 0) {
            tool_error("%s: there is no exported message", import.path);
            code = CONTROL_NOTHING_MATCHED;
        } else {
            code = import_all(&import);
        }
    }
    if (import.directory >= 0) {
        close(import.directory);
    }
    disk_free(import.disk);
    free(import.messages);
    return code;
}
