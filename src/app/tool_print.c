/* SPDX-License-Identifier: Apache-2.0
 *
 * How the tool writes: numbers and times for people, texts of strangers made safe for a terminal,
 * tables by libsmartcols, JSON as it came.
 */
#include "app/tool.h"
#include "base/utf8.h"

#include <libsmartcols.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* ---- JSON --------------------------------------------------------------------------------- */

/* What could drive a terminal or disguise a text is spelled out: it means the same to a program. */
void tool_print_json(const json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    for (struct slice rest = slice_from_text(text); rest.length > 0;) {
        struct slice one = slice_take(rest, utf8_sequence(rest));
        uint32_t code_point = utf8_code_point(one);
        if (utf8_is_unsafe(code_point)) {
            printf("\\u%04x", code_point);
        } else {
            fwrite(one.data, 1, one.length, stdout);
        }
        rest = slice_skip(rest, one.length);
    }
    free(text);
    putchar('\n');
}

void tool_row_json(void *context, json_t *row)
{
    (void)context;
    tool_print_json(row);
}

const char *tool_string(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text == NULL ? "" : text;
}

int64_t tool_integer(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

bool tool_is_null(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return value == NULL || json_is_null(value);
}

/* ---- texts -------------------------------------------------------------------------------- */

const char *tool_clean(const char *text, char *buffer, size_t size)
{
    return utf8_clean(slice_from_text(text), "", buffer, size);
}

const char *tool_age(int64_t seconds, char buffer[TOOL_TEXT])
{
    return human_age(seconds, buffer);
}

const char *tool_bytes(int64_t bytes, char buffer[TOOL_TEXT])
{
    return human_bytes(bytes, buffer);
}

const char *tool_time(int64_t unix_ms, char buffer[TOOL_TEXT])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    if (localtime_r(&seconds, &parts) == NULL ||
        strftime(buffer, TOOL_TEXT, "%Y-%m-%d %H:%M:%S", &parts) == 0) {
        snprintf(buffer, TOOL_TEXT, "%lld", (long long)unix_ms);
    }
    return buffer;
}

int64_t tool_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- colours ------------------------------------------------------------------------------ */

const char *tool_colour_text(const struct tool *tool, enum tool_colour colour)
{
    static const char *const escapes[] = {[COLOUR_PLAIN] = "\033[0m",
                                          [COLOUR_GOOD] = "\033[32m",
                                          [COLOUR_WARN] = "\033[33m",
                                          [COLOUR_BAD] = "\033[1;31m",
                                          [COLOUR_FAINT] = "\033[2m"};
    return tool->colour ? escapes[colour] : "";
}

enum tool_colour tool_state_colour(const char *state)
{
    static const struct {
        const char *state;
        enum tool_colour colour;
    } known[] = {
        {"up", COLOUR_GOOD},         {"flowing", COLOUR_GOOD},  {"suspect", COLOUR_WARN},
        {"recovering", COLOUR_WARN}, {"draining", COLOUR_GOOD}, {"deferred", COLOUR_WARN},
        {"in_doubt", COLOUR_WARN},   {"held", COLOUR_WARN},     {"disabled", COLOUR_WARN},
        {"down", COLOUR_BAD},        {"stopped", COLOUR_BAD},   {"orphan", COLOUR_BAD},
        {"dead", COLOUR_BAD},        {"idle", COLOUR_FAINT},    {"finished", COLOUR_FAINT},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].state, state) == 0) {
            return known[i].colour;
        }
    }
    return COLOUR_PLAIN;
}

/* ---- tables ------------------------------------------------------------------------------- */

enum { BATCH_ROWS = 1000, CELL_BYTES = 1024 };

struct tool_table {
    const struct tool *tool;
    const struct tool_column *layout;
    struct libscols_table *table;
    unsigned columns;
    unsigned pending; /* rows not yet printed */
    uint64_t rows;
    bool broken;
};

