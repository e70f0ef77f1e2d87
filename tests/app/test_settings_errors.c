/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said about a wrong configuration: every message, with its file and line, word for word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/settings.h"
#include "certificates.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A good configuration of five lines, to be followed by what is wrong. */
#define GOOD                                                                                       \
    "hostname = mx2.example.net\n"                                                                 \
    "listen mx { address = \"127.0.0.1:2525\" }\n"                                                 \
    "server m1 { address = \"192.0.2.1:25\" }\n"                                                   \
    "domain example.com { deliver-to = m1 }\n"                                                     \
    "# from here on\n"

struct wrong {
    const char *text;
    const char *errors;
};

static void put_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void put_secret(const char *name, const char *text)
{
    put_file(name, text);
    assert_int_equal(chmod(name, 0600), 0);
}

/* Reads the text; what is said must be `expected`, and so again from the expanded text's sources.
 */
static void check_errors(const char *text, const char *expected)
{
    put_file("conf", text);
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read("conf", &errors);
    buffer_append(&errors, slice_make("", 1));
    if (strcmp((const char *)errors.data, expected) != 0) {
        print_error("in:\n%s", text);
    }
    assert_string_equal((const char *)errors.data, expected);
    assert_null(settings);
    buffer_done(&errors);
}

static void check_all(const struct wrong *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_errors(cases[i].text, cases[i].errors);
    }
}
#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof(cases[0]))

static void broken_syntax(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "state = \"run\n", "conf:6: this string is not closed; '\"' is missing\n"},
        {GOOD "state = \"a\\x\"\n",
         "conf:6: unknown escape in a string; there are \\\" \\\\ \\n \\t\n"},
        {GOOD "state = 'run'\n", "conf:6: strings stand in double quotes\n"},
        {GOOD "state = run;\n",
         "conf:6: ';' is not used here; the next key or line ends a value\n"},
        {GOOD "state = r\001n\n", "conf:6: control character\n"},
        {GOOD "state = \"r\001n\"\n", "conf:6: control character in a string\n"},
        {GOOD "state =\n", "conf:6: a value is missing after 'state ='\n"},
        {GOOD "state =\nnode = 1\n", "conf:6: a value is missing after 'state ='\n"},
        {GOOD "state run\n", "conf:6: '=' is missing after 'state'\n"},
        {GOOD "state\n", "conf:6: '=' is missing after 'state'\n"},
        {GOOD "state == run\n", "conf:6: a value is missing after 'state ='\n"},
        {GOOD "= run\n", "conf:6: '=' is not expected here\n"},
        {GOOD "dns-forwarders = 192.0.2.1, 192.0.2.2\n",
         "conf:6: several values stand in braces: dns-forwarders = {a, b}\n"},
        {GOOD "dns-forwarders = {192.0.2.1 192.0.2.2}\n",
         "conf:6: ',' is missing before '192.0.2.2' in a list\n"},
        {GOOD "dns-forwarders = {192.0.2.1,\nnode = 1\n",
         "conf:6: dns-forwarders: this list is not closed; '}' is missing\n"},
        {GOOD "dns-forwarders = {192.0.2.1",
         "conf:6: dns-forwarders: this list is not closed; '}' is missing\n"},
        {GOOD "dns-forwarders = {,}\n",
         "conf:6: dns-forwarders: a list has values, separated by commas: {a, b}\n"},
        {GOOD "dns-forwarders = {}\n", "conf:6: dns-forwarders: the list is empty\n"},
    };
    CHECK_ALL(cases);
}

static void broken_blocks(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "server m2 {\n address = \"a:25\"\n",
         "conf:6: the block 'server m2 {' is not closed; '}' is missing\n"},
        {GOOD "server m2 {\n address = \"a:25\"\nserver m3 { address = \"a:25\" }\n",
         "conf:6: the block 'server m2 {' is not closed; '}' is missing\n"},
        {GOOD "}\n", "conf:6: '}' closes no block of this file\n"},
        {GOOD "server m2\n", "conf:6: '{' is missing after 'server'\n"},
        {GOOD "server {\n address = \"a:25\"\n}\n",
         "conf:6: server needs a title: server NAME {\n"},
        {GOOD "server { }\n", "conf:6: server needs a title: server NAME {\n"},
        {GOOD "server {m2, m3} { address = \"a:25\" }\n",
         "conf:6: a server block has one title, not a list\n"},
        {GOOD "limits x { hops = 50 }\n", "conf:6: a limits block has no title\n"},
        {GOOD "limits { }\nlimits { }\n", "conf:7: limits is there twice; first in line 6\n"},
        {GOOD "servr m2 { address = \"a:25\" }\n",
         "conf:6: unknown block 'servr'; there are listen, server, domain, relay, limits\n"},
        {GOOD "server m2 { address = \"a:25\" tls { } }\n",
         "conf:6: unknown block 'tls'; there are listen, server, domain, relay, limits\n"},
        {GOOD "a{a{a{a{a{a{a{a{a{a{\n",
         "conf:6: unknown block 'a'; there are listen, server, domain, relay, limits\n"
         "conf:6: the block 'a {' is not closed; '}' is missing\n"},
        {GOOD "a {\n b { c = {d} }\n}\nnode = x\n",
         "conf:6: unknown block 'a'; there are listen, server, domain, relay, limits\n"
         "conf:9: node: 'x' is no number\n"},
    };
    CHECK_ALL(cases);
}

static void growing_retries(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "domain a.example { deliver-to = m1 retry = {x2, 4h} }\n",
         "conf:6: retry: 'x2' stands between the delay that grows and the longest: {5m, x2, 4h}\n"},
        {GOOD "domain a.example { deliver-to = m1 retry = {5m, x2} }\n",
         "conf:6: retry: 'x2' stands between the delay that grows and the longest: {5m, x2, 4h}\n"},
        {GOOD "domain a.example { deliver-to = m1 retry = {5m, x2, 1h, 4h} }\n",
         "conf:6: retry: 'x2' stands between the delay that grows and the longest: {5m, x2, 4h}\n"},
        {GOOD "domain a.example { deliver-to = m1 retry = {5m, x2, 1m} }\n",
         "conf:6: retry: what grows ends above where it begins\n"},
        {GOOD "domain a.example { deliver-to = m1 retry = {1s, x1.01, 4h} }\n",
         "conf:6: retry: with x1.01 it takes more than 64 steps\n"},
        {GOOD "domain a.example { deliver-to = m1 retry = {5m, x1, 4h} }\n",
         "conf:6: retry: 'x1' is no duration; write a number and a unit: 700ms, 30s, 10m, 2h, 5d "
         "or 1w\n"},
    };
    CHECK_ALL(cases);
}

