/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that runs programs for alerts. It is not confined, for they inherit what holds it:
 * so it is small, reads nothing from the network, and takes of the helper, which does, no more than
 * which alert block and what environment (app/hook_run.h).
 */
#include "app/frame_stream.h"
#include "app/hook_run.h"
#include "app/role_channel.h"
#include "base/list.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RUNS_MAX = 2 * HOOKS_MAX, /* one of each block, and those that a helper that died had begun */
    OUTPUT_MAX = 400,         /* bytes that are logged */
    USUAL_DESCRIPTORS = 1024,
    EXIT_CANNOT_RUN = 127,
};

struct runner {
    struct role_start start;
    struct loop *loop;
    struct frame_stream *helper;
    struct link runs;
    uint32_t run_count;
};

struct run {
    struct link link;
    struct runner *runner;
    uint64_t number;
    bool asked; /* by the helper that is there now */
    pid_t pid;  /* also of its group */
    int end_fd; /* readable when it has ended */
    struct loop_watch *end_watch;
    int output_fd;
    struct loop_watch *output_watch;
    struct loop_timer *timer;
    bool timed_out;
    int64_t started_ms;
    char output[OUTPUT_MAX];
    size_t output_length;
};

/* ---- answers ------------------------------------------------------------------------------ */

static void answer(struct runner *runner, uint64_t number, const char *problem, struct slice output,
                   int64_t ms)
{
    json_t *answer = json_pack("{sIss?sosI}", "ran", (json_int_t)number, "problem", problem,
                               "output", control_string(output), "ms", (json_int_t)ms);
    (void)frame_stream_send(runner->helper, answer); /* lost: forget_helper() */
    json_decref(answer);
}

/* ---- a program ---------------------------------------------------------------------------- */

static void run_free(struct run *run)
{
    list_remove(&run->link);
    run->runner->run_count--;
    loop_watch_free(run->end_watch);
    loop_watch_free(run->output_watch);
    loop_timer_free(run->timer);
    close(run->end_fd);
    close(run->output_fd);
    free(run);
}

/* What is there; its beginning is kept. False: nothing more will come. */
static bool read_output(struct run *run)
{
    char bytes[4096];
    ssize_t got;
    while ((got = read(run->output_fd, bytes, sizeof(bytes))) > 0) {
        size_t room = OUTPUT_MAX - run->output_length;
        size_t kept = (size_t)got < room ? (size_t)got : room;
        memcpy(run->output + run->output_length, bytes, kept);
        run->output_length += kept;
    }
    return got < 0;
}

static void output_ready(void *context, unsigned ready)
{
    (void)ready;
    struct run *run = context;
    if (!read_output(run)) {
        loop_watch_set(run->output_watch, 0);
    }
}

static const char *problem_of(const struct run *run, const siginfo_t *info, char text[64])
{
    if (run->timed_out) {
        return "killed: it took too long";
    }
    if (info->si_code != CLD_EXITED) {
        snprintf(text, 64, "killed by signal %d", info->si_status);
        return text;
    }
    if (info->si_status != 0) {
        snprintf(text, 64, "exit status %d", info->si_status);
        return text;
    }
    return NULL;
}

static void ended(void *context, unsigned ready)
{
    (void)ready;
    struct run *run = context;
    siginfo_t info = {0};
    char text[64];
    if (waitid(P_PID, (id_t)run->pid, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) {
        return;
    }
    (void)read_output(run);
    if (run->asked) {
        answer(run->runner, run->number, problem_of(run, &info, text),
               slice_make(run->output, run->output_length), clock_steady_ms() - run->started_ms);
    }
    run_free(run);
}

static void too_long(void *context)
{
    struct run *run = context;
    run->timed_out = true;
    kill(-run->pid, SIGKILL);
}

/* In the child: what it inherits is what a program expects, and nothing of ours. */
static _Noreturn void become_program(const char *path, char *const environment[], int output)
{
    struct rlimit limit;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int signal_number = 1; signal_number < 32; signal_number++) {
        signal(signal_number, SIG_DFL);
    }
    int nothing = open("/dev/null", O_RDWR);
    if (setsid() < 0 || nothing < 0 || dup2(nothing, 0) < 0 || dup2(output, 1) < 0 ||
        dup2(output, 2) < 0 || chdir("/") != 0) {
        _exit(EXIT_CANNOT_RUN);
    }
    (void)close_range(3, ~0U, 0);
    umask(022);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > USUAL_DESCRIPTORS) {
        limit.rlim_cur = USUAL_DESCRIPTORS;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    char *const arguments[] = {(char *)path, NULL};
    execve(path, arguments, environment);
    dprintf(2, "cannot be run: %s", strerror(errno));
    _exit(EXIT_CANNOT_RUN);
}

/* NULL, or why it could not be begun. */
static const char *start_program(struct run *run, const struct hook_config *hook,
                                 char *const environment[])
{
    int output[2];
    if (pipe2(output, O_CLOEXEC) != 0) {
        return strerror(errno);
    }
    /* Not the side that it writes to: programs do not expect that. */
    (void)fcntl(output[0], F_SETFL, O_NONBLOCK);
    run->pid = fork();
    if (run->pid == 0) {
        become_program((const char *)hook->exec.data, environment, output[1]);
    }
    close(output[1]);
    run->output_fd = output[0];
    if (run->pid < 0) {
        return strerror(errno);
    }
    run->end_fd = (int)syscall(SYS_pidfd_open, run->pid, 0);
    run->end_watch = loop_watch_new(run->runner->loop, run->end_fd, ended, run);
    run->output_watch = loop_watch_new(run->runner->loop, run->output_fd, output_ready, run);
    run->timer = loop_timer_new(run->runner->loop, too_long, run);
    if (run->end_fd < 0 || run->end_watch == NULL || run->output_watch == NULL ||
        run->timer == NULL) {
        kill(run->pid, SIGKILL);
        (void)waitpid(run->pid, NULL, 0);
        return "out of memory or descriptors";
    }
    loop_watch_set(run->end_watch, LOOP_READ);
    loop_watch_set(run->output_watch, LOOP_READ);
    loop_timer_set(run->timer, hook->timeout_ms);
    return NULL;
}

