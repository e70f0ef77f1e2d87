/* SPDX-License-Identifier: Apache-2.0
 *
 * What a good configuration becomes.
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

static void put_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static struct settings *read_text(const char *text, const char *expected)
{
    put_file("conf", text);
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read("conf", &errors);
    buffer_append(&errors, slice_make("", 1));
    assert_string_equal((const char *)errors.data, expected);
    assert_non_null(settings);
    buffer_done(&errors);
    return settings;
}

static bool is(struct slice s, const char *text)
{
    return slice_equal(s, slice_from_text(text));
}

static void defaults(void **state)
{
    (void)state;
    struct settings *settings = read_text("hostname = mx2.example.net\n"
                                          "listen mx { address = 0.0.0.0 }\n"
                                          "server m1 { address = mail.example.com }\n"
                                          "domain Example.COM { deliver-to = m1 }\n",
                                          "");
    const struct service_config *config = settings_config(settings);
    assert_true(is(config->hostname, "mx2.example.net"));
    assert_true(is(config->state, "/var/lib/holdfast"));
    assert_int_equal(config->user.length, 0);
    assert_int_equal(config->loops, 0);
    assert_int_equal(config->reserve_bytes, 0);
    assert_int_equal(config->trace_keep_ms, INT64_C(30) * 86400000);
    assert_int_equal(config->safety_copy_ms, 0);
    assert_int_equal(config->segment_bytes, 64 << 20);
    assert_int_equal(config->log_target, LOG_TO_STDERR);
    assert_int_equal(config->log_level, LOG_LEVEL_INFO);
    assert_int_equal(config->limits.connections, 20000);
    assert_int_equal(config->limits.connections_per_client, 200);
    assert_int_equal(config->limits.hops, 100);
    assert_int_equal(config->listener_count, 1);
    assert_int_equal(config->listeners[0].at.port, 25);
    assert_int_equal(config->listeners[0].protocol, LISTENER_SMTP);
    assert_false(config->listeners[0].reject_bare_newline);
    const struct server_config *server = &config->relay.servers[0];
    assert_true(is(server->name, "m1"));
    assert_int_equal(server->address_count, 1);
    assert_true(is(server->addresses[0].host, "mail.example.com"));
    assert_int_equal(server->addresses[0].port, 25);
    assert_int_equal(server->protocol, SERVER_SMTP);
    assert_int_equal(server->tls, SERVER_TLS_OPPORTUNISTIC);
    assert_int_equal(server->probe_interval_ms, 700);
    assert_int_equal(server->connect_timeout_ms, 30000);
    assert_int_equal(server->greeting_timeout_ms, 300000); /* the last of its chain */
    assert_int_equal(server->failover, NO_INDEX);
    assert_true(server->xclient);
    assert_false(server->hold_5xx_manual);
    assert_int_equal(server->hold_5xx_after_recovery_ms, 600000);
    const struct route_config *route = &config->relay.routes[0];
    assert_int_equal(route->kind, ROUTE_DOMAIN);
    assert_true(is(route->name, "example.com"));
    assert_int_equal(route->chain_length, 1);
    assert_int_equal(route->retry_count, 5);
    assert_int_equal(route->retry_ms[0], 300000);
    assert_int_equal(route->retry_ms[4], 3600000);
    assert_int_equal(route->keep_ms, INT64_C(30) * 86400000);
    assert_int_equal(route->keep_max_ms, INT64_C(90) * 86400000);
    assert_int_equal(route->order_patience_ms, 30000);
    assert_int_equal(route->delay_notice_ms, 0);
    assert_int_equal(route->quota_bytes, 0); /* a single domain */
    assert_int_equal(config->relay.bounces, NO_INDEX);
    assert_true(is(config->relay.postmaster, "postmaster@example.com"));
    assert_true(is(config->relay.hostname, "mx2.example.net"));
    settings_free(settings);
}

static uint32_t restart_settings(const char *text, struct restart_setting *ret_settings)
{
    char whole[1000];
    snprintf(whole, sizeof(whole),
             "hostname = mx2.example.net\nlisten mx { address = 0.0.0.0 }\n"
             "server m1 { address = mail.example.com }\ndomain example.com { deliver-to = m1 }\n%s",
             text);
    struct settings *settings = read_text(whole, "");
    uint32_t count = settings_restart(settings_config(settings), ret_settings);
    settings_free(settings);
    return count;
}

