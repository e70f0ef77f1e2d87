/* SPDX-License-Identifier: Apache-2.0
 *
 * holdfastd: the command line. Started by a person it becomes the keeper; started by the keeper
 * with
 * --role it becomes that process, with its channel on descriptor 3.
 */
#include "app/keeper.h"
#include "app/keeper_internal.h"
#include "app/role.h"
#include "app/settings.h"
#include "sys/log.h"

#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

#define DEFAULT_PATH "/etc/holdfast/holdfast.conf"

static const char usage[] =
    "usage: holdfastd [-c FILE]        run in the foreground\n"
    "       holdfastd [-c FILE] -n     check the configuration and say what is wrong\n"
    "       holdfastd --show-roles     what each process may do\n"
    "       holdfastd --version\n"
    "\n"
    "FILE is " DEFAULT_PATH " unless given.\n"
    "SIGTERM stops it in order, SIGHUP reads the configuration again. See holdfastd(8).\n";

static int check(const char *path)
{
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read(path, &errors);
    static struct plan plan;
    bool good = settings != NULL && plan_make(settings_config(settings), path, &plan, &errors);
    fprintf(stderr, "%.*s", SLICE_PRINT(buffer_slice(&errors)));
    settings_free(settings);
    buffer_done(&errors);
    return good ? 0 : 1;
}

static int print_roles(void)
{
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(
        &text,
        "keeper: starts the others, holds listening sockets, connects to filters for edge-in "
        "and opens lists of recipients for helper; parses nothing of any of them; stays "
        "root if started as root\n"
        "each of the others but runner and pam: no new privileges, no signals to others; if "
        "started as root, another user, with nothing as its root directory; system calls:\n");
    sandbox_describe_all(&text);
    for (int role = 0; role < ROLE_COUNT; role++) {
        sandbox_describe(role_privileges((enum role)role), &text);
        const struct sandbox_profile *member = role_member_privileges((enum role)role);
        if (member != NULL) {
            sandbox_describe(member, &text);
        }
    }
    sandbox_describe(&reader_privileges, &text);
    printf("%.*s", SLICE_PRINT(buffer_slice(&text)));
    buffer_done(&text);
    return 0;
}

/* The name that ps(1) and top(1) show; the kernel keeps 15 characters. */
static void show_name(const char *name)
{
    char title[32];
    snprintf(title, sizeof(title), "holdfast-%s", name);
    (void)prctl(PR_SET_NAME, title);
}

static int run_role(const char *name, const char *path, const char *copy)
{
    static int (*const entries[ROLE_COUNT])(int channel) = {
        [ROLE_CORE] = role_core,   [ROLE_EDGE_OUT] = role_edge_out,   [ROLE_EDGE_IN] = role_edge_in,
        [ROLE_WEB] = role_web,     [ROLE_HELPER] = role_helper,       [ROLE_RUNNER] = role_runner,
        [ROLE_LOGIN] = role_login, [ROLE_DIRECTORY] = role_directory, [ROLE_PAM] = role_pam,
    };
    show_name(name);
    /* Whoever started the keeper may have left some open. */
    (void)close_range(KEEPER_CHILD_CHANNEL + 1, ~0U, 0);
    /* Before the walls: it reads a file. */
    tzset();
    if (log_open(LOG_TO_STDERR, LOG_LEVEL_INFO, name) != ERROR_NONE) {
        return ROLE_EXIT_FAILED;
    }
    enum role role;
    if (strcmp(name, "reader") == 0 && path != NULL) {
        return role_reader(KEEPER_CHILD_CHANNEL, path, copy);
    }
    if (role_from_name(name, &role)) {
        return entries[role](KEEPER_CHILD_CHANNEL);
    }
    fputs(usage, stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},         {"version", no_argument, NULL, 'V'},
        {"show-roles", no_argument, NULL, 'p'},   {"role", required_argument, NULL, 'r'},
        {"lease", required_argument, NULL, 'l'},  {NULL, 0, NULL, 0},
    };
    const char *path = DEFAULT_PATH;
    bool only_check = false;
    struct keeper_lease lease = {-1, -1};
    signal(SIGPIPE, SIG_IGN);
    for (int option; (option = getopt_long(argc, argv, "c:nhV", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 'n':
            only_check = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'V':
            puts("holdfastd " HOLDFAST_VERSION);
            return 0;
        case 'p':
            return print_roles();
        case 'l': /* from the warden */
            if (sscanf(optarg, "%d,%d", &lease.page, &lease.ready) != 2) {
                fputs(usage, stderr);
                return EXIT_USAGE;
            }
            (void)fcntl(lease.page, F_SETFD, FD_CLOEXEC);
            (void)fcntl(lease.ready, F_SETFD, FD_CLOEXEC);
            break;
        case 'r':
            return run_role(optarg, optind < argc ? argv[optind] : NULL,
                            optind + 1 < argc ? argv[optind + 1] : NULL);
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind != argc) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (only_check) {
        return check(path);
    }
    show_name("keeper");
    return keeper_run(path, &lease);
}
