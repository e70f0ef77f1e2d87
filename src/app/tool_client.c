/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection to core's control socket: one request, then frames until the end. Blocking; the
 * socket's own flow control keeps core from sending more than is read.
 */
#include "app/control_address.h"
#include "app/settings.h"
#include "app/tool.h"
#include "base/id.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct tool_client {
    int fd;
    const char *node; /* who is to answer; NULL: who has the connection */
    struct control_reader reader;
};

/* ---- connection --------------------------------------------------------------------------- */

/* A socket connected to the one in `state`; -1 with errno. */
static int connect_to(struct slice state)
{
    char path[PATH_MAX];
    struct sockaddr_un address;
    snprintf(path, sizeof(path), "%.*s", SLICE_PRINT(state));
    int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = directory < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = fd >= 0 && control_address(state, directory, &address) &&
                     connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
    int error = errno;
    if (directory >= 0) {
        close(directory);
    }
    if (fd >= 0 && !connected) {
        close(fd);
    }
    errno = error;
    return connected ? fd : -1;
}

static enum control_exit find_socket(const struct tool *tool, int *ret_fd)
{
    struct buffer state, errors;
    buffer_init(&state, 0);
    buffer_init(&errors, 0);
    enum control_exit code = CONTROL_DONE;
    if (!settings_find_state(tool->configuration, &state, &errors)) {
        fprintf(stderr, "%.*s", SLICE_PRINT(buffer_slice(&errors)));
        code = CONTROL_USAGE;
    } else if ((*ret_fd = connect_to(buffer_slice(&state))) < 0) {
        int error = errno;
        bool absent = error == ENOENT || error == ECONNREFUSED;
        tool_error(absent ? "holdfastd is not running (%.*s/control.sock: %s)"
                          : "%.*s/control.sock: %s",
                   SLICE_PRINT(buffer_slice(&state)), strerror(error));
        code = CONTROL_NOT_RUNNING;
    }
    buffer_done(&state);
    buffer_done(&errors);
    return code;
}

enum control_exit tool_client_open(const struct tool *tool, struct tool_client **ret_client)
{
    int fd;
    enum control_exit code = find_socket(tool, &fd);
    if (code != CONTROL_DONE) {
        return code;
    }
    struct tool_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        close(fd);
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    client->fd = fd;
    client->node = tool->node;
    control_reader_init(&client->reader);
    *ret_client = client;
    return CONTROL_DONE;
}

void tool_client_close(struct tool_client *client)
{
    if (client != NULL) {
        close(client->fd);
        control_reader_done(&client->reader);
        free(client);
    }
}

static bool send_all(int fd, struct slice bytes)
{
    while (bytes.length > 0) {
        ssize_t sent = send(fd, bytes.data, bytes.length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            return false;
        }
        bytes = slice_skip(bytes, sent < 0 ? 0 : (size_t)sent);
    }
    return true;
}

void tool_client_set_node(struct tool_client *client, const char *node)
{
    client->node = node;
}

json_t *tool_client_receive(struct tool_client *client)
{
    for (;;) {
        json_t *object;
        enum error error = control_reader_next(&client->reader, &object);
        if (error == ERROR_NONE) {
            return object;
        }
        if (error != ERROR_AGAIN) {
            tool_error("what holdfastd answered cannot be read: %s", error_text(error));
            return NULL;
        }
        size_t room;
        void *space = control_reader_space(&client->reader, &room);
        ssize_t got = space == NULL ? -1 : recv(client->fd, space, room, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            tool_error("holdfastd has closed the connection%s%s", got < 0 ? ": " : "",
                       got < 0 ? strerror(errno) : "");
            return NULL;
        }
        control_reader_filled(&client->reader, (size_t)got);
    }
}

/* ---- one request -------------------------------------------------------------------------- */

enum control_exit tool_client_send(struct tool_client *client, const char *command,
                                   json_t *arguments)
{
    json_t *request =
        json_pack("{sssoss*}", "command", command, "arguments", arguments, "node", client->node);
    struct buffer out;
    buffer_init(&out, 0);
    enum error error = request == NULL ? ERROR_MEMORY : control_put(&out, request);
    enum control_exit code = CONTROL_DONE;
    if (error != ERROR_NONE) {
        tool_error("%s: the request is %s", command, error_text(error));
        code = CONTROL_FAILED;
    } else if (!send_all(client->fd, buffer_slice(&out))) {
        tool_error("holdfastd does not take the request: %s", strerror(errno));
        code = CONTROL_NOT_RUNNING;
    }
    buffer_done(&out);
    json_decref(request);
    return code;
}

