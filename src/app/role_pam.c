/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that asks PAM (app/pam_check.h) whether a password is right, when login asks: a child
 * for each question, which is killed when it takes too long. It is not confined, for modules open
 * files, load libraries, run programs and talk to whom they like; and where a listener names PAM it
 * stays root if the daemon was started as root, for pam_unix(8) reads the hashes of others as
 * nobody else. So it is small, and hears nothing but names and passwords, from login alone.
 */
#include "app/pam_check.h"
#include "app/role_channel.h"
#include "base/list.h"
#include "base/password.h"
#include "sys/fdpass.h"
#include "sys/log.h"
#include "sys/net.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHECKS_MAX = 32, /* at once */
    CHECK_MS = 15000,
    VERDICT_STATUS =
        64, /* a child ends with this and its verdict; with 64 too if a module ends it */
    DESCRIPTORS_FROM = 3,
};

struct pam_role {
    struct role_start start;
    struct loop *loop;
    struct link checks;
    uint32_t check_count;
    bool asks; /* a listener names PAM */
    int fd;    /* -1: nobody asks */
    struct loop_watch *watch;
    struct buffer message;
};

struct check {
    struct link link;
    struct pam_role *role;
    uint64_t token;
    pid_t pid; /* also of its group */
    int end_fd;
    int reason_fd;
    struct loop_watch *end_watch;
    struct loop_timer *timer;
    size_t name_length;
    uint8_t name[LOGIN_NAME_MAX];
};

static void set_link(void *context, enum keeper_link link, int fd);

/* ---- an answer ---------------------------------------------------------------------------- */

static void answer(struct pam_role *role, uint64_t token, enum login_verdict verdict,
                   struct slice name)
{
    struct login_answer answer = {.token = token, .verdict = verdict, .account = name};
    /* PAM knows no addresses. */
    if (verdict == LOGIN_GOOD && login_address_fault(name) == NULL &&
        slice_find(name, '*') == name.length) {
        answer.addresses[answer.address_count++] = name;
    }
    buffer_clear(&role->message);
    login_put_answer(&role->message, &answer);
    if (role->fd >= 0 &&
        (role->message.failed ||
         fdpass_send(role->fd, buffer_slice(&role->message), NULL, 0) != ERROR_NONE)) {
        log_event(LOG_LEVEL_WARNING, "login-unanswered", LOG_TEXT("reason", "login is slow"));
    }
}

static void check_free(struct check *check)
{
    list_remove(&check->link);
    check->role->check_count--;
    loop_watch_free(check->end_watch);
    loop_timer_free(check->timer);
    if (check->end_fd >= 0) {
        close(check->end_fd);
    }
    if (check->reason_fd >= 0) {
        close(check->reason_fd);
    }
    free(check);
}