static void logins(void **state)
{
    (void)state;
    put_file("secret", "tanstaaf\n");
    put_file("empty", "\n");
    put_file("lines", "a\nb\n");
    static const struct wrong cases[] = {
        {GOOD "server m2 { address = \"127.0.0.1:25\" auth-user = tim }\n",
         "conf:6: auth-user and auth-password-file go together\n"},
        {GOOD "server m2 { address = \"127.0.0.1:25\" auth-password-file = secret }\n",
         "conf:6: auth-user and auth-password-file go together\n"},
        {GOOD "server m2 { address = \"192.0.2.1:25\"\n auth-user = tim\n"
              " auth-password-file = secret }\n",
         "conf:7: auth-user: logging in needs tls = required, encrypt or implicit, but for servers "
         "on this machine (127.0.0.1, ::1, localhost)\n"},
        {GOOD "server m2 { address = localhost\n auth-user = tim\n auth-password-file = none }\n",
         "conf:8: none: No such file or directory\n"},
        {GOOD "server m2 { address = localhost\n auth-user = tim\n auth-password-file = empty }\n",
         "conf:8: empty: one line of 1 to 255 octets is needed\n"},
        {GOOD "server m2 { address = localhost\n auth-user = tim\n auth-password-file = lines }\n",
         "conf:8: lines: one line of 1 to 255 octets is needed\n"},
        {GOOD "domain \"file:secret\" { deliver-to = m1 }\n"
              "server m2 { address = localhost auth-user = tim auth-password-file = secret }\n",
         "conf:7: secret: a file with a secret serves nothing else\n"},
    };
    CHECK_ALL(cases);
    unlink("secret");
    unlink("empty");
    unlink("lines");
}

static void ldap_blocks(void **state)
{
    (void)state;
    put_file("secret", "tanstaaf\n");
    static const struct wrong cases[] = {
        {GOOD "ldap x { url = \"ldap://localhost\" tls = none }\n",
         "conf:6: ldap 'x' needs base or dn\n"},
        {GOOD "ldap x { base = \"o=x\" tls = none }\n", "conf:6: ldap 'x' needs url = ...\n"},
        {GOOD "ldap x { base = \"o=x\" tls = none\n url = \"http://localhost\" }\n",
         "conf:7: url: 'http://localhost' is neither ldaps://HOST[:PORT] nor ldap://HOST[:PORT]\n"},
        {GOOD "ldap x { base = \"o=x\" tls = none\n url = \"ldaps://localhost\" }\n",
         "conf:7: url: ldaps is TLS, but tls = none\n"},
        {GOOD "ldap x { base = \"o=x\" tls = none\n url = \"ldap://192.0.2.1\" }\n",
         "conf:7: url: tls = none is only for servers on this machine (127.0.0.1, ::1, localhost): "
         "passwords go there\n"},
        {GOOD "ldap x { url = \"ldap://[::1]\" tls = none base = \"o=x\"\n filter = \"(a=%u\" }\n",
         "conf:7: filter: '(a=%u' must be one pair of parentheses with all else in it\n"},
        {GOOD
         "ldap x { url = \"ldap://[::1]\" tls = none base = \"o=x\"\n recipients-filter = \"(a=b\" "
         "}\n",
         "conf:7: recipients-filter: '(a=b' must be one pair of parentheses with all else in it\n"},
        {GOOD "ldap x { url = \"ldap://[::1]\" tls = none base = \"o=x\"\n recipients-filter = "
              "\"(a=%u)\" }\n",
         "conf:7: recipients-filter: '(a=%u)' has a % (which is \\25 if it stands for itself)\n"},
        {GOOD "ldap x { url = \"ldap://[::1]\" tls = none\n dn = \"uid=ann\" }\n",
         "conf:7: dn: 'uid=ann' has neither %u, %l nor %d\n"},
        {GOOD "ldap x { url = \"ldap://[::1]\" tls = none base = \"o=x\"\n bind-dn = \"cn=y\" }\n",
         "conf:7: bind-dn and bind-password-file go together\n"},
        {GOOD "ldap x { url = \"ldap://[::1]\" tls = none base = \"o=x\"\n"
              " address-attribute = {mail, \"a b\"} }\n",
         "conf:7: address-attribute: 'a b' is no name of an attribute\n"},
        {GOOD "ldap x { url = \"ldap://[::1]\" tls = none base = \"o=x\"\n tls-ca = secret }\n",
         "conf:7: tls-ca: secret: there is no certificate in it\n"},
        {GOOD "listen s { address = \"127.0.0.1:587\" protocol = submission\n auth = pam:a/b }\n",
         "conf:7: auth: 'a/b' is neither the name of a PAM service nor the absolute path of its "
         "file\n"},
        {GOOD "listen s { address = \"127.0.0.1:587\" protocol = submission\n auth = ldap:y }\n",
         "conf:7: auth: there is no ldap block 'y'\n"},
    };
    CHECK_ALL(cases);
    unlink("secret");
}

static void cluster_blocks(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "cluster { name = n1 }\n", "conf:6: cluster needs database = ...\n"},
        {GOOD "cluster x { database = \"host=a\" }\n", "conf:6: a cluster block has no title\n"},
        {GOOD "cluster { database = \"host=a\" }\ncluster { database = \"host=b\" }\n",
         "conf:7: cluster is there twice; first in line 6\n"},
        {GOOD "cluster { database = \"host=a password=tanstaaf\" }\n",
         "conf:6: database: password stands in a file: database-password-file\n"},
        {GOOD "cluster { database = \"target_session_attrs=any host=a\" }\n",
         "conf:6: database: target_session_attrs is set by the program\n"},
        {GOOD "cluster {\n database = \"postgresql://u:tanstaaf@a/x?application_name=y\" }\n",
         "conf:7: database: application_name is set by the program\n"
         "conf:7: database: password stands in a file: database-password-file\n"},
        {GOOD "cluster { database = \"bogus=1\" }\n",
         "conf:6: database: invalid connection option \"bogus\"\n"},
        {GOOD "cluster { database = \"postgresql://a/x?bogus=1\" }\n",
         "conf:6: database: invalid URI query parameter: \"bogus\"\n"},
        {GOOD "cluster { database = \"host=a sslpassword=tan staaf=1\" }\n",
         "conf:6: database: invalid connection option ...\n"},
        {GOOD "cluster { database = \"host=a password=\\\"tan staaf\\\"\" }\n",
         "conf:6: database: missing ... in connection info string\n"},
        {GOOD "cluster { database = \"host=a password='tan staaf\" }\n",
         "conf:6: database: unterminated quoted string in connection info string\n"},
        {GOOD "cluster { database = \"a\" }\n",
         "conf:6: database: missing ... in connection info string\n"},
        {GOOD "cluster { database = \"host=a,b,c port=1,2\" }\n",
         "conf:6: database: hosts, addresses and ports don't match, or are more than 16\n"},
        {GOOD "cluster { database = \"host=a\" role = {node, hubb} }\n",
         "conf:6: role: 'hubb' is not one of gateway, node, hub; did you mean 'hub'?\n"},
        {GOOD "cluster { database = \"host=a\" name = \"N 1\" }\n",
         "conf:6: name: 'N 1' is not 1 to 63 of a-z, 0-9, '-', '.', '_' that begin and end with a "
         "letter or digit\n"},
        {GOOD "cluster { database = \"host=a\" site = -x }\n",
         "conf:6: site: '-x' is not 1 to 63 of a-z, 0-9, '-', '.', '_' that begin and end with a "
         "letter or digit\n"},
        {GOOD "domain a.example { deliver-to = m1\n nodes = {n1, N2} }\n",
         "conf:7: nodes: 'N2' is not 1 to 63 of a-z, 0-9, '-', '.', '_' that begin and end with a "
         "letter or digit\n"},
        {GOOD "domain a.example { deliver-to = m1\n nodes = n1\n site = fra }\n",
         "conf:8: nodes and site: choose one of them\n"},
        {GOOD "domain a.example { deliver-to = m1\n site = \"a b\" }\n",
         "conf:7: site: 'a b' is not 1 to 63 of a-z, 0-9, '-', '.', '_' that begin and end with a "
         "letter or digit\n"},
        {GOOD "cluster { database = \"host=a\"\n database-password-file = nowhere }\n",
         "conf:7: nowhere: No such file or directory\n"},
    };
    CHECK_ALL(cases);
}