/* Each setting that the table marks, by a value that is not its default. */
static void what_takes_a_restart_is_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *key, *text;
    } changes[] = {
        {"state", "state = elsewhere"},
        {"user", "user = root"},
        {"group", "group = daemon"},
        {"node", "node = 1"},
        {"loops", "loops = 1"},
        {"large-content", "large-content = 5M"},
        {"segment-size", "segment-size = 32M"},
        {"log", "log = syslog"},
        {"log-level", "log-level = debug"},
        {"dns-forwarders", "dns-forwarders = 192.0.2.53"},
        {"dns-trust-anchor", "dns-trust-anchor = \". IN DS 20326 8 2 E06D\""},
        {"database", "cluster { database = \"host=b\" name = n site = s }"},
        {"name", "cluster { database = \"host=a\" name = m site = s }"},
        {"site", "cluster { database = \"host=a\" name = n site = t }"},
        {"of", "standby { of = c }"},
        {"name", "standby { of = b  name = c }"},
        {"after", "standby { of = b  after = 10s }"},
        {"fence", "standby { of = b  fence = /bin/true }"},
        {"before-takeover", "standby { of = b  before-takeover = /bin/true }"},
        {"after-takeover", "standby { of = b  after-takeover = /bin/true }"},
        {"after-release", "standby { of = b  after-release = /bin/true }"},
        {"known-state", "standby { of = b  known-state = /srv/known }"},
        {"watch", "standby { of = b  watch = {192.0.2.1, \"[2001:db8::1]:587\"} }"},
    };
    static const char cluster[] = "cluster { database = \"host=a\" name = n site = s }";
    static const char standby[] = "standby { of = b }";
    enum { PAIR = sizeof(changes) / sizeof(changes[0]) - 9, LOCAL = PAIR - 3 };
    struct restart_setting before[SETTINGS_RESTART_MAX], after[SETTINGS_RESTART_MAX];
    uint32_t count = restart_settings("", before);
    assert_int_equal(count, sizeof(changes) / sizeof(changes[0]));
    for (uint32_t i = 0; i < count; i++) {
        (void)restart_settings(i < LOCAL ? "" : i < PAIR ? cluster : standby, before);
        assert_string_equal(before[i].key, changes[i].key);
        assert_int_equal(restart_settings(changes[i].text, after), count);
        for (uint32_t j = 0; j < count; j++) {
            assert_true((before[j].digest == after[j].digest) == (i != j));
        }
    }
    restart_settings("dns-forwarders = {192.0.2.53, 192.0.2.54}", before);
    restart_settings("dns-forwarders = {192.0.2.54, 192.0.2.53}", after);
    assert_true(before[9].digest != after[9].digest);
    /* The same in other words. */
    restart_settings("segment-size = 65536K log = stderr", after);
    assert_true(restart_settings("", before) == count && before[6].digest == after[6].digest);
}

static const char everything[] =
    "# a comment\n"
    "hostname = mx2.example.net  state = run  # two on a line\n"
    "user = \"mail\" group = adm\n"
    "node = 7 loops = 3 reserve = 2G dead-letter-keep = 2w trace-keep = 48h\n"
    "trace-size = 1G safety-copy = 36h\n"
    "content-memory = 64M large-content = 1M segment-size = 1M\n"
    "archive-required = no when-database-away = defer\n"
    "log = syslog log-level = debug bounces = second postmaster = hostmaster@example.org\n"
    "dns-forwarders = {192.0.2.53, 192.0.2.54:5353, \"[2001:db8::53]:53\"}\n"
    "dns-trust-anchor = \". IN DS 20326 8 2 E06D\"\n"
    "listen mx { address = {\"0.0.0.0:25\", \"[::]:25\"} bare-newline = reject tls = none }\n"
    "listen hub\n{\n address = \"127.0.0.1:8025\"\n protocol = http\n}\n"
    "server m1 { address = {\"mail1.example.com\", \"192.0.2.1:26\", \"[2001:db8::1]\"} failover = "
    "m2 connections = 5 connect-timeout = 1s greeting-timeout = 2s probe-interval = 100ms\n"
    " command-timeout = 3s dot-timeout = 4s\n"
    " xclient = off source-address = 192.0.2.9 helo = out.example.net hold-5xx = manual\n"
    " hold-5xx-after-recovery = 0 authoritative = yes tls = none }\n"
    "server m2 { address = 2001:db8::2 failover = m3 }\n"
    "server m3 { address = \"mail3.example.com:2525\"  protocol = lmtp  tls = none }\n"
    "server m4 { address = m4 tls = implicit tls-name = mail.example.com tls-ca = roots }\n"
    "domain {example.com, \"*.Example.com\", \"file:names\"} {\n"
    "    deliver-to = m1 recipients = any unknown = defer\n"
    "    retry      = {10m, 10m, 10m, 1440m,}\n"
    "    keep = 10d keep-max = 20d order-patience = 5s delay-notice = 4h\n"
    "    drill-recipient = drill@example.com\n"
    "}\n"
    "domain example.org { deliver-to = {m4, m3} quota = 10G }\n"
    "relay first { from = 127.0.0.0/8 deliver-to = m4 delay-notice = none }\n"
    "relay second { from = {192.0.2.0/24, 2001:db8::/32} senders = {\"*@example.com\", *}\n"
    "    deliver-to = m4 keep = 1d }\n"
    "limits { connections = 10 connections-per-client = 5 recipients = 100 message-size = 1M\n"
    "  line-length = 2K header-size = 4K commands = 500 errors = 3 command-timeout = 1s\n"
    "  session-timeout = 10s hops = 30 }\n";

