/* SPDX-License-Identifier: Apache-2.0 */
#include "app/programs.h"

#include "base/list.h"
#include "sys/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    OUTPUT_MAX = 400, /* bytes that are kept */
    USUAL_DESCRIPTORS = 1024,
    EXIT_CANNOT_RUN = 127,
};

struct programs {
    struct loop *loop;
    struct link runs;
};

struct run {
    struct link link;
    struct loop *loop;
    program_ended_fn *fn; /* NULL: nobody asks for its end any more */
    void *context;
    uint64_t number;
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

/* ---- a program ---------------------------------------------------------------------------- */

static void run_free(struct run *run)
{
    list_remove(&run->link);
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
    if (run->fn != NULL) {
        const struct program_end end = {.problem = problem_of(run, &info, text),
                                        .output = slice_make(run->output, run->output_length),
                                        .ms = clock_steady_ms() - run->started_ms};
        run->fn(run->context, run->number, &end);
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
static const char *start_program(struct run *run, const struct program *what,
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
        become_program((const char *)what->path.data, environment, output[1]);
    }
    close(output[1]);
    run->output_fd = output[0];
    if (run->pid < 0) {
        return strerror(errno);
    }
    run->end_fd = (int)syscall(SYS_pidfd_open, run->pid, 0);
    run->end_watch = loop_watch_new(run->loop, run->end_fd, ended, run);
    run->output_watch = loop_watch_new(run->loop, run->output_fd, output_ready, run);
    run->timer = loop_timer_new(run->loop, too_long, run);
    if (run->end_fd < 0 || run->end_watch == NULL || run->output_watch == NULL ||
        run->timer == NULL) {
        kill(run->pid, SIGKILL);
        (void)waitpid(run->pid, NULL, 0);
        return "out of memory or descriptors";
    }
    loop_watch_set(run->end_watch, LOOP_READ);
    loop_watch_set(run->output_watch, LOOP_READ);
    loop_timer_set(run->timer, what->timeout_ms);
    return NULL;
}

/* ---- calls
 * --------------------------------------------------------------------------------------- */

/* Ours, and of what is given what cannot change how a program is loaded or found. NULL: memory, or
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

const char *programs_run(struct programs *programs, const struct program *what)
{
    static char path_variable[] =
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static char language[] = "LANG=C.UTF-8";
    char *own[] = {path_variable, language};
    char **environment = make_environment(what->environment, own, 2);
    struct run *run = calloc(1, sizeof(*run));
    const char *why = "out of memory";
    if (environment != NULL && run != NULL) {
        *run = (struct run){.loop = programs->loop,
                            .fn = what->fn,
                            .context = what->context,
                            .number = what->number,
                            .end_fd = -1,
                            .output_fd = -1,
                            .started_ms = clock_steady_ms()};
        list_append(&programs->runs, &run->link);
        why = start_program(run, what, environment);
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

uint32_t programs_count(const struct programs *programs, const void *context)
{
    uint32_t count = 0;
    LIST_EACH(&programs->runs, at, after)
    {
        count += LIST_ENTRY(at, struct run, link)->context == context;
    }
    return count;
}

void programs_forget(struct programs *programs, const void *context)
{
    LIST_EACH(&programs->runs, at, after)
    {
        struct run *run = LIST_ENTRY(at, struct run, link);
        run->fn = run->context == context ? NULL : run->fn;
    }
}

struct programs *programs_new(struct loop *loop)
{
    struct programs *programs = calloc(1, sizeof(*programs));
    if (programs != NULL) {
        programs->loop = loop;
        list_init(&programs->runs);
    }
    return programs;
}

void programs_free(struct programs *programs)
{
    if (programs == NULL) {
        return;
    }
    LIST_EACH(&programs->runs, at, after)
    {
        struct run *run = LIST_ENTRY(at, struct run, link);
        kill(-run->pid, SIGKILL);
        (void)waitpid(run->pid, NULL, 0);
        run_free(run);
    }
    free(programs);
}