static void standby_blocks(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "standby { }\n", "conf:6: standby needs of = ...\n"},
        {GOOD "standby { of = b\n storage = attached }\n",
         "conf:7: unknown key 'storage' in a standby block\n"},
        {GOOD "standby { name = b  of = b }\n",
         "conf:6: of: 'b' is this machine's own name; see name\n"},
        {GOOD "state = \"/srv/mail/\"\nstandby { of = b\n known-state = \"/srv/mail/known\" }\n",
         "conf:8: known-state: '/srv/mail/known' is in the shared state: name a directory of this "
         "machine's own\n"},
        {GOOD "standby { of = b\n known-state = known }\n",
         "conf:7: known-state: 'known' is not an absolute path\n"},
        {GOOD "standby { of = b }\ncluster { database = \"host=a\" }\n",
         "conf:6: standby is for machines without a database; a cluster has no need of it\n"},
    };
    CHECK_ALL(cases);
}

static void guard_blocks(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "guard m1 { }\n", "conf:6: guard 'm1' needs start = ...\n"},
        {GOOD "guard m7 { start = \"/bin/true\" }\n", "conf:6: there is no server 'm7'\n"},
        {GOOD "guard m1 {\n start = \"true\" }\n", "conf:7: start: 'true' is no absolute path\n"},
        {GOOD "guard m1 { start = \"/bin/true\"\n undo = \"/etc/passwd\" }\n",
         "conf:7: undo: '/etc/passwd' is no executable file\n"},
        {GOOD "guard m1 { start = \"/bin/true\" undo-when = server }\n",
         "conf:6: guard 'm1': undo-when needs undo\n"},
        {GOOD "guard m1 { start = \"/bin/true\" undo = \"/bin/true\" undo-when = watch }\n",
         "conf:6: guard 'm1': undo-when = watch needs watch\n"},
        {GOOD "guard m1 { start = \"/bin/true\"\n watch = \"192.0.2.1:25\" }\n",
         "conf:7: watch: that is where mail goes, be it to a standby; name another port or address "
         "of the machine, or use undo-when = server\n"},
        {GOOD "guard m1 { start = \"/bin/true\"\n watch = \"host.example.com:22\" }\n",
         "conf:7: watch: 'host.example.com:22' must be an IP address\n"},
        {GOOD "guard m1 { start = \"/bin/true\"\n witness = \"192.0.2.9\" }\n",
         "conf:7: witness: '192.0.2.9' needs a port: HOST:PORT\n"},
        {GOOD "guard m1 { start = \"/bin/true\" }\nguard m1 { start = \"/bin/true\" }\n",
         "conf:7: guard 'm1' is there twice; first in line 6\n"},
        {GOOD "guard m1 { start = \"/bin/true\"\n after = 0s }\n",
         "conf:7: after: '0s' is out of range; from 1s to 7d\n"},
    };
    CHECK_ALL(cases);
}

static void alert_blocks(void **state)
{
    (void)state;
    put_file("secret", "tanstaaf\n");
    static const struct wrong cases[] = {
        {GOOD "alert people { }\n",
         "conf:6: alert 'people' needs one of exec, url, url-file and mail\n"},
        {GOOD "alert people {\n mail = a@example.com url = \"http://a/\" }\n",
         "conf:6: alert 'people' needs one of exec, url, url-file and mail\n"},
        {GOOD "alert people {\n exec = \"bin/true\" }\n",
         "conf:7: exec: 'bin/true' is no absolute path\n"},
        {GOOD "alert people {\n exec = \"/nonexistent/program\" }\n",
         "conf:7: exec: '/nonexistent/program' is not there\n"},
        {GOOD "alert people {\n exec = \"/etc/passwd\" }\n",
         "conf:7: exec: '/etc/passwd' is no executable file\n"},
        {GOOD "alert people {\n exec = \"/tmp\" }\n",
         "conf:7: exec: '/tmp' is no executable file\n"},
        {GOOD "alert people {\n url = \"ftp://a/\" }\n",
         "conf:7: url: 'ftp://a/' is no http or https address\n"},
        {GOOD "alert people {\n url = \"https:///x\" }\n",
         "conf:7: url: 'https:///x' is no http or https address\n"},
        {GOOD "alert people {\n mail = bob@nowhere.example }\n",
         "conf:7: mail: 'bob@nowhere.example' is in no domain here, and there is no relay to take "
         "it\n"},
        {GOOD "alert people {\n mail = bob@deep.example.com }\n",
         "conf:7: mail: 'bob@deep.example.com' is in no domain here, and there is no relay to take "
         "it\n"},
        {GOOD "alert people { url-file = none\n }\n", "conf:6: none: No such file or directory\n"},
        {GOOD "alert people {\n url-file = secret }\n",
         "conf:7: url-file: there is no http or https address in it\n"},
        {GOOD "alert people { mail = a@example.com\n secret-file = secret }\n",
         "conf:7: secret-file is for a url\n"},
        {GOOD "alert people { url = \"http://a/\"\n secret-file = none }\n",
         "conf:7: none: No such file or directory\n"},
        {GOOD "alert people { mail = a@example.com\n on = {stopped, swiched} }\n",
         "conf:7: on: 'swiched' is no kind of alert; did you mean 'switched'?\n"},
        {GOOD "alert people { mail = a@example.com }\nalert people { mail = d@example.com }\n",
         "conf:7: alert 'people' is there twice; first in line 6\n"},
        {GOOD "alert people { mail = a@example.com\n rate = 0 }\n",
         "conf:7: rate: '0' is out of range; from 1 to 3600\n"},
        {GOOD "alert { mail = a@example.com }\n", "conf:6: alert needs a title: alert NAME {\n"},
    };
    CHECK_ALL(cases);
    unlink("secret");
}

