/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line: words of a command, then options and operands in any order. Options are one
 * table; which command takes which stands in the table of commands.
 */
#include "app/settings.h"
#include "app/settings_internal.h"
#include "app/tool.h"

#include <stdarg.h>
#include <stdlib.h>

#define DEFAULT_CONFIGURATION "/etc/holdfast/holdfast.conf"

struct option {
    const char *name;
    const char *value; /* NULL: takes none */
    unsigned bit;
    const char *text;
};

static const struct option options[] = {
    {"domain", "DOMAIN", OPTION_DOMAIN, "recipients in DOMAIN"},
    {"server", "SERVER", OPTION_SERVER, "deliveries that may go to SERVER"},
    {"sender", "ADDRESS", OPTION_SENDER, "from ADDRESS; * is any text, <> the null sender"},
    {"recipient", "ADDRESS", OPTION_RECIPIENT, "to ADDRESS; * is any text"},
    {"older", "AGE", OPTION_OLDER, "received at least AGE ago: 30m, 2h, 7d"},
    {"dead", NULL, OPTION_DEAD, "dead letters only"},
    {"all", NULL, OPTION_ALL, "everything that waits; in queue export dead letters too"},
    {"to", "SERVER|ADDRESS", OPTION_TO, "where to send it instead"},
    {"force", NULL, OPTION_FORCE, "bounce also to senders that are not verified"},
    {"reason", "TEXT", OPTION_REASON, "a word for the trace"},
    {"port", "PORT", OPTION_PORT, "where exchangers are greeted, if not at 25"},
    {"minutes", "N", OPTION_MINUTES, "how long mail is held back; 5"},
    {"messages", "N", OPTION_MESSAGES, "test messages meanwhile; 20"},
    {"since", "TIME", OPTION_SINCE, "handed over since then: 6h, 14:30, 2026-11-22T14:30Z"},
    {"until", "TIME", OPTION_UNTIL, "handed over before that"},
    {"dry-run", NULL, OPTION_DRY_RUN, "only list what would be sent"},
    {"again", NULL, OPTION_AGAIN, "also what was sent again before"},
    {"address", "A[,A...]", OPTION_ADDRESS, "what the user may send as; * is any text"},
    {"comment", "TEXT", OPTION_COMMENT, "why, for the history"},
    {"version", "N", OPTION_VERSION, "the version that the change was made from"},
    {"node", "NAME", OPTION_NODE, "ask this member of the cluster alone"},
    {"secrets", NULL, OPTION_SECRETS, "bring back users, secrets and certificates too"},
    {"local", NULL, OPTION_LOCAL, "ask this machine alone, not the whole cluster"},
};
enum { OPTION_COUNT = sizeof(options) / sizeof(options[0]) };

