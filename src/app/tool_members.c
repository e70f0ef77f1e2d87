/* SPDX-License-Identifier: Apache-2.0
 *
 * One answer of all members of a cluster (docs/decisions/0050). Each is asked over a connection of
 * its own to the same daemon, which hands the request on; rows come in each member's order and are
 * merged as they come, so that a long list is never held as a whole.
 */
#include "app/tool.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    MEMBERS_MAX = 48, /* asked at once */
    NODE_SIZE = 80,
    REASON_SIZE = 300,
    /* Parts of one message were numbered in one transaction, so they are close: this many numbers
     * behind, no other comes. */
    PARTS_APART = 100000,
    ROWS_HELD = 50000,
};

struct stream {
    const char *node; /* NULL: there is nobody but who has the socket, or --node says who */
    struct tool_client *client;
    json_t *head;    /* to be taken */
    json_t *growing; /* may be continued */
    bool ended, any_row;
    unsigned times;
    enum control_exit code;
    char error[REASON_SIZE];
};

struct missing {
    char name[NODE_SIZE];
    char reason[REASON_SIZE];
    bool matters;
};

struct tool_members {
    const struct tool *tool;
    enum tool_merge merge;
    bool several;
    char names[MEMBERS_MAX][NODE_SIZE];
    struct stream streams[MEMBERS_MAX];
    size_t count;
    struct missing missing[MEMBERS_MAX];
    size_t missing_count;
    bool trouble; /* somebody has failed in what others have done */
    struct alone {
        char name[NODE_SIZE];
        int64_t messages; /* that only its journal has: no queue has them */
    } alone[MEMBERS_MAX];
    size_t alone_count;
};

static void miss(struct tool_members *members, const char *name, const char *reason, bool matters)
{
    for (size_t i = 0; i < members->missing_count; i++) {
        if (strcmp(members->missing[i].name, name) == 0) {
            return;
        }
    }
    if (members->missing_count < MEMBERS_MAX) {
        struct missing *missing = &members->missing[members->missing_count++];
        tool_clean(name, missing->name, sizeof(missing->name));
        tool_clean(reason, missing->reason, sizeof(missing->reason));
        missing->matters = matters;
    }
}

/* ---- who is there ------------------------------------------------------------------------- */

/* Of who is down others have the mail as soon as it owns nothing; not what its own journal alone
 * has, nor what it remembers. */
static bool had_something(const struct tool_members *members, const json_t *row)
{
    const json_t *queue = json_object_get(row, "queue");
    return members->merge == MERGE_TIME || tool_integer(row, "lanes") > 0 ||
           tool_integer(queue, "one_copy") > 0;
}

static void note_alone(struct tool_members *members, const json_t *row)
{
    int64_t messages = tool_integer(json_object_get(row, "queue"), "one_copy");
    if (messages > 0 && members->alone_count < MEMBERS_MAX &&
        (members->merge == MERGE_QUEUE || members->merge == MERGE_AFTER)) {
        struct alone *alone = &members->alone[members->alone_count++];
        tool_clean(tool_string(row, "name"), alone->name, sizeof(alone->name));
        alone->messages = messages;
    }
}

static void add_member(void *context, json_t *row)
{
    struct tool_members *members = context;
    bool is_here = json_is_true(json_object_get(row, "here"));
    if ((members->tool->given & OPTION_LOCAL) != 0) {
        if (is_here) {
            note_alone(members, row);
        }
        return;
    }
    note_alone(members, row);
    if (strcmp(tool_string(row, "state"), "down") == 0 && !is_here) {
        if (members->merge != MERGE_SERVERS) {
            miss(members, tool_string(row, "name"), "it is down", had_something(members, row));
        }
    } else if (members->count == MEMBERS_MAX) {
        miss(members, tool_string(row, "name"), "too many members to ask them all", true);
    } else {
        size_t at = members->count++;
        snprintf(members->names[at], NODE_SIZE, "%s", tool_string(row, "name"));
        members->streams[at].node = members->names[at];
        if (is_here && at > 0) { /* who is asked comes first */
            char name[NODE_SIZE];
            memcpy(name, members->names[0], NODE_SIZE);
            memcpy(members->names[0], members->names[at], NODE_SIZE);
            memcpy(members->names[at], name, NODE_SIZE);
        }
    }
}