static void keys_and_values(void **state)
{
    (void)state;
    put_file("anchors",
             "; ours\n. 172800 IN DS 20326 8 2 E06D 44B8\nx DNSKEY 257 3 13 AAAA ;x\nx A\n");
    put_file("no-anchors", "; none\n");
    static const struct wrong cases[] = {
        {GOOD "stat = run\n", "conf:6: unknown key 'stat'; did you mean 'state'?\n"},
        {GOOD "keep = 30d\n", "conf:6: unknown key 'keep' here; it belongs in a domain block\n"},
        {GOOD "limits { state = run }\n",
         "conf:6: unknown key 'state' here; it belongs outside of blocks\n"},
        {GOOD "colour = blue\n", "conf:6: unknown key 'colour' in the top of the file\n"},
        {GOOD "limits { colour = blue }\n", "conf:6: unknown key 'colour' in a limits block\n"},
        {GOOD "node = 1\nnode = 2\n", "conf:7: 'node' is given twice; first in line 6\n"},
        {GOOD "node = {1, 2}\n", "conf:6: node takes one value, not a list\n"},
        {GOOD "node = one\n", "conf:6: node: 'one' is no number\n"},
        {GOOD "node = 65536\n", "conf:6: node: '65536' is out of range; from 0 to 65535\n"},
        {GOOD "trace-keep = 30\n",
         "conf:6: trace-keep: '30' is no duration; write a number and a unit: 700ms, 30s, 10m, "
         "2h, 5d or 1w\n"},
        {GOOD "trace-keep = 1ms\n",
         "conf:6: trace-keep: '1ms' is out of range; from 1s to 3660d\n"},
        {GOOD "segment-size = 64X\n", "conf:6: segment-size: '64X' is no size; write a number of "
                                      "bytes, or with K, M, G or T: 64M\n"},
        {GOOD "segment-size = 1K\n",
         "conf:6: segment-size: '1K' is out of range; from 256K to 1G\n"},
        {GOOD "segment-size = 99999999999999999999\n",
         "conf:6: segment-size: '99999999999999999999' is no size; write a number of bytes, or "
         "with K, M, G or T: 64M\n"},
        {GOOD "log = sislog\n", "conf:6: log: 'sislog' is not one of stderr, syslog, journal; did "
                                "you mean 'syslog'?\n"},
        {GOOD "log = paper\n", "conf:6: log: 'paper' is not one of stderr, syslog, journal\n"},
        {GOOD "archive-required = maybe\n",
         "conf:6: archive-required: 'maybe' is not one of no, yes\n"},
        {GOOD "archive-required = yes\n",
         "conf:6: archive-required = yes is not available in this version\n"},
        {GOOD "state = \"\"\n", "conf:6: state: '' is empty\n"},
        {GOOD "group = no-such-group\n",
         "conf:6: group: there is no group 'no-such-group' on this machine\n"},
        {GOOD "postmaster = ann\n",
         "conf:6: postmaster: 'ann' is no address; write local@domain\n"},
        {GOOD "dns-forwarders = {dns.example.net}\n",
         "conf:6: dns-forwarders: 'dns.example.net' must be an IP address\n"},
        {GOOD "dns-trust-anchor = yes\n",
         "conf:6: dns-trust-anchor: no DS or DNSKEY record; write one, or file:PATH with one a "
         "line\n"},
        {GOOD "dns-trust-anchor = \". IN DS 20326 8 2 E06\"\n",
         "conf:6: dns-trust-anchor: no DS or DNSKEY record; write one, or file:PATH with one a "
         "line\n"},
        {GOOD "dns-trust-anchor = \". IN DNSKEY 257 3 8 AwEA-aag=\"\n",
         "conf:6: dns-trust-anchor: no DS or DNSKEY record; write one, or file:PATH with one a "
         "line\n"},
        {GOOD "dns-trust-anchor = file:anchors\n",
         "anchors:4: dns-trust-anchor: no DS or DNSKEY record; write one, or file:PATH with one a "
         "line\n"},
        {GOOD "dns-trust-anchor = file:no-anchors\n",
         "no-anchors:1: dns-trust-anchor: no DS or DNSKEY record; write one, or file:PATH with one "
         "a line\n"},
        {GOOD "dns-trust-anchor = file:anchor\n", "conf:6: anchor: No such file or directory\n"},
        {"hostname = -x\n" GOOD,
         "conf:1: hostname: '-x' is no host name (letters, digits and hyphens, in parts of 1 to 63 "
         "with dots)\n"
         "conf:2: 'hostname' is given twice; first in line 1\n"},
    };
    CHECK_ALL(cases);
}

static void user_of_the_machine(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip(); /* then nobody becomes that user */
    }
    check_errors(GOOD "user = no-such-user\n",
                 "conf:6: user: there is no user 'no-such-user' on this machine\n");
}

