/* SPDX-License-Identifier: Apache-2.0
 *
 * A configuration of two texts: a node's own file, and the cluster's settings with their files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/settings_internal.h"
#include "certificates.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCAL                                                                                      \
    "hostname = mx2.example.net\n"                                                                 \
    "state = state\n"                                                                              \
    "listen mx { address = \"127.0.0.1:2525\" }\n"

#define SHARED                                                                                     \
    "server m1 { address = \"192.0.2.1:25\" }\n"                                                   \
    "domain example.com { deliver-to = m1 }\n"

static void put_file(const char *name, struct slice content)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content.data, 1, content.length, file), content.length);
    assert_int_equal(fclose(file), 0);
}

/* What is said must be `expected`; NULL if it is more than warnings. */
static struct settings *read_version(const char *local, const struct settings_version *version,
                                     const char *expected)
{
    put_file("conf", slice_from_text(local));
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read_with("conf", version, &errors);
    buffer_append(&errors, slice_make("", 1));
    assert_string_equal((const char *)errors.data, expected);
    buffer_done(&errors);
    return settings;
}

static struct settings *read_both(const char *local, const char *shared, const char *expected)
{
    struct settings_version version = {.number = 3, .text = slice_from_text(shared)};
    return read_version(local, &version, expected);
}

static struct settings *parse_again(const struct settings *settings, unsigned readers)
{
    struct buffer text, errors;
    buffer_init(&text, 0);
    buffer_init(&errors, 0);
    settings_expand(settings, readers, &text);
    struct settings *again = settings_parse(buffer_slice(&text), &errors);
    assert_non_null(again);
    buffer_done(&text);
    buffer_done(&errors);
    return again;
}

/* As at a start, with a copy of these. */
static struct settings *read_to_start(const char *local, const char *shared, const char *expected,
                                      const char *conflict)
{
    struct settings_version version = {.number = 3, .text = slice_from_text(shared)};
    struct buffer bytes, errors, said;
    buffer_init(&bytes, 0);
    buffer_init(&errors, 0);
    buffer_init(&said, 0);
    settings_version_put(&bytes, &version);
    (void)mkdir("state", 0700);
    (void)unlink("state/" SETTINGS_COPY_DIRECTORY "/" SETTINGS_COPY);
    (void)mkdir("state/" SETTINGS_COPY_DIRECTORY, 0700);
    put_file("state/" SETTINGS_COPY_DIRECTORY "/" SETTINGS_COPY, buffer_slice(&bytes));
    put_file("conf", slice_from_text(local));
    struct settings *settings = settings_read_to_start("conf", &errors, &said);
    buffer_append(&errors, slice_make("", 1));
    buffer_append(&said, slice_make("", 1));
    assert_string_equal((const char *)errors.data, expected);
    assert_string_equal((const char *)said.data, conflict);
    assert_int_equal(unlink("state/" SETTINGS_COPY_DIRECTORY "/" SETTINGS_COPY), 0);
    buffer_done(&bytes);
    buffer_done(&errors);
    buffer_done(&said);
    return settings;
}

static bool is(struct slice s, const char *text)
{
    return slice_equal(s, slice_from_text(text));
}

static void both_are_one_configuration(void **state)
{
    (void)state;
    struct settings *settings = read_both(
        LOCAL "server m0 { address = \"192.0.2.9:25\" }\n",
        "postmaster = ann@example.com\n" SHARED "domain b.example { deliver-to = m0 }\n", "");
    assert_non_null(settings);
    struct settings *child = parse_again(settings, SETTINGS_FOR_ALL);
    const struct settings *both[] = {settings, child};
    for (size_t i = 0; i < 2; i++) {
        const struct service_config *config = settings_config(both[i]);
        assert_true(is(config->hostname, "mx2.example.net"));
        assert_int_equal(config->listener_count, 1);
        assert_int_equal(config->relay.server_count, 2);
        assert_int_equal(config->relay.route_count, 2);
        assert_true(is(config->relay.postmaster, "ann@example.com"));
        assert_int_equal(config->settings_version, 3);
        assert_false(config->joining);
    }
    settings_free(child);
    settings_free(settings);
}

