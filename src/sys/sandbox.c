/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/sandbox.h"

#include "sys/sandbox_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A sanitizer's runtime and coverage's exit handler need calls and files that we do not. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANDBOX_LEFT_OUT true
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(HOLDFAST_COVERAGE)
#define SANDBOX_LEFT_OUT true
#endif
#ifndef SANDBOX_LEFT_OUT
#define SANDBOX_LEFT_OUT false
#endif

/* ---- identity ---------------------------------------------------------------------------- */

bool sandbox_is_left_out(void)
{
    return SANDBOX_LEFT_OUT;
}

enum error sandbox_become(const struct sandbox_identity *identity)
{
    if (!SANDBOX_LEFT_OUT && identity->root != NULL &&
        (chroot(identity->root) != 0 || chdir("/") != 0)) {
        return error_from_errno(errno);
    }
    if (setgroups(0, NULL) != 0 ||
        setresgid(identity->group, identity->group, identity->group) != 0 ||
        setresuid(identity->user, identity->user, identity->user) != 0) {
        return error_from_errno(errno);
    }
    /* The way back must be closed. */
    if (identity->user != 0 && (setuid(0) == 0 || seteuid(0) == 0)) {
        return ERROR_DENIED;
    }
    return ERROR_NONE;
}

enum error sandbox_bind_to_parent(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
        return error_from_errno(errno);
    }
    /* It may have died before that took hold. */
    return getppid() == parent ? ERROR_NONE : ERROR_CLOSED;
}

/* ---- Landlock ---------------------------------------------------------------------------- */

/* Of later versions than the oldest kernel header we build with (landlock(7)). */
enum {
    ACCESS_TRUNCATE = 1 << 14,    /* version 3 */
    ACCESS_IOCTL_DEV = 1 << 15,   /* version 5 */
    ACCESS_NET_BIND_TCP = 1 << 0, /* version 4 */
    ACCESS_NET_CONNECT_TCP = 1 << 1,
    SCOPE_ABSTRACT_SOCKET = 1 << 0, /* version 6 */
    SCOPE_SIGNAL = 1 << 1,
};

struct landlock_rules {
    uint64_t file_system;
    uint64_t network;
    uint64_t scope;
};

static uint64_t landlock_all(int version)
{
    uint64_t all = ((uint64_t)LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
    if (version >= 2) {
        all |= LANDLOCK_ACCESS_FS_REFER;
    }
    if (version >= 3) {
        all |= ACCESS_TRUNCATE;
    }
    if (version >= 5) {
        all |= ACCESS_IOCTL_DEV;
    }
    return all;
}

static bool landlock_allow(int ruleset, int directory, uint64_t access)
{
    struct landlock_path_beneath_attr beneath = {.allowed_access = access, .parent_fd = directory};
    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0;
}

/* Everything, to be read. */
static bool landlock_allow_root(int ruleset)
{
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool done =
        root >= 0 &&
        landlock_allow(ruleset, root, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR);
    if (root >= 0) {
        close(root);
    }
    return done;
}

static bool landlock_apply(const struct sandbox_profile *profile, const int *directories,
                           size_t count, int version)
{
    struct landlock_rules rules = {.file_system = landlock_all(version)};
    if (version >= 4 && (profile->allowed & SANDBOX_CONNECT) == 0) {
        rules.network = ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP;
    }
    if (version >= 6) {
        rules.scope = SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL;
    }
    uint64_t access = 0;
    if ((profile->allowed & SANDBOX_READ_FILES) != 0) {
        access |= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    }
    if ((profile->allowed & SANDBOX_WRITE_FILES) != 0) {
        access |= LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                  LANDLOCK_ACCESS_FS_MAKE_REG | ACCESS_TRUNCATE;
    }
    size_t size = version >= 6 ? sizeof(rules) : version >= 4 ? 16 : 8;
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (ruleset < 0) {
        return false;
    }
    bool done = true;
    for (size_t i = 0; i < count && access != 0; i++) {
        done = done && landlock_allow(ruleset, directories[i], access & rules.file_system);
    }
    if ((profile->allowed & SANDBOX_DATABASE) != 0) {
        done = done && landlock_allow_root(ruleset);
    }
    done = done && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    close(ruleset);
    return done;
}

/* ---- seccomp ----------------------------------------------------------------------------- */

/* Sticky, so that a table reads as a table. */
struct filter {
    scmp_filter_ctx context;
    bool failed;
};

static void filter_add(struct filter *filter, uint32_t action, const char *name,
                       const struct scmp_arg_cmp *arguments, unsigned count)
{
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) {
        return; /* not on this machine, or too new for this library */
    }
    int result = seccomp_rule_add_array(filter->context, action, number, count, arguments);
    filter->failed = filter->failed || (result != 0 && result != -EDOM);
}