static void ended(void *context, unsigned ready)
{
    struct check *check = context;
    enum login_verdict verdict = LOGIN_AWAY;
    siginfo_t info = {0};
    char reason[PAM_REASON_SIZE] = "it was killed, or took too long";
    (void)ready;
    if (waitid(P_PID, (id_t)check->pid, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) {
        return;
    }
    ssize_t got = read(check->reason_fd, reason, sizeof(reason) - 1);
    reason[got > 0 ? got : (ssize_t)strlen(reason)] = '\0';
    int status = info.si_status - VERDICT_STATUS;
    /* Only who wrote a reason came to a verdict. */
    if (info.si_code == CLD_EXITED && got > 0 && status >= 0 && status < LOGIN_VERDICTS) {
        verdict = (enum login_verdict)status;
    }
    struct slice name = slice_make(check->name, check->name_length);
    if (verdict == LOGIN_AWAY) {
        log_event(LOG_LEVEL_ERROR, "pam-unanswered", LOG_SLICE("user", name),
                  LOG_TEXT("reason", reason));
    }
    answer(check->role, check->token, verdict, name);
    check_free(check);
}

/* One that has just begun has no group of its own yet. */
static void end_child(const struct check *check)
{
    kill(check->pid, SIGKILL);
    kill(-check->pid, SIGKILL);
}

static void too_long(void *context)
{
    end_child(context);
}

/* ---- a child ------------------------------------------------------------------------------ */

/* What a module expects, and nothing of ours. */
static _Noreturn void become_check(const struct login_request *request, int reason_fd)
{
    char service[PASSWORD_MAX + 1], name[LOGIN_NAME_MAX + 1], password[PASSWORD_MAX + 1];
    char client[IP_TEXT_SIZE], reason[PAM_REASON_SIZE] = "";
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < 32; number++) {
        signal(number, SIG_DFL);
    }
    int nothing = open("/dev/null", O_RDWR);
    if (setsid() < 0 || nothing < 0 || dup2(nothing, 0) < 0 || dup2(nothing, 1) < 0 ||
        dup2(nothing, 2) < 0 || dup2(reason_fd, DESCRIPTORS_FROM) < 0 || chdir("/") != 0) {
        _exit(ROLE_EXIT_FAILED);
    }
    (void)fcntl(DESCRIPTORS_FROM, F_SETFD, FD_CLOEXEC);
    (void)close_range(DESCRIPTORS_FROM + 1, ~0U, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    clearenv();
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    snprintf(service, sizeof(service), "%.*s", SLICE_PRINT(request->listener));
    snprintf(name, sizeof(name), "%.*s", SLICE_PRINT(request->name));
    snprintf(password, sizeof(password), "%.*s", SLICE_PRINT(request->secret));
    ip_to_text(&request->client, client);
    enum login_verdict verdict = pam_check(service, name, password, client, reason);
    size_t length = strlen(reason);
    bool said = length > 0 && write(DESCRIPTORS_FROM, reason, length) == (ssize_t)length;
    _exit(said ? VERDICT_STATUS + (int)verdict : ROLE_EXIT_FAILED);
}

static bool start_check(struct check *check, const struct login_request *request)
{
    struct pam_role *role = check->role;
    int reason[2];
    if (pipe2(reason, O_CLOEXEC) != 0) {
        return false;
    }
    (void)fcntl(reason[0], F_SETFL, O_NONBLOCK);
    check->reason_fd = reason[0];
    check->pid = fork();
    if (check->pid == 0) {
        become_check(request, reason[1]);
    }
    close(reason[1]);
    if (check->pid < 0) {
        return false;
    }
    check->end_fd = (int)syscall(SYS_pidfd_open, check->pid, 0);
    check->end_watch =
        check->end_fd >= 0 ? loop_watch_new(role->loop, check->end_fd, ended, check) : NULL;
    check->timer = loop_timer_new(role->loop, too_long, check);
    if (check->end_watch == NULL || check->timer == NULL) {
        kill(check->pid, SIGKILL);
        (void)waitpid(check->pid, NULL, 0);
        return false;
    }
    loop_watch_set(check->end_watch, LOOP_READ);
    loop_timer_set(check->timer, CHECK_MS);
    return true;
}

/* ---- questions ---------------------------------------------------------------------------- */

static bool names_pam(const struct service_config *config, struct slice service)
{
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *listener = &config->listeners[i];
        for (uint32_t k = 0; k < listener->login_source_count; k++) {
            const struct login_source *source = &listener->login_sources[k];
            if (source->kind == LOGIN_SOURCE_PAM &&
                (service.length == 0 || slice_equal(source->name, service))) {
                return true;
            }
        }
    }
    return false;
}

/* A NUL would end a name or a password early. */
static bool is_text(struct slice bytes)
{
    return bytes.length > 0 && bytes.length <= PASSWORD_MAX &&
           slice_find(bytes, '\0') == bytes.length;
}

