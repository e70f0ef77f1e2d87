/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of app/settings.h. A file goes through five hands:
 *
 *   settings_source   bytes of the file, of what it includes and of its "file:" lists
 *   settings_lexer    bytes to tokens
 *   settings_parse    tokens to a tree of blocks and entries; knows no key but the blocks' names
 *   settings_check    tree to values, by the table (settings_table); one block at a time
 *   settings_routes   what concerns several blocks: names, references, chains
 *
 * Each says what is wrong with settings_complain() and goes on, so that all errors are found.
 */
#ifndef HOLDFAST_APP_SETTINGS_INTERNAL_H
#define HOLDFAST_APP_SETTINGS_INTERNAL_H

#include "app/settings.h"
#include "base/arena.h"

enum {
    SETTINGS_SOURCES_MAX = 1000,    /* files in all */
    SETTINGS_BYTES_MAX = 256 << 20, /* of all files */
    SETTINGS_INCLUDE_DEPTH = 8,
    SETTINGS_COMPLAINTS_MAX = 200, /* said; the rest is counted */
    SETTINGS_SERVERS_MAX = 16384,  /* numbers from RELAY_EXCHANGERS on are not theirs */
    SETTINGS_CHAIN_MAX = 64,
    SETTINGS_RETRY_MAX = 64,
};

/* ---- sources ------------------------------------------------------------------------------ */

struct source {
    struct slice path; /* as opened; ends in NUL, which the length does not count */
    struct slice content;
    bool open;   /* being parsed: including it now would be a loop */
    bool shared; /* came with the cluster's settings; `path` is SETTINGS_SHARED or cluster:NAME */
    bool unused; /* a shared one that nothing has named yet: nobody is to have it */
    bool secret; /* or a certificate, which goes with one */
    uint8_t readers; /* of what is withheld from others: SETTINGS_FOR_*; 0: it is for all */
};

struct place {
    uint32_t source;
    uint32_t line;
};

/* ---- tree --------------------------------------------------------------------------------- */

struct value {
    struct slice text;
    struct place at;
};

struct entry {
    struct entry *next;
    struct slice key;
    struct place at;
    const struct value *values;
    uint32_t count;
    bool list; /* was written in braces */
};

struct block {
    struct block *next;
    struct slice kind; /* empty: the top */
    struct place at;
    const struct value *titles;
    uint32_t title_count;
    struct entry *first;
    struct entry **last;
    bool broken; /* a part of it was not understood: do not complain about what is missing */
};

struct complaint {
    struct place at;
    uint32_t order;
    bool warning;
    const char *text;
};

struct settings {
    struct arena arena;      /* what the configuration points into */
    struct arena tree_arena; /* the tree and what else is needed only while reading */
    struct source *sources;
    uint32_t source_count;
    size_t source_bytes;
    bool yields;               /* settings_yield() is to be called */
    bool sealed;               /* sources are all there: no file may be opened */
    uint32_t shared;           /* the source with the cluster's text; NO_INDEX: none */
    bool waits;                /* a listener does, for what the cluster's settings may have */
    struct slice directory;    /* where relative paths of the configuration begin */
    struct slice machine_name; /* hostname if the file gives none */

    struct complaint complaints[SETTINGS_COMPLAINTS_MAX];
    uint32_t complaint_count;
    uint32_t complaints_unsaid;
    bool failed;
    bool out_of_memory;

    struct block top;
    struct block *first_block;
    struct block **last_block;

    struct service_config config;
    struct server_config *servers; /* those of config, while they are being made */
    struct place *server_places;   /* where each one's block begins */
};

