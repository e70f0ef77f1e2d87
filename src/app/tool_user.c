/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast user`: the table of users (service/login_store.h). The tool writes the file itself, so
 * that no process of the daemon can, and passwords need not cross the control socket; the daemon
 * finds the new table at the next login.
 *
 * A password comes from the terminal, without echo and twice, or as the first line of standard
 * input; never from the command line, which everybody on the machine can read.
 */
#include "app/settings.h"
#include "app/tool.h"
#include "app/tool_user_shared.h"
#include "base/password.h"
#include "service/login_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { CONTROL_C = 3 };

struct table {
    int directory;
    int lock; /* held while the table is changed */
    struct disk *disk;
    struct login_store *store;
    struct shared_users *shared; /* a cluster's; NULL: the file of this machine is the table */
};

/* ---- the table ---------------------------------------------------------------------------- */

static void table_close(struct table *table)
{
    login_store_free(table->store);
    if (table->shared != NULL) {
        shared_users_close(table->shared);
        free(table->shared);
    }
    disk_free(table->disk);
    if (table->lock >= 0) {
        close(table->lock);
    }
    if (table->directory >= 0) {
        close(table->directory);
    }
}

static bool table_lock(struct table *table, const char *path)
{
    table->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    table->lock = table->directory < 0 ? -1
                                       : openat(table->directory, "lock",
                                                O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return table->lock >= 0 && flock(table->lock, LOCK_EX) == 0;
}

static enum error table_read(struct table *table, uint32_t *ret_line)
{
    enum error error = login_store_read(table->disk, &table->store, ret_line);
    if (error == ERROR_MISSING) {
        table->store = login_store_new();
        error = table->store != NULL ? ERROR_NONE : ERROR_MEMORY;
    }
    return error;
}

/* Without one yet a cluster begins with the table of this machine. */
static bool open_shared(const struct tool *tool, bool changes, struct table *table)
{
    struct login_store *store;
    table->shared = calloc(1, sizeof(*table->shared));
    if (table->shared == NULL) {
        tool_error("out of memory");
        return false;
    }
    if (!shared_users_open(tool, table->shared, changes, &store)) {
        return false;
    }
    if (store != NULL) {
        login_store_free(table->store);
        table->store = store;
    }
    return true;
}

static enum control_exit table_open(const struct tool *tool, bool changes, struct table *ret_table)
{
    struct buffer path, errors;
    *ret_table = (struct table){.directory = -1, .lock = -1};
    buffer_init(&path, 0);
    buffer_init(&errors, 0);
    bool known = settings_find_state(tool->configuration, &path, &errors);
    fprintf(stderr, "%.*s", SLICE_PRINT(buffer_slice(&errors)));
    buffer_done(&errors);
    buffer_append(&path, slice_make("/" LOGIN_DIRECTORY, sizeof("/" LOGIN_DIRECTORY)));
    enum control_exit code = known ? CONTROL_FAILED : CONTROL_USAGE;
    uint32_t line = 0;
    if (known && !path.failed) {
        const char *name = (const char *)path.data;
        enum error error = disk_open_directory(name, &ret_table->disk);
        if (error == ERROR_NONE && !table_lock(ret_table, name)) {
            error = error_from_errno(errno);
        }
        if (error == ERROR_NONE) {
            error = table_read(ret_table, &line);
        }
        if (error == ERROR_CORRUPT) {
            tool_error("%s/" LOGIN_FILE ":%u: this is no line of a table of users", name, line);
        } else if (error != ERROR_NONE) {
            tool_error("%s: %s", name, error_text(error));
        }
        code = error == ERROR_NONE ? CONTROL_DONE : CONTROL_FAILED;
    }
    buffer_done(&path);
    if (code == CONTROL_DONE && shared_users_are_there(tool) &&
        !open_shared(tool, changes, ret_table)) {
        code = CONTROL_FAILED;
    }
    if (code != CONTROL_DONE) {
        table_close(ret_table);
    }
    return code;
}

/* The daemon's user reads it: whose the directory is. */
static enum control_exit table_write(const struct tool *tool, struct table *table)
{
    struct stat status;
    if (table->shared != NULL) {
        return shared_users_write(tool, table->shared, table->store);
    }
    enum error error = login_store_write(table->disk, table->store);
    if (error == ERROR_NONE && geteuid() == 0 &&
        (fstat(table->directory, &status) != 0 ||
         fchownat(table->directory, LOGIN_FILE, status.st_uid, status.st_gid,
                  AT_SYMLINK_NOFOLLOW) != 0)) {
        error = error_from_errno(errno);
    }
    if (error != ERROR_NONE) {
        tool_error("the table of users: %s", error_text(error));
        return CONTROL_FAILED;
    }
    return CONTROL_DONE;
}

/* ---- passwords ---------------------------------------------------------------------------- */

struct password {
    char text[PASSWORD_MAX + 2];
    size_t length;
};

/* One line without its end. False: there is none, or it is too long. */
static bool read_line(struct password *ret_password)
{
    size_t length = 0;
    char c;
    ssize_t got;
    while ((got = read(STDIN_FILENO, &c, 1)) == 1 && c != '\n') {
        if (c == CONTROL_C || length == sizeof(ret_password->text)) {
            return false;
        }
        ret_password->text[length++] = c;
    }
    if (length > 0 && ret_password->text[length - 1] == '\r') {
        length--;
    }
    ret_password->length = length;
    return got >= 0 && length > 0 && length <= PASSWORD_MAX;
}

/* Signals are off meanwhile: a key that would end us must not leave the terminal silent. */
static bool ask(const char *question, struct password *ret_password)
{
    struct termios before, silent;
    if (tcgetattr(STDIN_FILENO, &before) != 0) {
        return false;
    }
    silent = before;
    silent.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    fputs(question, stderr);
    bool good = read_line(ret_password);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputs("\n", stderr);
    return good;
}

static enum control_exit read_password(struct password *ret_password)
{
    struct password again;
    bool is_terminal = isatty(STDIN_FILENO) == 1;
    bool good = is_terminal ? ask("Password: ", ret_password) : read_line(ret_password);
    if (!good) {
        tool_error("a password of 1 to %d octets is needed, from the terminal or as a line of "
                   "standard input",
                   PASSWORD_MAX);
        return CONTROL_FAILED;
    }
    if (is_terminal) {
        bool same = ask("Once more: ", &again) && again.length == ret_password->length &&
                    memcmp(again.text, ret_password->text, again.length) == 0;
        digest_forget(&again, sizeof(again));
        if (!same) {
            tool_error("these are two different passwords");
            return CONTROL_FAILED;
        }
    }
    return CONTROL_DONE;
}

static enum control_exit set_password(struct table *table, struct login_user *user)
{
    struct password password = {0};
    enum control_exit code = read_password(&password);
    if (code == CONTROL_DONE) {
        enum error error =
            login_user_set_password(table->store, user, slice_make(password.text, password.length));
        if (error != ERROR_NONE) {
            tool_error("the password cannot be taken: %s", error_text(error));
            code = CONTROL_FAILED;
        }
    }
    digest_forget(&password, sizeof(password));
    return code;
}

/* ---- commands ----------------------------------------------------------------------------- */

static void say(const struct tool *tool, struct slice name, const char *outcome)
{
    if (tool->json) {
        json_t *row =
            json_pack("{ss%ss}", "name", (const char *)name.data, name.length, "outcome", outcome);
        tool_print_json(row);
        json_decref(row);
    } else {
        printf("%.*s: %s\n", SLICE_PRINT(name), outcome);
    }
}

static enum control_exit put(const struct tool *tool, struct table *table,
                             const struct login_user *user, const char *outcome)
{
    if (login_store_put(table->store, user) != ERROR_NONE) {
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    enum control_exit code = table_write(tool, table);
    if (code == CONTROL_DONE) {
        say(tool, user->name, outcome);
    }
    return code;
}

/* Those of --address, or the name. False: with a message. */
static bool take_addresses(const struct tool *tool, struct slice addresses[LOGIN_ADDRESSES_MAX],
                           struct login_user *user)
{
    struct slice list = slice_from_text(
        (tool->given & OPTION_ADDRESS) != 0 ? tool->address : (const char *)user->name.data);
    user->addresses = addresses;
    user->address_count = 0;
    while (list.length > 0) {
        struct slice address = slice_take(list, slice_find(list, ','));
        const char *why = login_address_fault(address);
        if (why != NULL) {
            tool_error("'%.*s' %s%s", SLICE_PRINT(address), why,
                       (tool->given & OPTION_ADDRESS) == 0 ? "; give --address ADDRESS" : "");
            return false;
        }
        if (user->address_count == LOGIN_ADDRESSES_MAX) {
            tool_error("more than %d addresses", LOGIN_ADDRESSES_MAX);
            return false;
        }
        addresses[user->address_count++] = address;
        list = slice_skip(list, address.length + 1);
    }
    return true;
}

static enum control_exit add(const struct tool *tool, struct table *table, struct slice name)
{
    struct slice addresses[LOGIN_ADDRESSES_MAX];
    struct login_user user = {.name = name};
    if (login_store_find(table->store, name) != NULL) {
        tool_error("%.*s is there already; see user passwd and user change", SLICE_PRINT(name));
        return CONTROL_FAILED;
    }
    if (!take_addresses(tool, addresses, &user)) {
        return CONTROL_USAGE;
    }
    enum control_exit code = set_password(table, &user);
    return code == CONTROL_DONE ? put(tool, table, &user, "added") : code;
}

static enum control_exit change(const struct tool *tool, struct table *table, struct slice name,
                                bool wants_password)
{
    struct slice addresses[LOGIN_ADDRESSES_MAX];
    const struct login_user *known = login_store_find(table->store, name);
    if (known == NULL) {
        tool_error("there is no user %.*s", SLICE_PRINT(name));
        return CONTROL_NOTHING_MATCHED;
    }
    struct login_user user = *known;
    enum control_exit code = CONTROL_DONE;
    if (wants_password) {
        code = set_password(table, &user);
    } else if (!take_addresses(tool, addresses, &user)) {
        code = CONTROL_USAGE;
    }
    return code == CONTROL_DONE ? put(tool, table, &user, "changed") : code;
}

enum control_exit tool_user_put(struct tool *tool)
{
    struct table table;
    struct slice name = slice_from_text(tool->operands[0]);
    const char *why = login_name_fault(name);
    if (why != NULL) {
        tool_error("'%s' %s", tool->operands[0], why);
        return CONTROL_USAGE;
    }
    if (password_prepare() != ERROR_NONE) {
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    enum control_exit code = table_open(tool, true, &table);
    if (code != CONTROL_DONE) {
        return code;
    }
    bool is_new = strcmp(tool->command->words, "user add") == 0;
    code = is_new ? add(tool, &table, name)
                  : change(tool, &table, name, strcmp(tool->command->words, "user passwd") == 0);
    table_close(&table);
    return code;
}

enum control_exit tool_user_remove(struct tool *tool)
{
    struct table table;
    enum control_exit code = table_open(tool, true, &table);
    if (code != CONTROL_DONE) {
        return code;
    }
    bool all = true;
    for (unsigned i = 0; i < tool->operand_count; i++) {
        if (!login_store_remove(table.store, slice_from_text(tool->operands[i]))) {
            tool_error("there is no user %s", tool->operands[i]);
            all = false;
        }
    }
    if (!all) {
        table_close(&table);
        return CONTROL_NOTHING_MATCHED;
    }
    code = table_write(tool, &table);
    for (unsigned i = 0; code == CONTROL_DONE && i < tool->operand_count; i++) {
        say(tool, slice_from_text(tool->operands[i]), "removed");
    }
    table_close(&table);
    return code;
}

/* ---- list --------------------------------------------------------------------------------- */

static bool is_wanted(const struct tool *tool, struct slice name)
{
    for (unsigned i = 0; i < tool->operand_count; i++) {
        if (slice_equal_fold(name, slice_from_text(tool->operands[i]))) {
            return true;
        }
    }
    return tool->operand_count == 0;
}

static void list_json(const struct login_user *user)
{
    json_t *addresses = json_array();
    for (uint32_t i = 0; i < user->address_count; i++) {
        json_array_append_new(addresses, json_stringn((const char *)user->addresses[i].data,
                                                      user->addresses[i].length));
    }
    json_t *row = json_pack("{ss%sosbsb}", "name", (const char *)user->name.data, user->name.length,
                            "addresses", addresses, "password", user->password.length > 0, "scram",
                            user->has_keys);
    tool_print_json(row);
    json_decref(row);
}

static void list_row(struct tool_table *rows, const struct login_user *user)
{
    struct buffer addresses;
    buffer_init(&addresses, 0);
    for (uint32_t i = 0; i < user->address_count; i++) {
        buffer_append_text(&addresses, i == 0 ? "" : ", ");
        buffer_append(&addresses, user->addresses[i]);
    }
    buffer_append(&addresses, slice_make("", 1));
    const char *cells[] = {(const char *)user->name.data,
                           addresses.failed ? "" : (const char *)addresses.data};
    tool_table_row(rows, cells, NULL);
    buffer_done(&addresses);
}

enum control_exit tool_user_list(struct tool *tool)
{
    static const struct tool_column columns[] = {{"USER", 0.3, COLUMN_LEFT},
                                                 {"SENDS AS", 0.7, COLUMN_SHRINKS}};
    struct table table;
    enum control_exit code = table_open(tool, false, &table);
    if (code != CONTROL_DONE) {
        return code;
    }
    struct tool_table *rows = tool->json ? NULL : tool_table_new(tool, columns, 2);
    uint32_t shown = 0;
    for (uint32_t i = 0; i < login_store_count(table.store); i++) {
        const struct login_user *user = login_store_at(table.store, i);
        if (!is_wanted(tool, user->name)) {
            continue;
        }
        shown++;
        if (tool->json) {
            list_json(user);
        } else {
            list_row(rows, user);
        }
    }
    if (rows != NULL) {
        (void)tool_table_end(rows);
    }
    table_close(&table);
    return shown > 0 ? CONTROL_DONE : CONTROL_NOTHING_MATCHED;
}