static enum control_exit find_members(struct tool_members *members, struct tool_client *client)
{
    const struct tool_answer answer = {.context = members, .row = add_member};
    enum control_exit code =
        tool_client_ask(client, "node list", json_pack("{sb}", "alone", 1), &answer);
    members->several = members->count > 0;
    return code;
}

enum control_exit tool_members_open(const struct tool *tool, enum tool_merge merge,
                                    struct tool_members **ret_members)
{
    struct tool_members *members = calloc(1, sizeof(*members));
    struct tool_client *client;
    enum control_exit code = CONTROL_FAILED;
    if (members == NULL) {
        tool_error("out of memory");
        return code;
    }
    members->tool = tool;
    members->merge = merge;
    code = tool_client_open(tool, &client);
    bool is_local = (tool->given & OPTION_LOCAL) != 0;
    bool is_queue = merge == MERGE_QUEUE || merge == MERGE_AFTER;
    if (code == CONTROL_DONE && merge != MERGE_NOT && (tool->given & OPTION_NODE) == 0 &&
        (is_queue || !is_local)) {
        code = find_members(members, client);
        if (is_local && code != CONTROL_NOT_RUNNING) {
            code = CONTROL_DONE; /* nobody else is asked, so nobody need be known */
        }
    }
    members->count += members->count == 0;
    for (size_t i = 0; i < members->count && code == CONTROL_DONE; i++) {
        members->streams[i].client = i == 0 ? client : NULL;
        code = i == 0 ? CONTROL_DONE : tool_client_open(tool, &members->streams[i].client);
        if (code == CONTROL_DONE && members->several) {
            tool_client_set_node(members->streams[i].client, members->streams[i].node);
        }
    }
    if (code != CONTROL_DONE) {
        (void)tool_members_close(members, code);
        return code;
    }
    *ret_members = members;
    return code;
}

bool tool_members_are_several(const struct tool_members *members)
{
    return members->several;
}

enum control_exit tool_members_close(struct tool_members *members, enum control_exit code)
{
    bool incomplete = false;
    for (size_t i = 0; i < members->alone_count; i++) {
        tool_error("node %s has %lld %s in its journal alone: the queue has them when the database "
                   "takes them",
                   members->alone[i].name, (long long)members->alone[i].messages,
                   members->alone[i].messages == 1 ? "message" : "messages");
    }
    for (size_t i = 0; i < members->missing_count; i++) {
        const char *reason = members->missing[i].reason;
        if (strncmp(reason, "node ", 5) == 0) { /* it says who, and what */
            tool_error("%s", reason);
        } else {
            tool_error("node %s did not answer: %s", members->missing[i].name, reason);
        }
        incomplete = incomplete || members->missing[i].matters;
    }
    for (size_t i = 0; i < members->count; i++) {
        tool_client_close(members->streams[i].client);
    }
    free(members);
    return incomplete && code <= CONTROL_NOTHING_MATCHED ? CONTROL_INCOMPLETE : code;
}

/* ---- one member's rows -------------------------------------------------------------------- */

static void take_end(struct tool_members *members, struct stream *stream, const json_t *end)
{
    const char *error = tool_string(end, "error");
    json_int_t code = json_integer_value(json_object_get(end, "exit"));
    stream->ended = true;
    stream->code = code >= CONTROL_DONE && code <= CONTROL_INCOMPLETE ? (enum control_exit)code
                                                                      : CONTROL_FAILED;
    tool_clean(error, stream->error, sizeof(stream->error));
    if (stream->code == CONTROL_INCOMPLETE) {
        miss(members, stream->node, stream->error, true);
    }
}

struct question {
    struct tool_members *members;
    const char *command;
    const json_t *arguments;
    const struct tool_answer *answer;
};

static void send_question(const struct question *question, struct stream *stream)
{
    stream->code =
        tool_client_send(stream->client, question->command, json_deep_copy(question->arguments));
    stream->ended = stream->code != CONTROL_DONE;
}

