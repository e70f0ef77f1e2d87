/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/sandbox_calls.h"

#include "sys/sandbox.h"

#include <stddef.h>

static const char *const always[] = {
    /* descriptors at hand */
    "read", "write", "readv", "writev", "close", "dup", "dup3", "fstat", "newfstatat", "fstatat64",
    "lseek", "poll", "ppoll", "select", "pselect6", "pipe2", "eventfd2", "epoll_create1",
    "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "timerfd_create", "timerfd_settime",
    "signalfd4", "sendmsg", "recvmsg", "sendto", "recvfrom", "sendmmsg", "recvmmsg", "shutdown",
    "getsockopt", "setsockopt", "getsockname", "getpeername", "socketpair",
    /* memory */
    "brk", "munmap", "mremap", "madvise", "memfd_create", "ftruncate", "mseal",
    /* threads and signals of its own */
    "futex", "futex_waitv", "set_robust_list", "rseq", "set_tid_address", "sched_yield",
    "sched_getaffinity", "sched_getparam", "sched_getscheduler", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sigaltstack", "restart_syscall", "membarrier", "exit", "exit_group",
    /* time, chance and who we are */
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
    "getrandom", "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid",
    "getresuid", "getresgid", "uname", "sysinfo", "getrusage", "getcpu", "getrlimit", NULL};

static const char *const serve[] = {"accept", "accept4", NULL};

static const char *const connecting[] = {"connect", "bind", NULL};

static const char *const read_files[] = {
    "pread64",   "preadv",    "preadv2",   "getdents64", "statfs", "fstatfs", "statfs64",
    "fstatfs64", "fadvise64", "readahead", "statx",      "getcwd", NULL};

static const char *const write_files[] = {"pwrite64",        "pwritev",   "pwritev2",    "fsync",
                                          "fdatasync",       "fallocate", "ftruncate64", "renameat",
                                          "renameat2",       "rename",    "unlinkat",    "unlink",
                                          "sync_file_range", "fchmod",    NULL};

static const char *const scratch[] = {"pread64", "pwrite64", NULL};

static const char *const database[] = {"access",   "faccessat",  "faccessat2",
                                       "readlink", "readlinkat", NULL};

const struct sandbox_calls sandbox_calls[] = {
    {0, "always", always},
    {SANDBOX_SERVE, "accept connections", serve},
    {SANDBOX_CONNECT, "connect", connecting},
    {SANDBOX_SCRATCH, "use a scratch file", scratch},
    {SANDBOX_READ_FILES, "read files", read_files},
    {SANDBOX_WRITE_FILES, "write files", write_files},
    {SANDBOX_DATABASE, "look for files", database},
    {0, NULL, NULL},
};

const char *const sandbox_restricted[] = {"mmap, mprotect: never executable",
                                          "fcntl: never to make a descriptor blocking",
                                          "ioctl: only FIONREAD",
                                          "clone: threads only",
                                          "prctl: only to name a thread or memory",
                                          "prlimit64: only to look",
                                          "tgkill: only itself",
                                          NULL};

const char *const sandbox_deadly[] = {"execve",
                                      "execveat",
                                      "ptrace",
                                      "process_vm_readv",
                                      "process_vm_writev",
                                      "process_madvise",
                                      "kcmp",
                                      "pidfd_open",
                                      "pidfd_getfd",
                                      "pidfd_send_signal",
                                      "mount",
                                      "umount2",
                                      "move_mount",
                                      "open_tree",
                                      "fsopen",
                                      "fsmount",
                                      "fspick",
                                      "fsconfig",
                                      "mount_setattr",
                                      "pivot_root",
                                      "chroot",
                                      "setns",
                                      "unshare",
                                      "bpf",
                                      "perf_event_open",
                                      "userfaultfd",
                                      "io_uring_setup",
                                      "io_uring_enter",
                                      "io_uring_register",
                                      "keyctl",
                                      "add_key",
                                      "request_key",
                                      "init_module",
                                      "finit_module",
                                      "delete_module",
                                      "kexec_load",
                                      "kexec_file_load",
                                      "reboot",
                                      "swapon",
                                      "swapoff",
                                      "sethostname",
                                      "setdomainname",
                                      "settimeofday",
                                      "clock_settime",
                                      "clock_adjtime",
                                      "adjtimex",
                                      "acct",
                                      "quotactl",
                                      "syslog",
                                      "open_by_handle_at",
                                      "iopl",
                                      "ioperm",
                                      "modify_ldt",
                                      "personality",
                                      "vmsplice",
                                      NULL};