static void check_everything(const struct settings *settings)
{
    const struct service_config *config = settings_config(settings);
    char state[4096 + 8], here[4096];
    snprintf(state, sizeof(state), "%s/run", getcwd(here, sizeof(here)));
    assert_true(is(config->state, state));
    assert_true(is(config->user, "mail"));
    assert_true(is(config->group, "adm"));
    assert_int_equal(config->node, 7);
    assert_int_equal(config->reserve_bytes, INT64_C(2) << 30);
    assert_int_equal(config->relay.dead_letter_keep_ms, INT64_C(14) * 86400000);
    assert_int_equal(config->trace_keep_ms, INT64_C(2) * 86400000);
    assert_int_equal(config->trace_bytes, INT64_C(1) << 30);
    assert_int_equal(config->safety_copy_ms, INT64_C(36) * 3600000);
    assert_int_equal(config->log_target, LOG_TO_SYSLOG);
    assert_int_equal(config->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(config->dns_forwarder_count, 3);
    assert_true(is(config->dns_forwarders[0], "192.0.2.53@53"));
    assert_true(is(config->dns_forwarders[1], "192.0.2.54@5353"));
    assert_true(is(config->dns_forwarders[2], "2001:db8::53@53"));
    assert_true(is(config->dns_trust_anchor, ". IN DS 20326 8 2 E06D"));
    assert_int_equal(config->listener_count, 3);
    assert_true(is(config->listeners[1].name, "mx"));
    assert_true(config->listeners[1].reject_bare_newline);
    assert_int_equal(config->listeners[2].protocol, LISTENER_HTTP);
    assert_int_equal(config->limits.line_bytes, 2048);
    assert_int_equal(config->limits.command_timeout_ms, 1000);

    const struct server_config *servers = config->relay.servers;
    assert_int_equal(config->relay.server_count, 4);
    assert_int_equal(servers[0].address_count, 3);
    assert_true(servers[0].addresses[1].is_literal);
    assert_int_equal(servers[0].addresses[1].port, 26);
    assert_true(servers[0].addresses[2].is_literal);
    assert_int_equal(servers[0].addresses[2].port, 25);
    assert_int_equal(servers[0].failover, 1);
    assert_int_equal(servers[0].greeting_timeout_ms, 2000);
    assert_true(servers[0].greeting_timeout_set);
    assert_int_equal(servers[0].command_timeout_ms, 3000);
    assert_int_equal(servers[0].dot_timeout_ms, 4000);
    assert_int_equal(servers[1].command_timeout_ms, 300000);
    assert_int_equal(servers[1].dot_timeout_ms, 600000);
    assert_true(servers[0].has_source && ip_is_v4(&servers[0].source));
    assert_true(is(servers[0].helo, "out.example.net"));
    assert_true(servers[0].hold_5xx_manual && servers[0].authoritative && !servers[0].xclient);
    assert_int_equal(servers[0].tls, SERVER_TLS_NONE);
    assert_int_equal(servers[3].tls, SERVER_TLS_IMPLICIT);
    assert_int_equal(servers[3].addresses[0].port, 465);
    assert_true(is(servers[3].tls_name, "mail.example.com"));
    assert_int_equal(servers[1].greeting_timeout_ms, 60000);
    assert_int_equal(servers[2].greeting_timeout_ms, 300000);
    assert_int_equal(servers[2].protocol, SERVER_LMTP);
    assert_int_equal(servers[3].greeting_timeout_ms, 60000); /* not the last of every chain */

    const struct route_config *routes = config->relay.routes;
    assert_int_equal(config->relay.route_count, 4);
    assert_int_equal(routes[0].domain_count, 4);
    assert_true(is(routes[0].name, "example.com"));
    assert_true(routes[0].domains[1].wild && is(routes[0].domains[1].name, "example.com"));
    assert_true(is(routes[0].domains[3].name, "b.example.net"));
    assert_int_equal(routes[0].chain_length, 3);
    assert_int_equal(routes[0].chain[2], 2);
    assert_int_equal(routes[0].retry_count, 4);
    assert_int_equal(routes[0].retry_ms[3], 86400000);
    assert_int_equal(routes[0].unknown, UNKNOWN_DEFER);
    assert_int_equal(routes[0].quota_bytes, QUOTA_DEFAULT);
    assert_true(is(routes[0].drill_recipient, "drill@example.com"));
    assert_int_equal(routes[1].chain_length, 2);
    assert_int_equal(routes[1].chain[0], 3);
    assert_int_equal(routes[1].quota_bytes, INT64_C(10) << 30);
    assert_int_equal(routes[2].kind, ROUTE_RELAY);
    assert_true(is(routes[2].name, "first"));
    assert_int_equal(routes[2].delay_notice_ms, 0);
    assert_int_equal(routes[3].delay_notice_ms, 4 * 3600000);
    assert_int_equal(routes[3].from_count, 2);
    assert_int_equal(routes[3].sender_count, 2);
    assert_true(is(routes[3].senders[0].text, "*@example.com"));
    assert_int_equal(config->relay.bounces, 3);
    assert_true(is(config->relay.postmaster, "hostmaster@example.org"));
}

static void every_key(void **state)
{
    (void)state;
    put_file("roots", CERTIFICATE_PEM);
    put_file("names", "a.example.net\r\n\n# comment\n  B.example.net # another\n");
    struct settings *settings = read_text(everything, "");
    check_everything(settings);
    settings_free(settings);
}

static void expanded_text_means_the_same(void **state)
{
    (void)state;
    put_file("roots", CERTIFICATE_PEM);
    put_file("names", "a.example.net\nb.example.net\n");
    assert_int_equal(mkdir("sub", 0700), 0);
    put_file("sub/one", "include two\n");
    put_file("sub/two", "include \"../three\"\n");
    put_file("three", everything);
    struct settings *settings = read_text("include sub/one\n", "");
    struct buffer text, again, errors;
    buffer_init(&text, 0);
    buffer_init(&again, 0);
    buffer_init(&errors, 0);
    settings_expand(settings, SETTINGS_FOR_ALL, &text);
    settings_free(settings);
    /* As in a process that has no files. */
    unlink("conf");
    unlink("names");
    unlink("sub/one");
    unlink("sub/two");
    unlink("three");
    rmdir("sub");
    settings = settings_parse(buffer_slice(&text), &errors);
    assert_int_equal(errors.length, 0);
    assert_non_null(settings);
    check_everything(settings);
    settings_expand(settings, SETTINGS_FOR_ALL, &again);
    assert_true(slice_equal(buffer_slice(&text), buffer_slice(&again)));
    settings_free(settings);
    assert_null(settings_parse(SLICE_LITERAL("hostname = a\n"), &errors));
    for (size_t cut = 0; cut < text.length; cut += 7) {
        settings_free(settings_parse(slice_take(buffer_slice(&text), cut), &errors));
    }
    buffer_done(&text);
    buffer_done(&again);
    buffer_done(&errors);
}

static void retries_may_grow(void **state)
{
    (void)state;
    struct settings *settings =
        read_text("hostname = a.b\nlisten mx { address = \"127.0.0.1:25\" }\n"
                  "server m1 { address = a warm-up = 600 }\n"
                  "domain example.com { deliver-to = m1 retry = {1m, 5m, x2, 30m} }\n"
                  "domain example.org { deliver-to = m1 retry = {10s, x1.5, 30s} }\n",
                  "");
    const struct relay_config *config = &settings_config(settings)->relay;
    const uint32_t doubled[] = {60000, 300000, 600000, 1200000, 1800000};
    const uint32_t half_more[] = {10000, 15000, 22500, 30000};
    assert_int_equal(config->routes[0].retry_count, 5);
    assert_memory_equal(config->routes[0].retry_ms, doubled, sizeof(doubled));
    assert_int_equal(config->routes[1].retry_count, 4);
    assert_memory_equal(config->routes[1].retry_ms, half_more, sizeof(half_more));
    assert_int_equal(config->servers[0].warm_up, 600);
    settings_free(settings);
}

static bool has(const struct buffer *text, const char *word)
{
    return memmem(text->data, text->length, word, strlen(word)) != NULL;
}

static void a_password_is_for_its_reader_alone(void **state)
{
    (void)state;
    put_file("secret", "tanstaaf\n");
    assert_int_equal(chmod("secret", 0600), 0);
    struct settings *settings =
        read_text("hostname = a.b\nlisten mx { address = \"127.0.0.1:25\" }\n"
                  "server m1 { address = localhost auth-user = tim auth-password-file = secret }\n"
                  "domain example.com { deliver-to = m1 }\n",
                  "");
    struct buffer all, sender, errors;
    buffer_init(&all, 0);
    buffer_init(&sender, 0);
    buffer_init(&errors, 0);
    assert_true(settings_has_secrets(settings, SETTINGS_FOR_EDGE_OUT));
    assert_false(settings_has_secrets(settings, SETTINGS_FOR_EDGE_IN));
    settings_expand(settings, SETTINGS_FOR_ALL, &all);
    settings_expand(settings, SETTINGS_FOR_EDGE_OUT, &sender);
    settings_free(settings);
    assert_false(has(&all, "tanstaaf"));
    assert_true(has(&sender, "tanstaaf"));
    unlink("secret");

    settings = settings_parse(buffer_slice(&all), &errors);
    assert_non_null(settings);
    assert_true(is(settings_config(settings)->relay.servers[0].auth_user, "tim"));
    assert_int_equal(settings_config(settings)->relay.servers[0].auth_password.length, 0);
    settings_free(settings);
    settings = settings_parse(buffer_slice(&sender), &errors);
    assert_non_null(settings);
    assert_true(is(settings_config(settings)->relay.servers[0].auth_password, "tanstaaf"));
    /* And it stays one when it is passed on. */
    buffer_clear(&all);
    settings_expand(settings, SETTINGS_FOR_ALL, &all);
    assert_false(has(&all, "tanstaaf"));
    settings_free(settings);
    buffer_done(&all);
    buffer_done(&sender);
    buffer_done(&errors);
}

/* The users of on-demand mail relay: many secrets in one file, for the receiving process alone. */
static void users_are_for_the_login_process_alone(void **state)
{
    (void)state;
    put_file("secret", "# name password domains\r\n\tjoe  tanstaaf s.example,T.example\r\n\n"
                       "ann  heinlein t.example");
    assert_int_equal(chmod("secret", 0600), 0);
    struct settings *settings =
        read_text("hostname = a.b\nlisten mx { address = \"127.0.0.1:25\" }\n"
                  "listen o { protocol = odmr address = {\"127.0.0.1\", \"[::1]:1366\"} "
                  "users = \"file:secret\" }\n"
                  "server s { protocol = odmr greeting-timeout = 9s }\n"
                  "domain s.example { deliver-to = s }\ndomain t.example { deliver-to = s }\n",
                  "");
    const struct service_config *config = settings_config(settings);
    assert_int_equal(config->listeners[1].protocol, LISTENER_ODMR);
    assert_int_equal(config->listeners[1].at.port, 366);
    assert_int_equal(config->listeners[2].at.port, 1366);
    assert_int_equal(config->listeners[2].odmr_user_count, 2);
    const struct odmr_user *users = config->listeners[1].odmr_users;
    assert_true(is(users[0].name, "joe") && is(users[0].password, "tanstaaf"));
    assert_int_equal(users[0].domain_count, 2);
    assert_true(is(users[0].domains[1], "T.example"));
    assert_true(is(users[1].name, "ann") && is(users[1].domains[0], "t.example"));
    assert_int_equal(config->relay.servers[0].protocol, SERVER_ODMR);
    assert_int_equal(config->relay.servers[0].address_count, 0);
    assert_int_equal(config->relay.servers[0].connections, 1);
    assert_int_equal(config->relay.servers[0].greeting_timeout_ms, 9000);
    struct buffer texts[5], errors;
    buffer_init(&errors, 0);
    assert_true(settings_has_secrets(settings, SETTINGS_FOR_LOGIN));
    assert_false(settings_has_secrets(settings, SETTINGS_FOR_EDGE_IN));
    for (unsigned i = 0; i < 5; i++) {
        static const unsigned readers[] = {SETTINGS_FOR_LOGIN, SETTINGS_FOR_EDGE_IN,
                                           SETTINGS_FOR_ALL, SETTINGS_FOR_EDGE_OUT,
                                           SETTINGS_FOR_HELPER};
        buffer_init(&texts[i], 0);
        settings_expand(settings, readers[i], &texts[i]);
        assert_int_equal(has(&texts[i], "tanstaaf") || has(&texts[i], "heinlein"), i == 0);
    }
    settings_free(settings);
    unlink("secret");
    for (unsigned i = 0; i < 5; i++) {
        settings = settings_parse(buffer_slice(&texts[i]), &errors);
        assert_non_null(settings);
        assert_int_equal(settings_config(settings)->listeners[1].odmr_user_count, i == 0 ? 2 : 0);
        settings_free(settings);
        buffer_done(&texts[i]);
    }
    buffer_done(&errors);
}

static void a_password_that_all_may_read_is_warned_of(void **state)
{
    (void)state;
    put_file("secret", "tanstaaf\n");
    assert_int_equal(chmod("secret", 0644), 0);
    settings_free(
        read_text("hostname = a.b\nlisten mx { address = \"127.0.0.1:25\" }\n"
                  "server m1 { address = localhost auth-user = tim auth-password-file = secret }\n"
                  "domain example.com { deliver-to = m1 }\n",
                  "conf:3: warning: secret: everybody on this machine may read it\n"));
    unlink("secret");
}

static void warnings_do_not_fail(void **state)
{
    (void)state;
    struct settings *settings =
        read_text("hostname = a.b\n", "conf:1: warning: no listen block for smtp: no mail can "
                                      "come in\n"
                                      "conf:1: warning: no postmaster: mail to postmaster and "
                                      "abuse will be refused\n"
                                      "conf:1: warning: no domain and no relay: all mail is "
                                      "refused\n");
    settings_free(settings);
    settings = read_text("hostname = a.b\nlisten mx { address = 127.0.0.1 }\n"
                         "server m1 { address = a }\nserver m2 { address = a }\n"
                         "domain a { deliver-to = m1 recipients = learn }\n"
                         "postmaster = x@example.net\n"
                         "limits { commands = 100 recipients = 1000 }\n", /* RCPT has its own */
                         "conf:4: warning: no route uses server 'm2'\n"
                         "conf:6: warning: postmaster: no domain and no relay takes mail to "
                         "'x@example.net'\n");
    settings_free(settings);
}

static void postmaster_of_the_first_domain_that_is_no_pattern(void **state)
{
    (void)state;
    static const struct {
        const char *titles, *postmaster;
    } cases[] = {
        {"{\"*.example.com\", example.org, example.net}", "postmaster@example.org"},
        {"\"*.example.com\"", "postmaster@last.example"},
    };
    for (size_t i = 0; i < 2; i++) {
        char text[300];
        snprintf(text, sizeof(text),
                 "hostname = a.b\nlisten mx { address = 127.0.0.1 }\nserver m1 { address = a }\n"
                 "relay out { from = 192.0.2.0/24 deliver-to = m1 }\n"
                 "domain %s { deliver-to = m1 }\ndomain last.example { deliver-to = m1 }\n",
                 cases[i].titles);
        struct settings *settings = read_text(text, "");
        assert_true(is(settings_config(settings)->relay.postmaster, cases[i].postmaster));
        settings_free(settings);
    }
}

/* As a process in its sandbox does: whether the machine has the user is another question. */
static void check_example(const char *name)
{
    const char *folder = getenv("EXAMPLES");
    char path[4096];
    static char content[65536];
    struct buffer text, errors;
    assert_non_null(folder);
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(content, 1, sizeof(content), file);
    fclose(file);
    buffer_init(&text, 0);
    buffer_init(&errors, 0);
    buffer_printf(&text, "holdfast-settings 1\nmachine 1\nm\ndirectory 1\n/\npath 1\n");
    buffer_printf(&text, "c\ncontent %zu\n", length);
    buffer_append(&text, slice_make(content, length));
    buffer_append_text(&text, "\n");
    struct settings *settings = settings_parse(buffer_slice(&text), &errors);
    buffer_append(&errors, slice_make("", 1));
    assert_string_equal((const char *)errors.data, "");
    assert_non_null(settings);
    settings_free(settings);
    buffer_done(&text);
    buffer_done(&errors);
}

static void put_source(struct buffer *text, const char *path, const char *content)
{
    buffer_printf(text, "path %zu\n%s\ncontent %zu\n%s\n", strlen(path), path, strlen(content),
                  content);
}

/* As it goes from who has read it to those without a file system. */
static void filters_are_found_by_names_of_this_machine(void **state)
{
    (void)state;
    struct buffer text, errors;
    char address[IP_TEXT_SIZE];
    buffer_init(&text, 0);
    buffer_init(&errors, 0);
    buffer_append_text(&text, "holdfast-settings 1\nmachine 1\nm\ndirectory 1\n/\n");
    put_source(&text, "conf",
               "hostname = mx.example.net\n"
               "milter a { address = \"inet:8891@Filter.Inner\" }\n"
               "milter b { address = \"six:8892\" }\n"
               "milter c { address = \"inet:localhost:8893\" }\n"
               "listen mx { address = \"127.0.0.1:25\"  milters = {a, b, c} }\n"
               "server m1 { address = \"192.0.2.1\" }\n"
               "domain example.com { deliver-to = m1 }\n");
    put_source(&text, "/etc/hosts",
               "192.0.2.9 localhost # not ours to say\n#192.0.2.1 filter.inner\n"
               "fe80::1%eth0 filter.inner\n"
               "192.0.2.7\tother filter.inner\n192.0.2.8 filter.inner\n2001:db8::1 six");
    struct settings *settings = settings_parse(buffer_slice(&text), &errors);
    buffer_append(&errors, slice_make("", 1));
    assert_string_equal((const char *)errors.data, "");
    assert_non_null(settings);
    static const char *const found[] = {"192.0.2.7", "2001:db8::1", "127.0.0.1"};
    const struct service_config *config = settings_config(settings);
    for (int i = 0; i < 3; i++) {
        ip_to_text(&config->milters[i].at.address, address);
        assert_string_equal(address, found[i]);
        assert_int_equal(config->milters[i].at.port, 8891 + i);
    }
    settings_free(settings);
    buffer_done(&text);
    buffer_done(&errors);
}

static void filters_are_named_by_listeners(void **state)
{
    (void)state;
    struct settings *settings =
        read_text("hostname = mx.example.net\n"
                  "milter a { address = \"unix:/run/a b.sock\" }\n"
                  "milter b { address = \"inet:8891@localhost\" default = accept sessions = 1 }\n"
                  "milter c { address = \"[::1]:8893\" command-timeout = 2s }\n"
                  "listen mx { address = {\"127.0.0.1:25\", \"127.0.0.2:25\"}\n"
                  "            milters = {c, A} milter-default = accept }\n"
                  "listen in { address = \"127.0.0.3:25\" }\n"
                  "server m1 { address = \"192.0.2.1\" }\n"
                  "domain example.com { deliver-to = m1 }\n",
                  "");
    const struct service_config *config = settings_config(settings);
    const struct milter_config *milters = config->milters;
    char address[IP_TEXT_SIZE];
    assert_int_equal(config->milter_count, 3);
    assert_true(is(milters[0].path, "/run/a b.sock"));
    assert_int_equal(milters[0].otherwise, MILTER_DEFAULT_LISTENER);
    assert_int_equal(milters[0].sessions, 1000);
    assert_int_equal(milters[0].connect_timeout_ms, 30000);
    assert_int_equal(milters[0].content_timeout_ms, 300000);
    ip_to_text(&milters[1].at.address, address);
    assert_string_equal(address, "127.0.0.1");
    assert_int_equal(milters[1].at.port, 8891);
    assert_int_equal(milters[1].otherwise, MILTER_DEFAULT_ACCEPT);
    assert_int_equal(milters[1].sessions, 1);
    assert_int_equal(milters[2].at.port, 8893);
    assert_int_equal(milters[2].command_timeout_ms, 2000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(config->listeners[i].milter_count, 2);
        assert_int_equal(config->listeners[i].milters[0], 2);
        assert_int_equal(config->listeners[i].milters[1], 0);
        assert_int_equal(config->listeners[i].milter_default, MILTER_DEFAULT_ACCEPT);
    }
    assert_int_equal(config->listeners[2].milter_count, 0);
    assert_int_equal(config->listeners[2].milter_default, MILTER_DEFAULT_TEMPFAIL);
    settings_free(settings);
}

static void examples_are_good(void **state)
{
    (void)state;
    check_example("holdfast.conf");
    check_example("quickstart.conf");
}

static void hostname_of_the_machine(void **state)
{
    (void)state;
    char name[256] = "", expected[400];
    assert_int_equal(gethostname(name, sizeof(name) - 1), 0);
    snprintf(expected, sizeof(expected), "conf:1: warning: no hostname given; using '%s'\n", name);
    struct settings *settings = read_text("listen mx { address = 127.0.0.1 }\n"
                                          "server m1 { address = a }\n"
                                          "domain a { deliver-to = m1 }\n",
                                          expected);
    assert_true(is(settings_config(settings)->hostname, name));
    settings_free(settings);
}

static void every_default_is_in_its_range(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < settings_table_length; i++) {
        const struct setting *setting = &settings_table[i];
        assert_true(strlen(setting->text) > 10 && setting->text[strlen(setting->text) - 1] == '.');
        uint64_t value = 0;
        const char *why;
        if (setting->fallback == NULL ||
            (setting->none && strcmp(setting->fallback, "none") == 0)) {
            continue;
        }
        struct slice text = slice_from_text(setting->fallback);
        if (setting->type == SETTING_DURATION) {
            assert_true(value_duration(text, &value, &why));
        } else if (setting->type == SETTING_SIZE) {
            assert_true(value_size(text, &value, &why));
        } else if (setting->type == SETTING_COUNT) {
            assert_true(value_count(text, &value, &why));
        } else {
            continue;
        }
        assert_true(value >= setting->least && value <= setting->most);
    }
}

