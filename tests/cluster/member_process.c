/* SPDX-License-Identifier: Apache-2.0 */
#include "member_process.h"

#include "sys/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { LOOK_MS = 10, LEAVE_MS = 60, COMMAND_SIZE = 64 };

struct child {
    struct process_report *report;
    struct loop *loop;
    struct loop_timer *timer;
    struct member *member;
    int commands;
    struct {
        uint32_t number; /* 0: free */
        int64_t token;
        int belief;       /* that goes on; -1: none */
        int64_t leave_ns; /* 0: no */
    } shares[PROCESS_SHARES_MAX];
};

/* ---- the child ------------------------------------------------------------------------------ */

static void joined(void *context, int number)
{
    struct child *child = context;
    child->report->number = number;
}

static void taken(void *context, const struct member_share *share)
{
    struct child *child = context;
    for (int i = 0; i < PROCESS_SHARES_MAX; i++) {
        if (child->shares[i].number == 0) {
            child->shares[i].number = share->number;
            child->shares[i].token = share->token;
            child->shares[i].belief = -1;
            child->shares[i].leave_ns = 0;
            child->report->shares++;
            return;
        }
    }
    abort();
}

static int index_of(struct child *child, uint32_t number)
{
    for (int i = 0; i < PROCESS_SHARES_MAX; i++) {
        if (child->shares[i].number == number) {
            return i;
        }
    }
    abort();
}

static void leave(void *context, const struct member_share *share)
{
    struct child *child = context;
    child->shares[index_of(child, share->number)].leave_ns =
        clock_steady_ns() + LEAVE_MS * 1000000LL;
}

static void lost(void *context, const struct member_share *share)
{
    struct child *child = context;
    child->shares[index_of(child, share->number)].number = 0;
    child->report->shares--;
    child->report->lost++;
}

static void leads(void *context, bool leading)
{
    struct child *child = context;
    child->report->leads = leading;
}

static void news(void *context, const struct member_news *news)
{
    struct child *child = context;
    struct told *told = &child->report->news[news->kind];
    snprintf(told->node, sizeof(told->node), "%.*s", SLICE_PRINT(news->node));
    snprintf(told->text, sizeof(told->text), "%s", news->text);
    told->shares = news->shares;
    told->after_ms = news->after_ms;
    told->count++;
}

/* Each moment for itself: a lease that is asked and a clock that is read are one after the other,
 * so a pause between them belongs to the belief only if it still stands after. */
static void look_at_share(struct child *child, int i)
{
    struct process_report *report = child->report;
    int64_t now_ns = clock_steady_ns();
    bool may = member_may(child->member, child->shares[i].number, child->shares[i].token);
    if (!may) {
        child->shares[i].belief = -1;
        return;
    }
    if (child->shares[i].belief < 0) {
        if (report->belief_count == BELIEFS_MAX) {
            abort();
        }
        child->shares[i].belief = report->belief_count;
        report->beliefs[report->belief_count] =
            (struct belief){child->shares[i].number, child->shares[i].token, now_ns, now_ns};
        report->belief_count++;
    }
    report->beliefs[child->shares[i].belief].last_ns = now_ns;
}

static void list(struct child *child)
{
    struct process_report *report = child->report;
    struct member_node node;
    size_t count = 0;
    for (size_t i = 0; i < PROCESS_NODES_MAX && member_node_at(child->member, i, &node); i++) {
        count++;
        snprintf(report->nodes[i].name, 64, "%.*s", SLICE_PRINT(node.name));
        snprintf(report->nodes[i].place, 64, "%.*s", SLICE_PRINT(node.place));
        snprintf(report->nodes[i].version, 64, "%.*s", SLICE_PRINT(node.version));
        report->nodes[i].state = node.state;
        report->nodes[i].lanes = node.lanes;
        report->nodes[i].leader = node.leader;
        report->nodes[i].clock_offset_ms = node.health.clock_offset_ms;
        report->nodes[i].messages = node.health.messages;
    }
    report->nodes_listed = (int)count;
}

static void answered(void *context, enum member_answer answer, int64_t number)
{
    struct child *child = context;
    child->report->answer = (int)answer;
    child->report->answer_number = number;
    child->report->answers++;
}

static void stopped(void *context)
{
    struct child *child = context;
    child->report->stopped = true;
    loop_stop(child->loop);
}