static void take_request(struct pam_role *role, const struct login_request *request)
{
    const struct service_config *config = settings_config(role->start.settings);
    bool is_known = role->asks && names_pam(config, request->listener);
    if (!is_known || role->check_count >= CHECKS_MAX) {
        answer(role, request->token, LOGIN_AWAY, SLICE_EMPTY);
        return;
    }
    if (login_name_fault(request->name) != NULL || !is_text(request->secret) ||
        !is_text(request->listener)) {
        answer(role, request->token, LOGIN_REFUSED, SLICE_EMPTY);
        return;
    }
    struct check *check = calloc(1, sizeof(*check));
    if (check == NULL) {
        answer(role, request->token, LOGIN_AWAY, SLICE_EMPTY);
        return;
    }
    *check = (struct check){.role = role, .token = request->token, .end_fd = -1, .reason_fd = -1};
    memcpy(check->name, request->name.data, request->name.length);
    check->name_length = request->name.length;
    list_append(&role->checks, &check->link);
    role->check_count++;
    if (!start_check(check, request)) {
        answer(role, request->token, LOGIN_AWAY, SLICE_EMPTY);
        check_free(check);
    }
}

static bool question_heard(void *context, struct slice message)
{
    struct pam_role *role = context;
    struct login_request request;
    bool good = login_get_request(message, &request) && request.question == LOGIN_PASSWORD;
    if (good) {
        take_request(role, &request);
    }
    return good;
}

static void on_question(void *context, unsigned ready)
{
    struct pam_role *role = context;
    (void)ready;
    if (!login_hear(&role->fd, question_heard, role)) {
        set_link(role, KEEPER_LINK_PAM, -1); /* the keeper gives another */
    }
}

/* ---- the entry ---------------------------------------------------------------------------- */

static void set_link(void *context, enum keeper_link link, int fd)
{
    struct pam_role *role = context;
    (void)link;
    if (role->fd >= 0) {
        loop_watch_free(role->watch);
        close(role->fd);
    }
    role->watch = fd >= 0 ? loop_watch_new(role->loop, fd, on_question, role) : NULL;
    role->fd = role->watch != NULL ? fd : -1;
    if (role->watch != NULL) {
        loop_watch_set(role->watch, LOOP_READ);
    } else if (fd >= 0) {
        close(fd);
    }
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    struct pam_role *role = context;
    if (!role->asks && names_pam(settings_config(settings), SLICE_EMPTY)) {
        /* It has given up what PAM needs: the keeper starts another. */
        log_event(LOG_LEVEL_INFO, "begins-anew", LOG_TEXT("reason", "a listener names pam now"));
        exit(ROLE_EXIT_STOPPED);
    }
    settings_free(role->start.settings);
    role->start.settings = settings;
    return ERROR_NONE;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    struct pam_role *role = context;
    LIST_EACH(&role->checks, at, after)
    {
        struct check *check = LIST_ENTRY(at, struct check, link);
        end_child(check);
        (void)waitpid(check->pid, NULL, 0);
        check_free(check);
    }
    loop_stop(role->loop);
}

int role_pam(int channel)
{
    static struct pam_role role;
    role.fd = -1;
    list_init(&role.checks);
    buffer_init(&role.message, LOGIN_MESSAGE_MAX);
    enum error error = role_receive_start(channel, ROLE_PAM, &role.start);
    if (error == ERROR_NONE) {
        error = digest_prepare();
    }
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    role.asks = names_pam(settings_config(role.start.settings), SLICE_EMPTY);
    role.start.identity.change = role.start.identity.change && !role.asks;
    error = role_become(&role.start);
    if (error != ERROR_NONE) {
        return role_fail("user", error);
    }
    role.loop = loop_new();
    if (role.loop == NULL) {
        return role_fail("loop", ERROR_MEMORY);
    }
    set_link(&role, KEEPER_LINK_PAM, role.start.links[KEEPER_LINK_PAM]);
    const struct role_handlers handlers = {
        .context = &role, .link = set_link, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(role.loop, &role.start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(role.loop);
    set_link(&role, KEEPER_LINK_PAM, -1);
    role_channel_free(keeper);
    settings_free(role.start.settings);
    buffer_done(&role.message);
    loop_free(role.loop);
    return ROLE_EXIT_STOPPED;
}