static void allow_if(struct filter *filter, const char *name, struct scmp_arg_cmp argument)
{
    filter_add(filter, SCMP_ACT_ALLOW, name, &argument, 1);
}

static void add_restricted(struct filter *filter, unsigned allowed)
{
    allow_if(filter, "mmap", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    allow_if(filter, "mmap2", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    allow_if(filter, "mprotect", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

    const uint64_t commands[] = {F_GETFD,         F_SETFD,     F_GETFL,    F_DUPFD,
                                 F_DUPFD_CLOEXEC, F_GET_SEALS, F_ADD_SEALS};
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        allow_if(filter, "fcntl", SCMP_A1(SCMP_CMP_EQ, commands[i]));
    }
    const struct scmp_arg_cmp non_blocking[] = {
        SCMP_A1(SCMP_CMP_EQ, F_SETFL), SCMP_A2(SCMP_CMP_MASKED_EQ, O_NONBLOCK, O_NONBLOCK)};
    filter_add(filter, SCMP_ACT_ALLOW, "fcntl", non_blocking, 2);
    allow_if(filter, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, FIONREAD));

    /* The flags of clone3 lie in memory, where a filter cannot look; without it glibc uses clone.
     */
    filter_add(filter, SCMP_ACT_ERRNO(ENOSYS), "clone3", NULL, 0);
    allow_if(filter, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));

    allow_if(filter, "prctl", SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    allow_if(filter, "prctl", SCMP_A0(SCMP_CMP_EQ, PR_GET_DUMPABLE));
#ifdef PR_SET_VMA
    allow_if(filter, "prctl", SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA));
#endif
    allow_if(filter, "prlimit64", SCMP_A2(SCMP_CMP_EQ, 0));
    allow_if(filter, "tgkill", SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    /* Opening what it may not is answered, not punished: libraries look for their files. */
    filter_add(filter, SCMP_ACT_ERRNO(EACCES), "open", NULL, 0);
    if ((allowed & SANDBOX_DATABASE) == 0) {
        filter_add(filter, SCMP_ACT_ERRNO(EACCES), "access", NULL, 0);
        filter_add(filter, SCMP_ACT_ERRNO(EACCES), "readlink", NULL, 0);
    }
}

static void add_files(struct filter *filter, unsigned allowed)
{
    if ((allowed & SANDBOX_WRITE_FILES) != 0) {
        filter_add(filter, SCMP_ACT_ALLOW, "openat", NULL, 0);
    } else if ((allowed & (SANDBOX_READ_FILES | SANDBOX_DATABASE)) != 0) {
        allow_if(filter, "openat",
                 SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
    } else {
        filter_add(filter, SCMP_ACT_ERRNO(EACCES), "openat", NULL, 0);
    }
}

static void add_sockets(struct filter *filter, unsigned allowed)
{
    if ((allowed & SANDBOX_CONNECT) != 0) {
        allow_if(filter, "socket", SCMP_A0(SCMP_CMP_EQ, AF_INET));
        allow_if(filter, "socket", SCMP_A0(SCMP_CMP_EQ, AF_INET6));
        if ((allowed & SANDBOX_DATABASE) != 0) {
            allow_if(filter, "socket", SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
        }
    } else {
        filter_add(filter, SCMP_ACT_ERRNO(EACCES), "socket", NULL, 0);
    }
}

static bool seccomp_apply(const struct sandbox_profile *profile, bool strict)
{
    struct filter filter = {
        .context = seccomp_init(strict ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM))};
    if (filter.context == NULL) {
        return false;
    }
    /* A tree, not a list; and no slower memory for it (kernels before 5.16). */
    (void)seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    (void)seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_SSB, 1);
    for (const struct sandbox_calls *calls = sandbox_calls; calls->title != NULL; calls++) {
        if ((profile->allowed & calls->privilege) == calls->privilege) {
            for (size_t i = 0; calls->names[i] != NULL; i++) {
                filter_add(&filter, SCMP_ACT_ALLOW, calls->names[i], NULL, 0);
            }
        }
    }
    for (size_t i = 0; !strict && sandbox_deadly[i] != NULL; i++) {
        filter_add(&filter, SCMP_ACT_KILL_PROCESS, sandbox_deadly[i], NULL, 0);
    }
    add_restricted(&filter, profile->allowed);
    add_files(&filter, profile->allowed);
    add_sockets(&filter, profile->allowed);
    bool done = !filter.failed && seccomp_load(filter.context) == 0;
    seccomp_release(filter.context);
    return done;
}

/* ---- limits ------------------------------------------------------------------------------ */

static bool limit_to(int resource, rlim_t most)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) {
        return false;
    }
    limit.rlim_max = limit.rlim_max < most ? limit.rlim_max : most;
    limit.rlim_cur = limit.rlim_cur < most ? limit.rlim_cur : most;
    return setrlimit(resource, &limit) == 0;
}