static void obey(struct child *child)
{
    char command[COMMAND_SIZE];
    if (read(child->commands, command, sizeof(command)) != sizeof(command)) {
        return;
    }
    struct slice name = slice_from_text(command + 1);
    bool taken_on = true;
    switch (command[0]) {
    case 'D':
        taken_on = member_drain(child->member, name, answered, child);
        break;
    case 'U':
        taken_on = member_undrain(child->member, name, answered, child);
        break;
    case 'R':
        taken_on = member_remove(child->member, name, answered, child);
        break;
    case 'N':
        taken_on = member_name_share(child->member, name, answered, child);
        break;
    case 'S':
        for (int i = 0; i < PROCESS_SHARES_MAX; i++) {
            child->shares[i].number = 0;
        }
        member_stop(child->member, stopped, child);
        break;
    }
    if (!taken_on) {
        abort();
    }
}

static void look(void *context)
{
    struct child *child = context;
    bool may = false;
    obey(child);
    for (int i = 0; i < PROCESS_SHARES_MAX; i++) {
        if (child->shares[i].number == 0) {
            continue;
        }
        if (child->shares[i].leave_ns != 0 && clock_steady_ns() >= child->shares[i].leave_ns) {
            member_left(child->member, child->shares[i].number);
            child->shares[i].number = 0;
            child->report->shares--;
            continue;
        }
        look_at_share(child, i);
        may = may || child->shares[i].belief >= 0;
    }
    child->report->may = may;
    list(child);
    loop_timer_set(child->timer, LOOK_MS);
}

static void run_child(const struct process_settings *settings, struct process_report *report,
                      int commands)
{
    static struct child child;
    char place[64];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    snprintf(place, sizeof(place), "test, pid %d", (int)getpid());
    struct member_settings own = {
        .database = {.conninfo = slice_from_text(settings->conninfo),
                     .password = SLICE_EMPTY,
                     .name = slice_from_text(settings->name),
                     .connect_timeout_ms = 2000},
        .name = slice_from_text(settings->name),
        .version = SLICE_LITERAL("1.2.3"),
        .roles = settings->roles,
        .instance = settings->instance,
        .place = slice_from_text(place),
        .machine = slice_from_text(settings->machine),
        .wall_ahead_ms = settings->wall_ahead_ms,
    };
    struct member_handler handler = {&child, joined, taken, leave, lost, leads, news};
    child.report = report;
    child.commands = commands;
    child.loop = loop_new();
    child.timer = loop_timer_new(child.loop, look, &child);
    child.member = member_new(child.loop, &own, &handler);
    if (child.member == NULL) {
        abort();
    }
    member_set_health(child.member,
                      &(struct node_health){.messages = 42, .disk_bytes = -1, .behind_ms = -1});
    loop_timer_set(child.timer, LOOK_MS);
    loop_run(child.loop);
    member_free(child.member);
    loop_timer_free(child.timer);
    loop_free(child.loop);
}

/* ---- the test's side ------------------------------------------------------------------------ */

struct process *process_new(const struct process_settings *settings)
{
    int ends[2];
    struct process *process = calloc(1, sizeof(*process));
    assert_non_null(process);
    snprintf(process->name, sizeof(process->name), "%s", settings->name);
    process->report = mmap(NULL, sizeof(*process->report), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(process->report != MAP_FAILED);
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    process->commands = ends[1];
    process->pid = fork();
    assert_true(process->pid >= 0);
    if (process->pid == 0) {
        run_child(settings, process->report, ends[0]);
        _exit(0);
    }
    close(ends[0]);
    return process;
}

void process_kill(struct process *process)
{
    if (process->pid != 0) {
        kill(process->pid, SIGKILL);
        assert_int_equal(waitpid(process->pid, NULL, 0), process->pid);
        process->pid = 0;
    }
}

void process_command(struct process *process, char letter, const char *name)
{
    char command[COMMAND_SIZE] = {letter};
    snprintf(command + 1, sizeof(command) - 1, "%s", name);
    assert_int_equal(write(process->commands, command, sizeof(command)), sizeof(command));
}

void process_free(struct process *process)
{
    if (process != NULL) {
        process_kill(process);
        close(process->commands);
        munmap(process->report, sizeof(*process->report));
        free(process);
    }
}
