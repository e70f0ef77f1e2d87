/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of the command-line tool. One process, one command, one connection to the daemon's
 * control socket; what it prints as JSON is what core sent, unchanged.
 */
#ifndef HOLDFAST_APP_TOOL_H
#define HOLDFAST_APP_TOOL_H

#include "base/buffer.h"
#include "base/human.h"
#include "service/control_frame.h"

#include <stdio.h>

/* ---- the command line --------------------------------------------------------------------- */

enum {
    OPTION_DOMAIN = 1 << 0,
    OPTION_SERVER = 1 << 1,
    OPTION_SENDER = 1 << 2,
    OPTION_RECIPIENT = 1 << 3,
    OPTION_OLDER = 1 << 4,
    OPTION_DEAD = 1 << 5,
    OPTION_ALL = 1 << 6,
    OPTION_TO = 1 << 7,
    OPTION_FORCE = 1 << 8,
    OPTION_REASON = 1 << 9,
    OPTION_PORT = 1 << 10,
    OPTION_MINUTES = 1 << 11,
    OPTION_MESSAGES = 1 << 12,
    OPTION_SINCE = 1 << 13,
    OPTION_UNTIL = 1 << 14,
    OPTION_DRY_RUN = 1 << 15,
    OPTION_AGAIN = 1 << 16,
    OPTION_ADDRESS = 1 << 17,
    OPTION_COMMENT = 1 << 18,
    OPTION_VERSION = 1 << 19,
    OPTION_NODE = 1 << 20,
    OPTION_LOCAL = 1 << 21,
    OPTION_SECRETS = 1 << 22,

    OPTIONS_SELECT = OPTION_DOMAIN | OPTION_SERVER | OPTION_SENDER | OPTION_RECIPIENT |
                     OPTION_OLDER | OPTION_DEAD | OPTION_ALL,
    OPTIONS_MEMBERS = OPTION_NODE | OPTION_LOCAL, /* of what asks all members of a cluster */
};

struct tool;

struct tool_command {
    const char *words;    /* "queue list" */
    const char *operands; /* for the usage line: "[ID ...]" */
    const char *summary;  /* one line of the list of commands */
    const char *help;     /* what --help says more; may be NULL */
    unsigned options;     /* OPTION_ bits it takes */
    unsigned least, most; /* operands */
    enum control_exit (*run)(struct tool *tool);
};

struct tool {
    const struct tool_command *command;
    const char *configuration;
    bool json;
    bool help;
    bool terminal; /* standard output is one */
    bool colour;
    unsigned given; /* OPTION_ bits */
    const char *domain, *server, *sender, *recipient, *to, *reason, *port, *minutes, *messages,
        *address, *comment, *version, *node;
    uint64_t older_s;
    int64_t since_ms, until_ms; /* Unix ms */
    const char **operands;      /* within `words` */
    unsigned operand_count;
    const char **words; /* all arguments that are no options; freed by main */
};

extern const struct tool_command tool_commands[];
extern const unsigned tool_command_count;

/* Fills *tool from the arguments; CONTROL_USAGE with a message on standard error. */
enum control_exit tool_options(struct tool *tool, int argc, char **argv);
/* Of the command, or of all if there is none yet or only its first word. */
void tool_help(const struct tool *tool, const char *first_word);
/* "holdfast: ..." on standard error; returns CONTROL_USAGE. */
enum control_exit tool_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- asking core -------------------------------------------------------------------------- */

struct tool_client;

/* Where answers go; any may be NULL. A row is valid during the call and may be changed. */
struct tool_answer {
    void *context;
    void (*row)(void *context, json_t *row);
    void (*progress)(void *context, uint64_t done, uint64_t all);
    bool immediate;    /* rows are never continued: hand each on at once */
    bool quiet;        /* do not print the error of the end */
    bool *ret_nothing; /* becomes true instead of an error printed that nothing matched; or NULL */
    const char *about; /* what was asked for, said in front of that error; or NULL */
    const bool *stop;  /* gives up, with CONTROL_FAILED, when it has become true */
};

/* CONTROL_NOT_RUNNING, with a message, if nobody is there. */
enum control_exit tool_client_open(const struct tool *tool, struct tool_client **ret_client);
void tool_client_close(struct tool_client *client); /* NULL is allowed */
/* `arguments` is taken over. The exit code that core gave. */
enum control_exit tool_client_ask(struct tool_client *client, const char *command,
                                  json_t *arguments, const struct tool_answer *answer);
/* It is so of each member of a cluster that has nothing of what was asked for. */
bool tool_is_nothing(const char *error);
/* Open, ask, close. */
enum control_exit tool_ask(const struct tool *tool, const char *command, json_t *arguments,
                           const struct tool_answer *answer);