void tool_continue_row(json_t *row, const json_t *more)
{
    const char *key;
    json_t *array;
    json_object_foreach((json_t *)(uintptr_t)more, key, array)
    {
        json_t *whole = json_object_get(row, key);
        if (json_is_array(whole) && json_is_array(array)) {
            json_array_extend(whole, array);
        }
    }
}

static void hand_on(const struct tool_answer *answer, json_t **row)
{
    if (*row != NULL && answer->row != NULL) {
        answer->row(answer->context, *row);
    }
    json_decref(*row);
    *row = NULL;
}

/* What came of one request. */
struct outcome {
    enum control_exit code;
    bool end;
    bool again; /* core asks to be asked again */
    bool any_row;
};

bool tool_is_nothing(const char *error)
{
    return strcmp(error, "nothing matched") == 0 || strcmp(error, "nothing could be changed") == 0;
}

static void take_end(const json_t *end, const struct tool_answer *answer, struct outcome *outcome)
{
    const char *error = json_string_value(json_object_get(end, "error"));
    json_int_t code = json_integer_value(json_object_get(end, "exit"));
    outcome->end = true;
    outcome->again = json_is_true(json_object_get(end, "again")) && !outcome->any_row;
    outcome->code = code >= CONTROL_DONE && code <= CONTROL_INCOMPLETE ? (enum control_exit)code
                                                                       : CONTROL_FAILED;
    if (error != NULL && answer->ret_nothing != NULL && tool_is_nothing(error)) {
        *answer->ret_nothing = true;
    } else if (error != NULL && !answer->quiet && !outcome->again) {
        char clean[512];
        bool named = answer->about != NULL;
        tool_error("%s%s%s", named ? answer->about : "", named ? ": " : "",
                   tool_clean(error, clean, sizeof(clean)));
    }
}

static void take_frame(json_t *frame, const struct tool_answer *answer, json_t **row,
                       struct outcome *outcome)
{
    json_t *part;
    if ((part = json_object_get(frame, "row")) != NULL) {
        hand_on(answer, row);
        *row = json_incref(part);
        outcome->any_row = true;
        if (answer->immediate) {
            hand_on(answer, row);
        }
    } else if ((part = json_object_get(frame, "more")) != NULL && *row != NULL) {
        tool_continue_row(*row, part);
    } else if ((part = json_object_get(frame, "progress")) != NULL && answer->progress != NULL) {
        answer->progress(answer->context, (uint64_t)tool_integer(part, "done"),
                         (uint64_t)tool_integer(part, "all"));
    } else if ((part = json_object_get(frame, "end")) != NULL) {
        hand_on(answer, row);
        take_end(part, answer, outcome);
    }
}

static struct outcome ask_once(struct tool_client *client, const char *command, json_t *arguments,
                               const struct tool_answer *answer)
{
    struct outcome outcome = {.code = tool_client_send(client, command, arguments)};
    if (outcome.code != CONTROL_DONE) {
        return outcome;
    }
    outcome.code = CONTROL_NOT_RUNNING; /* unless an end comes */
    json_t *row = NULL;
    while (!outcome.end) {
        json_t *frame = tool_client_receive(client);
        if (frame == NULL) {
            break;
        }
        take_frame(frame, answer, &row, &outcome);
        json_decref(frame);
        if (answer->stop != NULL && *answer->stop) {
            outcome.code = CONTROL_FAILED;
            break;
        }
    }
    json_decref(row); /* only where the end is missing: it may not be whole */
    return outcome;
}

enum control_exit tool_client_ask(struct tool_client *client, const char *command,
                                  json_t *arguments, const struct tool_answer *answer)
{
    struct outcome outcome;
    unsigned times = 0;
    do {
        if (times > 0) {
            usleep(TOOL_AGAIN_MS * 1000);
        }
        outcome = ask_once(client, command, json_incref(arguments), answer);
    } while (outcome.again && ++times < TOOL_AGAIN_TIMES);
    if (outcome.again) {
        tool_error("holdfastd is still reading its journal");
    }
    json_decref(arguments);
    return outcome.code;
}

enum control_exit tool_ask(const struct tool *tool, const char *command, json_t *arguments,
                           const struct tool_answer *answer)
{
    struct tool_client *client;
    enum control_exit code = tool_client_open(tool, &client);
    if (code != CONTROL_DONE) {
        json_decref(arguments);
        return code;
    }
    code = tool_client_ask(client, command, arguments, answer);
    tool_client_close(client);
    return code;
}