void tool_error(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fputs("holdfast: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

enum control_exit tool_usage(const char *format, ...)
{
    va_list arguments;
    fputs("holdfast: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs("; see holdfast --help\n", stderr);
    return CONTROL_USAGE;
}

/* ---- help --------------------------------------------------------------------------------- */

static void help_options(unsigned taken)
{
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        if ((taken & options[i].bit) != 0) {
            char left[40];
            snprintf(left, sizeof(left), "--%s %s", options[i].name,
                     options[i].value != NULL ? options[i].value : "");
            bool servers = options[i].bit == OPTION_ALL && taken == OPTION_ALL;
            printf("    %-24s %s\n", left, servers ? "all servers" : options[i].text);
        }
    }
    printf("    %-24s %s\n", "--json", "JSON on standard output, one object a line");
    printf("    %-24s %s\n", "-c FILE", "the daemon's configuration (" DEFAULT_CONFIGURATION ")");
}

static bool starts_with_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    return strncmp(words, word, length) == 0 && (words[length] == ' ' || words[length] == '\0');
}

static void help_all(const char *first_word)
{
    printf("usage: holdfast [-c FILE] %s [--json] ...\n\n",
           first_word != NULL ? first_word : "COMMAND");
    for (unsigned i = 0; i < tool_command_count; i++) {
        const struct tool_command *command = &tool_commands[i];
        if (first_word == NULL || starts_with_word(command->words, first_word)) {
            printf("    %-17s %s\n", command->words, command->summary);
        }
    }
    printf("\nholdfast COMMAND --help says more; the manual is holdfast(1).\n"
           "Exit codes: 0 done, 1 nothing matched or it failed, 2 usage, 3 the daemon is not "
           "running,\n4 nodes of the cluster did not answer.\n");
}

void tool_help(const struct tool *tool, const char *first_word)
{
    const struct tool_command *command = tool->command;
    if (command == NULL) {
        help_all(first_word);
        return;
    }
    printf("usage: holdfast %s%s%s [options]\n\n%s.\n", command->words,
           command->operands[0] != '\0' ? " " : "", command->operands, command->summary);
    if (command->help != NULL) {
        printf("%s\n", command->help);
    }
    printf("\n");
    help_options(command->options);
}

/* ---- parsing ------------------------------------------------------------------------------ */

/* Takes the words of a command off the front of the operands. */
static enum control_exit find_command(struct tool *tool)
{
    const char *first = tool->operand_count > 0 ? tool->operands[0] : NULL;
    const char *second = tool->operand_count > 1 ? tool->operands[1] : NULL;
    bool group = false;
    for (unsigned i = 0; first != NULL && i < tool_command_count; i++) {
        const struct tool_command *command = &tool_commands[i];
        if (!starts_with_word(command->words, first)) {
            continue;
        }
        const char *rest = command->words + strlen(first);
        if (*rest == '\0' || (second != NULL && strcmp(rest + 1, second) == 0)) {
            unsigned words = *rest == '\0' ? 1 : 2;
            tool->command = command;
            tool->operands += words;
            tool->operand_count -= words;
            return CONTROL_DONE;
        }
        group = true;
    }
    if (tool->help && (first == NULL || group)) {
        tool_help(tool, first);
        return CONTROL_DONE;
    }
    if (first == NULL) {
        return tool_usage("a command is missing");
    }
    return group && second == NULL ? tool_usage("%s what?", first)
           : group                 ? tool_usage("there is no command '%s %s'", first, second)
                                   : tool_usage("there is no command '%s'", first);
}

static const char **option_place(struct tool *tool, unsigned bit)
{
    switch (bit) {
    case OPTION_DOMAIN:
        return &tool->domain;
    case OPTION_SERVER:
        return &tool->server;
    case OPTION_SENDER:
        return &tool->sender;
    case OPTION_RECIPIENT:
        return &tool->recipient;
    case OPTION_TO:
        return &tool->to;
    case OPTION_PORT:
        return &tool->port;
    case OPTION_MINUTES:
        return &tool->minutes;
    case OPTION_MESSAGES:
        return &tool->messages;
    case OPTION_ADDRESS:
        return &tool->address;
    case OPTION_COMMENT:
        return &tool->comment;
    case OPTION_VERSION:
        return &tool->version;
    case OPTION_NODE:
        return &tool->node;
    default:
        return &tool->reason;
    }
}

static enum control_exit set_option(struct tool *tool, const struct option *option,
                                    const char *value)
{
    tool->given |= option->bit;
    if (option->bit == OPTION_OLDER) {
        uint64_t ms;
        const char *why;
        if (!value_duration(slice_from_text(value), &ms, &why)) {
            return tool_usage("--older: '%s' %s", value, why);
        }
        tool->older_s = ms / 1000;
    } else if ((option->bit & (OPTION_SINCE | OPTION_UNTIL)) != 0) {
        int64_t *place = option->bit == OPTION_SINCE ? &tool->since_ms : &tool->until_ms;
        if (!tool_parse_time(value, tool_now_ms(), place)) {
            return tool_usage("--%s: '%s' is no time; write an age (6h, 2d), 14:30, 2026-11-22 or "
                              "2026-11-22T14:30, with a Z behind it for UTC",
                              option->name, value);
        }
    } else if (option->value != NULL) {
        *option_place(tool, option->bit) = value;
    }
    return CONTROL_DONE;
}

static const struct option *find_option(const char *name, size_t length)
{
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

/* argv[*at] begins with "--". */
static enum control_exit take_long(struct tool *tool, int argc, char **argv, int *at)
{
    const char *name = argv[*at] + 2;
    if (strcmp(name, "json") == 0) {
        tool->json = true;
        return CONTROL_DONE;
    }
    if (strcmp(name, "help") == 0) {
        tool->help = true;
        return CONTROL_DONE;
    }
    size_t length = strcspn(name, "=");
    const struct option *option = find_option(name, length);
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    if (option == NULL) {
        return tool_usage("there is no option --%.*s", (int)length, name);
    }
    if (option->value == NULL && value != NULL) {
        return tool_usage("--%s takes no value", option->name);
    }
    if (option->value != NULL && value == NULL) {
        if (*at + 1 == argc) {
            return tool_usage("--%s needs a value: %s", option->name, option->value);
        }
        value = argv[++*at];
    }
    return set_option(tool, option, value);
}

static enum control_exit take_arguments(struct tool *tool, int argc, char **argv)
{
    bool only_operands = false;
    for (int at = 1; at < argc; at++) {
        const char *argument = argv[at];
        enum control_exit code = CONTROL_DONE;
        if (only_operands || argument[0] != '-' || argument[1] == '\0') {
            tool->operands[tool->operand_count++] = argument;
        } else if (strcmp(argument, "--") == 0) {
            only_operands = true;
        } else if (argument[1] == '-') {
            code = take_long(tool, argc, argv, &at);
        } else if (strcmp(argument, "-h") == 0) {
            tool->help = true;
        } else if (strcmp(argument, "-c") == 0 && at + 1 < argc) {
            tool->configuration = argv[++at];
        } else {
            code = tool_usage("there is no option %s", argument);
        }
        if (code != CONTROL_DONE) {
            return code;
        }
    }
    return CONTROL_DONE;
}

static enum control_exit check_command(const struct tool *tool)
{
    const struct tool_command *command = tool->command;
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        if ((tool->given & options[i].bit & ~command->options) != 0) {
            return tool_usage("%s takes no --%s", command->words, options[i].name);
        }
    }
    if ((tool->given & OPTIONS_MEMBERS) == OPTIONS_MEMBERS) {
        return tool_usage("--node and --local: choose one of them");
    }
    if (tool->operand_count < command->least) {
        return tool_usage("%s needs %s", command->words, command->operands);
    }
    if (tool->operand_count > command->most) {
        return tool_usage("%s: '%s' is too much", command->words, tool->operands[command->most]);
    }
    return CONTROL_DONE;
}

enum control_exit tool_options(struct tool *tool, int argc, char **argv)
{
    *tool = (struct tool){.configuration = DEFAULT_CONFIGURATION};
    tool->words = calloc((size_t)argc + 1, sizeof(*tool->words));
    tool->operands = tool->words;
    if (tool->words == NULL) {
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    enum control_exit code = take_arguments(tool, argc, argv);
    if (code == CONTROL_DONE) {
        code = find_command(tool);
    }
    if (code != CONTROL_DONE || tool->command == NULL) {
        return code;
    }
    if (tool->help) {
        tool_help(tool, NULL);
        return CONTROL_DONE;
    }
    return check_command(tool);
}