static void what_is_local_is_refused_with_its_line(void **state)
{
    (void)state;
    assert_null(read_both(
        LOCAL, SHARED "\nhostname = other.example.net\nstate = /tmp\nloops = 3\nreserve = 1G\n",
        "settings:4: 'hostname' stands in each node's own file only\n"
        "settings:5: 'state' stands in each node's own file only\n"
        "settings:6: 'loops' stands in each node's own file only\n"
        "settings:7: 'reserve' stands in each node's own file only\n"));
    assert_null(read_both(LOCAL, SHARED "listen b { address = \"127.0.0.1:2626\" }\n",
                          "settings:3: a listen block stands in each node's own file only\n"));
    assert_null(read_both(LOCAL, SHARED "limits { connections = 5 }\n",
                          "settings:3: a limits block stands in each node's own file only\n"));
    assert_null(read_both(LOCAL,
                          SHARED "server b { address = b.example  source-address = 192.0.2.2 }\n",
                          "settings:3: 'source-address' stands in each node's own file only\n"));
}

/* Programs are not named by who can write to the database. */
static void no_program_comes_with_them(void **state)
{
    (void)state;
    assert_null(read_both(LOCAL, SHARED "alert a { exec = /bin/true }\n",
                          "settings:3: 'exec' stands in each node's own file only\n"
                          "settings:3: alert 'a' needs one of exec, url, url-file and mail\n"));
}

/* Nor a socket, to which the keeper would connect with its rights. */
static void no_socket_comes_with_them(void **state)
{
    (void)state;
    assert_null(read_both(
        LOCAL,
        SHARED "milter a { address = \"unix:/run/a.sock\" }\n"
               "milter b { address = \"LOCAL:/run/b.sock\" }\n",
        "settings:3: address: 'unix:/run/a.sock' is a socket of one machine; such a milter stands "
        "in each node's own file only\n"
        "settings:4: address: 'LOCAL:/run/b.sock' is a socket of one machine; such a milter stands "
        "in each node's own file only\n"));
    struct settings *settings =
        read_both(LOCAL "milter a { address = \"unix:/run/a.sock\" }\n", SHARED, "");
    assert_non_null(settings);
    settings_free(settings);
}

static void conflicts_name_both_texts(void **state)
{
    (void)state;
    assert_null(read_both(
        LOCAL "server m1 { address = \"192.0.2.9:25\" }\n"
              "domain example.com { deliver-to = m1 }\n"
              "postmaster = a@example.com\n",
        SHARED "postmaster = b@example.com\npostmaster = c@example.com\n",
        "settings:1: server 'm1' is there twice; first in line 4 of the node's own file conf\n"
        "settings:2: domain 'example.com' is there twice; first in line 5 of the node's own file "
        "conf\n"
        "settings:3: 'postmaster' is given twice; first in line 6 of the node's own file conf\n"
        "settings:4: 'postmaster' is given twice; first in line 6 of the node's own file conf\n"));
    put_file("more", SLICE_LITERAL("\nserver m1 { address = \"192.0.2.9:25\" }\n"));
    assert_null(read_both(LOCAL "include more\n", SHARED,
                          "settings:1: server 'm1' is there twice; first in line 2 of the node's "
                          "own file more\n"));
    assert_null(read_both(LOCAL, SHARED SHARED,
                          "settings:3: server 'm1' is there twice; first in line 1\n"
                          "settings:4: domain 'example.com' is there twice; first in line 2\n"));
}

static void errors_of_both_are_said(void **state)
{
    (void)state;
    assert_null(read_both(LOCAL "domain a.example { deliver-to = m7 }\n", SHARED "relai x { }\n",
                          "conf:4: there is no server 'm7'\n"
                          "settings:3: unknown block 'relai'; there are listen, server, domain, "
                          "relay, limits\n"));
}