static void take_frame(const struct question *question, struct stream *stream, const json_t *frame)
{
    const struct tool_answer *answer = question->answer;
    json_t *part;
    if ((part = json_object_get(frame, "row")) != NULL) {
        stream->any_row = true;
        stream->head = stream->growing;
        stream->growing = json_incref(part);
    } else if ((part = json_object_get(frame, "more")) != NULL) {
        tool_continue_row(stream->growing, part);
    } else if ((part = json_object_get(frame, "progress")) != NULL && answer->progress != NULL) {
        answer->progress(answer->context, (uint64_t)tool_integer(part, "done"),
                         (uint64_t)tool_integer(part, "all"));
    } else if ((part = json_object_get(frame, "end")) != NULL) {
        bool again = json_is_true(json_object_get(part, "again")) && !stream->any_row;
        stream->head = stream->growing;
        stream->growing = NULL;
        if (again && ++stream->times < TOOL_AGAIN_TIMES) {
            usleep(TOOL_AGAIN_MS * 1000);
            send_question(question, stream);
        } else {
            take_end(question->members, stream, part);
        }
    }
}

/* The next row is at its head, or there is none. */
static void pull(const struct question *question, struct stream *stream)
{
    while (stream->head == NULL && !stream->ended) {
        json_t *frame = tool_client_receive(stream->client);
        if (frame == NULL) {
            stream->ended = true;
            stream->code = CONTROL_NOT_RUNNING;
            break;
        }
        take_frame(question, stream, frame);
        json_decref(frame);
    }
}

/* ---- rows about one thing ----------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static void set_number(json_t *row, const char *key, int64_t value)
{
    json_object_set_new(row, key, value == 0 ? json_null() : json_integer((json_int_t)value));
}

static void add_number(json_t *row, const json_t *other, const char *key)
{
    json_object_set_new(
        row, key, json_integer((json_int_t)(tool_integer(row, key) + tool_integer(other, key))));
}

/* Nearest to leaving first, as in control.h. */
static int rank(const json_t *row)
{
    static const char *const states[] = {"in_flight", "waiting", "deferred",
                                         "in_doubt",  "held",    "dead"};
    int at = 0;
    while (at < 6 && strcmp(states[at], tool_string(row, "state")) != 0) {
        at++;
    }
    return at;
}

/* Of two lists of all recipients; each knows of its own. */
static void join_lists(json_t *row, const json_t *other, const char *key)
{
    json_t *list = json_object_get(row, key);
    const json_t *others = json_object_get(other, key);
    for (size_t i = 0; i < json_array_size(list) && i < json_array_size(others); i++) {
        if (strcmp(tool_string(json_array_get(list, i), "state"), "elsewhere") == 0) {
            json_array_set(list, i, json_array_get(others, i));
        }
    }
}

static void join_recipients(json_t *row, const json_t *other)
{
    json_t *list = json_object_get(row, "recipients");
    const json_t *others = json_object_get(other, "recipients");
    const json_t *first = json_array_get(list, 0);
    if (json_is_object(first)) { /* of an export */
        join_lists(row, other, "recipients");
    } else if (json_object_get(row, "deliveries") == NULL) {
        for (size_t i = 0; i < json_array_size(others) && json_array_size(list) < 100; i++) {
            json_array_append(list, json_array_get(others, i));
        }
        add_number(row, other, "recipient_count");
    }
}

static void join_messages(json_t *row, const json_t *other)
{
    static const char *const of_nearest[] = {"state",  "not_believed", "doubt_until",
                                             "server", "route",        "reason"};
    int64_t next = least(tool_integer(row, "next"), tool_integer(other, "next"));
    int64_t attempts = tool_integer(row, "attempts");
    int64_t others = tool_integer(other, "attempts");
    if (json_object_get(row, "state") != NULL) {
        for (size_t i = 0; rank(other) < rank(row) && i < sizeof(of_nearest) / sizeof(char *);
             i++) {
            if (i > 0) { /* the state is compared until all else is done */
                json_object_set(row, of_nearest[i], json_object_get(other, of_nearest[i]));
            }
        }
        if (rank(other) < rank(row)) {
            json_object_set(row, "state", json_object_get(other, "state"));
        }
        set_number(row, "next", next);
        json_object_set_new(row, "attempts",
                            json_integer((json_int_t)(attempts > others ? attempts : others)));
    }
    join_recipients(row, other);
    join_lists(row, other, "deliveries");
    json_t *part = json_object_get(row, "part");
    add_number(part, json_object_get(other, "part"), "deliveries");
}

