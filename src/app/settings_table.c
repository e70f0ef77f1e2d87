/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of the configuration: every key with its block, type, default, range and a sentence
 * for people. What the parser accepts, what the checks demand and what holdfast.conf(5) says come
 * from here. Rows of a block stand together.
 */
#include "app/settings_internal.h"
#include "spool/spool.h"

#include <stdlib.h>

#define AT(type, member)                                                                           \
    .offset = offsetof(struct type, member), .width = sizeof(((struct type *)0)->member)
#define TOP(member) .block = BLOCK_TOP, AT(service_config, member)
#define LIMIT(member) .block = BLOCK_LIMITS, AT(service_config, limits.member)
#define LISTEN(member) .block = BLOCK_LISTEN, AT(listener_config, member)
#define SERVER(member) .block = BLOCK_SERVER, AT(server_config, member)
#define DOMAIN(member) .block = BLOCK_DOMAIN, AT(route_config, member)
#define ALERT(member) .block = BLOCK_ALERT, AT(hook_config, member)
#define ACCESS(block_, verb)                                                                       \
    {"clients", SETTING_NETWORKS, .block = block_, .otherwise = "any",                             \
     .text = "Networks of the clients that are " verb                                              \
             "; \"file:PATH\" stands for the lines of a file, here and below."},                   \
        {"helo", SETTING_SENDERS, .block = block_, .otherwise = "any",                             \
         .text = "Names that such a client gives itself in EHLO; * stands for any run of "         \
                 "characters."},                                                                   \
    {                                                                                              \
        "senders", SETTING_SENDERS,                                                                \
            .block = block_, .otherwise = "any",                                                   \
            .text = "Envelope senders, as *@example.com; <> is the empty one."                     \
    }

#define CLUSTER(member) .block = BLOCK_CLUSTER, AT(service_config, cluster.member)
#define GUARD(member) .block = BLOCK_GUARD, AT(guard_config, member)
#define STANDBY(member) .block = BLOCK_STANDBY, AT(service_config, standby.member)
#define LDAP(member) .block = BLOCK_LDAP, AT(ldap_config, member)
#define MILTER(member) .block = BLOCK_MILTER, AT(milter_config, member)
#define RELAY(member) .block = BLOCK_RELAY, AT(route_config, member)

#define MS UINT64_C(1)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KB (UINT64_C(1) << 10)
#define MB (UINT64_C(1) << 20)
#define GB (UINT64_C(1) << 30)