struct tool_table *tool_table_new(const struct tool *tool, const struct tool_column *columns,
                                  unsigned count)
{
    struct tool_table *table = calloc(1, sizeof(*table));
    if (table == NULL) {
        return NULL;
    }
    table->tool = tool;
    table->layout = columns;
    table->columns = count;
    table->table = scols_new_table();
    table->broken = table->table == NULL;
    for (unsigned i = 0; i < count && !table->broken; i++) {
        unsigned flags = columns[i].flags;
        struct libscols_column *column =
            scols_table_new_column(table->table, columns[i].name, columns[i].width,
                                   (flags & COLUMN_RIGHT) != 0 ? SCOLS_FL_RIGHT : 0);
        table->broken = column == NULL;
        if (column != NULL && (flags & COLUMN_WRAPS) != 0 && tool->terminal) {
            scols_column_set_flags(column, SCOLS_FL_WRAP);
            scols_column_set_safechars(column, "\n");
            scols_column_set_wrapfunc(column, scols_wrapnl_chunksize, scols_wrapnl_nextchunk, NULL);
        }
    }
    if (!table->broken) {
        scols_table_enable_colors(table->table, tool->colour);
        if (!tool->terminal) {
            scols_table_enable_nowrap(table->table, 1);
            scols_table_set_termforce(table->table, SCOLS_TERMFORCE_NEVER);
        }
    }
    return table;
}

/* In columns of the terminal. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    wchar_t wide;
    mbstate_t state = {0};
    for (size_t step; (step = mbrtowc(&wide, text, MB_CUR_MAX, &state)) > 0; text += step) {
        if (step > MB_CUR_MAX) { /* no character of this locale */
            return width + strlen(text);
        }
        int one = wcwidth(wide);
        width += one > 0 ? (size_t)one : 0;
    }
    return width;
}

const char *tool_cut(const char *text, size_t width, char *buffer, size_t size)
{
    const char *mark = MB_CUR_MAX > 1 ? "\xe2\x80\xa6" : "~";
    if (width_of(text) <= width) {
        snprintf(buffer, size, "%s", text);
        return buffer;
    }
    size_t length = 0, used = 0;
    wchar_t wide;
    mbstate_t state = {0};
    for (size_t step; (step = mbrtowc(&wide, text + length, MB_CUR_MAX, &state)) > 0;
         length += step) {
        int one = step > MB_CUR_MAX ? 1 : wcwidth(wide);
        used += one > 0 ? (size_t)one : 0;
        if (step > MB_CUR_MAX || used + 1 > width || length + step + sizeof("...") > size) {
            break;
        }
    }
    snprintf(buffer, size, "%.*s%s", (int)length, text, width > 0 ? mark : "");
    return buffer;
}

const char *tool_cell(const char *text, size_t width, char *buffer, size_t size)
{
    size_t have = width_of(tool_cut(text, width, buffer, size));
    for (size_t length = strlen(buffer); have < width && length + 1 < size; have++) {
        buffer[length++] = ' ';
        buffer[length] = '\0';
    }
    return buffer;
}

size_t tool_terminal_width(void)
{
    struct winsize window;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    return known ? window.ws_col : 80;
}

enum { COLUMNS_MAX = 16, WIDTH_LEAST = 8 };

/* What the others leave is divided among the flexible columns by their hints; what one does not
 * need goes to the rest. */