static void a_hundred_thousand_domains(void **state)
{
    (void)state;
    FILE *file = fopen("conf", "wb");
    assert_non_null(file);
    fputs("hostname = a.b\nlisten mx { address = 127.0.0.1 }\nserver m1 { address = a }\n"
          "domain \"file:names\" { deliver-to = m1 }\n",
          file);
    for (int i = 0; i < 100000; i++) {
        fprintf(file, "domain d%d.example.com { deliver-to = m1  keep = 30d }\n", i);
    }
    fclose(file);
    file = fopen("names", "wb");
    assert_non_null(file);
    for (int i = 0; i < 100000; i++) {
        fprintf(file, "d%d.example.org\n", i);
    }
    fclose(file);
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings = settings_read("conf", &errors);
    assert_int_equal(errors.length, 0);
    assert_non_null(settings);
    assert_int_equal(settings_config(settings)->relay.route_count, 100001);
    assert_int_equal(settings_config(settings)->relay.routes[0].domain_count, 100000);
    settings_free(settings);
    buffer_done(&errors);
}

static void manual_names_every_key(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 0);
    settings_manual(&text);
    buffer_append(&text, slice_make("", 1));
    for (uint32_t i = 0; i < settings_table_length; i++) {
        char mark[64];
        snprintf(mark, sizeof(mark), ".%sCm %s",
                 settings_table[i].type == SETTING_ABSENT ? "" : "It ", settings_table[i].name);
        assert_non_null(strstr((const char *)text.data, mark));
    }
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
    unlink("conf");
    unlink("names");
    return chdir("/") != 0 || rmdir(directory) != 0;
}