static void listeners(void **state)
{
    (void)state;
    put_file("chain", CERTIFICATE_PEM);
    put_secret("key", KEY_PEM);
    put_secret("otherkey", OTHER_KEY_PEM);
    put_secret("words", "no key\n");
    static const struct wrong cases[] = {
        {GOOD "listen x { }\n", "conf:6: listen 'x' needs address = ...\n"},
        {GOOD "listen mx { address = \"127.0.0.1:26\" }\n",
         "conf:6: listen 'mx' is there twice; first in line 2\n"},
        {GOOD "listen x { address = \"127.0.0.1:2525\" }\n",
         "conf:6: address: '127.0.0.1:2525' is listened on already\n"},
        {GOOD "listen x { address = \"localhost:26\" }\n",
         "conf:6: address: 'localhost:26' must be an IP address and a port, such as 0.0.0.0:25 or "
         "[::]:25\n"},
        {GOOD "listen x { address = \"127.0.0.1:66666\" }\n",
         "conf:6: address: '127.0.0.1:66666' has no valid port (1 to 65535) after ':'\n"},
        {GOOD "listen x { address = \"127.0.0.1\" protocol = http }\n",
         "conf:6: address: '127.0.0.1' needs a port: HOST:PORT\n"},
        {GOOD "listen x { address = \"[::1:25\" }\n",
         "conf:6: address: '[::1:25' is no address; write [2001:db8::1]:25\n"},
        {GOOD "listen x { address = \"0.0.0.0:995\" protocol = pop3 }\n",
         "conf:6: protocol = pop3 is not available in this version\n"},
        {GOOD "listen x { address = \"0.0.0.0:465\" tls = implicit }\n",
         "conf:6: tls: needs certificate = FILE\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" protocol = http\n tls = starttls }\n",
         "conf:7: tls: is not there for protocol = http\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" tls = starttls\n certificate = chain\n"
              " key = otherkey }\n",
         "conf:8: certificate chain, key otherkey: key values mismatch\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" tls = starttls\n certificate = chain }\n",
         "conf:7: certificate chain, key chain: there is no private key in it\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" tls = starttls\n"
              " certificate = {chain, missing}\n key = {key, words} }\n",
         "conf:7: missing: No such file or directory\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" tls = starttls\n certificate = chain\n"
              " key = key client-ca = key }\n",
         "conf:8: client-ca: key: there is no certificate in it\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" auth = x }\n",
         "conf:6: auth: 'x' is neither users, \"file:PATH\", ldap:NAME nor pam:SERVICE\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" trusted = {0.0.0.0/0} }\n",
         "conf:6: trusted: '0.0.0.0/0' lets everybody pass for anybody\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" proxy-from = {10.0.0.1/8, ::/0} }\n",
         "conf:6: proxy-from: '10.0.0.1/8' has bits set beyond its prefix\n"
         "conf:6: proxy-from: '::/0' lets everybody pass for anybody\n"},
        {GOOD "listen x { address = \"0.0.0.0:26\" protocol = http trusted = {::1} }\n",
         "conf:6: trusted is for protocol = smtp only\n"},
    };
    CHECK_ALL(cases);
}

/* What the processes have room for; `holdfast check` must know it as the daemon does. */
static void too_many_listeners_or_too_long_a_path(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, GOOD "listen more { address = {\n");
    for (int port = 1; port <= LISTENERS_MAX; port++) { /* GOOD has one */
        buffer_printf(&text, "\"127.0.0.2:%d\",\n", port);
    }
    buffer_append_text(&text, "} }\n");
    buffer_put_u8(&text, 0);
    check_errors((const char *)text.data,
                 "conf:70: address: '127.0.0.2:64' is more than 64 to listen on\n");
    buffer_clear(&text);
    buffer_append_text(&text, GOOD "\nstate = \"");
    for (int i = 0; i < STATE_PATH_MAX; i++) {
        buffer_append_text(&text, "s");
    }
    buffer_append_text(&text, "\"\n");
    buffer_put_u8(&text, 0);
    check_errors((const char *)text.data, "conf:7: state: the path is longer than 3000 octets\n");
    buffer_done(&text);
}

static void too_many_servers(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, GOOD);
    for (int i = 1; i <= 16384; i++) { /* GOOD has one */
        buffer_printf(&text, "server s%d { address = \"192.0.2.1\" }\n", i);
    }
    buffer_put_u8(&text, 0);
    check_errors((const char *)text.data, "conf:16389: more than 16384 servers\n"
                                          "conf:1: 16184 more not shown\n"); /* of no use */
    buffer_done(&text);
}

static void servers(void **state)
{
    (void)state;
    put_file("words", "no certificate\n");
    static const struct wrong cases[] = {
        {GOOD "server x { }\n", "conf:6: server 'x' needs address = ...\n"},
        {GOOD "server m1 { address = a }\n",
         "conf:6: server 'm1' is there twice; first in line 3\n"},
        {GOOD "server none { address = a }\n",
         "conf:6: 'none' is a reserved word, not a server's name\n"},
        {GOOD "server mx { address = a }\n",
         "conf:6: address: server mx has none, for it stands for "
         "the exchangers that DNS names\n"},
        {GOOD "server mx { xclient = auto }\n",
         "conf:6: xclient: server mx has none, for it stands "
         "for the exchangers that DNS names\n"},
        {GOOD "server mx { tls = none }\nserver MX { tls = none }\n",
         "conf:7: server 'mx' is there twice; first in line 6\n"},
        {GOOD "server mx { tls = implicit }\n",
         "conf:6: tls: exchangers know no TLS before the greeting; none, opportunistic, encrypt, "
         "required, dane or mta-sts\n"},
        {GOOD "server mx { tls = dane }\n",
         "conf:6: tls = dane needs dns-trust-anchor: only signed records count\n"},
        {GOOD "server wcjifoae { address = a }\nserver ccaoacux { address = a }\n",
         "conf:7: server 'ccaoacux' cannot be told from 'wcjifoae' by its checksum; rename it\n"},
        {GOOD "server a@b { address = a }\n", "conf:6: 'a@b' is no name for a server\n"},
        {GOOD "server x { address = a protocol = lmtp }\n",
         "conf:6: address: 'a' needs a port: HOST:PORT; LMTP has no usual one\n"},
        {GOOD "server x { address = 300.1.1.1 }\n",
         "conf:6: address: '300.1.1.1' is no IP address\n"},
        {GOOD "server x { address = a_b..c }\n",
         "conf:6: address: 'a_b..c' is no host name (letters, digits and hyphens, in parts of 1 to "
         "63 with dots)\n"},
        {GOOD "server x { address = b\xc3\xbc"
              "cher.example }\n",
         "conf:6: address: 'b\xc3\xbc"
         "cher.example' is no ASCII name; write it in its xn-- form\n"},
        {GOOD "server x { address = a. }\n", "conf:6: address: 'a.' must not end in a dot\n"},
        {GOOD "server x { address = 192.0.2.1 tls = mta-sts }\n",
         "conf:6: tls = mta-sts: address must be one name\n"},
        {GOOD "server x { address = a tls = mta-sts\n tls-name = b }\n",
         "conf:7: tls-name: with tls = mta-sts a server proves the name of its address\n"},
        {GOOD "server x { address = 192.0.2.1\n tls = dane }\n",
         "conf:7: tls = dane: address must be one name\n"
         "conf:7: tls = dane needs dns-trust-anchor: only signed records count\n"},
        {GOOD "server x { address = a tls = encrypt\n tls-name = b..c }\n",
         "conf:7: tls-name: 'b..c' is no host name (letters, digits and hyphens, in parts of 1 to "
         "63 with dots)\n"},
        {GOOD "server x { address = a tls = required\n tls-ca = none }\n",
         "conf:7: none: No such file or directory\n"},
        {GOOD "server x { address = a tls = required\n tls-ca = words }\n",
         "conf:7: tls-ca: words: there is no certificate in it\n"},
        {GOOD "server x { protocol = odmr\n tls-name = b }\n",
         "conf:7: tls-name: a server with protocol = odmr has none, for its client calls us\n"},
        {GOOD "server x { address = a connections = 0 }\n",
         "conf:6: connections: '0' is out of range; from 1 to 10000\n"},
        {GOOD "server x { address = a source-address = b }\n",
         "conf:6: source-address: 'b' is no IP address\n"},
        {GOOD "server x { address = a failover = m9 }\n", "conf:6: there is no server 'm9'\n"},
        {GOOD "server backup { address = a failover = bakcup }\n",
         "conf:6: there is no server 'bakcup'; did you mean 'backup'?\n"},
        {GOOD "server x { address = a failover = mx }\n",
         "conf:6: failover = mx is not available in this version\n"},
        {GOOD "server x { address = a failover = x }\n", "conf:6: failover loop: x > x\n"},
        {GOOD "server c { address = a failover = a }\n"
              "server a { address = a\n failover = b }\n"
              "server b { address = a failover = a }\n",
         "conf:8: failover loop: a > b > a\n"},
    };
    CHECK_ALL(cases);
}