/* clang-format off */
const struct setting settings_table[] = {
    /* ---- top ---- */
    {"hostname", SETTING_HOSTNAME, TOP(hostname), .otherwise = "the machine's name, with a warning",
     .local = true,
     .text = "The name by which this server greets, signs its trace fields and says EHLO."},
    {"authserv-id", SETTING_HOSTNAME, TOP(authserv_id), .otherwise = "the hostname",
     .text = "The name by which our filters sign Authentication-Results (RFC 8601). Such fields with "
             "it, or with the hostname, are removed from mail on receipt; those that filters of ours "
             "write then can verify a sender."},
    {"state", SETTING_PATH, TOP(state), .fallback = "/var/lib/holdfast", .restart = true,
     .text = "The directory of the journal and of the control socket; a relative path starts where "
             "the program was started."},
    {"user", SETTING_TEXT, TOP(user), .otherwise = "stay who we are, with a warning to root", .restart = true,
     .text = "The user that the processes become when the program is started as root."},
    {"group", SETTING_TEXT, TOP(group), .otherwise = "the user's", .restart = true,
     .text = "The group that may use the control socket."},
    {"node", SETTING_COUNT, TOP(node), .fallback = "0", .most = 65535, .restart = true,
     .text = "A number in the ids of messages that tells machines apart; ids are distinct without it."},
    {"loops", SETTING_COUNT, TOP(loops), .fallback = "0", .otherwise = "0, one for each processor",
     .most = 24, .restart = true,
     .text = "Event loops of the receiving and of the sending process."},
    {"bounces", SETTING_RELAY, TOP(relay.bounces), .otherwise = "the first relay",
     .text = "The relay by which delivery status notifications leave; with none, what would bounce "
             "becomes a dead letter, and nobody is told of a success."},
    {"postmaster", SETTING_MAILBOX, TOP(relay.postmaster),
     .otherwise = "postmaster at the first domain that is no pattern",
     .text = "Where mail to postmaster and abuse at this host goes."},
    {"tls-reports", SETTING_MAILBOX, TOP(tls_reports), .otherwise = "none",
     .text = "The address that reports on TLS are from (RFC 8460), and that those who get them may "
             "write to. With it, what came of TLS is counted for each domain under deliver-to = mx "
             "and for servers with tls = mta-sts or dane, and sent daily to where the domain wants "
             "it (_smtp._tls), by HTTPS, or as mail by the relay of bounces."},
    {"tls-reports-organization", SETTING_TEXT, TOP(tls_reports_organization),
     .otherwise = "the hostname", .text = "The name that reports on TLS give for us."},
    {"nat-address", SETTING_IPS, TOP(relay.nat_addresses), .otherwise = "none",
     .local = true,
     .text = "Addresses that others know this host by, beside those of its interfaces; under "
             "deliver-to = mx an exchanger that has one is this host."},
    {"reserve", SETTING_SIZE, TOP(reserve_bytes), .fallback = "0",
     .otherwise = "the larger of 1G and 5 % of the file system, at most a tenth of it",
     .most = UINT64_C(1) << 50,
     .local = true,
     .text = "Free space below which no mail is accepted any more; nor is it while the file system "
             "has room for fewer than 100 more files."},
    {"dead-letter-keep", SETTING_DURATION, TOP(relay.dead_letter_keep_ms),
     .fallback = "30d",
     .least = SECOND, .most = 3660 * DAY,
     .text = "How long a dead letter is kept; then it is discarded."},
    {"safety-copy", SETTING_DURATION, TOP(safety_copy_ms), .fallback = "0", .most = 365 * DAY,
     .text = "How long mail is kept on the disk after it was handed over, to be sent again with "
             "holdfast queue resend if its server is restored from an old backup; 0: not at all. "
             "Room for new mail goes before it; in a cluster, where it stays in the database, it does "
             "not."},
    {"trace-keep", SETTING_DURATION, TOP(trace_keep_ms), .fallback = "30d", .least = SECOND,
     .most = 3660 * DAY,
     .text = "How long the events of a message can be asked for with holdfast trace, if trace-size "
             "has room for them."},
    {"trace-size", SETTING_SIZE, TOP(trace_bytes),
     .otherwise = "5 % of the file system, at least 256M, at most 16G",
     .least = 16 * MB, .most = 256 * GB,
     .local = true,
     .text = "Bytes of events that are kept; when there are more, the oldest go before trace-keep is "
             "over, with an alert."},
    {"content-memory", SETTING_SIZE, TOP(content_memory_bytes), .fallback = "256M",
     .least = MB, .most = 64 * GB,
     .local = true,
     .text = "Bytes of incoming content on their way to the disk above which sockets are not read."},
    {"large-content", SETTING_SIZE, TOP(large_content_bytes), .fallback = "4M",
     .least = 4 * KB, .most = GB, .restart = true,
     .text = "Contents above this size are kept in files of their own beside the journal."},
    {"segment-size", SETTING_SIZE, TOP(segment_bytes), .fallback = "64M", .least = 256 * KB,
     .most = GB, .restart = true,
     .text = "Size of one file of the journal."},
    {"log", SETTING_CHOICE, TOP(log_target), .fallback = "stderr",
     .choices = "stderr|syslog|journal", .restart = true,
     .text = "Where the log goes."},
    {"log-level", SETTING_CHOICE, TOP(log_level), .fallback = "info",
     .choices = "error|warning|info|debug", .restart = true,
     .text = "The least important kind of event that is logged."},
    {"dns-forwarders", SETTING_RESOLVERS, TOP(dns_forwarders), .otherwise = "those of resolv.conf",
     .restart = true,
     .text = "Addresses of the resolvers to ask, with a port if it is not 53."},
    {"dns-trust-anchor", SETTING_ANCHOR, TOP(dns_trust_anchor), .otherwise = "no validation",
     .restart = true,
     .text = "A DS or DNSKEY record to validate answers with, or file:PATH where such records are, "
             "one a line: the root's, and those of zones that only the resolvers here know."},
    {"archive-required", SETTING_SWITCH, .block = BLOCK_TOP, .fallback = "no", .later = "yes",
     .text = "Whether mail that is not archived yet keeps its space when the disk is full."},
    {"when-database-away", SETTING_CHOICE, TOP(cluster.defers), .fallback = "accept",
     .choices = "accept|defer",
     .text = "What happens to incoming mail while a cluster's database is away, full or slow: accept "
             "takes it into this node's journal alone, until that is forwarded; defer answers 451. "
             "Without a cluster, nothing."},

    /* ---- listen ---- */
    {"address", SETTING_ENDPOINTS, LISTEN(at), .required = true,
     .text = "Address and port to listen on, or a list of them; if none is written, port 25 for "
             "smtp, 366 for odmr, 587 or 465 for submission."},
    {"protocol", SETTING_CHOICE, LISTEN(protocol), .fallback = "smtp",
     .choices = "smtp|http|odmr|submission", .later = "pop3",
     .text = "What is spoken there: smtp for mail, http for metrics, health and, for this machine alone, a page "
             "that shows the status of all, odmr for sites that "
             "call to fetch their mail with ATRN (RFC 2645), submission for the mail of users, who "
             "must log in (RFC 6409)."},
    {"users", SETTING_USERS, .block = BLOCK_LISTEN, .otherwise = "must be given for odmr",
     .text = "Who may fetch what by odmr: a file with a line NAME PASSWORD DOMAIN[,DOMAIN...] for "
             "each user. The passwords stand there in clear, since CRAM-MD5, by which RFC 2645 "
             "lets clients log in, cannot be checked without them: the file is for root alone. It "
             "is read at start and reload, and given to the process login alone."},
    {"bare-newline", SETTING_CHOICE, LISTEN(reject_bare_newline), .fallback = "normalize",
     .choices = "normalize|reject",
     .text = "What happens to content with a CR or LF alone: normalize makes a bare LF a line end "
             "and a bare CR a blank, reject answers 550 5.6.0."},
    {"greeting-delay", SETTING_DURATION, LISTEN(greeting_delay_ms), .fallback = "none",
     .least = 100 * MS, .most = MINUTE, .none = true,
     .text = "How long a stranger waits for the greeting. One that speaks before it is no mail server, "
             "and is refused. Relay clients and whom an allow block names are greeted at once."},
    {"greylist", SETTING_DURATION, LISTEN(greylist_ms), .fallback = "none", .least = SECOND,
     .most = DAY, .none = true,
     .text = "How long mail of an unknown client, sender and recipient is put off (RFC 6647). What comes "
             "back within 2 days is let through, and is known for 36 days from each time on; after "
             "5 such messages their network is known (an IPv4 /24, an IPv6 /64). Relay clients and whom "
             "an allow block names are not put off. What is known outlives restarts; in a cluster each "
             "node knows its own."},
    {"milters", SETTING_MILTERS, .block = BLOCK_LISTEN, .otherwise = "none",
     .text = "The filters that look at what comes in there, by the names of their milter blocks, in "
             "the order in which they are asked: each sees what those before it have changed."},
    {"milter-default", SETTING_CHOICE, LISTEN(milter_default), .fallback = "tempfail",
     .choices = "accept|tempfail",
     .text = "What happens to mail while one of its filters is away or talks nonsense: accept takes "
             "it unseen by that one, tempfail answers 451, so that the client tries again."},
    {"dnsbl-score", SETTING_COUNT, LISTEN(dnsbl_score), .fallback = "none", .least = 1,
     .most = 100000, .none = true,
     .text = "The score of the dnsbl blocks from which on a stranger is refused with 554 at the greeting, "
             "which waits for their answers, 3 s at most. What does not answer counts nothing. Not for "
             "loopback, relay clients and whom an allow block names."},
    {"tls", SETTING_CHOICE, LISTEN(tls), .fallback = "none", .choices = "none|starttls|implicit",
     .text = "Whether connections are encrypted: by STARTTLS where the client wants it, or from the "
             "beginning. TLS 1.2 and 1.3. Not for http."},
    {"certificate", SETTING_FILES, .block = BLOCK_LISTEN,
     .otherwise = "must be given with tls",
     .text = "A file with the certificate and those that lead to its authority, in PEM; or a list of "
             "them, of which a client gets the first that has the name it asks for, or else the first. "
             "Read at start and reload, which ends no connection."},
    {"key", SETTING_FILES, .block = BLOCK_LISTEN, .otherwise = "in the files of certificate",
     .text = "The file with the key of the certificate, without a passphrase, or a list in the same "
             "order. It is for root alone, and given to the receiving process alone."},
    {"client-ca", SETTING_SECRET, .block = BLOCK_LISTEN, .otherwise = "clients are not asked",
     .text = "The file of authorities, in PEM, whose certificates clients may show; whether they have "
             "stands in Received. No client is turned away for it."},
    {"auth", SETTING_LOGINS, .block = BLOCK_LISTEN,
     .otherwise = "users for submission; nobody for smtp",
     .text = "Where it is known who may log in, one or a list, asked in order: users, those of "
             "holdfast user; \"file:PATH\", lines NAME:HASH[:ADDRESS,...] with hashes as crypt(3) "
             "makes them, as htpasswd(1) writes, read at start and reload and given to the login "
             "process alone; ldap:NAME, the directory of an ldap block; pam:SERVICE, a "
             "service of PAM, by its name in /etc/pam.d or by its file's path. PAM knows no "
             "addresses: a user's is his name, if that is one. The first that knows the name decides; one that does not answer lets nobody in for now, nor those behind it. "
             "With users alone clients may use SCRAM-SHA-256, which the others "
             "do not allow, besides PLAIN and LOGIN. Nobody may log in without TLS."},
    {"auth-without-tls", SETTING_CHOICE, LISTEN(login_in_clear), .fallback = "never",
     .choices = "never|loopback",
     .text = "Whether clients on this machine may log in without TLS: for programs here, or a TLS "
             "proxy in front. Others never may."},
    {"sender-check", SETTING_CHOICE, LISTEN(sender_check), .fallback = "envelope",
     .choices = "envelope|none|header",
     .text = "Whether the envelope's sender of users who have logged in must be an address of "
             "theirs; an empty one is always allowed. header: and so must be each address in the From "
             "and Sender fields of the content; it must have one From field."},
    {"auth-results", SETTING_SWITCH, LISTEN(tells_login), .fallback = "no",
     .text = "Whether mail of who has logged in gets an Authentication-Results field (RFC 8601, "
             "auth=pass, under authserv-id) with the name, for filters behind us. Recipients see it, too."},
    {"proxy-from", SETTING_NETWORKS, .block = BLOCK_LISTEN, .otherwise = "none",
     .text = "Load balancers in front of this listener: they must begin each connection with a PROXY "
             "header (version 1 or 2), which says who their client is; from others it is an error."},
    {"trusted", SETTING_NETWORKS, .block = BLOCK_LISTEN, .otherwise = "none",
     .text = "Networks that are offered XCLIENT, with which they say whose mail they bring: what is "
             "decided by the client's address and HELO name is decided by those. A connection from "
             "there is not counted by client before that. They are offered XFORWARD, too, with which "
             "they only say whose mail it was at first: servers behind us are told that one, and "
             "nothing is decided by it."},
    {"xclient-login", SETTING_SWITCH, LISTEN(believes_login), .fallback = "no",
     .text = "Whether a login that a trusted network tells by XCLIENT is believed: that client has the "
             "rights of one who has logged in here by that name, and no address but his name."},

    /* ---- server ---- */
    {"address", SETTING_ADDRESSES, SERVER(addresses),
     .otherwise = "must be given, but for odmr, where it must not",
     .text = "Name or address of the server, with a port if it is not 25, or a list of them that "
             "are the same server; LMTP has no usual port and must name one."},
    {"protocol", SETTING_CHOICE, SERVER(protocol), .fallback = "smtp", .choices = "smtp|lmtp|odmr",
     .text = "What the server speaks; odmr is a site without an address of its own, which calls a "
             "listener with protocol = odmr: its mail waits until it does, and goes over that very "
             "connection. Such a server stands last in its chain, and serves domain blocks of one "
             "plain name."},
    {"failover", SETTING_SERVER, SERVER(failover), .otherwise = "none",
     .text = "The next server of the chain, for when this one does not work."},
    {"tls", SETTING_CHOICE, SERVER(tls), .fallback = "opportunistic",
     .choices = "none|opportunistic|encrypt|required|implicit|dane|mta-sts",
     .text = "Whether the connection is encrypted. opportunistic: by STARTTLS if the server offers "
             "it, whoever it is; if that fails, once more in the clear, with a warning. encrypt: always, "
             "whoever it is. required: always, and the server proves its name (see tls-name and "
             "tls-ca). implicit: as required, but before the greeting, and on port 465 if none is "
             "written. dane: as the signed TLSA records of its name demand (RFC 7672), which are asked for "
             "before it is connected: with usable ones as required, by them; with others as encrypt; "
             "without any as opportunistic; an answer that is forged or does not come is a failure of "
             "the server; of exchangers (server mx) only those have records that signed MX records name, "
             "the others are asked as by opportunistic. mta-sts: as the policy demands that the domain publishes (RFC 8461), of "
             "server mx the recipient's, else the server's own name: enforce as required, and only "
             "servers that the policy lists; testing and none as opportunistic, and what came of it "
             "is told; with a dns-trust-anchor TLSA records come before the policy, as with dane. What came of it stands in the trace of each delivery."},
    {"tls-required-no", SETTING_CHOICE, SERVER(ignores_waivers), .fallback = "heed",
     .choices = "heed|ignore",
     .text = "Of server mx with tls = dane or mta-sts: what becomes of mail of users and relay clients "
             "whose header says \"TLS-Required: No\" (RFC 8689). heed: it goes as by opportunistic, "
             "whatever the recipient's domain demands, over connections of its own; ignore: as all "
             "other mail. Reports on TLS (tls-reports) go so in any case."},
    {"connections", SETTING_COUNT, SERVER(connections), .fallback = "20", .least = 1,
     .most = 10000,
     .text = "Connections to the server at once, at most; in a cluster, from each node."},
    {"warm-up", SETTING_COUNT, SERVER(warm_up), .otherwise = "none", .least = 1, .most = 3600000,
     .text = "Messages an hour, evenly spread, that the server is given while it stands in for the "
             "first of a chain, so that an address that sends little is not taken for a spammer's; "
             "the others wait. In a cluster, by each node."},
    {"connect-timeout", SETTING_DURATION, SERVER(connect_timeout_ms), .fallback = "30s",
     .least = 10 * MS, .most = HOUR,
     .text = "How long connecting may take."},
    {"greeting-timeout", SETTING_DURATION, SERVER(greeting_timeout_ms), .fallback = "60s",
     .otherwise = "60s, and 300s for the last server of a chain", .least = 10 * MS, .most = HOUR,
     .text = "How long the server's greeting may take."},
    {"command-timeout", SETTING_DURATION, SERVER(command_timeout_ms), .fallback = "5m",
     .least = 10 * MS, .most = HOUR,
     .text = "How long the reply to MAIL and RCPT may take; that to DATA has two minutes and a piece "
             "of content three, unless this is shorter (RFC 5321 4.5.3.2)."},
    {"dot-timeout", SETTING_DURATION, SERVER(dot_timeout_ms), .fallback = "10m", .least = 10 * MS,
     .most = HOUR,
     .text = "How long the reply to the final dot is awaited. A server that takes longer may have the "
             "message, and gets it once more: do not shorten it in earnest."},
    {"probe-interval", SETTING_DURATION, SERVER(probe_interval_ms), .fallback = "700ms",
     .least = 10 * MS, .most = HOUR,
     .text = "How often a server that cannot be connected is tried."},
    {"xclient", SETTING_CHOICE, SERVER(xclient), .fallback = "auto", .choices = "off|auto",
     .text = "Whether the server is told the original client: auto by XCLIENT where it offers that, "
             "else by XFORWARD where it offers that. Mail of our own and the exchangers of MX "
             "routing go without."},
    {"proxy", SETTING_CHOICE, SERVER(proxy), .fallback = "off", .choices = "off|v2",
     .text = "Whether each connection begins with a PROXY header of version 2 that names the original "
             "client, whose mail alone goes over it; xclient is of no use then. The server must "
             "expect it: it is not offered. Mail of our own goes over connections that are ours (LOCAL)."},
    {"source-address", SETTING_IP, SERVER(source), .otherwise = "the system's choice",
     .local = true,
     .text = "The address of ours to connect from."},
    {"helo", SETTING_HOSTNAME, SERVER(helo), .otherwise = "the hostname",
     .text = "The name to say EHLO with."},
    {"authoritative", SETTING_SWITCH, SERVER(authoritative), .inert = true,
     .fallback = "no",
     .text = "Whether the server's word on recipients counts although it is not the head of its "
             "chain."},
    {"hold-5xx", SETTING_CHOICE, SERVER(hold_5xx_manual),
     .fallback = "auto",
     .choices = "auto|manual",
     .text = "What happens to mail that was held because the server refused it but is not believed: "
             "auto tries it once more when it is, manual waits for the operator."},
    {"hold-5xx-after-recovery", SETTING_DURATION, SERVER(hold_5xx_after_recovery_ms),
     .fallback = "10m", .most = 7 * DAY,
     .text = "How long a server's refusals are held instead of final after it has come back and what "
             "waited for it has gone."},
    {"tls-name", SETTING_HOSTNAME, SERVER(tls_name), .otherwise = "one of the names in address",
     .text = "The name that the server's certificate must have. For an address that is no name, "
             "and without this, it must have the address."},
    {"tls-ca", SETTING_SECRET, .block = BLOCK_SERVER,
     .otherwise = "the machine's, /etc/ssl/certs/ca-certificates.crt",
     .text = "The file of certificates, in PEM, of the authorities that may have signed the server's; "
             "a server's own will do. Read at start and reload. With opportunistic and encrypt it "
             "decides nothing but what the trace says of the certificate, and whether mail that requires TLS may go."},
    {"auth-user", SETTING_TEXT, SERVER(auth_user), .otherwise = "no logging in",
     .text = "The user to log in as, by SCRAM-SHA-256, PLAIN or LOGIN; needs auth-password-file, and "
             "a tls that demands TLS, but for servers on this machine."},
    {"auth-password-file", SETTING_SECRET, .block = BLOCK_SERVER, .otherwise = "none",
     .text = "The file whose one line is the password; read at start and reload, and given to the "
             "sending process alone."},

    /* ---- domain ---- */
    {"deliver-to", SETTING_CHAIN, DOMAIN(chain), .required = true,
     .text = "A server, whose failover servers follow; a list, which is the chain itself, in order "
             "of preference; or mx, alone or in the list: the domain's mail exchangers by DNS that "
             "are better than this host."},
    {"recipients", SETTING_RECIPIENTS, .block = BLOCK_DOMAIN, .fallback = "any",
     .text = "Which recipients exist: any accepts all; learn asks the server while it is up and "
             "remembers what it has said, in a cluster each node by itself; file:PATH, https://... "
             "and ldap:NAME name a list of all there are, as described below."},
    {"recipients-interval", SETTING_DURATION, DOMAIN(recipients_every_ms), .fallback = "15m",
     .least = SECOND, .most = 30 * DAY,
     .text = "How often a page with recipients, or a directory, is asked. A file is read whenever it "
             "changes."},
    {"recipients-token-file", SETTING_SECRET, .block = BLOCK_DOMAIN, .otherwise = "none",
     .text = "The file whose one line is a token for a page with recipients (Authorization: Bearer, "
             "RFC 6750); read at start and reload, and given to the helper process alone."},
    {"unknown", SETTING_CHOICE, DOMAIN(unknown), .fallback = "accept", .choices = "accept|defer",
     .text = "What RCPT answers for a recipient of whom nothing is known while the server cannot be "
             "asked, or does not say: 250, or 450."},
    {"separators", SETTING_TEXT, DOMAIN(separators), .otherwise = "none",
     .text = "Characters that each end the name in a local part: with + what is known of ann holds "
             "for ann+lists as well."},
    {"case-sensitive", SETTING_SWITCH, DOMAIN(case_sensitive), .fallback = "no",
     .text = "Whether Ann and ann are two recipients."},
    {"aliases", SETTING_NAMES, .block = BLOCK_DOMAIN, .otherwise = "none",
     .text = "Further domains of this block that have the recipients of its first one: "
             "ann@ALIAS exists if ann@DOMAIN does."},
    {"own-senders", SETTING_CHOICE, DOMAIN(refuses_own_senders), .fallback = "accept",
     .choices = "accept|reject",
     .text = "Whether mail from addresses of this domain is taken from strangers, or refused at MAIL "
             "as forged. Clients of a relay and the servers that are configured by address are none."},
    {"retry", SETTING_DURATIONS, DOMAIN(retry_ms), .fallback = "{5m, 10m, 20m, 40m, 1h}",
     .least = SECOND, .most = 30 * DAY,
     .text = "When a delivery that the server deferred is tried again; the last value repeats. "
             "{5m, x2, 4h} begins with 5m and doubles up to 4h. While a server is down nothing is "
             "tried, and at its return everything."},
    {"keep", SETTING_DURATION, DOMAIN(keep_ms),
     .fallback = "30d", .least = SECOND,
     .most = 3660 * DAY,
     .text = "How long a message is tried, counted only while one of its servers is up; then it is a "
             "dead letter. Of a message for several routes it counts for those of its first "
             "recipient's. Time on operator hold does not count."},
    {"keep-max", SETTING_DURATION, DOMAIN(keep_max_ms),
     .fallback = "90d", .least = SECOND,
     .most = 3660 * DAY,
     .text = "How long a message is kept in all; then it is a dead letter."},
    {"quota", SETTING_SIZE, DOMAIN(quota_bytes),
     .otherwise = "none with one domain, else half the file system", .least = MB,
     .most = UINT64_C(1) << 50, .none = true,
     .text = "Space that waiting mail of the domain may take; above it RCPT answers 452. A node of a "
             "cluster counts what it hands over itself, and answers by that."},
    {"order-patience", SETTING_DURATION, DOMAIN(order_patience_ms), .fallback = "30s",
     .most = HOUR,
     .text = "How long later mail of a recipient waits for an earlier one that was deferred."},
    {"delay-notice", SETTING_DURATION, DOMAIN(delay_notice_ms),
     .fallback = "none",
     .least = MINUTE, .most = 365 * DAY, .none = true,
     .text = "After how long a verified sender is told that the message is late."},
    {"drill-recipient", SETTING_MAILBOX, DOMAIN(drill_recipient),
     .otherwise = "none",
     .text = "The address, in this domain, that takes the messages of a fire drill "
             "(see drill in holdfast(1)). Without one they are for its postmaster, and end at RCPT and RSET."},
    {"only-when-down", SETTING_SWITCH, DOMAIN(only_when_down), .fallback = "no",
     .text = "Answers strangers 451 while the first server of the chain is up, so that who prefers the "
             "backup gains nothing. Mail servers go to the primary next; one that cannot reach it, "
             "though we can, waits with its mail; but it makes us look whether the primary still is, at "
             "most once a second. Not for relay clients and whom an allow block names."},
    {"nodes", SETTING_MEMBERS, .block = BLOCK_DOMAIN, .otherwise = "any",
     .text = "In a cluster: the nodes that hand its mail over; others do only while none of these is "
             "up. Of several each has its part of the recipients."},
    {"site", SETTING_TEXT, DOMAIN(share_group), .otherwise = "any",
     .text = "In a cluster: the site whose nodes hand its mail over; others do only while none of "
             "these is up. Not with nodes."},
    {"split", SETTING_SWITCH, DOMAIN(split), .fallback = "no",
     .text = "In a cluster: whether its recipients are spread over nodes, for a domain that is too "
             "much for one."},
    {"etrn-from", SETTING_NETWORKS, DOMAIN(etrn_from), .otherwise = "only the domain's servers",
     .text = "Networks that may ask with ETRN for the domain's mail, beside the servers of its chain. "
             "It goes to that chain, whoever asks."},
    {"deliver-only-to", SETTING_NETWORKS, DOMAIN(deliver_only_to),
     .otherwise = "any address; under deliver-to = mx any public one",
     .text = "Networks in which its servers, and the exchangers that DNS names, must lie. Under "
             "deliver-to = mx only what is listed may be loopback, link-local or private; an address "
             "of this host must be listed alone. A server of several routes keeps to all of theirs."},

    /* ---- relay ---- */
    {"deliver-to", SETTING_CHAIN, RELAY(chain), .required = true,
     .text = "A server, whose failover servers follow; a list, which is the chain itself, in order "
             "of preference; or mx, alone or in the list: the mail exchangers of each recipient's "
             "domain by DNS."},
    {"from", SETTING_NETWORKS, RELAY(from), .otherwise = "must be given, or auth",
     .text = "Networks whose mail to any destination is taken."},
    {"senders", SETTING_SENDERS, RELAY(senders), .otherwise = "all",
     .text = "Senders whose mail goes this way; * stands for any run of characters."},
    {"retry", SETTING_DURATIONS, RELAY(retry_ms), .fallback = "{5m, 10m, 20m, 40m, 1h}",
     .least = SECOND, .most = 30 * DAY,
     .text = "As in domain."},
    {"keep", SETTING_DURATION, RELAY(keep_ms),
     .fallback = "5d", .least = SECOND,
     .most = 3660 * DAY,
     .text = "How long a message is tried, whatever the state of the servers; then a verified sender "
             "is told, and for others it is a dead letter."},
    {"order-patience", SETTING_DURATION, RELAY(order_patience_ms), .fallback = "30s",
     .most = HOUR,
     .text = "As in domain."},
    {"delay-notice", SETTING_DURATION, RELAY(delay_notice_ms),
     .fallback = "4h",
     .least = MINUTE, .most = 365 * DAY, .none = true,
     .text = "As in domain."},
    {"auth", SETTING_SWITCH, RELAY(any_user), .fallback = "no",
     .text = "Whether the mail of users who have logged in goes this way, if senders matches."},
    {"deliver-only-to", SETTING_NETWORKS, RELAY(deliver_only_to),
     .otherwise = "any address; under deliver-to = mx any public one",
     .text = "Networks in which its servers, and the exchangers that DNS names, must lie. Under "
             "deliver-to = mx only what is listed may be loopback, link-local or private; an address "
             "of this host must be listed alone. A server of several routes keeps to all of theirs."},

    /* ---- limits ---- */
    {"connections", SETTING_COUNT, LIMIT(connections), .fallback = "20000", .least = 1,
     .most = 1000000,
     .text = "Connections at once in all; more are answered 421."},
    {"connections-per-client", SETTING_COUNT, LIMIT(connections_per_client), .fallback = "200",
     .least = 1, .most = 1000000,
     .text = "Connections at once from one address; loopback is exempt."},
    {"recipients", SETTING_COUNT, LIMIT(recipients), .fallback = "1000", .least = 1,
     .most = SPOOL_RECIPIENTS_MAX,
     .text = "Recipients of one message; more are answered 452."},
    {"message-size", SETTING_SIZE, LIMIT(message_bytes), .fallback = "100M", .least = KB,
     .most = 2 * GB,
     .text = "Size of one message; a larger one is answered 552."},
    {"line-length", SETTING_SIZE, LIMIT(line_bytes), .fallback = "1M", .least = 1000,
     .most = 64 * MB,
     .text = "Length of one line of content."},
    {"header-size", SETTING_SIZE, LIMIT(header_bytes), .fallback = "256K", .least = KB,
     .most = 16 * MB,
     .text = "Size of a message's header block."},
    {"commands", SETTING_COUNT, LIMIT(commands), .fallback = "5000", .least = 10,
     .most = 1000000,
     .text = "Commands of a session without a message in between; RCPT for a recipient that is taken is "
             "not counted."},
    {"errors", SETTING_COUNT, LIMIT(errors), .fallback = "20", .least = 1, .most = 10000,
     .text = "Errors of a session, after which it is closed with 421; an ETRN that is not allowed is "
             "one."},
    {"command-timeout", SETTING_DURATION, LIMIT(command_timeout_ms), .fallback = "5m",
     .least = 10 * MS, .most = DAY,
     .text = "How long a client may take for a command or between two parts of content."},
    {"session-timeout", SETTING_DURATION, LIMIT(session_timeout_ms), .fallback = "2h",
     .least = 10 * MS, .most = 7 * DAY,
     .text = "How long a session may last in all."},
    {"user-recipients", SETTING_COUNT, LIMIT(user_recipients), .fallback = "1000", .least = 1,
     .most = 1000000, .none = true,
     .text = "Recipients an hour of one user who has logged in, all at once if he likes; more are "
             "answered 450. In a cluster, at each node."},
    {"hops", SETTING_COUNT, LIMIT(hops), .fallback = "100", .least = 1, .most = 1000,
     .text = "Received fields of a message, above which it is taken for a loop."},

    {"connections-per-network", SETTING_COUNT, LIMIT(connections_per_network), .fallback = "none",
     .least = 1, .most = 1000000, .none = true,
     .text = "Connections at once from a network of neighbours: an IPv4 /24, an IPv6 /48."},
    {"connection-rate", SETTING_COUNT, LIMIT(connection_rate), .fallback = "none", .least = 1,
     .most = 60000, .none = true,
     .text = "Connections in a minute from one client; an IPv6 client is a /64. Of this and the rates "
             "below a client may use a minute's worth at once. They bind strangers: not loopback, relay "
             "clients, and whom an allow block names."},
    {"message-rate", SETTING_COUNT, LIMIT(message_rate), .fallback = "none", .least = 1,
     .most = 60000, .none = true,
     .text = "Messages in a minute from one client; what is more is answered 450."},
    {"recipient-rate", SETTING_COUNT, LIMIT(recipient_rate), .fallback = "none", .least = 1,
     .most = 60000, .none = true,
     .text = "Recipients in a minute from one client; what is more is answered 450."},
    {"refused-recipient-rate", SETTING_COUNT, LIMIT(refused_rate), .fallback = "120", .least = 1,
     .most = 60000, .none = true,
     .text = "Recipients of one client in a minute that may be refused for good, or put off for they cannot "
             "be verified; after more of them it is greeted with 421 for a while."},
    {"refused-recipients", SETTING_COUNT, LIMIT(refused), .fallback = "50", .least = 1,
     .most = 60000, .none = true,
     .text = "Recipients of one session that may be so refused or put off; then it is closed with 421."},
    {"tarpit", SETTING_DURATION, LIMIT(tarpit_ms), .fallback = "1s", .least = 100 * MS,
     .most = MINUTE, .none = true,
     .text = "From the sixth refused recipient of a session on its answer takes so long, which makes "
             "guessing slow."},

    /* ---- block, allow ---- */
    ACCESS(BLOCK_BLOCK, "blocked"),
    {"text", SETTING_TEXT, .block = BLOCK_BLOCK, AT(access_rule, text), .otherwise = "none",
     .text = "What is said to who is blocked, beside that; a line of at most 200 characters, "
             "printable ASCII."},
    ACCESS(BLOCK_ALLOW, "let through"),

    /* ---- dnsbl ---- */
    {"zone", SETTING_HOSTNAME, .block = BLOCK_DNSBL, AT(dnsbl_config, zone), .required = true,
     .text = "The domain of the list, below which a client's address is looked up."},
    {"answers", SETTING_NETWORKS, .block = BLOCK_DNSBL, .otherwise = "127.0.0.0/24",
     .text = "Addresses that mean that the client is listed. Some lists answer others when they refuse "
             "the question."},
    {"weight", SETTING_COUNT, .block = BLOCK_DNSBL, AT(dnsbl_config, weight), .fallback = "1",
     .least = 1, .most = 1000,
     .text = "What being listed adds to a client's score."},
    {"lists", SETTING_CHOICE, .block = BLOCK_DNSBL, AT(dnsbl_config, is_good), .fallback = "bad",
     .choices = "bad|good",
     .text = "Whom it lists: with good its weight is taken from the score."},

    /* ---- alert ---- */
    {"on", SETTING_KINDS, ALERT(kinds), .otherwise = "all kinds",
     .text = "The kinds of alerts to tell of, as holdfast status shows them; dead-letter is each "
             "single one."},
    {"exec", SETTING_PROGRAM, ALERT(exec), .otherwise = "none",
     .local = true,
     .text = "A program to run, by its absolute path; it finds what happened in its environment. "
             "It runs as user, and is not confined."},
    {"url", SETTING_URL, ALERT(url), .otherwise = "none",
     .text = "An http or https address to post a JSON object to, tried again for an hour."},
    {"url-file", SETTING_SECRET, .block = BLOCK_ALERT, .otherwise = "none",
     .text = "The file whose one line is that address, for receivers who let in whoever knows it; "
             "read at start and reload, and given to the helper process alone."},
    {"secret-file", SETTING_SECRET, .block = BLOCK_ALERT, .otherwise = "none",
     .text = "The file whose one line is the key that the JSON object is signed with; read at start "
             "and reload, and given to the helper process alone."},
    {"mail", SETTING_MAILBOX, ALERT(mail), .otherwise = "none",
     .text = "An address to write to, over servers that work: when those of its route do not, over "
             "those of another relay. It must be in a domain here, or there must be a relay."},
    {"timeout", SETTING_DURATION, ALERT(timeout_ms), .fallback = "30s", .least = SECOND,
     .most = HOUR,
     .text = "How long the program may run or the request take; then it and what it has begun is "
             "killed."},
    {"repeat", SETTING_DURATION, ALERT(repeat_ms), .fallback = "4h", .least = MINUTE,
     .most = 365 * DAY, .none = true,
     .text = "How often an alert is told of again while its cause lasts."},
    {"rate", SETTING_COUNT, ALERT(rate), .fallback = "20", .least = 1, .most = 3600,
     .text = "Messages in an hour, at most; what is more is summed up in one."},

    /* ---- milter ---- */
    {"address", SETTING_MILTER, .block = BLOCK_MILTER, .required = true,
     .text = "Where the filter listens: unix:PATH, inet:ADDRESS:PORT, inet:PORT@ADDRESS, or "
             "ADDRESS:PORT. ADDRESS is an IP address, localhost, or a "
             "name of /etc/hosts, as it stands there at the start and at each reload."},
    {"connect-timeout", SETTING_DURATION, MILTER(connect_timeout_ms), .fallback = "30s",
     .least = 100 * MS, .most = HOUR,
     .text = "How long connecting and agreeing on the protocol may take."},
    {"command-timeout", SETTING_DURATION, MILTER(command_timeout_ms), .fallback = "30s",
     .least = 100 * MS, .most = HOUR,
     .text = "How long an answer to each step before the content may take. A filter that says it "
             "is working has ten times as long."},
    {"content-timeout", SETTING_DURATION, MILTER(content_timeout_ms), .fallback = "5m",
     .least = 100 * MS, .most = HOUR,
     .text = "How long an answer to each step from the header to the end of the message may take, "
             "likewise."},
    {"default", SETTING_CHOICE, MILTER(otherwise), .otherwise = "milter-default of the listener",
     .choices = "accept|tempfail",
     .text = "What happens to mail while this filter is away or talks nonsense."},
    {"sessions", SETTING_COUNT, MILTER(sessions), .fallback = "1000", .least = 1, .most = 1000000,
     .text = "Clients' sessions that may use one connection, one after another, if the filter "
             "speaks version 6 of the protocol and has answered the last message's end with "
             "\"continue\"; 1 makes a connection for each."},

    /* ---- ldap ---- */
    {"url", SETTING_LDAP_URLS, .block = BLOCK_LDAP, .required = true,
     .text = "The directory's server: ldaps://HOST[:PORT], or ldap://HOST[:PORT], which must offer "
             "StartTLS. A list is of servers that know the same; the one that answered last is asked "
             "first."},
    {"tls", SETTING_CHOICE, LDAP(has_tls), .fallback = "required", .choices = "none|required",
     .text = "Whether the connection is encrypted and the server's certificate proved. none is only "
             "for servers on this machine (127.0.0.1, ::1, localhost)."},
    {"tls-name", SETTING_HOSTNAME, LDAP(tls_name), .otherwise = "the host of the URL",
     .text = "The name that the server's certificate must have."},
    {"tls-ca", SETTING_SECRET, .block = BLOCK_LDAP,
     .otherwise = "the machine's, /etc/ssl/certs/ca-certificates.crt",
     .text = "The file of certificates, in PEM, of the authorities that may have signed the server's. "
             "Read at start and reload."},
    {"bind-dn", SETTING_LDAP_TEXT, LDAP(bind_dn), .otherwise = "nobody: the search is anonymous",
     .text = "The entry by which users are searched for; needs bind-password-file."},
    {"bind-password-file", SETTING_SECRET, .block = BLOCK_LDAP, .otherwise = "none",
     .text = "The file whose one line is the password of bind-dn; read at start and reload, and given "
             "to the process that asks directories alone."},
    {"base", SETTING_LDAP_TEXT, LDAP(base), .otherwise = "must be given, or dn",
     .text = "The entry below which users are searched for."},
    {"filter", SETTING_LDAP_TEXT, LDAP(filter), .fallback = "(mail=%u)",
     .text = "What the entry of a user matches (RFC 4515). %u is the name that he logs in with, %l "
             "what stands before its @, %d what stands behind, %% a percent sign. Of several that "
             "match nobody may log in."},
    {"dn", SETTING_LDAP_TEXT, LDAP(dn), .otherwise = "it is searched for",
     .text = "The name of a user's entry, with %u, %l and %d as in filter: then nothing is searched "
             "for, and he reads his addresses himself."},
    {"address-attribute", SETTING_ATTRIBUTES, .block = BLOCK_LDAP, .fallback = "mail",
     .text = "The attributes whose values are the addresses that a user may send as, and that a list "
             "of recipients has. A * in them has no meaning; smtp: before one is left out, as Active "
             "Directory writes it."},
    {"recipients-filter", SETTING_LDAP_TEXT, LDAP(recipients_filter),
     .otherwise = "whoever has one of address-attribute",
     .text = "What entries match (RFC 4515) whose addresses are a list of recipients, for domains with "
             "recipients = ldap:NAME; all below base."},
    {"timeout", SETTING_DURATION, LDAP(timeout_ms), .fallback = "5s", .least = 100 * MS,
     .most = 10 * SECOND,
     .text = "How long one server may take for all that is asked of it for one login. For a list of "
             "recipients it may be silent for a minute, and take ten."},
    /* ---- cluster ---- */
    {"database", SETTING_TEXT, CLUSTER(database), .required = true, .restart = true,
     .text = "The cluster's PostgreSQL, as libpq is told of it: \"host=db1,db2,db3 dbname=holdfast "
             "user=holdfast\". Of several hosts the one is taken that can be written to."},
    {"database-password-file", SETTING_SECRET, .block = BLOCK_CLUSTER, .otherwise = "none",
     .text = "The file whose one line is the password there."},
    {"name", SETTING_TEXT, CLUSTER(name), .otherwise = "the hostname up to its first dot",
     .restart = true,
     .text = "The name of this member, which no other one has."},
    {"role", SETTING_ROLES, .block = BLOCK_CLUSTER, .otherwise = "all three",
     .text = "What this member is for. gateway: mail comes in by it, and outgoing mail leaves; node: "
             "it hands over incoming mail, and outgoing mail while no gateway is up; hub: the "
             "management pages, and the work that one does for all."},
    {"site", SETTING_TEXT, CLUSTER(site), .otherwise = "none", .restart = true,
     .text = "Where this member stands; domains can prefer a site."},

    /* ---- guard ---- */
    {"start", SETTING_PROGRAM, GUARD(start), .required = true,
     .text = "The program that makes sure that the server's machine is off, and starts its standby; "
             "an absolute path. It finds what it needs in its environment, runs as user, and is not "
             "confined."},
    {"undo", SETTING_PROGRAM, GUARD(undo), .otherwise = "none",
     .text = "The program that ends the standby, so that the server can have its place again."},
    {"after", SETTING_DURATION, GUARD(after_ms), .fallback = "5m", .least = SECOND, .most = 7 * DAY,
     .text = "How long the server must have been gone without interruption: it cannot be connected "
             "to or does not greet, and no address in watch answers. suspect and disabled do not "
             "count, nor does a server that answers but takes no mail."},
    {"watch", SETTING_PLACES, .block = BLOCK_GUARD, .otherwise = "none",
     .text = "Addresses of the server's own machine that a standby never takes, such as that of its "
             "SSH. While one answers, be it by refusing, nothing is started by itself; an alert "
             "says so."},
    {"witness", SETTING_PLACES, .block = BLOCK_GUARD, .otherwise = "none",
     .text = "Addresses of other machines, such as a router. While none of them answers it may be we "
             "who are cut off: nothing is started by itself, and an alert says so."},
    {"undo-when", SETTING_CHOICE, GUARD(undo_when), .fallback = "manual",
     .choices = "manual|watch|server",
     .text = "When undo is run: only by holdfast guard undo; when an address in watch takes "
             "connections again; or when the server is up again, which says nothing if the standby "
             "has its address."},
    {"back-after", SETTING_DURATION, GUARD(back_after_ms), .fallback = "10m", .least = SECOND,
     .most = 7 * DAY,
     .text = "How long that must have been so without interruption."},
    {"timeout", SETTING_DURATION, GUARD(timeout_ms), .fallback = "5m", .least = SECOND,
     .most = HOUR,
     .text = "How long a program may run; then it and what it has begun is killed, and it has "
             "failed."},
    {"tries", SETTING_COUNT, GUARD(tries), .fallback = "1", .least = 1, .most = 10,
     .text = "How often a program is run, a minute apart, before it has failed. More than 1 is for "
             "programs that may be run again after they were interrupted anywhere."},

    /* ---- standby ---- */
    {"of", SETTING_TEXT, STANDBY(of), .required = true, .restart = true,
     .text = "The name of the other machine."},
    {"name", SETTING_TEXT, STANDBY(name), .otherwise = "the hostname up to its first dot",
     .restart = true, .text = "The name of this machine, by which the other one knows it."},
    {"after", SETTING_DURATION, STANDBY(after_ms), .fallback = "20s", .least = 4 * SECOND,
     .most = 10 * MINUTE, .restart = true,
     .text = "How long the one that works must have given no sign of life before the other one takes "
             "over. It stops by itself when it could give none for half of that. The same on both."},
    {"fence", SETTING_PROGRAM, STANDBY(fence), .otherwise = "none; status says unfenced then",
     .restart = true,
     .text = "A program that makes sure that the other machine writes no more (it cuts its power, say), "
             "run before a take-over from one that did not hand over; it ends with 0 when that is sure. "
             "If it fails nothing is taken over, and it is run again."},
    {"before-takeover", SETTING_PROGRAM, STANDBY(before), .otherwise = "none", .restart = true,
     .text = "A program that is run before this machine begins to work: it moves an address, say. If it "
             "fails this machine does not begin."},
    {"after-takeover", SETTING_PROGRAM, STANDBY(after_takeover), .otherwise = "none", .restart = true,
     .text = "A program that is run when this machine works."},
    {"after-release", SETTING_PROGRAM, STANDBY(after_release), .otherwise = "none", .restart = true,
     .text = "A program that is run when this machine has stopped working, whatever the reason, or "
             "could not begin after before-takeover was run: it gives the address up, say."},
    {"known-state", SETTING_PATH, STANDBY(known), .fallback = "/var/lib/holdfast-standby",
     .restart = true,
     .text = "A directory of this machine's own, not on the shared storage, made if need be: which "
             "state is the shared one is remembered there, so that an empty mount point, whose storage "
             "is not mounted, is not taken for it. At the first start the state must be on another "
             "file system than this."},
    {"watch", SETTING_ENDPOINTS, STANDBY(watch), .otherwise = "none", .restart = true,
     .text = "Addresses and ports of the other machine, a list; if none of them answers for the time of "
             "after while it gives signs of life, it is asked to hand over."},
};
/* clang-format on */