static void a_domain_of_a_site_is_a_domain_like_others(void **state)
{
    (void)state;
    struct settings *settings =
        read_text("hostname = mx2.example.net\nlisten mx { address = 127.0.0.1 }\n"
                  "server m1 { address = a }\n"
                  "domain a.example { deliver-to = m1 }\n"
                  "domain b.example { deliver-to = m1  nodes = {n2, n1} }\n"
                  "domain c.example { deliver-to = m1  site = oslo }\n",
                  "");
    static const char *const groups[] = {"", "n1,n2", "site=oslo"};
    const struct relay_config *config = &settings_config(settings)->relay;
    assert_int_equal(config->route_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct route_config *route = &config->routes[i];
        char name[] = {(char)('a' + i), '.', 'e', 'x', 'a', 'm', 'p', 'l', 'e', '\0'};
        assert_int_equal(route->kind, ROUTE_DOMAIN);
        assert_true(is(route->name, name));
        assert_int_equal(route->domain_count, 1);
        assert_true(is(route->domains[0].name, name));
        assert_true(is(route->share_group, groups[i]));
    }
    settings_free(settings);
}

static void mx_stands_where_it_is_written(void **state)
{
    (void)state;
    struct settings *settings = read_text(
        "hostname = mx2.example.net\nlisten mx { address = 127.0.0.1 }\n"
        "nat-address = 198.51.100.1\nserver m1 { address = a }\nserver m2 { address = b }\n"
        "domain example.com { deliver-to = mx deliver-only-to = {10.0.0.0/8, ::1} }\n"
        "relay one { from = 127.0.0.1 deliver-to = {m1, MX} }\n"
        "relay two { from = 127.0.0.1 deliver-to = {mx, m2, m1} }\n"
        "relay three { from = 127.0.0.1 deliver-to = m2 deliver-only-to = 127.0.0.0/8 }\n"
        "relay four { from = 127.0.0.1 deliver-to = m2 deliver-only-to = {127.0.0.2, ::1} }\n",
        "");
    const struct relay_config *config = &settings_config(settings)->relay;
    const struct route_config *routes = config->routes;
    assert_true(routes[0].mx && routes[0].mx_place == 0 && routes[0].chain_length == 0);
    assert_int_equal(routes[0].deliver_only_to_count, 2);
    assert_int_equal(routes[0].deliver_only_to[0].prefix, 104);
    assert_true(routes[1].mx && routes[1].mx_place == 1 && routes[1].chain_length == 1);
    assert_true(routes[2].mx && routes[2].mx_place == 0 && routes[2].chain_length == 2);
    assert_false(routes[3].mx);
    assert_int_equal(config->servers[0].only_count, 0);
    assert_int_equal(config->servers[1].only_count, 2);
    assert_ptr_equal(config->servers[1].only[0].all, routes[3].deliver_only_to);
    assert_int_equal(config->servers[1].only[0].count, 1);
    assert_int_equal(config->servers[1].only[1].count, 2);
    assert_int_equal(config->nat_address_count, 1);
    assert_int_equal(config->exchanger.connect_timeout_ms, 30000);
    assert_int_equal(config->exchanger.connections, config->servers[0].connections);
    assert_int_equal(config->exchanger.failover, NO_INDEX);
    assert_false(config->exchanger.xclient);
    /* A server that exchangers follow is not the last of its chain. */
    assert_int_equal(config->servers[0].greeting_timeout_ms, 60000);
    settings_free(settings);
}