static void domains(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "domain a { }\n", "conf:6: domain 'a' needs deliver-to = ...\n"},
        {GOOD "domain a { deliver-to = m9 }\n", "conf:6: there is no server 'm9'\n"},
        {GOOD "domain a { deliver-to = {m1, m8,\n m9} }\n",
         "conf:6: there is no server 'm8'\nconf:7: there is no server 'm9'\n"},
        {GOOD "domain a { deliver-to = {m1, m1} }\n",
         "conf:6: deliver-to: 'm1' is in the list twice\n"},
        {GOOD "domain a { deliver-to = {mx, m1, MX} }\n",
         "conf:6: deliver-to: 'mx' is in the list twice\n"},
        {GOOD "nat-address = {192.0.2.1, 192.0.2.0/24}\n",
         "conf:6: nat-address: '192.0.2.0/24' is no IP address\n"},
        {GOOD "server m2 { address = a failover = m1 }\ndomain a { deliver-to = {m2, m1} }\n",
         "conf:7: deliver-to: server 'm2' has a failover, and a list is a chain by itself; use one "
         "or the other\n"},
        {GOOD "domain EXAMPLE.com { deliver-to = m1 }\n",
         "conf:6: domain 'example.com' is there twice; first in line 4\n"},
        {GOOD "domain {a, *.a, *.A} { deliver-to = m1 }\n",
         "conf:6: domain '*.a' is there twice; first in line 6\n"},
        {GOOD "domain * { deliver-to = m1 }\n", "conf:6: domain '*' is no host name (letters, "
                                                "digits and hyphens, in parts of 1 to 63 with "
                                                "dots)\n"},
        {GOOD "domain a { deliver-to = m1 recipients = \"file:/nowhere/list\" }\n",
         "conf:6: recipients: /nowhere/list: No such file or directory\n"},
        {GOOD "domain a { deliver-to = m1 recipients = \"file:/\" }\n",
         "conf:6: recipients: /: is a directory\n"},
        {GOOD "domain a { deliver-to = m1 recipients-token-file = token }\n",
         "conf:6: recipients-token-file is for recipients = https://HOST/...\n"},
        {GOOD "domain a { deliver-to = m1 recipients = \"http://lists.example/x\" }\n",
         "conf:6: recipients: 'http://lists.example/x' is not one of any, learn, file:PATH, "
         "https://HOST/..., ldap:NAME\n"},
        {GOOD "domain a { deliver-to = m1 separators = \"+@\" }\n",
         "conf:6: separators: '+@' has one that is none of + - = _ # ~ ^ & $ ! * / | .\n"},
        {GOOD "domain a { deliver-to = m1 aliases = \"*.b\" }\n",
         "conf:6: aliases: '*.b' is a pattern, not a domain\n"},
        {GOOD "domain \"*.a\" { deliver-to = m1 aliases = b }\n",
         "conf:6: aliases: the block's first domain is a pattern, so of what?\n"},
        {GOOD "domain a { deliver-to = m1 aliases = a }\n",
         "conf:6: domain 'a' is there twice; first in line 6\n"},
        {GOOD "domain a { deliver-to = m1 recipients = all }\n",
         "conf:6: recipients: 'all' is not one of any, learn, file:PATH, https://HOST/..., "
         "ldap:NAME\n"},
        {GOOD "domain a { deliver-to = m1 recipients = ldap:none }\n",
         "conf:6: recipients: there is no ldap block 'none'\n"},
        {GOOD "ldap X { url = \"ldap://[::1]\" tls = none dn = \"uid=%u\" }\n"
              "domain a { deliver-to = m1 recipients = ldap:x }\n",
         "conf:7: recipients: ldap 'X' needs base, below which they are searched for\n"},
        {GOOD "domain a { deliver-to = m1 retry = {10m, ten, 0} }\n",
         "conf:6: retry: 'ten' is no duration; write a number and a unit: 700ms, 30s, 10m, 2h, 5d "
         "or 1w\n"
         "conf:6: retry: '0' is out of range; from 1s to 30d\n"},
        {GOOD "domain a { deliver-to = m1 keep = 10d keep-max = 9d }\n",
         "conf:6: keep-max is shorter than keep\n"},
        {GOOD "domain a { deliver-to = mx deliver-only-to = {::1, 10.0.0.1/8} }\n",
         "conf:6: deliver-only-to: '10.0.0.1/8' has bits set beyond its prefix\n"},
        {GOOD "server m9 { address = {a, 192.0.2.9} }\n"
              "domain a { deliver-to = m9 deliver-only-to = 10.0.0.0/8 }\n",
         "conf:7: deliver-only-to: 192.0.2.9 of server 'm9' is not in it\n"},
    };
    CHECK_ALL(cases);
}

static void relays(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "relay a { deliver-to = m1 }\n",
         "conf:6: relay 'a' must say whose mail it takes: from = {192.0.2.0/24}, or auth = yes\n"},
        {GOOD "relay a { deliver-to = m1 auth = no }\n",
         "conf:6: relay 'a' must say whose mail it takes: from = {192.0.2.0/24}, or auth = yes\n"},
        {GOOD "relay a { deliver-to = m1 from = {0.0.0.0/0, ::/0} }\n",
         "conf:6: from: '0.0.0.0/0' is everybody, and makes this an open relay\n"
         "conf:6: from: '::/0' is everybody, and makes this an open relay\n"},
        {GOOD "relay a { deliver-to = m1 from = {10.0.0.1/8, 10.0.0.0/33} }\n",
         "conf:6: from: '10.0.0.1/8' has bits set beyond its prefix\n"
         "conf:6: from: '10.0.0.0/33' is no network; write 192.0.2.0/24 or 2001:db8::/32\n"},
        {GOOD "relay a { deliver-to = m1 from = ::1 senders = {example.com} }\n",
         "conf:6: senders: 'example.com' is no pattern; write ann@example.com, *@example.com or "
         "*\n"},
        {GOOD "relay a { deliver-to = m1 from = ::1 }\nrelay A { deliver-to = m1 from = ::1 }\n",
         "conf:7: relay 'A' is there twice\n"},
        {GOOD "relay out { deliver-to = m1 from = ::1 }\nbounces = uot\n",
         "conf:7: bounces: there is no relay 'uot'; did you mean 'out'?\n"},
    };
    CHECK_ALL(cases);
}

