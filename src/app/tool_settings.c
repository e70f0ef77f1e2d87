/* SPDX-License-Identifier: Apache-2.0
 *
 * holdfast settings: versions of the cluster's settings, straight in the database, so that they can
 * be read and mended while no daemon runs. Whoever may read the password of the database may do it.
 *
 * A version's text begins with the line "# version N". What `settings show` prints can be changed
 * and set again, and says by it from which version it was made: if that is the newest no more, it
 * is refused.
 */
#include "app/tool_settings.h"
#include "app/settings.h"
#include "app/tool.h"
#include "base/digest.h"
#include "base/utf8.h"
#include "service/control.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CONNECT_MS = 10000,
    WAIT_MS = 20000,   /* for a member to try one */
    REFUSED_MS = 3000, /* for another, when one has refused it */
    LOOK_MS = 100,
};

#define MARK "# version "

/* ---- the database ------------------------------------------------------------------------- */

static bool connect_to(struct database *database)
{
    char problem[DATABASE_ERROR_SIZE];
    bool connected = settings_store_connect(database, problem);
    if (!connected) {
        tool_error("the cluster's database: %s", problem);
    }
    return connected;
}

bool settings_access_open(const struct tool *tool, struct settings_access *ret_access)
{
    struct buffer conninfo, password, errors;
    *ret_access = (struct settings_access){0};
    buffer_init(&ret_access->name, 0);
    buffer_init(&conninfo, 0);
    buffer_init(&password, 0);
    buffer_init(&errors, 0);
    bool known = settings_find_cluster(tool->configuration, &conninfo, &password, &ret_access->name,
                                       &errors);
    fprintf(stderr, "%.*s", SLICE_PRINT(buffer_slice(&errors)));
    if (known) {
        const struct database_settings settings = {.conninfo = buffer_slice(&conninfo),
                                                   .password = buffer_slice(&password),
                                                   .name = SLICE_LITERAL("holdfast tool"),
                                                   .connect_timeout_ms = CONNECT_MS};
        ret_access->database = database_new(&settings);
        known = ret_access->database != NULL && digest_prepare() == ERROR_NONE &&
                connect_to(ret_access->database);
    }
    buffer_done(&conninfo);
    digest_forget_buffer(&password);
    buffer_done(&errors);
    return known;
}

void settings_access_close(struct settings_access *access)
{
    database_free(access->database);
    buffer_done(&access->name);
}

bool settings_access_done(const struct settings_access *access, enum database_outcome outcome)
{
    bool done = outcome == DATABASE_DONE || outcome == DATABASE_WARNED;
    if (!done) {
        tool_error("the cluster's database: %s", database_error(access->database));
    }
    return done;
}

/* ---- versions ----------------------------------------------------------------------------- */

static void take_entry(void *context, const struct settings_entry *entry)
{
    struct settings_about *now = context;
    now->found = true;
    now->number = entry->number;
    now->state = entry->state;
    now->made_ms = entry->made_ms;
    now->refused = entry->refused_by.length > 0;
    const struct slice from[] = {entry->author, entry->comment, entry->problem};
    char *const to[] = {now->author, now->comment, now->problem};
    for (size_t i = 0; i < 3; i++) {
        snprintf(to[i], SETTINGS_WORDS, "%.*s", SLICE_PRINT(slice_take(from[i], 1024)));
    }
}

bool settings_look(const struct settings_access *access, uint64_t number,
                   struct settings_about *ret_now)
{
    *ret_now = (struct settings_about){0};
    bool done = settings_access_done(
        access, settings_store_history(access->database, number, 1, take_entry, ret_now));
    ret_now->found = ret_now->found && (number == 0 || ret_now->number == number);
    return done;
}

void settings_side_init(struct settings_side *side)
{
    side->version = (struct settings_version){.files = side->files};
    buffer_init(&side->bytes, 0);
}

void settings_side_done(struct settings_side *side)
{
    digest_forget_buffer(&side->bytes);
}