static void files_of_a_machine_are_refused(void **state)
{
    (void)state;
    put_file("list", SLICE_LITERAL("b.example\n"));
    put_file("password", SLICE_LITERAL("secret\n"));
    static const char refusal[] =
        "settings:3: '%s' is a file of one machine; give it to the settings and name it "
        "cluster:NAME\n";
    char expected[256];
    snprintf(expected, sizeof(expected), refusal, "list");
    assert_null(read_both(LOCAL, SHARED "domain file:list { deliver-to = m1 }\n", expected));
    assert_null(read_both(LOCAL, SHARED "include list\n", expected));
    snprintf(expected, sizeof(expected), refusal, "password");
    assert_null(read_both(LOCAL,
                          SHARED "server s { address = s.example  tls = encrypt  auth-user = u  "
                                 "auth-password-file = password }\n",
                          expected));
    assert_null(read_both(
        LOCAL, SHARED "server s { address = s.example  tls-ca = cluster:none  tls = required }\n",
        "settings:3: cluster:none: is not in the cluster's settings\n"));
}

static const struct settings_file four_files[] = {
    {{(const uint8_t *)"password", 8}, {(const uint8_t *)"secret\n", 7}},
    {{(const uint8_t *)"list", 4}, {(const uint8_t *)"b.example\nc.example\n", 20}},
    {{(const uint8_t *)"more", 4}, {(const uint8_t *)"postmaster = d@example.com\n", 27}},
    {{(const uint8_t *)"old-key", 7}, {(const uint8_t *)"old secret\n", 11}},
};

static bool has_text(const struct settings *settings, unsigned readers, const char *text)
{
    struct buffer expanded;
    buffer_init(&expanded, 0);
    settings_expand(settings, readers, &expanded);
    buffer_append(&expanded, slice_make("", 1));
    bool has = memmem(expanded.data, expanded.length, text, strlen(text)) != NULL;
    buffer_done(&expanded);
    return has;
}

static void files_come_with_the_text(void **state)
{
    (void)state;
    struct settings_version version = {
        .number = 4,
        .text =
            SLICE_LITERAL(SHARED "include cluster:more\n"
                                 "domain file:cluster:list { deliver-to = m1 }\n"
                                 "server s { address = s.example  tls = encrypt  auth-user = u  "
                                 "auth-password-file = cluster:password }\n"),
        .files = four_files,
        .file_count = 4};
    struct settings *settings = read_version(
        LOCAL, &version,
        "settings:5: warning: auth-user: with tls = encrypt the password goes to whoever answers; "
        "tls = required finds out who that is\n"
        "settings:5: warning: no route uses server 's'\n");
    assert_non_null(settings);
    assert_int_equal(settings_config(settings)->relay.route_count, 2);
    assert_int_equal(settings_config(settings)->relay.routes[1].domain_count, 2);
    assert_true(is(settings_config(settings)->relay.postmaster, "d@example.com"));
    assert_true(is(settings_config(settings)->relay.servers[1].auth_password, "secret"));
    /* Each secret for its reader; what nothing names for nobody. */
    assert_true(has_text(settings, SETTINGS_FOR_EDGE_OUT, "secret\n"));
    assert_false(has_text(settings, SETTINGS_FOR_ALL, "secret\n"));
    assert_true(has_text(settings, SETTINGS_FOR_ALL, "c.example"));
    assert_false(has_text(settings, 0xff & ~SETTINGS_FOR_EDGE_OUT, "secret"));
    assert_false(has_text(settings, SETTINGS_FOR_EDGE_OUT, "old secret"));
    struct settings *child = parse_again(settings, SETTINGS_FOR_ALL);
    assert_int_equal(settings_config(child)->relay.routes[1].domain_count, 2);
    assert_int_equal(settings_config(child)->relay.servers[1].auth_password.length, 0);
    settings_free(child);
    settings_free(settings);
}

/* A file that is public cannot be a secret, too. */
static void a_file_serves_one_thing(void **state)
{
    (void)state;
    struct settings_version version = {
        .number = 4,
        .text =
            SLICE_LITERAL(SHARED "domain file:cluster:password { deliver-to = m1 }\n"
                                 "server s { address = s.example  tls = encrypt  auth-user = u  "
                                 "auth-password-file = cluster:password }\n"),
        .files = four_files,
        .file_count = 4};
    assert_null(
        read_version(LOCAL, &version,
                     "settings:4: cluster:password: a file with a secret serves nothing else\n"));
}