/* What lies in memory goes into no file, and nobody's scheduling or locked memory suffers. */
static bool limits_apply(const struct sandbox_profile *profile)
{
    return limit_to(RLIMIT_CORE, 0) && limit_to(RLIMIT_MEMLOCK, 0) && limit_to(RLIMIT_RTPRIO, 0) &&
           limit_to(RLIMIT_MSGQUEUE, 0) &&
           (profile->files == 0 || limit_to(RLIMIT_NOFILE, profile->files));
}

/* ---- all of it --------------------------------------------------------------------------- */

enum error sandbox_confine(const struct sandbox_profile *profile, const int *directories,
                           size_t count, struct sandbox_result *ret_result)
{
    *ret_result = (struct sandbox_result){0};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return error_from_errno(errno);
    }
    if (SANDBOX_LEFT_OUT) {
        /* A change of user takes it away, and the search for leaks looks into the process. */
        (void)prctl(PR_SET_DUMPABLE, 1);
        return ERROR_NONE;
    }
    if (prctl(PR_SET_DUMPABLE, 0) != 0) {
        return error_from_errno(errno);
    }
    if (!limits_apply(profile)) {
        return ERROR_DENIED;
    }
    int version =
        (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version > 0) {
        if (!landlock_apply(profile, directories, count, version)) {
            return ERROR_DENIED;
        }
        ret_result->landlock = version;
    }
    const char *wish = getenv("HOLDFAST_SECCOMP");
    ret_result->strict = wish != NULL && strcmp(wish, "strict") == 0;
    if (!seccomp_apply(profile, ret_result->strict)) {
        return ERROR_DENIED;
    }
    ret_result->seccomp = true;
    return ERROR_NONE;
}

static void describe_names(const char *title, const char *const *names, struct buffer *ret_text)
{
    buffer_printf(ret_text, "  %s:", title);
    for (size_t i = 0; names[i] != NULL; i++) {
        buffer_printf(ret_text, "%s %s", i > 0 ? "," : "", names[i]);
    }
    buffer_append_text(ret_text, "\n");
}

static void describe_walls(const struct sandbox_profile *profile, struct buffer *ret_text)
{
    unsigned allowed = profile->allowed;
    buffer_append_text(ret_text, "  files: ");
    buffer_append_text(ret_text, (allowed & SANDBOX_WRITE_FILES) != 0
                                     ? "beneath its directories, read and written (Landlock)\n"
                                 : (allowed & SANDBOX_READ_FILES) != 0
                                     ? "beneath its directories, read only (Landlock)\n"
                                     : "none (Landlock)\n");
    if ((allowed & SANDBOX_DATABASE) != 0) {
        buffer_append_text(ret_text, "  besides: whatever its user may read\n");
    }
    buffer_append_text(ret_text, "  sockets of its own: ");
    buffer_append_text(ret_text, (allowed & SANDBOX_CONNECT) == 0 ? "none\n"
                                 : (allowed & SANDBOX_DATABASE) != 0
                                     ? "Internet and Unix, to connect\n"
                                     : "Internet, to connect\n");
    buffer_append_text(ret_text, "  limits: no core dump, no locked memory, no real time");
    if (profile->files != 0) {
        buffer_printf(ret_text, ", %u descriptors", profile->files);
    }
    buffer_append_text(ret_text, "\n");
}

void sandbox_describe_all(struct buffer *ret_text)
{
    for (const struct sandbox_calls *calls = sandbox_calls; calls->title != NULL; calls++) {
        if (calls->privilege == 0) {
            describe_names(calls->title, calls->names, ret_text);
        }
    }
    describe_names("in part", sandbox_restricted, ret_text);
    describe_names("deadly", sandbox_deadly, ret_text);
}

void sandbox_describe(const struct sandbox_profile *profile, struct buffer *ret_text)
{
    buffer_printf(ret_text, "%s: %s\n", profile->role, profile->prose);
    if ((profile->allowed & SANDBOX_FREE) != 0) {
        buffer_append_text(ret_text, "  not confined: whatever its user may do\n");
        return;
    }
    describe_walls(profile, ret_text);
    for (const struct sandbox_calls *calls = sandbox_calls; calls->title != NULL; calls++) {
        if (calls->privilege != 0 && (profile->allowed & calls->privilege) == calls->privilege) {
            describe_names(calls->title, calls->names, ret_text);
        }
    }
}