bool settings_side_fetch(const struct settings_access *access, uint64_t number,
                         struct settings_side *side)
{
    bool found;
    side->number = number;
    if (!settings_access_done(
            access, settings_store_fetch(access->database, number, &side->bytes, &found))) {
        return false;
    }
    if (!found || settings_version_get(buffer_slice(&side->bytes), &side->version, side->files) !=
                      ERROR_NONE) {
        tool_error("there is no version %llu of the settings", (unsigned long long)number);
        return false;
    }
    return true;
}

struct settings_file *settings_side_file(struct settings_side *side, struct slice name)
{
    for (uint32_t i = 0; i < side->version.file_count; i++) {
        if (slice_equal(side->files[i].name, name)) {
            return &side->files[i];
        }
    }
    return NULL;
}

bool settings_side_put(struct settings_side *side, struct slice name, struct slice content)
{
    struct settings_file *file = settings_side_file(side, name);
    if (file == NULL && side->version.file_count == SETTINGS_FILES_MAX) {
        return false;
    }
    file = file != NULL ? file : &side->files[side->version.file_count++];
    *file = (struct settings_file){name, content};
    return true;
}

void settings_side_remove(struct settings_side *side, struct settings_file *file)
{
    *file = side->files[--side->version.file_count];
}

static bool parse_number(const char *text, uint64_t *ret_number)
{
    bool good = slice_to_u64(slice_from_text(text), ret_number) && *ret_number > 0 &&
                *ret_number <= INT64_MAX;
    if (!good) {
        tool_error("'%s' is no number of a version", text);
    }
    return good;
}

static bool is_waiting(const struct settings_about *version)
{
    return version->found && version->state == SETTINGS_NEW && !version->refused;
}

static bool is_in_the_way(const struct settings_about *newest, bool settled)
{
    return newest->found && (newest->state == SETTINGS_TRIAL || (settled && is_waiting(newest)));
}

/* The newest, when it is not in the way any more, or after WAIT_MS. */
static bool wait_for_newest(const struct settings_access *access, bool settled,
                            struct settings_about *ret_newest)
{
    int64_t end_ms = tool_now_ms() + WAIT_MS;
    while (settings_access_done(access, settings_store_expire(access->database)) &&
           settings_look(access, 0, ret_newest)) {
        if (!is_in_the_way(ret_newest, settled) || tool_now_ms() >= end_ms) {
            return true;
        }
        usleep(LOOK_MS * 1000);
    }
    return false;
}

/* That of the newest which is in force; 0: none. */
static bool find_approved(const struct settings_access *access, uint64_t *ret_number)
{
    struct settings_heads heads;
    bool done = settings_access_done(
        access, settings_store_heads(access->database, buffer_slice(&access->name), &heads));
    *ret_number = done ? heads.approved : 0;
    return done;
}

static bool take_base(const struct settings_access *access, struct settings_base *base)
{
    bool is_good = base->newest.state == SETTINGS_APPROVED ||
                   base->newest.state == SETTINGS_TRIAL || is_waiting(&base->newest);
    base->number = base->newest.number;
    return is_good || find_approved(access, &base->number);
}

bool settings_see_base(const struct settings_access *access, struct settings_base *ret_base)
{
    return settings_look(access, 0, &ret_base->newest) && take_base(access, ret_base);
}

bool settings_find_base(const struct settings_access *access, bool settled,
                        struct settings_base *ret_base)
{
    if (!wait_for_newest(access, settled, &ret_base->newest)) {
        return false;
    }
    if (is_in_the_way(&ret_base->newest, settled)) {
        tool_error("version %llu of the settings is not in force yet: %s; nothing was changed, try "
                   "again when it is",
                   (unsigned long long)ret_base->newest.number,
                   ret_base->newest.state == SETTINGS_TRIAL ? "a member tries it"
                                                            : "no member has tried it");
        return false;
    }
    return take_base(access, ret_base);
}

bool settings_number(const struct tool *tool, const struct settings_access *access,
                     unsigned operand, uint64_t *ret_number)
{
    struct settings_about now;
    if (tool->operand_count > operand) {
        return parse_number(tool->operands[operand], ret_number);
    }
    if (!settings_look(access, 0, &now)) {
        return false;
    }
    if (!now.found) {
        tool_error("the cluster has no settings yet");
    }
    *ret_number = now.number;
    return now.found;
}