static void includes(void **state)
{
    (void)state;
    put_file("self", "include self\n");
    put_file("ring1", "include ring2\n");
    put_file("ring2", "node = 1\n\ninclude ring1\n");
    put_file("bad", "\nnode = x\n");
    put_file("open", "server m2 {\n");
    put_file("close", "}\n");
    put_file("names", "a.example\n# one\n b.example  # two\n-\n");
    for (int i = 0; i < 10; i++) {
        char name[16], text[32];
        snprintf(name, sizeof(name), "deep%d", i);
        snprintf(text, sizeof(text), "include deep%d\n", i + 1);
        put_file(name, text);
    }
    static const struct wrong cases[] = {
        {GOOD "include absent\n", "conf:6: absent: No such file or directory\n"},
        {GOOD "include /\n", "conf:6: /: is a directory\n"},
        {GOOD "include /dev/null\n", "conf:6: /dev/null: is not an ordinary file\n"},
        {GOOD "include self\n", "self:1: include loop: 'self' is being read already\n"},
        {GOOD "include ring1\n", "ring2:3: include loop: 'ring1' is being read already\n"},
        {GOOD "include bad\nnode = 3\n", "conf:7: 'node' is given twice; first in line 2 of bad\n"
                                         "bad:2: node: 'x' is no number\n"},
        {GOOD "include open\n", "open:1: the block 'server m2 {' is not closed; '}' is missing\n"
                                "open:1: server 'm2' needs address = ...\n"},
        {GOOD "include close\n", "close:1: '}' closes no block of this file\n"},
        {GOOD "include deep0\n", "deep7:1: includes are nested more than 8 deep\n"},
        {GOOD "domain file:absent { deliver-to = m1 }\n",
         "conf:6: absent: No such file or directory\n"},
        {GOOD "domain {a.example, \"file:names\"} { deliver-to = m1 }\n",
         "names:1: domain 'a.example' is there twice; first in line 6 of conf\n"
         "names:4: domain '-' is no host name (letters, digits and hyphens, in parts of 1 to 63 "
         "with dots)\n"},
    };
    CHECK_ALL(cases);
}

/* What calls for its mail; of a password nothing is ever said. */
static void who_may_log_in(void **state)
{
    (void)state;
    put_file("hashes",
             "# who\nann:$6$x$y:ann@s.example\njoe\njoe:secret\n:$6$x$y\n\n"
             "a b:$6$x$y\nben:$6$x$y:nobody\nANN:$6$x$y\nroot:$6$x$y:0:0:root:/root:/bin/sh\n");
    static const struct wrong cases[] = {
        {GOOD "listen o { protocol = http address = \"0.0.0.0:80\" auth = users }\n",
         "conf:6: auth is for protocol = smtp and submission\n"},
        {GOOD "listen o { protocol = submission address = \"0.0.0.0\" auth = {users, pam} }\n",
         "conf:6: auth: 'pam' is neither users, \"file:PATH\", ldap:NAME nor pam:SERVICE\n"},
        {GOOD "listen o { protocol = submission address = \"0.0.0.0\" auth = \"file:no\" }\n",
         "conf:6: no: No such file or directory\n"},
        {GOOD "listen o { protocol = submission address = \"0.0.0.0\" auth = \"file:hashes\" }\n",
         "hashes:3: auth: a line is NAME:HASH or NAME:HASH:ADDRESS[,ADDRESS...], the hash as "
         "crypt(3) or argon2id makes it\n"
         "hashes:4: auth: a line is NAME:HASH or NAME:HASH:ADDRESS[,ADDRESS...], the hash as "
         "crypt(3) or argon2id makes it\n"
         "hashes:5: auth: the name '' is empty\n"
         "hashes:7: auth: the name 'a b' has a blank or a control character\n"
         "hashes:8: auth: 'nobody' is no address, pattern such as *@example.com, or *\n"
         "hashes:9: auth: 'ANN' is there twice; first in line 2\n"
         "hashes:10: auth: '0' is no address, pattern such as *@example.com, or *\n"},
    };
    CHECK_ALL(cases);
}

static void on_demand_mail_relay(void **state)
{
    (void)state;
    put_file("users", "# who\njoe secret s.example\njoe\nann x s.example,m1\n\n"
                      "ben secret s.example t.example\nJOE secret s.example\n"
                      "cid secret s.example,,u.example\n");
    put_file("users2", "joe secret s.example,example.com\nann secret s.example,t.example\n");
#define ODMR GOOD "listen o { protocol = odmr address = \"0.0.0.0\" users = \"file:users2\" }\n"
    static const struct wrong cases[] = {
        {GOOD "listen o { protocol = odmr address = \"0.0.0.0\" }\n",
         "conf:6: listen 'o' needs users = \"file:PATH\"\n"},
        {GOOD "listen o { protocol = odmr address = \"0.0.0.0\" users = joe }\n",
         "conf:6: users: must be \"file:PATH\"\n"},
        {GOOD "listen o { protocol = odmr address = \"0.0.0.0\" users = \"file:absent\" }\n",
         "conf:6: absent: No such file or directory\n"},
        {GOOD "listen o { address = \"0.0.0.0\" users = \"file:users\" }\n",
         "conf:6: users is for protocol = odmr\n"},
        {GOOD "listen o { protocol = odmr address = \"0.0.0.0\" users = \"file:users\" }\n",
         "users:3: users: a line is NAME PASSWORD DOMAIN[,DOMAIN...], without blanks in them\n"
         "users:6: users: a line is NAME PASSWORD DOMAIN[,DOMAIN...], without blanks in them\n"
         "users:7: users: 'JOE' is there twice; first in line 2\n"
         "users:8: users: domain '' is no host name (letters, digits and hyphens, in parts of 1 to "
         "63 with dots)\n"},
        {ODMR "server s { protocol = odmr }\ndomain s.example { deliver-to = s }\n"
              "domain t.example { deliver-to = s }\n",
         "users2:1: users: no domain 'example.com' has a server with protocol = odmr\n"},
        {ODMR "server s { protocol = odmr address = a failover = m1 connections = 2 }\n",
         "conf:7: address: a server with protocol = odmr has none, for its client calls us\n"
         "conf:7: failover: a server with protocol = odmr has none, for its client calls us\n"
         "conf:7: connections: a server with protocol = odmr has none, for its client calls us\n"},
        {ODMR "server s { protocol = odmr }\nrelay r { deliver-to = s from = {::1} }\n",
         "conf:8: deliver-to: server 's' waits for a call (protocol = odmr), which names domains: "
         "it can only serve a domain block of one plain name\n"},
        {ODMR "server s { protocol = odmr }\ndomain {s.example, t.example} { deliver-to = s }\n",
         "conf:8: deliver-to: server 's' waits for a call (protocol = odmr), which names domains: "
         "it can only serve a domain block of one plain name\n"},
        {ODMR "server s { protocol = odmr }\ndomain \"*.s.example\" { deliver-to = s }\n",
         "conf:8: deliver-to: server 's' waits for a call (protocol = odmr), which names domains: "
         "it can only serve a domain block of one plain name\n"},
        {ODMR "server s { protocol = odmr }\ndomain s.example { deliver-to = {s, m1} }\n",
         "conf:8: deliver-to: server 's' waits for a call (protocol = odmr) and must be the last "
         "of its chain, without mx\n"},
    };
    CHECK_ALL(cases);
    put_file("users2", "joe secret s.example,t.example\n");
    check_errors(ODMR "server s { protocol = odmr }\nserver t { protocol = odmr }\n"
                      "domain s.example { deliver-to = {m1, s} }\n"
                      "domain t.example { deliver-to = t }\n",
                 "users2:1: users: 's.example' and 't.example' have different servers; what one "
                 "user fetches goes over one connection\n");
}