/* Zeroed memory that lives as long as the settings; on failure notes it and returns NULL. */
void *settings_allocate(struct settings *settings, size_t count, size_t size);
/* The same, until settings_read() or settings_parse() returns. */
void *settings_allocate_tree(struct settings *settings, size_t count, size_t size);
void settings_complain(struct settings *settings, struct place at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void settings_warn(struct settings *settings, struct place at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* For messages: what somebody wrote, cut to a readable length. */
#define SHOWN(s) (int)((s).length < 64 ? (s).length : 64), (const char *)(s).data

/* Finds or reads a file. `path` is relative to the file `from`, unless that is NULL. Complains at
 * `at` if it cannot; true with *ret_source otherwise. */
bool settings_source(struct settings *settings, const struct place *at, struct slice path,
                     uint32_t *ret_source);
/* The same for a file that holds a secret: its content without the last newline; empty in a process
 * that it is not for. Complains if it is empty, longer than `most` octets, or has a NUL or a second
 * line; warns if everybody may read it. */
bool settings_secret(struct settings *settings, const struct place *at, struct slice path,
                     unsigned readers, size_t most, struct slice *ret_secret);
/* The same for a file of many secrets, whose lines are the caller's to check. */
bool settings_secret_file(struct settings *settings, const struct place *at, struct slice path,
                          unsigned readers, uint32_t *ret_source);
/* The same of one that need not be there, by its whole path (static): false if it is not, cannot be
 * read or is no good, with no complaint. It is looked at once. */
typedef bool settings_file_fn(struct slice content);
bool settings_found_file(struct settings *settings, struct slice path, unsigned readers,
                         settings_file_fn *is_good, uint32_t *ret_source);
/* The same for a file that is no secret, but of use to its readers only. */
bool settings_withheld_file(struct settings *settings, const struct place *at, struct slice path,
                            unsigned readers, uint32_t *ret_source);
/* The cluster's text and files become sources. */
bool settings_take_version(struct settings *settings, const struct settings_version *version);
/* `what` is nowhere: true, with a warning, if the cluster's settings may have it, which are not
 * here yet. A listener that needs it waits for them (settings->waits). */
bool settings_waits(struct settings *settings, struct place at, struct slice what);
/* One of those by its path, with the prefix, for `readers`. False: it is not there. */
bool settings_shared_file(struct settings *settings, struct slice path, unsigned readers,
                          uint32_t *ret_source);
/* It names one of those: cluster:NAME. */
bool settings_is_cluster_file(struct slice path);
/* It stands in the cluster's settings, not in a file of this machine. */
bool settings_is_shared(const struct settings *settings, struct place at);
/* "line N" of `other`, for what is said at `at`; and of which text or file, if that is another one.
 * Good while the tree is. */
const char *settings_line(struct settings *settings, struct place at, struct place other);
/* A version from the copy `name`, if it is there and good. ERROR_MISSING, ERROR_CORRUPT, or what
 * the system says. */
enum error settings_take_copy(struct settings *settings, const char *name) MUST_CHECK;
/* What settings_expand() wrote; false: no such text. */
bool settings_unpack(struct settings *settings, struct slice text);

/* The values with what stands in the file of each "file:PATH" in its place: one a line, comments
 * after "#". In the tree's memory; without any file the values themselves. *ret_good is false if a
 * file could not be read, which has been said. */
const struct value *settings_list(struct settings *settings, const struct value *values,
                                  uint32_t count, uint32_t *ret_count, bool *ret_good);

/* ---- recipients --------------------------------------------------------------------------- */

/* What the keys of a domain block say of its recipients. */
void settings_recipients(struct settings *settings, struct route_config *route,
                         const struct entry *const *entries);
/* The table of users, if one came with the cluster's settings. */
void settings_users(struct settings *settings);
/* Files with lists of all blocks: the keeper opens so many. */
void settings_list_files(struct settings *settings);

/* The next line of a file of users that is neither empty nor a comment, without blanks around it;
 * *line counts them. False: there is none. */
bool settings_user_line(struct slice *rest, uint32_t *line, struct slice *ret_text);
uint32_t settings_count(struct slice text, char byte);

/* ---- lexer -------------------------------------------------------------------------------- */

enum token_kind {
    TOKEN_WORD,
    TOKEN_STRING,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_EQUALS,
    TOKEN_COMMA,
    TOKEN_BAD, /* text says what is wrong; the line's rest has been skipped */
    TOKEN_END,
};

struct token {
    enum token_kind kind;
    struct slice text;
    uint32_t line;
    bool first; /* on its line */
};

struct lexer {
    struct slice rest;
    uint32_t line;
    bool line_start;
    struct arena *arena; /* for strings with escapes */
};

void lexer_init(struct lexer *lexer, struct slice text, struct arena *arena);
struct token lexer_next(struct lexer *lexer);

/* ---- parser ------------------------------------------------------------------------------- */

/* Fills settings->top and the list of blocks from the first source. */
void settings_parse_tree(struct settings *settings);
/* Adds those of another one. */
/* After settings_parse_more(). */
void settings_yield(struct settings *settings);
void settings_parse_more(struct settings *settings, uint32_t source);

/* ---- values ------------------------------------------------------------------------------- */

/* All: false with *ret_why, a phrase for the operator, if the text is none. */
bool value_duration(struct slice text, uint64_t *ret_ms, const char **ret_why);
bool value_size(struct slice text, uint64_t *ret_bytes, const char **ret_why);
bool value_count(struct slice text, uint64_t *ret_count, const char **ret_why);
bool value_hostname(struct slice text, const char **ret_why);
bool value_mailbox(struct slice text, const char **ret_why);
bool value_network(struct slice text, struct ip_network *ret_network, const char **ret_why);
/* HOST, HOST:PORT, ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT. `port` is for where none is written; 0:
 * it must be. */
bool value_address(struct slice text, uint16_t port, struct server_address *ret_address,
                   const char **ret_why);

/* ---- table -------------------------------------------------------------------------------- */

enum setting_block {
    BLOCK_TOP,
    BLOCK_LISTEN,
    BLOCK_SERVER,
    BLOCK_DOMAIN,
    BLOCK_RELAY,
    BLOCK_LIMITS,
    BLOCK_BLOCK,
    BLOCK_ALLOW,
    BLOCK_DNSBL,
    BLOCK_ALERT,
    BLOCK_MILTER,
    BLOCK_LDAP,
    BLOCK_CLUSTER,
    BLOCK_GUARD,
    BLOCK_STANDBY,
    BLOCK_COUNT,
};

enum setting_type {
    SETTING_TEXT,
    SETTING_HOSTNAME,
    SETTING_PATH,
    SETTING_MAILBOX,
    SETTING_IP,
    SETTING_COUNT,
    SETTING_DURATION,
    SETTING_SIZE,
    SETTING_SWITCH, /* yes, no */
    SETTING_CHOICE,
    /* These are filled by hand (settings_routes and settings_check). */
    SETTING_DURATIONS,
    SETTING_ENDPOINTS, /* where to listen */
    SETTING_ADDRESSES, /* of a server */
    SETTING_RESOLVERS,
    SETTING_IPS,
    SETTING_NETWORKS,
    SETTING_KINDS, /* of alerts */
    SETTING_ROLES, /* of a member of a cluster */
    SETTING_MEMBERS,
    SETTING_FILES,
    SETTING_NAMES, /* of domains */
    SETTING_MILTERS,
    SETTING_LOGINS, /* where it is known who may log in */
    SETTING_LDAP_URLS,
    SETTING_ATTRIBUTES, /* of entries in a directory */
    SETTING_SENDERS,
    SETTING_SERVER,
    SETTING_CHAIN,
    SETTING_RELAY,
    SETTING_ANCHOR,
    SETTING_RECIPIENTS,
    SETTING_PROGRAM, /* a file to run */
    SETTING_PLACES,  /* addresses with ports, to ask whether somebody is there */
    SETTING_URL,
    SETTING_SECRET,    /* a file whose content is one */
    SETTING_MILTER,    /* where one listens */
    SETTING_LDAP_TEXT, /* a base, a name or a filter */
    SETTING_USERS,
    SETTING_ABSENT, /* a name of a later version */
};

struct setting {
    const char *name;
    enum setting_type type;
    enum setting_block block;
    const char *fallback;  /* as one would write it; NULL: none */
    const char *otherwise; /* what holds without it, in words, if fallback does not say it */
    uint64_t least, most;  /* milliseconds, bytes, things; both 0: any */
    const char *choices;   /* SETTING_CHOICE: "a|b", in the order of the enum */
    const char *later;     /* choices of a later version, "c|d" */
    bool required;
    bool none;        /* the word "none" is allowed and means 0 */
    bool inert;       /* accepted, but nothing in this version acts on it */
    bool restart;     /* not reloadable: takes effect when the program starts */
    bool local;       /* stands in the file of each machine only, as what takes a restart does */
    uint32_t offset;  /* in the block's struct; see settings_table.c */
    uint8_t width;    /* bytes of an integer there */
    const char *text; /* one sentence */
};

extern const struct setting settings_table[];
extern const uint32_t settings_table_length;

struct setting_block_description {
    const char *name; /* "" for the top */
    bool titled;
    bool once;
    const char *text;
    bool local; /* stands in the file of each machine only */
};
extern const struct setting_block_description settings_blocks[BLOCK_COUNT];

/* BLOCK_COUNT: no block of that name. */
enum setting_block settings_block_find(struct slice name);
/* NULL: no such key there. */
const struct setting *settings_find(enum setting_block block, struct slice name);
/* The nearest key of the block, or NULL when none is near. */
const char *settings_nearest(enum setting_block block, struct slice name);
/* True if `known` may be what `word` was meant to be, and is nearer than *best was (UINT32_MAX to
 * begin with). */
bool settings_is_near(struct slice word, struct slice known, unsigned *best);
/* The nearest of words joined by '|', empty when none is near. */
struct slice settings_nearest_choice(const char *choices, struct slice word);
/* The index of a word in "a|b|c", or -1. */
int settings_choice_index(const char *choices, struct slice word);

/* ---- names -------------------------------------------------------------------------------- */

/* Names to numbers, case folded; the numbers are the caller's. */
struct names {
    struct names_slot *slots;
    uint32_t capacity; /* power of two */
    uint32_t count;
};
void names_init(struct names *names);
void names_done(struct names *names);
/* The number under which the name is known already, or NO_INDEX when it was added (or memory is
 * out, noted in settings). */
uint32_t names_add(struct settings *settings, struct names *names, struct slice name,
                   uint32_t number);
/* Adds it under its line. False: it is there already, which is complained of; `what` it is begins
 * that. */
bool names_once(struct settings *settings, struct names *names, struct slice name, struct place at,
                const char *what);
uint32_t names_find(const struct names *names, struct slice name); /* or NO_INDEX */
/* The nearest known name, empty when none is near. Looks at all of them. */
struct slice names_nearest(const struct names *names, struct slice name);

/* A number of the setting's type as one would write it: "30s", "64M", "20". */
void settings_format(enum setting_type type, uint64_t value, char ret_text[32]);

/* ---- check -------------------------------------------------------------------------------- */

/* Of the tree only the top, as far as it can be understood. */
void settings_check_top(struct settings *settings);
/* The same with the cluster block. */
void settings_check_cluster(struct settings *settings);
/* The state directory that the tree names, absolute; empty if there is no memory. */
struct slice settings_peek_state(struct settings *settings);
/* The tree to settings->config. */
void settings_check(struct settings *settings);
/* Fills `target` (the block's struct) with defaults, then from the entries, by the table. Entries
 * of hand-filled types are checked for unknown and twice only. ret_entries[i] is the entry of
 * settings_table[i], or NULL; it has settings_table_length places. */
void settings_fill(struct settings *settings, enum setting_block block, const struct block *tree,
                   void *target, const struct entry **ret_entries);
/* The entry of a key of the block in what settings_fill() gave, or NULL. */
const struct entry *settings_entry(const struct entry *const *entries, enum setting_block block,
                                   const char *name);
/* The servers: settings->config.relay.servers with their names, failover loops broken. */
void settings_servers(struct settings *settings, struct names *ret_names);
/* Routes and what refers to them: the rest of settings->config.relay. `top` are the entries of the
 * file's top. */
void settings_routes(struct settings *settings, const struct names *servers,
                     const struct entry *const *top);
/* The value of an entry that names a program, with a NUL behind it; empty: there is no entry, or
 * none that can be run, which has been said. */
struct slice settings_program(struct settings *settings, const struct entry *entry);
/* The guard blocks: settings->config.guards. After servers. */
void settings_guards(struct settings *settings, const struct names *servers,
                     const struct entry **entries);
/* The alert blocks: settings->config.hooks. `entries` is scratch of settings_fill(). */
void settings_alerts(struct settings *settings, const struct entry **entries);
/* The networks of an entry, in the tree's memory. `everybody`: what is wrong with 0.0.0.0/0 or
 * ::/0, NULL: nothing. What is no network has been said. */
const struct ip_network *settings_networks(struct settings *settings, const struct entry *entry,
                                           const char *everybody, uint32_t *ret_count);
/* The block and allow blocks: settings->config.access. */
void settings_access(struct settings *settings, const struct entry **entries);
/* The milter blocks: settings->config.milters. `entries` is scratch of settings_fill(). */
void settings_milters(struct settings *settings, const struct entry **entries);
/* The filters of a listener, of those. `entry` may be NULL. */
void settings_listener_milters(struct settings *settings, const struct entry *entry,
                               struct listener_config *listener);
/* The dnsbl blocks: settings->config.dnsbls. */
void settings_dnsbl(struct settings *settings, const struct entry **entries);
/* The ldap blocks. */
void settings_ldap(struct settings *settings, const struct entry **entries);
/* The block of a kind that has no title and is there once at most; more is complained of. NULL:
 * there is none. */
const struct block *settings_only_block(struct settings *settings, enum setting_block kind);
/* The cluster block: settings->config.cluster. */
void settings_cluster(struct settings *settings, const struct entry **entries);
/* The standby block, after that: settings->config.standby. */
void settings_standby(struct settings *settings, const struct entry **entries);
/* A host's name up to its first dot, in lower case. */
struct slice settings_first_label(struct settings *settings, struct slice hostname);
/* What the keys of a domain block say of who in the cluster hands its mail over. */
void settings_share(struct settings *settings, const struct entry *const *entries,
                    struct route_config *route);
/* NULL: there is no such block. */
const struct ldap_config *settings_find_ldap(const struct settings *settings, struct slice name);
/* What is special to listeners with protocol = odmr: their users. `users` may be NULL. */
void settings_odmr_listener(struct settings *settings, const struct block *block,
                            const struct entry *users, struct listener_config *listener);
/* The same for TLS. */
void settings_listener_tls(struct settings *settings, const struct block *block,
                           const struct entry *const *entries, struct listener_config *listener);
#define SETTINGS_MACHINE_AUTHORITIES "/etc/ssl/certs/ca-certificates.crt"
/* Whom the machine trusts, if it says so; or empty. */
struct slice settings_machine_authorities(struct settings *settings, unsigned readers);
/* PEM of authorities in a file for `readers`; complains under `key` if there are none. */
void settings_authorities(struct settings *settings, const char *key, const struct place *at,
                          struct slice path, unsigned readers, struct slice *ret_pem);
/* Who may log in at a listener; `auth` may be NULL. */
void settings_login(struct settings *settings, const struct block *block, const struct entry *auth,
                    struct listener_config *listener);
/* When all else is there: that the users' domains and the servers without an address fit. */
void settings_odmr(struct settings *settings);
/* The index of the server, or NO_INDEX with a complaint. */
uint32_t settings_server_index(struct settings *settings, const struct names *servers,
                               const struct value *value);

/* ---- settings_anchor.c -------------------------------------------------------------------- */

/* Records for dns-trust-anchor, one a line, and comments after ';'. False: it has none, or the line
 * that *ret_line counts from 1 is none. */
bool settings_anchors_are_good(struct slice text, uint32_t *ret_line);

#endif
