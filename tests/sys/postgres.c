/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATH_SIZE = 256, CHILDREN_MAX = 256, PATIENCE_S = 60 };

struct postgres {
    char root[PATH_SIZE / 4];
    char data[PATH_SIZE], log[PATH_SIZE], conninfo[PATH_SIZE];
    pid_t pid; /* 0: does not run */
};

/* Made once: where the programs are, and a data directory to copy. */
static char programs[PATH_SIZE / 2];
static char template[PATH_SIZE / 4];
static pid_t template_owner;

/* ---- programs ------------------------------------------------------------------------------- */

static const struct passwd *whom(void)
{
    if (geteuid() != 0) {
        return NULL;
    }
    const struct passwd *user = getpwnam("postgres");
    return user != NULL ? user : getpwnam("nobody");
}

/* In a child: becomes the user, with input and output as given (NULL: /dev/null). */
static void become(const char *input, const char *output)
{
    const struct passwd *user = whom();
    int in = open(input != NULL ? input : "/dev/null", O_RDONLY);
    int out = open(output != NULL ? output : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) {
        _exit(126);
    }
    if (user != NULL && (fchown(out, user->pw_uid, user->pw_gid) != 0 || setgroups(0, NULL) != 0 ||
                         setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) {
        _exit(126);
    }
    closefrom(3);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("LC_ALL", "C", 1);
}

/* 0: it has ended well. */
static int run(const char *input, const char *const arguments[])
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        become(input, NULL);
        execv(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

static bool find_programs(void)
{
    if (programs[0] != '\0') {
        return true;
    }
    glob_t found;
    if (glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found) == 0) {
        const char *newest = found.gl_pathv[found.gl_pathc - 1];
        snprintf(programs, sizeof(programs), "%.*s", (int)(strrchr(newest, '/') - newest), newest);
        globfree(&found);
    }
    return programs[0] != '\0';
}

static const char *make_root(char root[PATH_SIZE / 4])
{
    const char *place = getenv("TMPDIR");
    const struct passwd *user = whom();
    snprintf(root, PATH_SIZE / 4, "%.32s/hf-pg-XXXXXX", place != NULL ? place : "/tmp");
    assert_non_null(mkdtemp(root));
    if (user != NULL) {
        assert_int_equal(chown(root, user->pw_uid, user->pw_gid), 0);
    }
    return root;
}

static void remove_tree(const char *path)
{
    const char *const arguments[] = {"/bin/rm", "-rf", path, NULL};
    run(NULL, arguments);
    rmdir(path);
}

static void write_file(const char *path, const char *mode, const char *text)
{
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* ---- the template ---------------------------------------------------------------------------- */

static void remove_template(void)
{
    if (template_owner == getpid()) {
        remove_tree(template);
    }
}

static void make_template(void)
{
    char program[PATH_SIZE], data[PATH_SIZE], path[2 * PATH_SIZE];
    make_root(template);
    template_owner = getpid();
    atexit(remove_template);
    snprintf(data, sizeof(data), "%s/data", template);
    snprintf(program, sizeof(program), "%s/initdb", programs);
    const char *const initdb[] = {
        program, "-D",   data,         "-U",        "postgres",        "-A", "trust",
        "-E",    "UTF8", "--locale=C", "--no-sync", "--wal-segsize=1", NULL};
    assert_int_equal(run(NULL, initdb), 0);
    snprintf(path, sizeof(path), "%s/pg_hba.conf", data);
    write_file(path, "w",
               "local all guarded scram-sha-256\nlocal all all trust\n"
               "local replication all trust\n");
    snprintf(path, sizeof(path), "%s/guarded.sql", template);
    write_file(path, "w", "CREATE ROLE guarded LOGIN PASSWORD 'open sesame'\n");
    assert_int_equal(chmod(path, 0644), 0);
    snprintf(program, sizeof(program), "%s/postgres", programs);
    const char *const single[] = {program, "--single", "-F", "-D", data, "postgres", NULL};
    assert_int_equal(run(path, single), 0);
}

/* ---- a server ---------------------------------------------------------------------------------
 */

static void pass(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* What postmaster.pid says of its state: the eighth line. */
static bool is_ready(const struct postgres *postgres)
{
    char path[2 * PATH_SIZE], line[PATH_SIZE];
    bool ready = false;
    snprintf(path, sizeof(path), "%s/postmaster.pid", postgres->data);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++) {
        ready |= i == 1 && atoi(line) != postgres->pid ? false : i == 8 && line[0] == 'r';
    }
    fclose(file);
    return ready;
}

static void launch(struct postgres *postgres)
{
    char program[PATH_SIZE];
    snprintf(program, sizeof(program), "%s/postgres", programs);
    postgres->pid = fork();
    assert_true(postgres->pid >= 0);
    if (postgres->pid == 0) {
        become(NULL, postgres->log);
        execl(program, program, "-D", postgres->data, NULL);
        _exit(127);
    }
}

static void show_log(const struct postgres *postgres)
{
    char line[1024];
    FILE *file = fopen(postgres->log, "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        fputs(line, stderr);
    }
    if (file != NULL) {
        fclose(file);
    }
}

void postgres_start(struct postgres *postgres)
{
    char path[2 * PATH_SIZE];
    snprintf(path, sizeof(path), "%s/postmaster.pid", postgres->data);
    unlink(path); /* one of a server that was killed says "ready" */
    launch(postgres);
    for (int i = 0; i < PATIENCE_S * 50; i++) {
        if (is_ready(postgres)) {
            return;
        }
        if (waitpid(postgres->pid, NULL, WNOHANG) == postgres->pid) {
            launch(postgres); /* processes of one that was killed are not all gone */
        }
        pass(20);
    }
    show_log(postgres);
    fail_msg("PostgreSQL does not start");
}

struct postgres *postgres_new(const char *configuration)
{
    if (!find_programs()) {
        fprintf(stderr, "no PostgreSQL server is installed\n");
        return NULL;
    }
    if (template[0] == '\0') {
        make_template();
    }
    char from[PATH_SIZE], path[2 * PATH_SIZE], text[3 * PATH_SIZE];
    struct postgres *postgres = calloc(1, sizeof(*postgres));
    assert_non_null(postgres);
    make_root(postgres->root);
    assert_int_equal(chmod(postgres->root, 0711), 0);
    snprintf(postgres->data, sizeof(postgres->data), "%s/data", postgres->root);
    snprintf(postgres->log, sizeof(postgres->log), "%s/log", postgres->root);
    snprintf(postgres->conninfo, sizeof(postgres->conninfo),
             "host=%s user=postgres dbname=postgres", postgres->root);
    snprintf(from, sizeof(from), "%s/data", template);
    const char *const copy[] = {"/bin/cp", "-a", from, postgres->data, NULL};
    assert_int_equal(run(NULL, copy), 0);
    snprintf(path, sizeof(path), "%s/postgresql.conf", postgres->data);
    snprintf(text, sizeof(text),
             "\nlisten_addresses = ''\nunix_socket_directories = '%s'\nmax_connections = 60\n",
             postgres->root);
    write_file(path, "a", text);
    write_file(path, "a", configuration != NULL ? configuration : "");
    write_file(path, "a", "\n");
    postgres_start(postgres);
    return postgres;
}

/* It and its children. */
static size_t processes(const struct postgres *postgres, pid_t ret_pids[CHILDREN_MAX])
{
    char path[PATH_SIZE];
    size_t count = 0;
    ret_pids[count++] = postgres->pid;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", postgres->pid, postgres->pid);
    FILE *file = fopen(path, "r");
    int pid;
    while (file != NULL && count < CHILDREN_MAX && fscanf(file, "%d", &pid) == 1) {
        ret_pids[count++] = pid;
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static void signal_all(const struct postgres *postgres, int number)
{
    pid_t pids[CHILDREN_MAX];
    size_t count = processes(postgres, pids);
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], number);
    }
}

static void reap(struct postgres *postgres)
{
    while (waitpid(postgres->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    postgres->pid = 0;
}

void postgres_kill(struct postgres *postgres)
{
    kill(postgres->pid, SIGSTOP); /* then it makes no more */
    signal_all(postgres, SIGKILL);
    reap(postgres);
}

void postgres_stop(struct postgres *postgres)
{
    kill(postgres->pid, SIGINT);
    reap(postgres);
}

void postgres_pause(struct postgres *postgres)
{
    kill(postgres->pid, SIGSTOP);
    signal_all(postgres, SIGSTOP);
}

void postgres_resume(struct postgres *postgres)
{
    signal_all(postgres, SIGCONT);
}

void postgres_free(struct postgres *postgres)
{
    if (postgres == NULL) {
        return;
    }
    if (postgres->pid != 0) {
        postgres_kill(postgres);
    }
    remove_tree(postgres->root);
    free(postgres);
}

const char *postgres_host(const struct postgres *postgres)
{
    return postgres->root;
}

const char *postgres_conninfo(const struct postgres *postgres)
{
    return postgres->conninfo;
}

const char *postgres_directory(const struct postgres *postgres)
{
    return postgres->data;
}