static void lists_of_recipients_come_with_it(void **state)
{
    (void)state;
    const struct settings_file files[] = {
        {SLICE_LITERAL("people"), SLICE_LITERAL("ann@example.com\nbob@example.com\n")},
        {SLICE_LITERAL("strangers"), SLICE_LITERAL("ann@other.example\n")}};
    struct settings_version version = {
        .number = 4,
        .text = SLICE_LITERAL("server m1 { address = \"192.0.2.1:25\" }\n"
                              "domain example.com { deliver-to = m1  "
                              "recipients = file:cluster:people }\n"
                              "domain b.example { deliver-to = m1  "
                              "recipients = file:cluster:strangers }\n"),
        .files = files,
        .file_count = 2};
    struct settings *settings = read_version(
        LOCAL, &version,
        "settings:3: warning: recipients: cluster:strangers names nobody of this block; the list "
        "will not be used\n");
    assert_non_null(settings);
    const struct route_config *route = &settings_config(settings)->relay.routes[0];
    assert_int_equal(route->recipients, RECIPIENTS_LIST);
    assert_true(route_list_is_shared(route) && !route_list_is_file(route));
    assert_true(is(route->recipients_list, "cluster:people"));
    assert_true(slice_equal(route->recipients_text, files[0].content));
    struct settings *reader = parse_again(settings, SETTINGS_FOR_HELPER);
    assert_true(
        slice_equal(settings_config(reader)->relay.routes[0].recipients_text, files[0].content));
    struct settings *other = parse_again(settings, SETTINGS_FOR_ALL);
    assert_int_equal(settings_config(other)->relay.routes[0].recipients_text.length, 0);
    assert_int_equal(settings_config(other)->relay.routes[0].recipients, RECIPIENTS_LIST);
    settings_free(other);
    settings_free(reader);
    settings_free(settings);
}

#define USERS                                                                                      \
    "{\"users\":1,\"secret\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}\n"                  \
    "{\"name\":\"ann@example.com\",\"addresses\":[\"ann@example.com\"]}\n"

static void the_table_of_users_comes_with_it(void **state)
{
    (void)state;
    struct settings_file file = {SLICE_LITERAL(SETTINGS_USERS_FILE), SLICE_LITERAL(USERS)};
    struct settings_version version = {
        .number = 4, .text = SLICE_LITERAL(SHARED), .files = &file, .file_count = 1};
    struct settings *settings = read_version(LOCAL, &version, "");
    assert_non_null(settings);
    assert_true(slice_equal(settings_config(settings)->users_text, file.content));
    assert_true(has_text(settings, SETTINGS_FOR_LOGIN, "ann@example.com"));
    assert_false(has_text(settings, 0xff & ~SETTINGS_FOR_LOGIN, "ann@example.com"));
    struct settings *other = parse_again(settings, SETTINGS_FOR_ALL);
    assert_int_equal(settings_config(other)->users_text.length, 0);
    settings_free(other);
    settings_free(settings);
    file.content = SLICE_LITERAL(USERS "ann:secret\n");
    assert_null(
        read_version(LOCAL, &version, "cluster:users:3: this is no line of a table of users\n"));
}

static void own_listeners_may_have_their_certificates(void **state)
{
    (void)state;
    const struct settings_file files[] = {
        {SLICE_LITERAL("mx.pem"), SLICE_LITERAL(CERTIFICATE_PEM KEY_PEM)}};
    struct settings_version version = {
        .number = 4, .text = SLICE_LITERAL(SHARED), .files = files, .file_count = 1};
    struct settings *settings = read_version("hostname = mx2.example.net\n"
                                             "listen mx { address = \"127.0.0.1:2525\"  tls = "
                                             "starttls  certificate = cluster:mx.pem }\n",
                                             &version, "");
    assert_non_null(settings);
    assert_int_equal(settings_config(settings)->listeners[0].certificate_count, 1);
    settings_free(settings);
    version.file_count = 0;
    assert_null(read_version("hostname = mx2.example.net\n"
                             "listen mx { address = \"127.0.0.1:2525\"  tls = starttls  "
                             "certificate = cluster:mx.pem }\n",
                             &version,
                             "conf:2: cluster:mx.pem: is not in the cluster's settings\n"));
}

