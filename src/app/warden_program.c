/* SPDX-License-Identifier: Apache-2.0
 *
 * The processes that the warden starts: the keeper, and the administrator's programs, which run as
 * who started the daemon, for they move addresses.
 */
#include "app/keeper.h"
#include "app/warden_internal.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_CANNOT_RUN = 127, PROGRAM_LIMIT_MS = 60000 };

/* As a program expects to find it. */
static void clear_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
}

static void become_program(const struct warden *warden, const char *path, const char *event)
{
    char token[16];
    snprintf(token, sizeof(token), "%u", warden->record.token);
    (void)setpgid(0, 0);
    clear_signals();
    int nowhere = open("/dev/null", O_RDONLY);
    (void)dup2(nowhere, STDIN_FILENO);
    (void)dup2(STDERR_FILENO, STDOUT_FILENO);
    (void)setenv("HOLDFAST_STANDBY_EVENT", event, 1);
    (void)setenv("HOLDFAST_STANDBY_NAME", warden->plan->standby.name, 1);
    (void)setenv("HOLDFAST_STANDBY_OF", warden->plan->standby.of, 1);
    (void)setenv("HOLDFAST_STANDBY_TOKEN", token, 1);
    (void)setenv("HOLDFAST_STATE", warden->plan->state, 1);
    (void)unsetenv("NOTIFY_SOCKET");
    char *const arguments[] = {(char *)(uintptr_t)path, NULL};
    execv(path, arguments);
    _exit(EXIT_CANNOT_RUN);
}

bool warden_program_start(struct warden *warden, const char *path, const char *event)
{
    warden->program = 0;
    warden->program_late = false;
    if (path[0] == '\0') {
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        become_program(warden, path, event);
    }
    if (pid < 0) {
        log_event(LOG_LEVEL_ERROR, "standby-program", LOG_TEXT("event", event),
                  LOG_TEXT("reason", strerror(errno)));
        return false;
    }
    warden->program = pid;
    warden->program_name = event;
    loop_timer_set(warden->limit, PROGRAM_LIMIT_MS);
    return true;
}

static void become_keeper(const struct warden *warden, int ready, pid_t parent)
{
    char lease[64];
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_CANNOT_RUN);
    }
    clear_signals();
    signal(SIGPIPE, SIG_IGN);
    (void)fcntl(warden->page_fd, F_SETFD, 0);
    (void)fcntl(ready, F_SETFD, 0);
    (void)unsetenv("NOTIFY_SOCKET"); /* the warden has spoken to it */
    snprintf(lease, sizeof(lease), "--lease=%d,%d", warden->page_fd, ready);
    char title[] = "holdfastd", option[] = "-c";
    char *const arguments[] = {title, option, (char *)(uintptr_t)warden->config_path, lease, NULL};
    execv("/proc/self/exe", arguments);
    _exit(EXIT_CANNOT_RUN);
}

bool warden_keeper_start(struct warden *warden)
{
    int ends[2];
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        become_keeper(warden, ends[1], parent);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return false;
    }
    (void)setpgid(pid, pid); /* whoever of the two is first */
    warden->keeper = pid;
    warden->keeper_gone = false;
    warden->ready_fd = ends[0];
    return true;
}

bool warden_keeper_bury(struct warden *warden)
{
    if (warden->keeper == 0) {
        return true;
    }
    if (!warden->keeper_gone) {
        return false;
    }
    /* Its children are ours now: those that it has left, and those that were stopped. */
    (void)kill(-warden->keeper, SIGKILL);
    for (pid_t pid; (pid = waitpid(-warden->keeper, NULL, WNOHANG)) != -1;) {
        if (pid == 0) {
            return false;
        }
    }
    warden->keeper = 0;
    return true;
}
