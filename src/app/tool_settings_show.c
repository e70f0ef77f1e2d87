/* SPDX-License-Identifier: Apache-2.0
 *
 * holdfast settings show, history, diff.
 */
#include "app/tool_settings.h"
#include "service/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HISTORY_MOST = 100 };

/* ---- show --------------------------------------------------------------------------------- */

static void show_json(const struct settings_about *about, const struct settings_version *version)
{
    json_t *files = json_array();
    for (uint32_t i = 0; i < version->file_count; i++) {
        json_array_append_new(files,
                              json_pack("{so sI}", "name", control_string(version->files[i].name),
                                        "bytes", (json_int_t)version->files[i].content.length));
    }
    json_t *row = json_pack("{sI ss sI so so so so so}", "version", (json_int_t)about->number,
                            "state", settings_state_name(about->state, about->refused), "time",
                            (json_int_t)about->made_ms, "author",
                            control_string(slice_from_text(about->author)), "comment",
                            control_string(slice_from_text(about->comment)), "problem",
                            control_string_or_null(slice_from_text(about->problem)), "text",
                            control_string(version->text), "files", files);
    tool_print_json(row);
    json_decref(row);
}

/* What is to be changed, unless another is asked for. */
static bool find_shown(const struct tool *tool, const struct settings_access *access,
                       uint64_t *ret_number)
{
    struct settings_base base;
    bool found = settings_number(tool, access, 0, ret_number);
    if (found && tool->operand_count == 0) {
        found = settings_see_base(access, &base);
        *ret_number = base.number != 0 ? base.number : *ret_number;
    }
    return found;
}

enum control_exit tool_settings_show(struct tool *tool)
{
    static struct settings_side side;
    struct settings_access access;
    struct settings_about about;
    uint64_t number;
    settings_side_init(&side);
    enum control_exit code = CONTROL_FAILED;
    if (settings_access_open(tool, &access) && find_shown(tool, &access, &number) &&
        settings_look(&access, number, &about) && settings_side_fetch(&access, number, &side)) {
        code = CONTROL_DONE;
        if (tool->json) {
            show_json(&about, &side.version);
        } else {
            fwrite(side.version.text.data, 1, side.version.text.length, stdout);
        }
    }
    settings_access_close(&access);
    settings_side_done(&side);
    return code;
}

/* ---- history ------------------------------------------------------------------------------ */

struct history {
    const struct tool *tool;
    struct tool_table *table;
    uint64_t rows;
};

/* "a, b" as a list. */
static json_t *names(struct slice text)
{
    json_t *list = json_array();
    while (text.length > 0) {
        struct slice name = slice_take(text, slice_find(text, ','));
        json_array_append_new(list, control_string(name));
        text = slice_skip(text, name.length + 2);
    }
    return list;
}

static void row_json(const struct settings_entry *entry)
{
    json_t *row =
        json_pack("{sI ss sI so so so so so so sI sI}", "version", (json_int_t)entry->number,
                  "state", settings_state_name(entry->state, entry->refused_by.length > 0), "time",
                  (json_int_t)entry->made_ms, "author", control_string(entry->author), "comment",
                  control_string(entry->comment), "tried_by",
                  control_string_or_null(entry->tried_by), "refused_by", names(entry->refused_by),
                  "problem", control_string_or_null(entry->problem), "nodes", names(entry->members),
                  "bytes", (json_int_t)entry->text_bytes, "files", (json_int_t)entry->file_count);
    tool_print_json(row);
    json_decref(row);
}

static void add_row(void *context, const struct settings_entry *entry)
{
    struct history *history = context;
    history->rows++;
    if (history->tool->json) {
        row_json(entry);
        return;
    }
    char number[24], time[TOOL_TEXT], author[SETTINGS_AUTHOR_MAX + 1];
    struct buffer members;
    char words[2 * SETTINGS_WORDS];
    bool refused = entry->refused_by.length > 0;
    snprintf(number, sizeof(number), "%llu", (unsigned long long)entry->number);
    snprintf(author, sizeof(author), "%.*s", SLICE_PRINT(entry->author));
    buffer_init(&members, 0);
    buffer_append(&members, entry->members);
    buffer_put_u8(&members, 0);
    snprintf(words, sizeof(words), "%.*s%s%.*s",
             SLICE_PRINT(slice_take(entry->comment, SETTINGS_COMMENT_MAX)),
             entry->comment.length > 0 && entry->problem.length > 0 ? "; " : "",
             SLICE_PRINT(slice_take(entry->problem, SETTINGS_COMMENT_MAX)));
    const char *const cells[] = {
        number, settings_state_name(entry->state, refused),       tool_time(entry->made_ms, time),
        author, members.failed ? "" : (const char *)members.data, words};
    enum tool_colour colour =
        entry->state == SETTINGS_APPROVED                                           ? COLOUR_GOOD
        : entry->state == SETTINGS_BAD || (refused && entry->state == SETTINGS_NEW) ? COLOUR_BAD
                                                                                    : COLOUR_WARN;
    const enum tool_colour colours[] = {COLOUR_PLAIN, colour,       COLOUR_PLAIN,
                                        COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN};
    tool_table_row(history->table, cells, colours);
    buffer_done(&members);
}