/* At its first start a member has no copy, and may not reach the database. */
static void without_settings_listeners_wait_for_what_they_name(void **state)
{
    (void)state;
    put_file("conf",
             SLICE_LITERAL("hostname = mx2.example.net\n"
                           "state = none\n"
                           "cluster { database = \"host=db\"  name = n1 }\n"
                           "listen mx { address = \"127.0.0.1:2525\" }\n"
                           "listen tls { address = \"127.0.0.1:2526\"  tls = starttls  "
                           "certificate = cluster:mx.pem }\n"
                           "listen filtered { address = \"127.0.0.1:2527\"  milters = {clam} }\n"));
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read("conf", &errors);
    buffer_append(&errors, slice_make("", 1));
    assert_non_null(settings);
    assert_non_null(strstr((const char *)errors.data,
                           "conf:5: warning: 'cluster:mx.pem' is not here before the cluster's "
                           "settings\n"
                           "conf:6: warning: 'clam' is not here before the cluster's settings\n"));
    assert_null(strstr((const char *)errors.data, "postmaster")); /* they may bring domains */
    assert_null(strstr((const char *)errors.data, "all mail is refused"));
    struct settings *child = parse_again(settings, SETTINGS_FOR_ALL);
    const struct settings *both[] = {settings, child};
    for (size_t i = 0; i < 2; i++) {
        assert_true(settings_config(both[i])->joining);
        assert_int_equal(settings_config(both[i])->listener_count, 1);
        assert_int_equal(settings_config(both[i])->listeners[0].at.port, 2525);
    }
    settings_free(child);
    settings_free(settings);
    buffer_done(&errors);
}

/* The rows that the settings may not have are those that concern one machine. */
static void what_takes_a_restart_is_local(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < settings_table_length; i++) {
        const struct setting *setting = &settings_table[i];
        bool local = setting->local || setting->restart || settings_blocks[setting->block].local;
        assert_true(local || !setting->restart);
        /* Paths of a machine that are not read with the configuration. */
        assert_true(local || setting->type != SETTING_PATH);
        assert_true(local || setting->type != SETTING_PROGRAM);
        assert_true(local || setting->type != SETTING_ENDPOINTS);
    }
}

static struct settings *read_copy(const char *expected)
{
    put_file("conf", SLICE_LITERAL(LOCAL));
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read_copy("conf", SETTINGS_COPY, &errors);
    buffer_append(&errors, slice_make("", 1));
    assert_string_equal((const char *)errors.data, expected);
    buffer_done(&errors);
    return settings;
}

static void the_copy_is_read_if_it_is_whole(void **state)
{
    (void)state;
    const char *name = "state/" SETTINGS_COPY_DIRECTORY "/" SETTINGS_COPY;
    assert_int_equal(mkdir("state", 0700), 0);
    assert_int_equal(mkdir("state/" SETTINGS_COPY_DIRECTORY, 0700), 0);
    assert_null(read_copy("conf:1: the copy of the cluster's settings: not found\n"));
    struct settings_version version = {
        .number = 9, .text = SLICE_LITERAL(SHARED), .files = four_files, .file_count = 4};
    struct buffer bytes;
    buffer_init(&bytes, 0);
    settings_version_put(&bytes, &version);
    put_file(name, buffer_slice(&bytes));
    struct settings *settings = read_copy("");
    assert_non_null(settings);
    assert_int_equal(settings_config(settings)->settings_version, 9);
    assert_int_equal(settings_config(settings)->relay.route_count, 1);
    settings_free(settings);
    put_file(name, slice_take(buffer_slice(&bytes), bytes.length - 20));
    assert_null(read_copy("conf:1: the copy of the cluster's settings: corrupt\n"));
    assert_int_equal(unlink(name), 0);
    assert_int_equal(symlink("../../conf", name), 0);
    struct buffer errors;
    buffer_init(&errors, 0);
    assert_null(settings_read_copy("conf", SETTINGS_COPY, &errors));
    buffer_done(&errors);
    buffer_done(&bytes);
}

#define MEMBER LOCAL "cluster { database = \"host=db\"  name = n1 }\n"

