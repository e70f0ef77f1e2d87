/* SPDX-License-Identifier: Apache-2.0 */
#include "app/role.h"

#include <string.h>

static const struct sandbox_profile privileges[ROLE_COUNT] = {
    [ROLE_CORE] = {"core", SANDBOX_SERVE | SANDBOX_READ_FILES | SANDBOX_WRITE_FILES, 0,
                   "keeps the journal; is given its directories, the control socket, the "
                   "rings and the memory of greylisting; no network"},
    [ROLE_EDGE_OUT] =
        {"edge-out", SANDBOX_CONNECT | SANDBOX_READ_FILES, 0,
         "talks to servers and name servers; is given the journal's directory to "
         "read, its rings, and from edge-in connections that clients have turned round"},
    [ROLE_EDGE_IN] = {"edge-in", SANDBOX_SERVE | SANDBOX_SCRATCH, 0,
                      "talks to clients; is given listening sockets, its rings, the memory of "
                      "greylisting, a scratch file "
                      "without a name, and from the keeper connections to the configured filters; "
                      "no file system, no connections of its own"},
    [ROLE_WEB] = {"web", SANDBOX_SERVE, 1024,
                  "answers HTTP; is given listening sockets, the counters and a stream to core"},
    [ROLE_HELPER] =
        {"helper", SANDBOX_CONNECT, 1024,
         "tells people of alerts, fetches policies, reads lists of recipients; is given the "
         "secrets of webhooks, three streams to core, over which it may command, one to runner, "
         "from the keeper the files of lists, and from directory lists out of LDAP; no file "
         "system"},
    [ROLE_RUNNER] =
        {"runner", SANDBOX_FREE, 0,
         "runs the programs that the configuration names, for alerts when helper asks and "
         "for guards when core does, and nothing else; is given a stream to core, over "
         "which it may command; reads nothing from the network"},
    [ROLE_LOGIN] =
        {"login", SANDBOX_READ_FILES, 1024,
         "knows who may log in; is given the table of users to read, files of hashes, the "
         "passwords of sites that fetch their mail, and links to edge-in, which asks, to "
         "directory and to pam, and to core, which it tells of logins; no network"},
    [ROLE_DIRECTORY] =
        {"directory", SANDBOX_CONNECT, 1024,
         "asks LDAP directories when login asks, and for lists when helper asks; is given the "
         "passwords to search with, and hears that of who logs in by one; no file system"},
    [ROLE_PAM] = {"pam", SANDBOX_FREE, 0,
                  "asks PAM in a child for each question, when login asks, and nothing else; stays "
                  "root if the daemon was started as root and a listener names PAM; reads nothing "
                  "from the network"},
};

/* In a cluster. */
static const struct sandbox_profile member_core = {
    "core in a cluster",
    SANDBOX_SERVE | SANDBOX_READ_FILES | SANDBOX_WRITE_FILES | SANDBOX_CONNECT | SANDBOX_DATABASE,
    0,
    "as core; talks to the database, and is given its password; keeps the machine's root "
    "directory"};
static const struct sandbox_profile member_helper = {
    "helper in a cluster", SANDBOX_CONNECT | SANDBOX_DATABASE, 1024,
    "as helper; follows the settings in the database, and is given its password; keeps the "
    "machine's root directory"};

const struct sandbox_profile reader_privileges = {"reader", SANDBOX_READ_FILES, 256,
                                                  "reads the configuration and ends; no network"};

const struct sandbox_profile *role_privileges(enum role role)
{
    return &privileges[role];
}

const struct sandbox_profile *role_member_privileges(enum role role)
{
    return role == ROLE_CORE ? &member_core : role == ROLE_HELPER ? &member_helper : NULL;
}

const char *role_name(enum role role)
{
    return privileges[role].role;
}

bool role_from_name(const char *name, enum role *ret_role)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (strcmp(privileges[role].role, name) == 0) {
            *ret_role = (enum role)role;
            return true;
        }
    }
    return false;
}