static void all_errors_at_once_in_order(void **state)
{
    (void)state;
    check_errors("hostnam = mx2.example.net\n"
                 "server m1 { address = \"a\" failover = m2 }\n"
                 "server m2 { address = \"b\" failover = m1\n"
                 "domain example.com {\n"
                 "    deliver-to = m3\n"
                 "    keep = 30\n"
                 "}\n"
                 "bounces = nobody\n",
                 "conf:1: unknown key 'hostnam'; did you mean 'hostname'?\n"
                 "conf:2: failover loop: m1 > m2 > m1\n"
                 "conf:3: the block 'server m2 {' is not closed; '}' is missing\n"
                 "conf:5: there is no server 'm3'\n"
                 "conf:6: keep: '30' is no duration; write a number and a unit: 700ms, 30s, 10m, "
                 "2h, 5d or 1w\n"
                 "conf:8: bounces: there is no relay 'nobody'\n");
}

static void messages_are_bounded_and_stay_on_their_line(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 0);
    for (int i = 0; i < 1000; i++) {
        buffer_append_text(&text, "state \"a\\nb\"\n");
    }
    put_file("conf", "");
    FILE *file = fopen("conf", "wb");
    fwrite(text.data, 1, text.length, file);
    fclose(file);
    struct buffer errors;
    buffer_init(&errors, 0);
    assert_null(settings_read("conf", &errors));
    size_t lines = 0;
    for (struct slice rest = buffer_slice(&errors); rest.length > 0; lines++) {
        assert_true(slice_starts_fold(rest, SLICE_LITERAL("conf:")));
        rest = slice_skip(rest, slice_find(rest, '\n') + 1);
    }
    assert_int_equal(lines, 201);
    assert_non_null(memmem(errors.data, errors.length, "conf:1: 80", 10));
    buffer_done(&errors);
    buffer_done(&text);
}

static char directory[] = "/tmp/settings-test-XXXXXX";

static int enter(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL || chdir(directory) != 0;
}

static int leave(void **state)
{
    (void)state;
    static const char *const names[] = {
        "conf",   "self",   "ring1",   "ring2",      "bad",   "open", "close",    "names", "users",
        "users2", "hashes", "anchors", "no-anchors", "chain", "key",  "otherkey", "words"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        unlink(names[i]);
    }
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof(name), "deep%d", i);
        unlink(name);
    }
    return chdir("/") != 0 || rmdir(directory) != 0;
}

static void milters_must_be_there(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {GOOD "milter a { }\n", "conf:6: milter 'a' needs address = ...\n"},
        {GOOD "milter a { address = \"unix:run/a\" }\n",
         "conf:6: address: 'unix:run/a' is no absolute path\n"},
        {GOOD "milter a { address = \"inet:8891@mail.example.com\" }\n",
         "conf:6: address: 'inet:8891@mail.example.com' names a host that is not in /etc/hosts; "
         "write its IP address, or add it there\n"},
        {GOOD "milter a { address = \"127.0.0.1\" }\n",
         "conf:6: address: '127.0.0.1' needs a port: HOST:PORT\n"},
        {GOOD "milter a { address = \"127.0.0.1:1\" }\nmilter A { address = \"localhost:2\" }\n",
         "conf:7: milter 'A' is there twice; first in line 6\n"},
        {GOOD "milter clamav { address = \"127.0.0.1:1\" }\n"
              "listen b { address = \"127.0.0.1:2526\" milters = {clamav, clamva, clamav} }\n",
         "conf:7: milters: there is no milter 'clamva'; did you mean 'clamav'?\n"
         "conf:7: milters: 'clamav' is there twice\n"},
        {GOOD "milter a { address = \"127.0.0.1:1\" }\n"
              "listen b { address = \"127.0.0.1:2526\" protocol = http milters = a }\n",
         "conf:7: milters are for listeners that take mail\n"},
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_syntax),
        cmocka_unit_test(broken_blocks),
        cmocka_unit_test(logins),
        cmocka_unit_test(ldap_blocks),
        cmocka_unit_test(cluster_blocks),
        cmocka_unit_test(growing_retries),
        cmocka_unit_test(standby_blocks),
        cmocka_unit_test(guard_blocks),
        cmocka_unit_test(alert_blocks),
        cmocka_unit_test(keys_and_values),
        cmocka_unit_test(user_of_the_machine),
        cmocka_unit_test(listeners),
        cmocka_unit_test(too_many_listeners_or_too_long_a_path),
        cmocka_unit_test(too_many_servers),
        cmocka_unit_test(servers),
        cmocka_unit_test(domains),
        cmocka_unit_test(relays),
        cmocka_unit_test(includes),
        cmocka_unit_test(who_may_log_in),
        cmocka_unit_test(on_demand_mail_relay),
        cmocka_unit_test(all_errors_at_once_in_order),
        cmocka_unit_test(milters_must_be_there),
        cmocka_unit_test(messages_are_bounded_and_stay_on_their_line),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