enum control_exit tool_settings_history(struct tool *tool)
{
    static const struct tool_column columns[] = {
        {"VERSION", 7, COLUMN_RIGHT}, {"STATE", 8, COLUMN_LEFT},     {"MADE", 19, COLUMN_LEFT},
        {"BY", 0.15, COLUMN_SHRINKS}, {"NODES", 0.15, COLUMN_WRAPS}, {"WHY", 0.3, COLUMN_WRAPS}};
    struct history history = {.tool = tool};
    struct settings_access access;
    uint64_t first = 0;
    bool good = settings_access_open(tool, &access) &&
                (tool->operand_count == 0 || settings_number(tool, &access, 0, &first));
    if (good) {
        history.table = tool->json ? NULL : tool_table_new(tool, columns, 6);
        good =
            settings_access_done(&access, settings_store_history(access.database, first,
                                                                 HISTORY_MOST, add_row, &history));
        if (history.table != NULL) {
            (void)tool_table_end(history.table);
        }
    }
    settings_access_close(&access);
    return !good ? CONTROL_FAILED : history.rows > 0 ? CONTROL_DONE : CONTROL_NOTHING_MATCHED;
}

/* ---- diff --------------------------------------------------------------------------------- */

static int text_file(struct slice text)
{
    int fd = memfd_create("settings", MFD_CLOEXEC);
    while (fd >= 0 && text.length > 0) {
        ssize_t put = write(fd, text.data, text.length);
        if (put < 0 && errno != EINTR) {
            close(fd);
            return -1;
        }
        text = slice_skip(text, put > 0 ? (size_t)put : 0);
    }
    return fd;
}

/* By diff(1). */
static bool print_texts(const struct settings_side *from, const struct settings_side *to)
{
    int fds[] = {text_file(from->version.text), text_file(to->version.text)};
    char paths[2][32], labels[2][48];
    const struct settings_side *const sides[] = {from, to};
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof(paths[i]), "/dev/fd/%d", fds[i]);
        snprintf(labels[i], sizeof(labels[i]), "version %llu",
                 (unsigned long long)sides[i]->number);
        if (fds[i] >= 0) {
            (void)fcntl(fds[i], F_SETFD, 0);
        }
    }
    fflush(stdout);
    int status = -1;
    pid_t pid = fds[0] >= 0 && fds[1] >= 0 ? fork() : -1;
    if (pid == 0) {
        execlp("diff", "diff", "-u", "--label", labels[0], "--label", labels[1], "--", paths[0],
               paths[1], (char *)NULL);
        _exit(127);
    }
    bool good =
        pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) <= 1;
    if (!good) {
        tool_error(WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "diff(1) cannot be run"
                                                                   : "diff(1) has failed");
    }
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    return good;
}

/* What became of a file; NULL: nothing. */
static const char *fate_of(const struct settings_file *from, const struct settings_file *to)
{
    return from == NULL                              ? "added"
           : to == NULL                              ? "removed"
           : slice_equal(from->content, to->content) ? NULL
                                                     : "changed";
}

static void tell_file(struct settings_side *from, struct settings_side *to, struct slice name,
                      json_t *rows)
{
    const char *fate = fate_of(settings_side_file(from, name), settings_side_file(to, name));
    if (fate != NULL && rows != NULL) {
        json_array_append_new(rows,
                              json_pack("{so ss}", "name", control_string(name), "change", fate));
    } else if (fate != NULL) {
        printf("cluster:%.*s %s\n", SLICE_PRINT(name), fate);
    }
}

/* Their contents are not shown: there are secrets among them. */
static void tell_files(struct settings_side *from, struct settings_side *to, json_t *rows)
{
    for (uint32_t i = 0; i < from->version.file_count; i++) {
        tell_file(from, to, from->files[i].name, rows);
    }
    for (uint32_t i = 0; i < to->version.file_count; i++) {
        if (settings_side_file(from, to->files[i].name) == NULL) {
            tell_file(from, to, to->files[i].name, rows);
        }
    }
}

static bool print_difference(const struct tool *tool, struct settings_side *from,
                             struct settings_side *to)
{
    if (!tool->json) {
        bool good = print_texts(from, to);
        tell_files(from, to, NULL);
        return good;
    }
    json_t *files = json_array();
    tell_files(from, to, files);
    json_t *row = json_pack("{sI sI so so so}", "from", (json_int_t)from->number, "to",
                            (json_int_t)to->number, "before", control_string(from->version.text),
                            "after", control_string(to->version.text), "files", files);
    tool_print_json(row);
    json_decref(row);
    return true;
}

static bool find_sides(const struct tool *tool, const struct settings_access *access,
                       struct settings_side *from, struct settings_side *to)
{
    if (tool->operand_count > 0) {
        return settings_number(tool, access, 0, &from->number) &&
               settings_number(tool, access, 1, &to->number);
    }
    bool found = settings_number(tool, access, 0, &to->number);
    from->number = to->number - 1;
    if (found && from->number == 0) {
        tool_error("there is only one version");
    }
    return found && from->number > 0;
}

enum control_exit tool_settings_diff(struct tool *tool)
{
    static struct settings_side from, to;
    struct settings_access access;
    settings_side_init(&from);
    settings_side_init(&to);
    bool good = settings_access_open(tool, &access) && find_sides(tool, &access, &from, &to) &&
                settings_side_fetch(&access, from.number, &from) &&
                settings_side_fetch(&access, to.number, &to) && print_difference(tool, &from, &to);
    settings_access_close(&access);
    settings_side_done(&from);
    settings_side_done(&to);
    return good ? CONTROL_DONE : CONTROL_FAILED;
}