static void join_servers(json_t *row, const json_t *other)
{
    add_number(row, other, "used");
    add_number(row, other, "sessions");
    add_number(row, other, "deliveries");
    json_object_update_missing(json_object_get(row, "nodes"), json_object_get(other, "nodes"));
}

void tool_join_rows(json_t *row, const json_t *other, enum tool_merge merge)
{
    if (merge == MERGE_SERVERS) {
        join_servers(row, other);
    } else {
        join_messages(row, other);
    }
}

bool tool_is_part(const json_t *row)
{
    const json_t *part = json_object_get(row, "part");
    return json_is_object(part) && tool_integer(part, "deliveries") < tool_integer(part, "of");
}

/* ---- merging ------------------------------------------------------------------------------ */

/* Rows that wait to be handed on, in order; those that may be joined to another yet by their id or
 * name. */
struct queue {
    const struct question *question;
    json_t *rows; /* an array whose first `taken` have gone */
    size_t taken;
    json_t *open;
    bool waits; /* for the end */
};

static void hand_on(const struct question *question, json_t *row)
{
    const struct tool_members *members = question->members;
    if (members->several) {
        json_t *names = json_array();
        for (size_t i = 0; i < members->missing_count; i++) {
            json_array_append_new(names, json_string(members->missing[i].name));
        }
        json_object_set_new(row, "missing_nodes", names);
    }
    if (question->answer->row != NULL) {
        question->answer->row(question->answer->context, row);
    }
}

static const char *key_of(const struct queue *queue, const json_t *row)
{
    return tool_string(row, queue->question->members->merge == MERGE_SERVERS ? "name" : "id");
}

/* Nothing owned answers for it any more: it has ended there, if all have answered. */
static void settle(const struct queue *queue, json_t *row)
{
    json_t *deliveries = json_object_get(row, "deliveries"), *delivery;
    size_t index;
    if (!json_is_array(deliveries) || queue->question->members->missing_count > 0) {
        return;
    }
    json_array_foreach(deliveries, index, delivery)
    {
        if (strcmp(tool_string(delivery, "state"), "elsewhere") == 0) {
            json_object_set_new(delivery, "state", json_string("finished"));
        }
    }
}

static void flush(struct queue *queue, int64_t reached, bool all)
{
    size_t size = json_array_size(queue->rows);
    while (queue->taken < size) {
        json_t *row = json_array_get(queue->rows, queue->taken);
        const char *key = key_of(queue, row);
        bool may_grow = queue->waits || json_object_get(queue->open, key) == row;
        bool is_far = !queue->waits && (reached - tool_integer(row, "sequence") > PARTS_APART ||
                                        size - queue->taken > ROWS_HELD);
        if (may_grow && !is_far && !all) {
            break;
        }
        if (json_object_get(queue->open, key) == row) {
            json_object_del(queue->open, key);
        }
        json_incref(row);
        json_array_set_new(queue->rows, queue->taken++, json_null());
        settle(queue, row);
        hand_on(queue->question, row);
        json_decref(row);
    }
    if (queue->taken == size) {
        json_array_clear(queue->rows);
        queue->taken = 0;
    }
}

static void put_row(struct queue *queue, const struct stream *stream, json_t *row)
{
    enum tool_merge merge = queue->question->members->merge;
    const char *key = key_of(queue, row);
    int64_t reached = tool_integer(row, "sequence");
    if (merge == MERGE_SERVERS) {
        json_object_set_new(row, "nodes",
                            json_pack("{sO}", stream->node, json_object_get(row, "state")));
    }
    bool may_grow = merge == MERGE_SERVERS || tool_is_part(row);
    json_t *same = json_object_get(queue->open, key);
    if (may_grow && same != NULL) {
        tool_join_rows(same, row, merge);
        row = same;
    } else {
        json_array_append(queue->rows, row);
        if (may_grow) {
            json_object_set(queue->open, key, row);
        }
    }
    if (merge != MERGE_SERVERS && !tool_is_part(row)) {
        json_object_del(queue->open, key);
    }
    flush(queue, reached, false);
}