const char *settings_state_name(enum settings_state state, bool refused)
{
    static const char *const names[] = {[SETTINGS_NEW] = "new",
                                        [SETTINGS_TRIAL] = "trial",
                                        [SETTINGS_APPROVED] = "approved",
                                        [SETTINGS_BAD] = "bad",
                                        [SETTINGS_REPLACED] = "replaced"};
    bool was_new = state == SETTINGS_NEW || state == SETTINGS_REPLACED;
    return was_new && refused ? "refused" : names[state];
}

/* ---- setting one -------------------------------------------------------------------------- */

bool settings_take_mark(struct slice *text, uint64_t *ret_number)
{
    struct slice mark = SLICE_LITERAL(MARK);
    struct slice line = slice_take(*text, slice_find(*text, '\n'));
    if (!slice_equal(slice_take(line, mark.length), mark) ||
        !slice_to_u64(slice_trim(slice_skip(line, mark.length)), ret_number)) {
        return false;
    }
    *text = slice_skip(*text, line.length + 1);
    return true;
}

static struct slice author_of(const struct settings_access *access, char buffer[])
{
    const struct passwd *user = getpwuid(getuid());
    const char *sudo = getuid() == 0 ? getenv("SUDO_USER") : NULL;
    const char *name = sudo != NULL && sudo[0] != '\0' ? sudo : user != NULL ? user->pw_name : "?";
    int length =
        snprintf(buffer, SETTINGS_AUTHOR_MAX, "%.60s@%.60s", name, (const char *)access->name.data);
    struct slice author = slice_make(buffer, length > 0 ? (size_t)length : 0);
    return utf8_is_valid(author) ? author : SLICE_LITERAL("?");
}

static enum control_exit say_outcome(const struct tool *tool, const struct settings_about *now,
                                     bool quiet)
{
    const char *state = settings_state_name(now->state, now->refused);
    bool good = now->state == SETTINGS_APPROVED;
    bool waits = now->state == SETTINGS_TRIAL || is_waiting(now);
    if (quiet && (good || waits)) {
        return CONTROL_DONE;
    }
    if (tool->json) {
        json_t *row = json_pack("{sI ss ss}", "version", (json_int_t)now->number, "state", state,
                                "problem", now->problem);
        tool_print_json(row);
        json_decref(row);
    } else if (good) {
        printf("version %llu is in force\n", (unsigned long long)now->number);
    } else if (waits) {
        printf("version %llu waits: %s\n", (unsigned long long)now->number,
               now->state == SETTINGS_TRIAL ? "a member tries it" : "no member has tried it yet");
    } else {
        char clean[SETTINGS_WORDS];
        tool_error("version %llu is %s: %s", (unsigned long long)now->number, state,
                   tool_clean(now->problem, clean, sizeof(clean)));
    }
    return good || waits ? CONTROL_DONE : CONTROL_FAILED;
}

/* Until a member has tried it. */
static enum control_exit wait_for_outcome(const struct tool *tool,
                                          const struct settings_access *access, uint64_t number,
                                          uint32_t wait_ms, bool quiet)
{
    struct settings_about now;
    int64_t end_ms = tool_now_ms() + wait_ms;
    for (;;) {
        if (!settings_look(access, number, &now) || !now.found) {
            return CONTROL_FAILED;
        }
        bool is_over = now.state >= SETTINGS_APPROVED;
        if (now.refused && end_ms > tool_now_ms() + REFUSED_MS) {
            end_ms = tool_now_ms() + REFUSED_MS;
        }
        if (is_over || tool_now_ms() > end_ms) {
            return say_outcome(tool, &now, quiet);
        }
        usleep(LOOK_MS * 1000);
    }
}

/* Both texts together, here, as every member will do. */
static bool is_good(const struct tool *tool, const struct settings_version *version)
{
    struct buffer findings;
    const char *fault = settings_version_fault(version);
    if (fault != NULL) {
        tool_error("%s", fault);
        return false;
    }
    buffer_init(&findings, 0);
    struct settings *settings = settings_read_with(tool->configuration, version, &findings);
    tool_print_findings(tool, buffer_slice(&findings));
    buffer_done(&findings);
    bool good = settings != NULL;
    settings_free(settings);
    return good;
}