/* ---- selection ---------------------------------------------------------------------------- */

static void set_text(json_t *arguments, const char *key, const char *text)
{
    if (text != NULL) {
        json_object_set_new(arguments, key, control_string(slice_from_text(text)));
    }
}

json_t *tool_selection(const struct tool *tool)
{
    json_t *arguments = json_object();
    set_text(arguments, "domain", tool->domain);
    set_text(arguments, "server", tool->server);
    set_text(arguments, "sender", tool->sender);
    set_text(arguments, "recipient", tool->recipient);
    if ((tool->given & OPTION_OLDER) != 0) {
        json_object_set_new(arguments, "older", json_integer((json_int_t)tool->older_s));
    }
    if ((tool->given & OPTION_DEAD) != 0) {
        json_object_set_new(arguments, "dead", json_true());
    }
    if ((tool->given & OPTION_ALL) != 0) {
        json_object_set_new(arguments, "all", json_true());
    }
    return arguments;
}

static bool is_id(const char *text)
{
    struct slice rest = slice_from_text(text);
    struct message_id id;
    uint64_t delivery;
    size_t slash = slice_find(rest, '/');
    return id_from_text(slice_take(rest, slash), &id) &&
           (slash == rest.length || (slice_to_u64(slice_skip(rest, slash + 1), &delivery)));
}

struct asking {
    struct tool_members *members;
    const char *command;
    const json_t *arguments; /* without ids */
    const struct tool_answer *answer;
    json_t *ids;
    bool asked;
    enum control_exit code; /* the best so far: some matched is enough */
};

/* It is no use to ask for more ids. */
static bool is_over(const struct asking *asking)
{
    return asking->code >= CONTROL_USAGE || (asking->answer->stop != NULL && *asking->answer->stop);
}

static void ask_for_ids(struct asking *asking)
{
    json_t *arguments = json_copy((json_t *)(uintptr_t)asking->arguments);
    if (json_array_size(asking->ids) > 0) {
        json_object_set(arguments, "ids", asking->ids);
    }
    enum control_exit code =
        tool_members_ask(asking->members, asking->command, arguments, asking->answer);
    json_array_clear(asking->ids);
    if (!asking->asked || (asking->code == CONTROL_NOTHING_MATCHED && code == CONTROL_DONE) ||
        code >= CONTROL_USAGE) {
        asking->code = code;
    }
    asking->asked = true;
}

/* False: no id. */
static bool add_id(struct asking *asking, const char *text)
{
    if (!is_id(text)) {
        tool_error("'%s' is no message id", text);
        return false;
    }
    json_array_append_new(asking->ids, json_string(text));
    if (json_array_size(asking->ids) == CONTROL_IDS_MAX) {
        ask_for_ids(asking);
    }
    return true;
}

static bool add_ids_from_input(struct asking *asking)
{
    char word[80];
    while (!is_over(asking) && scanf("%79s", word) == 1) {
        if (!add_id(asking, word)) {
            return false;
        }
    }
    return true;
}

static bool add_operands(const struct tool *tool, struct asking *asking)
{
    for (unsigned i = 0; i < tool->operand_count && !is_over(asking); i++) {
        const char *operand = tool->operands[i];
        if (strcmp(operand, "-") == 0 ? !add_ids_from_input(asking) : !add_id(asking, operand)) {
            return false;
        }
    }
    return true;
}

enum control_exit tool_ask_selected(const struct tool *tool, const char *command, json_t *more,
                                    const struct tool_answer *answer, enum tool_merge merge)
{
    struct asking asking = {.command = command, .answer = answer, .ids = json_array()};
    json_t *arguments = tool_selection(tool);
    json_object_update(arguments, more);
    asking.arguments = arguments;
    enum control_exit code = tool_members_open(tool, merge, &asking.members);
    if (code == CONTROL_DONE) {
        if (!add_operands(tool, &asking)) {
            code = CONTROL_USAGE;
        } else {
            if (json_array_size(asking.ids) > 0 || tool->operand_count == 0) {
                ask_for_ids(&asking);
            }
            code = asking.asked ? asking.code : CONTROL_NOTHING_MATCHED;
        }
        code = tool_members_close(asking.members, code);
    }
    json_decref(asking.ids);
    json_decref(arguments);
    json_decref(more);
    return code;
}