const uint32_t settings_table_length = sizeof(settings_table) / sizeof(settings_table[0]);

const struct setting_block_description settings_blocks[BLOCK_COUNT] = {
    [BLOCK_TOP] = {"", false, true, "Outside of any block."},
    [BLOCK_LISTEN] = {"listen", true, false, "Where to listen. The title is a name for the log.",
                      true},
    [BLOCK_SERVER] = {"server", true, false,
                      "One next hop, under the name that the title gives it."},
    [BLOCK_DOMAIN] = {"domain", true, false,
                      "Incoming mail: we are backup MX of the domains in the title."},
    [BLOCK_RELAY] = {"relay", true, false,
                     "Outgoing mail of our own networks. The first relay that matches is used."},
    [BLOCK_LIMITS] = {"limits", false, true, "Bounds of what clients may do.", true},
    [BLOCK_BLOCK] = {"block", true, false,
                     "Who may send nothing: 554 5.7.1. A rule holds when everything that it names "
                     "holds: at the greeting if it names only clients, else at MAIL. The title is "
                     "shown in the log and in the reply."},
    [BLOCK_ALLOW] = {"allow", true, false,
                     "Who is let through, whatever a block, a limit of rates or a delay says. It "
                     "gives no right to relay. A sender can be forged: name clients with it."},
    [BLOCK_DNSBL] = {"dnsbl", true, false,
                     "A DNS list of addresses (RFC 5782), which listeners with dnsbl-score ask for "
                     "each stranger. The title is shown in the log and in the reply."},
    [BLOCK_ALERT] = {"alert", true, false,
                     "Whom to tell when something happens that an operator should know of: one of "
                     "exec, url and mail; several blocks may tell several."},
    [BLOCK_MILTER] = {"milter", true, false,
                      "A filter that speaks Sendmail's milter protocol, for listeners to name."},
    [BLOCK_LDAP] = {"ldap", true, false,
                    "An LDAP directory that knows users and their passwords, for listeners to name "
                    "in auth, or recipients, for domains to name in recipients."},
    [BLOCK_STANDBY] =
        {"standby", false, true,
         "Two machines have the same state directory, on storage that both reach, and one of them "
         "works. Each has this block and names the other.",
         true},
    [BLOCK_CLUSTER] = {"cluster", false, true,
                       "This machine is a member of a cluster, which keeps mail in PostgreSQL.",
                       true},
    [BLOCK_GUARD] = {"guard", true, false,
                     "What is run when the server that the title names stays away, and when it is "
                     "back: for one that has a cold standby.",
                     true},
};