/* One request and its frames, by hand; `arguments` is taken over. Messages are printed. */
enum control_exit tool_client_send(struct tool_client *client, const char *command,
                                   json_t *arguments);
json_t *tool_client_receive(struct tool_client *client); /* NULL: it has ended */
/* Another member of the cluster is to be asked from now on, or with NULL the one that has the
 * connection. Borrowed. */
void tool_client_set_node(struct tool_client *client, const char *node);
/* Appends the arrays of a "more" to those of its row. */
void tool_continue_row(json_t *row, const json_t *more);
enum { TOOL_AGAIN_MS = 200, TOOL_AGAIN_TIMES = 1500 };

/* Without a cluster, with --local or with --node there is one to ask: then all of these are as
 * tool_ask(). In a cluster all members are, at once, and their rows become one answer; each row
 * gets "missing_nodes", the names of those that have not answered. */
enum tool_merge {
    MERGE_NOT,     /* only who has the socket is asked, or --node */
    MERGE_AFTER,   /* one member's rows after the other's */
    MERGE_QUEUE,   /* by "sequence"; parts of one message become one row */
    MERGE_TIME,    /* by "time" */
    MERGE_SERVERS, /* by "name" */
};
struct tool_members;
enum control_exit tool_members_open(const struct tool *tool, enum tool_merge merge,
                                    struct tool_members **ret_members);
enum control_exit tool_members_ask(struct tool_members *members, const char *command,
                                   json_t *arguments, const struct tool_answer *answer);
/* More than one may have to be asked. */
bool tool_members_are_several(const struct tool_members *members);
/* Says who is missing, and makes CONTROL_INCOMPLETE of the code where something may be missing with
 * them. */
enum control_exit tool_members_close(struct tool_members *members, enum control_exit code);
/* What that leaves of two rows about one message or server; joins `other` to `row`. */
void tool_join_rows(json_t *row, const json_t *other, enum tool_merge merge);
/* The row is about some of the message's deliveries; others may have others. */
bool tool_is_part(const json_t *row);
/* Open, ask, close. */
enum control_exit tool_ask_members(const struct tool *tool, const char *command, json_t *arguments,
                                   const struct tool_answer *answer, enum tool_merge merge);

/* What the options select, without ids. */
json_t *tool_selection(const struct tool *tool);
/* The command once for each operand, as "name"; the worst code counts, for a name that is not known
 * is a mistake. */
enum control_exit tool_ask_names(const struct tool *tool, const struct tool_answer *answer,
                                 enum tool_merge merge);
/* Asks with the selection and the operands as ids ("-": from standard input), in as many requests
 * as they need. `more` (taken over, may be NULL) is added to the arguments of each. */
enum control_exit tool_ask_selected(const struct tool *tool, const char *command, json_t *more,
                                    const struct tool_answer *answer, enum tool_merge merge);

/* ---- printing ----------------------------------------------------------------------------- */

/* One line of JSON on standard output. */
void tool_print_json(const json_t *object);
/* For answer.row when --json is given. */
void tool_row_json(void *context, json_t *row);

enum tool_colour { COLOUR_PLAIN, COLOUR_GOOD, COLOUR_WARN, COLOUR_BAD, COLOUR_FAINT };
/* The colour of a server's, lane's or delivery's state. */
enum tool_colour tool_state_colour(const char *state);
enum tool_colour tool_server_colour(const json_t *row); /* of `server list` or `status` */
/* Escape sequence, or "" without colours; COLOUR_PLAIN ends a colour. */
const char *tool_colour_text(const struct tool *tool, enum tool_colour colour);

/* Values of a row: "" and 0 for what is null or of another type. */
const char *tool_string(const json_t *row, const char *key);
int64_t tool_integer(const json_t *row, const char *key);
bool tool_is_null(const json_t *row, const char *key);

/* A text that was written by strangers, safe for a terminal: control characters and changes of
 * direction become "?". Into `buffer`, which is returned NUL-terminated; cut at `size`. */
const char *tool_clean(const char *text, char *buffer, size_t size);
/* At most `width` columns of a terminal; what is cut ends in a mark that says so. */
const char *tool_cut(const char *text, size_t width, char *buffer, size_t size);
/* The same, filled up with blanks. */
const char *tool_cell(const char *text, size_t width, char *buffer, size_t size);
/* Columns of the terminal on standard output; 80 if it does not tell. */
size_t tool_terminal_width(void);