static void divide(const struct tool_table *table, size_t widths[COLUMNS_MAX])
{
    const unsigned flexible = COLUMN_SHRINKS | COLUMN_WRAPS;
    long room = (long)tool_terminal_width() - (long)table->columns + 1;
    unsigned open = 0;
    double hints = 0;
    for (unsigned i = 0; i < table->columns; i++) {
        bool fixed = (table->layout[i].flags & flexible) == 0;
        room -= fixed ? (long)widths[i] : 0;
        open |= fixed ? 0 : 1U << i;
        hints += fixed ? 0 : table->layout[i].width;
    }
    for (bool settled = false; !settled;) {
        settled = true;
        for (unsigned i = 0; i < table->columns; i++) {
            if ((open & 1U << i) != 0 &&
                (long)widths[i] <= (long)((double)room * table->layout[i].width / hints)) {
                open &= ~(1U << i);
                room -= (long)widths[i];
                hints -= table->layout[i].width;
                settled = false;
            }
        }
    }
    for (unsigned i = 0; i < table->columns; i++) {
        if ((open & 1U << i) != 0) {
            long share = (long)((double)room * table->layout[i].width / hints);
            widths[i] = share > WIDTH_LEAST ? (size_t)share : WIDTH_LEAST;
        }
    }
}

/* Lines of at most `width` columns, parted at blanks where there are some. */
static void fold(const char *text, size_t width, char *buffer, size_t size)
{
    size_t length = 0, line = 0, blank = 0;
    snprintf(buffer, size, "%s", text);
    while (width_of(buffer + line) > width) {
        char cut[CELL_BYTES];
        size_t most = strlen(tool_cut(buffer + line, width + 1, cut, sizeof(cut)));
        most -= MB_CUR_MAX > 1 ? 3 : 1; /* the mark */
        for (blank = most; blank > 0 && buffer[line + blank] != ' '; blank--) {
        }
        length = strlen(buffer);
        if (blank > 0) {
            buffer[line + blank] = '\n';
            line += blank + 1;
        } else if (most > 0 && length + 1 < size) {
            memmove(buffer + line + most + 1, buffer + line + most, length - line - most + 1);
            buffer[line + most] = '\n';
            line += most + 1;
        } else {
            return;
        }
    }
}