enum setting_block settings_block_find(struct slice name)
{
    for (int block = BLOCK_TOP + 1; block < BLOCK_COUNT; block++) {
        if (slice_equal(name, slice_from_text(settings_blocks[block].name))) {
            return (enum setting_block)block;
        }
    }
    return BLOCK_COUNT;
}

const struct setting *settings_find(enum setting_block block, struct slice name)
{
    for (uint32_t i = 0; i < settings_table_length; i++) {
        if (settings_table[i].block == block &&
            slice_equal(name, slice_from_text(settings_table[i].name))) {
            return &settings_table[i];
        }
    }
    return NULL;
}

enum { NAME_MAX_LENGTH = 32 };

static unsigned smallest(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* How many letters must be put in, left out, replaced or swapped with their neighbour. */
static unsigned distance(struct slice a, struct slice b)
{
    unsigned rows[3][NAME_MAX_LENGTH + 1];
    if (a.length > NAME_MAX_LENGTH || b.length > NAME_MAX_LENGTH) {
        return UINT32_MAX;
    }
    for (unsigned j = 0; j <= b.length; j++) {
        rows[0][j] = j;
    }
    for (unsigned i = 1; i <= a.length; i++) {
        unsigned *now = rows[i % 3];
        const unsigned *before = rows[(i + 2) % 3];
        const unsigned *earlier = rows[(i + 1) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= b.length; j++) {
            unsigned other = a.data[i - 1] != b.data[j - 1];
            now[j] = smallest(before[j] + 1, now[j - 1] + 1, before[j - 1] + other);
            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] &&
                a.data[i - 2] == b.data[j - 1] && earlier[j - 2] + 1 < now[j]) {
                now[j] = earlier[j - 2] + 1;
            }
        }
    }
    return rows[a.length % 3][b.length];
}