enum { TOOL_TEXT = HUMAN_TEXT };
const char *tool_age(int64_t seconds, char buffer[TOOL_TEXT]);  /* "3h12m" */
const char *tool_bytes(int64_t bytes, char buffer[TOOL_TEXT]);  /* "4.2K" */
const char *tool_time(int64_t unix_ms, char buffer[TOOL_TEXT]); /* local time, to the second */
int64_t tool_now_ms(void);
/* A point in time as people say it: "6h" ago, "14:30" (the last one), "2026-11-22",
 * "2026-11-22 14:30[:15]" by the local clock, with a Z behind it by UTC, or "@1763818200". False:
 * none of these. */
bool tool_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms);

/* A table that prints itself in batches, so that a million rows take little memory. */
/* What does not fit a terminal is cut, and the cut shown, or goes on in the next line. */
enum tool_column_flags { COLUMN_LEFT = 0, COLUMN_RIGHT = 1, COLUMN_SHRINKS = 2, COLUMN_WRAPS = 4 };
struct tool_column {
    const char *name;
    double width; /* hint: below 1 a part of the terminal, else characters */
    unsigned flags;
};
struct tool_table;
struct tool_table *tool_table_new(const struct tool *tool, const struct tool_column *columns,
                                  unsigned count);
/* `cells` are copied and cleaned; colours may be NULL. */
void tool_table_row(struct tool_table *table, const char *const *cells,
                    const enum tool_colour *colours);
/* Prints what is left and frees; returns the number of rows in all. */
uint64_t tool_table_end(struct tool_table *table);

/* A bar on standard error, only where that is a terminal. */
struct tool_progress {
    bool on;
    bool shown;
    int64_t next_ms;
    const char *unit;
    int64_t begun_ms; /* of what it tells the rate and the time left */
    uint64_t begun_at;
};
void tool_progress_begin(struct tool_progress *progress, const struct tool *tool, const char *unit);
/* `all` 0: it has ended, another may begin. */
void tool_progress_step(struct tool_progress *progress, uint64_t done, uint64_t all);
/* Makes room for other output; the next step shows it again. */
void tool_progress_hide(struct tool_progress *progress);
void tool_progress_end(struct tool_progress *progress);

/* ---- commands ----------------------------------------------------------------------------- */

enum control_exit tool_status(struct tool *tool);
enum control_exit tool_queue_list(struct tool *tool);
enum control_exit tool_queue_show(struct tool *tool);
enum control_exit tool_queue_act(struct tool *tool);
enum control_exit tool_queue_export(struct tool *tool);
enum control_exit tool_queue_import(struct tool *tool);
enum control_exit tool_queue_resend(struct tool *tool);
enum control_exit tool_queue_watch(struct tool *tool);
enum control_exit tool_server(struct tool *tool);
enum control_exit tool_node_list(struct tool *tool);
enum control_exit tool_node_change(struct tool *tool);
enum control_exit tool_tls_reports(struct tool *tool);
enum control_exit tool_server_history(struct tool *tool);
enum control_exit tool_guard(struct tool *tool);
enum tool_colour tool_node_colour(const char *state);
/* The table of nodes, and a row of it. */
struct tool_table *tool_node_table(const struct tool *tool);
void tool_node_row(struct tool_table *table, const json_t *row);
enum tool_colour tool_guard_colour(const char *state);
enum control_exit tool_recipients_list(struct tool *tool);
enum control_exit tool_recipients_import(struct tool *tool);
enum control_exit tool_recipients_forget(struct tool *tool);
enum control_exit tool_recipients_verify(struct tool *tool);
enum control_exit tool_trace(struct tool *tool);
enum control_exit tool_drill(struct tool *tool);
enum control_exit tool_drill_stop(struct tool *tool);
enum control_exit tool_standby_status(struct tool *tool);
enum control_exit tool_standby_takeover(struct tool *tool);
enum control_exit tool_standby_back(struct tool *tool);
enum control_exit tool_standby_fenced(struct tool *tool);
enum control_exit tool_check(struct tool *tool);
enum control_exit tool_doctor(struct tool *tool);
/* "FILE:LINE: message" of a configuration, a line each: as they are on standard error, or as JSON.
 */
void tool_print_findings(const struct tool *tool, struct slice lines);
enum control_exit tool_spool_verify(struct tool *tool);
enum control_exit tool_user_put(struct tool *tool);
enum control_exit tool_user_remove(struct tool *tool);
enum control_exit tool_user_list(struct tool *tool);
enum control_exit tool_settings_show(struct tool *tool);
enum control_exit tool_settings_set(struct tool *tool);
enum control_exit tool_settings_history(struct tool *tool);
enum control_exit tool_settings_diff(struct tool *tool);
enum control_exit tool_settings_revert(struct tool *tool);

/* "waits for m1: connection refused" and the like, from a row of "queue list" or a delivery. */
const char *tool_why(const json_t *row, char *buffer, size_t size);

#endif