static enum control_exit say_moved(const struct settings_access *access, uint64_t made_from)
{
    struct settings_about now;
    if (settings_look(access, 0, &now) && now.found) {
        char time[TOOL_TEXT], author[SETTINGS_WORDS], comment[SETTINGS_WORDS];
        tool_error("the settings have moved on from version %llu: %s made version %llu at %s (%s); "
                   "nothing was changed. See settings diff %llu",
                   (unsigned long long)made_from, tool_clean(now.author, author, sizeof(author)),
                   (unsigned long long)now.number, tool_time(now.made_ms, time),
                   tool_clean(now.comment, comment, sizeof(comment)),
                   (unsigned long long)made_from);
    }
    return CONTROL_FAILED;
}

/* Made from the newest, but that is one that nobody lives with. */
static enum control_exit say_bad(const struct settings_base *base)
{
    char problem[SETTINGS_WORDS];
    tool_error("version %llu, from which this is made, is %s: %s; nothing was changed. What is in "
               "force is version %llu: begin with that (settings show)",
               (unsigned long long)base->newest.number,
               settings_state_name(base->newest.state, base->newest.refused),
               tool_clean(base->newest.problem, problem, sizeof(problem)),
               (unsigned long long)base->number);
    return CONTROL_FAILED;
}

enum control_exit settings_make(const struct tool *tool, const struct settings_access *access,
                                struct settings_version *version, const struct settings_base *base,
                                const char *usual_comment, bool quiet)
{
    char buffer[SETTINGS_AUTHOR_MAX];
    struct slice comment = slice_from_text(tool->comment != NULL ? tool->comment : usual_comment);
    /* Members wait after a bad one. */
    uint32_t wait_ms = WAIT_MS + (base->newest.state == SETTINGS_BAD ? SETTINGS_PAUSE_MS : 0);
    struct buffer text;
    if (comment.length > SETTINGS_COMMENT_MAX || !utf8_is_valid(comment)) {
        tool_error("--comment: at most %d octets of UTF-8", SETTINGS_COMMENT_MAX);
        return CONTROL_USAGE;
    }
    version->number = base->newest.number + 1;
    buffer_init(&text, 0);
    buffer_printf(&text, MARK "%llu\n", (unsigned long long)version->number);
    buffer_append(&text, version->text);
    version->text = buffer_slice(&text);
    bool made = false;
    enum control_exit code = CONTROL_FAILED;
    if (text.failed) {
        tool_error("out of memory");
    } else if (is_good(tool, version) &&
               settings_access_done(
                   access, settings_store_make(access->database, version, base->number,
                                               author_of(access, buffer), comment, &made))) {
        code = made ? wait_for_outcome(tool, access, version->number, wait_ms, quiet)
                    : say_moved(access, base->newest.number);
    }
    buffer_done(&text);
    return code;
}

static bool read_all(const char *path, size_t most, struct buffer *ret_bytes)
{
    bool is_input = strcmp(path, "-") == 0;
    int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t got = fd < 0 ? -1 : 1;
    while (got > 0 && ret_bytes->length <= most) {
        if (buffer_reserve(ret_bytes, 64 << 10) != ERROR_NONE) {
            errno = ENOMEM;
            got = -1;
            break;
        }
        got = read(fd, ret_bytes->data + ret_bytes->length, 64 << 10);
        ret_bytes->length += got > 0 ? (size_t)got : 0;
    }
    bool good = got >= 0 && ret_bytes->length <= most;
    if (!good) {
        tool_error("%s: %s", is_input ? "standard input" : path,
                   got < 0 ? strerror(errno) : "is too large");
    }
    if (fd > STDIN_FILENO) {
        close(fd);
    }
    return good;
}

struct files {
    struct settings_side side;
    struct buffer contents[SETTINGS_FILES_MAX]; /* of those that were read now */
    uint32_t read;
};

static bool say_many(void)
{
    tool_error("more than %d files", SETTINGS_FILES_MAX);
    return false;
}

static bool remove_file(struct settings_side *side, struct slice name)
{
    struct settings_file *file = settings_side_file(side, name);
    if (file == NULL) {
        tool_error("the settings have no file '%.*s'", SLICE_PRINT(name));
        return false;
    }
    settings_side_remove(side, file);
    return true;
}