/* A third of the letters may differ: enough for a slip, not for another word. */
bool settings_is_near(struct slice word, struct slice known, unsigned *best)
{
    unsigned apart = distance(word, known);
    if (apart > known.length / 3 || apart >= *best) {
        return false;
    }
    *best = apart;
    return true;
}

const char *settings_nearest(enum setting_block block, struct slice name)
{
    const char *nearest = NULL;
    unsigned best = UINT32_MAX;
    for (uint32_t i = 0; i < settings_table_length; i++) {
        if (settings_table[i].block == block &&
            settings_is_near(name, slice_from_text(settings_table[i].name), &best)) {
            nearest = settings_table[i].name;
        }
    }
    return nearest;
}

struct slice settings_nearest_choice(const char *choices, struct slice word)
{
    struct slice nearest = SLICE_EMPTY;
    unsigned best = UINT32_MAX;
    struct slice rest = slice_from_text(choices);
    while (rest.length > 0) {
        struct slice known = slice_take(rest, slice_find(rest, '|'));
        if (settings_is_near(word, known, &best)) {
            nearest = known;
        }
        rest = slice_skip(rest, known.length + 1);
    }
    return nearest;
}

int settings_choice_index(const char *choices, struct slice word)
{
    struct slice rest = slice_from_text(choices);
    for (int index = 0; rest.length > 0; index++) {
        struct slice known = slice_take(rest, slice_find(rest, '|'));
        if (slice_equal(word, known)) {
            return index;
        }
        rest = slice_skip(rest, known.length + 1);
    }
    return -1;
}