/* ---- requests ----------------------------------------------------------------------------- */

static const struct hook_config *find_hook(const struct runner *runner, const char *name)
{
    const struct service_config *config = settings_config(runner->start.settings);
    for (uint32_t i = 0; name != NULL && i < config->hook_count; i++) {
        if (slice_equal(config->hooks[i].name, slice_from_text(name)) &&
            config->hooks[i].exec.length > 0) {
            return &config->hooks[i];
        }
    }
    return NULL;
}

/* Ours, and of the helper what cannot change how a program is loaded or found. NULL: memory, or
 * something else was among it. */
static char **make_environment(json_t *given, char *own[], size_t own_count)
{
    char **environment = calloc(json_object_size(given) + own_count + 1, sizeof(*environment));
    size_t count = 0;
    const char *name;
    json_t *value;
    if (environment == NULL) {
        return NULL;
    }
    memcpy(environment, own, own_count * sizeof(*own));
    json_object_foreach(given, name, value)
    {
        const char *text = json_string_value(value);
        if (strncmp(name, "HOLDFAST_", 9) != 0 || strchr(name, '=') != NULL || text == NULL ||
            asprintf(&environment[own_count + count], "%s=%s", name, text) < 0) {
            break;
        }
        count++;
    }
    if (count != json_object_size(given)) {
        for (size_t i = 0; i < count; i++) {
            free(environment[own_count + i]);
        }
        free(environment);
        return NULL;
    }
    return environment;
}

static const char *run_program(struct runner *runner, uint64_t number,
                               const struct hook_config *hook, json_t *variables)
{
    static char path_variable[] =
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static char language[] = "LANG=C.UTF-8";
    char *own[] = {path_variable, language};
    char **environment = make_environment(variables, own, 2);
    struct run *run = calloc(1, sizeof(*run));
    const char *why = "out of memory";
    if (environment != NULL && run != NULL) {
        *run = (struct run){.runner = runner,
                            .number = number,
                            .asked = true,
                            .end_fd = -1,
                            .output_fd = -1,
                            .started_ms = clock_steady_ms()};
        list_append(&runner->runs, &run->link);
        runner->run_count++;
        why = start_program(run, hook, environment);
        if (why != NULL) {
            run_free(run);
        }
    } else {
        free(run);
    }
    for (size_t i = 2; environment != NULL && environment[i] != NULL; i++) {
        free(environment[i]);
    }
    free(environment);
    return why;
}

static void take_request(void *context, const json_t *request)
{
    struct runner *runner = context;
    uint64_t number = (uint64_t)json_integer_value(json_object_get(request, "run"));
    const struct hook_config *hook =
        find_hook(runner, json_string_value(json_object_get(request, "alert")));
    const char *why = hook == NULL                    ? "no such program in the configuration"
                      : runner->run_count >= RUNS_MAX ? "too many are running"
                                                      : NULL;
    if (why == NULL) {
        why = run_program(runner, number, hook, json_object_get(request, "environment"));
    }
    if (why != NULL) {
        answer(runner, number, why, SLICE_EMPTY, 0);
    }
}

/* What runs is let run, but nobody asks for its end any more. */
static void forget_helper(void *context)
{
    struct runner *runner = context;
    LIST_EACH(&runner->runs, at, after)
    {
        LIST_ENTRY(at, struct run, link)->asked = false;
    }
}

/* ---- the entry ---------------------------------------------------------------------------- */

static void take_link(void *context, enum keeper_link link, int fd)
{
    (void)link;
    struct runner *runner = context;
    frame_stream_set(runner->helper, fd);
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    struct runner *runner = context;
    settings_free(runner->start.settings);
    runner->start.settings = settings;
    return ERROR_NONE;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    struct runner *runner = context;
    LIST_EACH(&runner->runs, at, after)
    {
        struct run *run = LIST_ENTRY(at, struct run, link);
        kill(-run->pid, SIGKILL);
        (void)waitpid(run->pid, NULL, 0);
        run_free(run);
    }
    loop_stop(runner->loop);
}

int role_runner(int channel)
{
    static struct runner runner;
    enum error error = role_receive_start(channel, ROLE_RUNNER, &runner.start);
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_become(&runner.start);
    if (error != ERROR_NONE) {
        return role_fail("user", error);
    }
    list_init(&runner.runs);
    runner.loop = loop_new();
    const struct frame_handlers from_helper = {
        .context = &runner, .take = take_request, .lost = forget_helper};
    if (runner.loop != NULL) {
        runner.helper = frame_stream_new(runner.loop, &from_helper);
    }
    if (runner.helper == NULL) {
        return role_fail("loop", ERROR_MEMORY);
    }
    take_link(&runner, KEEPER_LINK_RUNNER, runner.start.links[KEEPER_LINK_RUNNER]);
    const struct role_handlers handlers = {
        .context = &runner, .link = take_link, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(runner.loop, &runner.start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(runner.loop);
    frame_stream_free(runner.helper);
    role_channel_free(keeper);
    settings_free(runner.start.settings);
    loop_free(runner.loop);
    return ROLE_EXIT_STOPPED;
}