static void fit(struct tool_table *table)
{
    size_t widths[COLUMNS_MAX];
    for (unsigned i = 0; i < table->columns; i++) {
        widths[i] = strlen(table->layout[i].name);
        for (unsigned row = 0; row < table->pending; row++) {
            struct libscols_line *line = scols_table_get_line(table->table, row);
            const char *text = scols_cell_get_data(scols_line_get_cell(line, i));
            size_t width = text == NULL ? 0 : width_of(text);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    divide(table, widths);
    for (unsigned i = 0; i < table->columns; i++) {
        scols_column_set_whint(scols_table_get_column(table->table, i), (double)widths[i]);
        for (unsigned row = 0; row < table->pending; row++) {
            struct libscols_line *line = scols_table_get_line(table->table, row);
            struct libscols_cell *cell = scols_line_get_cell(line, i);
            const char *text = scols_cell_get_data(cell);
            char fitted[CELL_BYTES];
            if (text != NULL && (table->layout[i].flags & COLUMN_SHRINKS) != 0) {
                scols_cell_set_data(cell, tool_cut(text, widths[i], fitted, sizeof(fitted)));
            } else if (text != NULL && (table->layout[i].flags & COLUMN_WRAPS) != 0) {
                fold(text, widths[i], fitted, sizeof(fitted));
                scols_cell_set_data(cell, fitted);
            }
        }
    }
}

static void print_batch(struct tool_table *table)
{
    if (table->pending > 0 && !table->broken) {
        if (table->tool->terminal) {
            fit(table);
        }
        scols_print_table(table->table);
        scols_table_remove_lines(table->table);
        scols_table_enable_noheadings(table->table, 1);
    }
    table->pending = 0;
}

void tool_table_row(struct tool_table *table, const char *const *cells,
                    const enum tool_colour *colours)
{
    if (table == NULL || table->broken) {
        return;
    }
    struct libscols_line *line = scols_table_new_line(table->table, NULL);
    for (unsigned i = 0; line != NULL && i < table->columns; i++) {
        char clean[CELL_BYTES];
        scols_line_set_data(line, i, tool_clean(cells[i], clean, sizeof(clean)));
        if (colours != NULL && colours[i] != COLOUR_PLAIN && table->tool->colour) {
            scols_cell_set_color(scols_line_get_cell(line, i),
                                 tool_colour_text(table->tool, colours[i]));
        }
    }
    table->rows++;
    table->pending++;
    if (table->pending == BATCH_ROWS) {
        print_batch(table);
    }
}

uint64_t tool_table_end(struct tool_table *table)
{
    if (table == NULL) {
        tool_error("out of memory");
        return 0;
    }
    print_batch(table);
    uint64_t rows = table->rows;
    scols_unref_table(table->table);
    free(table);
    return rows;
}

/* ---- progress ----------------------------------------------------------------------------- */

enum { BAR_WIDTH = 30, BAR_INTERVAL_MS = 100 };

void tool_progress_begin(struct tool_progress *progress, const struct tool *tool, const char *unit)
{
    *progress = (struct tool_progress){
        .on = !tool->json && isatty(STDERR_FILENO) == 1,
        .unit = unit,
        .next_ms = tool_now_ms() + 3 * BAR_INTERVAL_MS, /* nothing for what is done at once */
    };
}

/* ", 1234/s, 1m12s left", once a second of it has been seen. */
static const char *rate_text(const struct tool_progress *progress, uint64_t done, uint64_t all,
                             int64_t now_ms, char buffer[TOOL_TEXT * 2])
{
    char left[TOOL_TEXT], rate_words[TOOL_TEXT];
    double seconds = (double)(now_ms - progress->begun_ms) / 1000;
    double rate = (double)(done - progress->begun_at) / seconds;
    buffer[0] = '\0';
    bool time_itself = strcmp(progress->unit, "seconds") == 0;
    if (seconds < 1 || done <= progress->begun_at || rate <= 0 || time_itself) {
        return buffer;
    }
    if (strcmp(progress->unit, "bytes") == 0) {
        tool_bytes((int64_t)rate, rate_words);
    } else {
        snprintf(rate_words, sizeof(rate_words), "%.0f", rate);
    }
    snprintf(buffer, TOOL_TEXT * 2, ", %s/s, %s left", rate_words,
             tool_age((int64_t)((double)(all - done) / rate), left));
    return buffer;
}

void tool_progress_step(struct tool_progress *progress, uint64_t done, uint64_t all)
{
    int64_t now = tool_now_ms();
    if (all == 0) {
        tool_progress_hide(progress);
        progress->begun_ms = 0;
        return;
    }
    done = done < all ? done : all;
    if (progress->begun_ms == 0 || done < progress->begun_at) {
        progress->begun_ms = now;
        progress->begun_at = done;
    }
    if (!progress->on || (now < progress->next_ms && done < all)) {
        return;
    }
    if (!progress->shown && now < progress->next_ms) {
        return;
    }
    progress->next_ms = now + BAR_INTERVAL_MS;
    progress->shown = true;
    unsigned part = (unsigned)((double)done / (double)all * BAR_WIDTH);
    char bar[BAR_WIDTH + 1], rate[TOOL_TEXT * 2];
    memset(bar, '#', part);
    memset(bar + part, '.', BAR_WIDTH - part);
    bar[BAR_WIDTH] = '\0';
    char done_text[TOOL_TEXT], all_text[TOOL_TEXT];
    if (strcmp(progress->unit, "bytes") == 0) {
        tool_bytes((int64_t)done, done_text);
        tool_bytes((int64_t)all, all_text);
    } else {
        snprintf(done_text, sizeof(done_text), "%llu", (unsigned long long)done);
        snprintf(all_text, sizeof(all_text), "%llu", (unsigned long long)all);
    }
    fprintf(stderr, "\r[%s] %s of %s %s%s\033[K", bar, done_text, all_text, progress->unit,
            rate_text(progress, done, all, now, rate));
    fflush(stderr);
}

void tool_progress_hide(struct tool_progress *progress)
{
    if (progress->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        progress->shown = false;
    }
}

void tool_progress_end(struct tool_progress *progress)
{
    tool_progress_hide(progress);
}