static void at_a_start_the_own_file_holds(void **state)
{
    (void)state;
    struct settings *settings = read_to_start(
        MEMBER "server m1 { address = \"192.0.2.9:25\" }\n"
               "domain b.example { deliver-to = m1 }\n"
               "postmaster = bob@example.com\n",
        "postmaster = ann@example.com\n" SHARED
        "domain {B.example, c.example} { deliver-to = m1 }\n",
        "settings:1: warning: 'postmaster' is given twice; first in line 7 of the node's own "
        "file conf\n"
        "settings:2: warning: server 'm1' is there twice; first in line 5 of the node's own file "
        "conf\n"
        "settings:4: warning: domain 'b.example' is there twice; first in line 6 of the node's own "
        "file conf\n"
        "settings:1: warning: 'postmaster' gives way to that of the node's own file\n"
        "settings:2: warning: server 'm1' gives way to that of the node's own file\n"
        "settings:4: warning: domain 'B.example' gives way to that of the node's own file\n",
        "settings:1: 'postmaster' is given twice; first in line 7 of the node's own "
        "file conf\n"
        "settings:2: server 'm1' is there twice; first in line 5 of the node's own file conf\n"
        "settings:4: domain 'b.example' is there twice; first in line 6 of the node's own "
        "file conf\n");
    assert_non_null(settings);
    const struct service_config *config = settings_config(settings);
    assert_int_equal(config->settings_version, 3);
    assert_false(config->joining);
    assert_int_equal(config->relay.server_count, 1);
    assert_int_equal(config->relay.route_count, 3);
    struct settings *again = parse_again(settings, SETTINGS_FOR_ALL);
    assert_int_equal(settings_config(again)->relay.route_count, 3);
    settings_free(again);
    settings_free(settings);
    /* While it runs, and before they are made, the same is an error. */
    assert_null(read_both(MEMBER "server m1 { address = \"192.0.2.9:25\" }\n", SHARED,
                          "settings:1: server 'm1' is there twice; first in line 5 of the node's "
                          "own file conf\n"));
}

/* What goes together in no other way. */
static void at_a_start_the_own_file_is_enough(void **state)
{
    (void)state;
    struct settings *settings = read_to_start(MEMBER "server m1 { address = \"192.0.2.9:25\" }\n"
                                                     "domain a.example { deliver-to = m1 }\n",
                                              "domain b.example { deliver-to = m0 }\n",
                                              "settings:1: warning: there is no server 'm0'\n",
                                              "settings:1: there is no server 'm0'\n");
    assert_non_null(settings);
    assert_true(settings_config(settings)->joining);
    assert_int_equal(settings_config(settings)->relay.route_count, 1);
    settings_free(settings);
    /* What is wrong with the file itself is an error as ever, and said alone. */
    assert_null(read_to_start(MEMBER "domain a.example { deliver-to = m7 }\n",
                              "domain b.example { deliver-to = m0 }\n",
                              "conf:5: there is no server 'm7'\n", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_are_one_configuration),
        cmocka_unit_test(what_is_local_is_refused_with_its_line),
        cmocka_unit_test(no_program_comes_with_them),
        cmocka_unit_test(no_socket_comes_with_them),
        cmocka_unit_test(conflicts_name_both_texts),
        cmocka_unit_test(errors_of_both_are_said),
        cmocka_unit_test(files_of_a_machine_are_refused),
        cmocka_unit_test(files_come_with_the_text),
        cmocka_unit_test(a_file_serves_one_thing),
        cmocka_unit_test(lists_of_recipients_come_with_it),
        cmocka_unit_test(the_table_of_users_comes_with_it),
        cmocka_unit_test(own_listeners_may_have_their_certificates),
        cmocka_unit_test(without_settings_listeners_wait_for_what_they_name),
        cmocka_unit_test(what_takes_a_restart_is_local),
        cmocka_unit_test(the_copy_is_read_if_it_is_whole),
        cmocka_unit_test(at_a_start_the_own_file_holds),
        cmocka_unit_test(at_a_start_the_own_file_is_enough),
    };
    char directory[] = "/tmp/test_settings_shared.XXXXXX";
    assert_non_null(mkdtemp(directory));
    assert_int_equal(chdir(directory), 0);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[sizeof(directory) + 16];
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command) != 0 || failed != 0;
}