static void all_exchangers_have_a_block(void **state)
{
    (void)state;
    struct settings *settings = read_text(
        "hostname = mx2.example.net\npostmaster = ann@example.com\n"
        "listen mx { address = 127.0.0.1 }\nserver m1 { address = a }\n"
        "server MX { tls = encrypt connections = 3 helo = out.example.net connect-timeout = 5s\n"
        "            greeting-timeout = 7s source-address = 192.0.2.1 }\n"
        "relay one { from = 127.0.0.1 deliver-to = {mx, m1} }\n",
        "");
    const struct relay_config *config = &settings_config(settings)->relay;
    assert_int_equal(config->server_count, 1);
    assert_int_equal(config->servers[0].tls, SERVER_TLS_OPPORTUNISTIC);
    assert_int_equal(config->exchanger.tls, SERVER_TLS_ENCRYPT);
    assert_int_equal(config->exchanger.connections, 3);
    assert_int_equal(config->exchanger.connect_timeout_ms, 5000);
    assert_int_equal(config->exchanger.greeting_timeout_ms, 7000);
    assert_true(config->exchanger.greeting_timeout_set && config->exchanger.has_source);
    assert_true(is(config->exchanger.helo, "out.example.net"));
    assert_false(config->exchanger.xclient);
    settings_free(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_exchangers_have_a_block),
        cmocka_unit_test(defaults),
        cmocka_unit_test(what_takes_a_restart_is_told_apart),
        cmocka_unit_test(every_key),
        cmocka_unit_test(filters_are_found_by_names_of_this_machine),
        cmocka_unit_test(filters_are_named_by_listeners),
        cmocka_unit_test(expanded_text_means_the_same),
        cmocka_unit_test(retries_may_grow),
        cmocka_unit_test(a_password_is_for_its_reader_alone),
        cmocka_unit_test(users_are_for_the_login_process_alone),
        cmocka_unit_test(a_password_that_all_may_read_is_warned_of),
        cmocka_unit_test(warnings_do_not_fail),
        cmocka_unit_test(postmaster_of_the_first_domain_that_is_no_pattern),
        cmocka_unit_test(examples_are_good),
        cmocka_unit_test(hostname_of_the_machine),
        cmocka_unit_test(every_default_is_in_its_range),
        cmocka_unit_test(a_hundred_thousand_domains),
        cmocka_unit_test(manual_names_every_key),
        cmocka_unit_test(mx_stands_where_it_is_written),
        cmocka_unit_test(a_domain_of_a_site_is_a_domain_like_others),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