/* Whose row is the next: that of the smallest, or the first that has one. */
static struct stream *next_stream(struct tool_members *members)
{
    const char *key = members->merge == MERGE_TIME    ? "time"
                      : members->merge == MERGE_QUEUE ? "sequence"
                                                      : NULL;
    struct stream *next = NULL;
    for (size_t i = 0; i < members->count; i++) {
        struct stream *stream = &members->streams[i];
        if (stream->head != NULL &&
            (next == NULL ||
             (key != NULL && tool_integer(stream->head, key) < tool_integer(next->head, key)))) {
            next = stream;
        }
    }
    return next;
}

static enum control_exit sum_up(struct tool_members *members, const struct tool_answer *answer)
{
    bool done = false;
    enum control_exit worst = CONTROL_DONE;
    for (size_t i = 0; i < members->count; i++) {
        enum control_exit code = members->streams[i].code;
        done = done || code == CONTROL_DONE;
        worst = code != CONTROL_INCOMPLETE && code > worst ? code : worst;
    }
    const char *told = "";
    for (size_t i = 0; i < members->count; i++) {
        const struct stream *stream = &members->streams[i];
        bool nothing = tool_is_nothing(stream->error);
        if (nothing && answer->ret_nothing != NULL) {
            *answer->ret_nothing = true;
            continue;
        }
        if (stream->error[0] == '\0' || stream->code == CONTROL_INCOMPLETE ||
            (nothing && (done || worst > CONTROL_NOTHING_MATCHED || answer->quiet))) {
            continue;
        }
        members->trouble = members->trouble || (!nothing && stream->code != CONTROL_DONE);
        if (strcmp(told, stream->error) != 0) {
            const char *about = answer->about != NULL ? answer->about : stream->node;
            told = stream->error;
            tool_error("%s%s%s", nothing && answer->about == NULL ? "" : about,
                       nothing && answer->about == NULL ? "" : ": ", stream->error);
        }
    }
    if (worst >= CONTROL_USAGE || !done) {
        return worst == CONTROL_DONE ? CONTROL_INCOMPLETE : worst;
    }
    return members->trouble ? CONTROL_FAILED : CONTROL_DONE;
}

static bool is_stopped(const struct tool_answer *answer)
{
    return answer->stop != NULL && *answer->stop;
}

static void merge_rows(const struct question *question)
{
    struct tool_members *members = question->members;
    struct queue queue = {.question = question,
                          .rows = json_array(),
                          .open = json_object(),
                          .waits = members->merge == MERGE_SERVERS ||
                                   json_object_get(question->arguments, "ids") != NULL};
    struct stream *stream;
    bool joins = members->merge == MERGE_QUEUE || members->merge == MERGE_SERVERS;
    while ((stream = next_stream(members)) != NULL && !is_stopped(question->answer)) {
        json_t *row = stream->head;
        stream->head = NULL;
        if (joins) {
            put_row(&queue, stream, row);
        } else {
            hand_on(question, row);
        }
        json_decref(row);
        pull(question, stream);
    }
    flush(&queue, 0, true);
    json_decref(queue.rows);
    json_decref(queue.open);
}

enum control_exit tool_members_ask(struct tool_members *members, const char *command,
                                   json_t *arguments, const struct tool_answer *answer)
{
    if (!members->several) {
        return tool_client_ask(members->streams[0].client, command, arguments, answer);
    }
    const struct question question = {members, command, arguments, answer};
    for (size_t i = 0; i < members->count; i++) {
        struct stream *stream = &members->streams[i];
        stream->any_row = false;
        stream->times = 0;
        stream->error[0] = '\0';
        send_question(&question, stream);
    }
    for (size_t i = 0; i < members->count; i++) {
        pull(&question, &members->streams[i]);
    }
    merge_rows(&question);
    json_decref(arguments);
    return is_stopped(answer) ? CONTROL_FAILED : sum_up(members, answer);
}

enum control_exit tool_ask_members(const struct tool *tool, const char *command, json_t *arguments,
                                   const struct tool_answer *answer, enum tool_merge merge)
{
    struct tool_members *members;
    enum control_exit code = tool_members_open(tool, merge, &members);
    if (code != CONTROL_DONE) {
        json_decref(arguments);
        return code;
    }
    code = tool_members_ask(members, command, arguments, answer);
    return tool_members_close(members, code);
}