/* NAME=PATH, or NAME= for a file that is to go. */
static bool take_file(struct files *files, const char *operand, const char *equals)
{
    struct slice name = slice_make(operand, (size_t)(equals - operand));
    const char *why = settings_file_name_fault(name);
    if (why != NULL) {
        tool_error("'%.*s' %s", SLICE_PRINT(name), why);
        return false;
    }
    if (equals[1] == '\0') {
        return remove_file(&files->side, name);
    }
    if (files->read == SETTINGS_FILES_MAX) {
        return say_many();
    }
    struct buffer *content = &files->contents[files->read++];
    buffer_init(content, 0);
    return read_all(equals + 1, SETTINGS_FILES_BYTES_MAX, content) &&
           (settings_side_put(&files->side, name, buffer_slice(content)) || say_many());
}

/* The operands: at most one is the text's file. */
static bool take_operands(const struct tool *tool, struct files *files, struct buffer *ret_text)
{
    bool has_text = false;
    for (unsigned i = 0; i < tool->operand_count; i++) {
        const char *equals = strchr(tool->operands[i], '=');
        if (equals != NULL) {
            if (!take_file(files, tool->operands[i], equals)) {
                return false;
            }
        } else if (has_text) {
            tool_error("'%s': one text is enough; files of the settings are NAME=PATH",
                       tool->operands[i]);
            return false;
        } else if (!read_all(tool->operands[i], SETTINGS_TEXT_MAX - 64, ret_text)) {
            return false;
        } else {
            has_text = true;
        }
    }
    return true;
}

/* From which version it was made. */
static bool find_origin(const struct tool *tool, struct slice *text, uint64_t base, bool has_text,
                        uint64_t *ret_origin)
{
    uint64_t marked = base;
    bool is_marked = settings_take_mark(text, &marked) && has_text;
    *ret_origin = has_text ? marked : base;
    if (tool->version != NULL) {
        return parse_number(tool->version, ret_origin);
    }
    if (has_text && !is_marked && base > 0) {
        tool_error("the text does not say from which version it was made: begin with what settings "
                   "show prints, or give --version %llu if that is the one that you have seen",
                   (unsigned long long)base);
        return false;
    }
    return true;
}

/* Not only files. */
static bool has_text_operand(const struct tool *tool)
{
    for (unsigned i = 0; i < tool->operand_count; i++) {
        if (strchr(tool->operands[i], '=') == NULL) {
            return true;
        }
    }
    return false;
}

static enum control_exit set(const struct tool *tool, const struct settings_access *access,
                             struct files *files, struct buffer *text)
{
    struct settings_version *version = &files->side.version;
    struct settings_base base;
    uint64_t origin;
    bool has_text = has_text_operand(tool);
    /* Who sets a text has seen the one that he changes. */
    bool good = settings_find_base(access, !has_text, &base) &&
                (base.number == 0 || settings_side_fetch(access, base.number, &files->side)) &&
                take_operands(tool, files, text);
    if (good && has_text) {
        version->text = buffer_slice(text);
    }
    good = good && find_origin(tool, &version->text, base.number, has_text, &origin);
    enum control_exit code = CONTROL_FAILED;
    if (good) {
        /* Of another version it has not even the files. */
        code = origin == base.number ? settings_make(tool, access, version, &base, "", false)
               : origin == base.newest.number ? say_bad(&base)
                                              : say_moved(access, origin);
    }
    return code;
}

enum control_exit tool_settings_set(struct tool *tool)
{
    struct settings_access access;
    struct buffer text;
    struct files *files = calloc(1, sizeof(*files));
    if (files == NULL) {
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    settings_side_init(&files->side);
    buffer_init(&text, 0);
    enum control_exit code = CONTROL_FAILED;
    if (settings_access_open(tool, &access)) {
        code = set(tool, &access, files, &text);
    }
    for (uint32_t i = 0; i < files->read; i++) {
        digest_forget_buffer(&files->contents[i]);
    }
    settings_access_close(&access);
    settings_side_done(&files->side);
    free(files);
    buffer_done(&text);
    return code;
}
