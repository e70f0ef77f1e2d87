/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may log in at a listener: its sources, directories among them, and files of hashes.
 *
 * A file of hashes has a line for each user, NAME:HASH or NAME:HASH:ADDRESS[,ADDRESS...], and "#"
 * begins a line that is none; what htpasswd(1) writes is such a file. Only the login process gets
 * its content.
 */
#include "app/settings_internal.h"
#include "base/password.h"
#include "service/login.h"
#include "service/login_store.h"

enum { SOURCES_MAX = 8 };

/* Without addresses a user is his name, if that is one. */
static bool fill_addresses(struct settings *settings, struct place at, struct slice list,
                           struct login_entry *entry)
{
    uint32_t most = settings_count(list, ',') + 1;
    struct slice *addresses = settings_allocate(settings, most, sizeof(*addresses));
    if (addresses == NULL) {
        return false;
    }
    if (most > LOGIN_ADDRESSES_MAX) {
        settings_complain(settings, at, "auth: more than %d addresses for one user",
                          LOGIN_ADDRESSES_MAX);
        return false;
    }
    entry->addresses = addresses;
    if (list.length == 0 && login_address_fault(entry->name) == NULL) {
        addresses[entry->address_count++] = entry->name;
    }
    while (list.length > 0) {
        struct slice address = slice_take(list, slice_find(list, ','));
        const char *why = login_address_fault(address);
        if (why != NULL) {
            settings_complain(settings, at, "auth: '%.*s' %s", SHOWN(address), why);
            return false;
        }
        addresses[entry->address_count++] = address;
        list = slice_skip(list, address.length + 1);
    }
    return true;
}

/* Nothing of the hash is ever quoted. */
static bool fill_entry(struct settings *settings, struct place at, struct slice line,
                       struct login_entry *entry)
{
    entry->name = slice_take(line, slice_find(line, ':'));
    struct slice rest = slice_skip(line, entry->name.length + 1);
    entry->hash = slice_take(rest, slice_find(rest, ':'));
    rest = slice_skip(rest, entry->hash.length + 1);
    const char *why = login_name_fault(entry->name);
    if (why != NULL) {
        settings_complain(settings, at, "auth: the name '%.*s' %s", SHOWN(entry->name), why);
        return false;
    }
    if (!password_hash_is_valid(entry->hash)) {
        settings_complain(
            settings, at,
            "auth: a line is NAME:HASH or NAME:HASH:ADDRESS[,ADDRESS...], the hash as "
            "crypt(3) or argon2id makes it");
        return false;
    }
    return fill_addresses(settings, at, slice_take(rest, slice_find(rest, ':')), entry);
}

static void fill_file(struct settings *settings, uint32_t source, struct login_source *ret_source)
{
    struct slice rest = settings->sources[source].content, text;
    struct place at = {source, 0};
    struct login_entry *entries =
        settings_allocate(settings, settings_count(rest, '\n') + 1, sizeof(*entries));
    struct names names;
    names_init(&names);
    while (entries != NULL && settings_user_line(&rest, &at.line, &text)) {
        struct login_entry *entry = &entries[ret_source->entry_count];
        *entry = (struct login_entry){0};
        if (!fill_entry(settings, at, text, entry)) {
            continue;
        }
        if (names_once(settings, &names, entry->name, at, "auth:")) {
            ret_source->entry_count++;
        }
    }
    names_done(&names);
    ret_source->entries = entries;
}

static bool fill_directory(struct settings *settings, const struct value *value, struct slice name,
                           struct login_source *ret_source)
{
    const struct ldap_config *ldap = settings_find_ldap(settings, name);
    if (ldap != NULL) {
        ret_source->kind = LOGIN_SOURCE_LDAP;
        ret_source->name = ldap->name;
        return true;
    }
    if (!settings_waits(settings, value->at, value->text)) {
        settings_complain(settings, value->at, "auth: there is no ldap block '%.*s'", SHOWN(name));
    }
    return false;
}

/* The name of a file in /etc/pam.d, or the path of one elsewhere. */
static bool fill_service(struct settings *settings, const struct value *value, struct slice name,
                         struct login_source *ret_source)
{
    bool is_path = name.length > 0 && name.data[0] == '/';
    size_t slash = slice_find_last(name, '/');
    if (name.length == 0 || name.length > SETTINGS_SECRET_MAX ||
        slice_find(name, 0) < name.length ||
        (is_path ? slash == 0 || slash + 1 == name.length : slash < name.length)) {
        settings_complain(settings, value->at,
                          "auth: '%.*s' is neither the name of a PAM service nor the absolute path "
                          "of its file",
                          SHOWN(name));
        return false;
    }
    ret_source->kind = LOGIN_SOURCE_PAM;
    ret_source->name = name;
    return true;
}

static bool fill_source(struct settings *settings, const struct value *value,
                        struct login_source *ret_source)
{
    struct slice prefix = SLICE_LITERAL("file:"), directory = SLICE_LITERAL("ldap:"),
                 pam = SLICE_LITERAL("pam:");
    uint32_t source;
    *ret_source = (struct login_source){0};
    if (slice_equal(value->text, SLICE_LITERAL("users"))) {
        ret_source->kind = LOGIN_SOURCE_USERS;
        return true;
    }
    if (slice_starts_fold(value->text, directory)) {
        return fill_directory(settings, value, slice_skip(value->text, directory.length),
                              ret_source);
    }
    if (slice_starts_fold(value->text, pam)) {
        return fill_service(settings, value, slice_skip(value->text, pam.length), ret_source);
    }
    if (!slice_starts_fold(value->text, prefix)) {
        settings_complain(settings, value->at,
                          "auth: '%.*s' is neither users, \"file:PATH\", ldap:NAME nor pam:SERVICE",
                          SHOWN(value->text));
        return false;
    }
    if (!settings_secret_file(settings, &value->at, slice_skip(value->text, prefix.length),
                              SETTINGS_FOR_LOGIN, &source)) {
        return false;
    }
    ret_source->kind = LOGIN_SOURCE_FILE;
    fill_file(settings, source, ret_source);
    return true;
}

void settings_login(struct settings *settings, const struct block *block, const struct entry *auth,
                    struct listener_config *listener)
{
    static const struct login_source users_only[] = {{.kind = LOGIN_SOURCE_USERS}};
    bool takes_mail =
        listener->protocol == LISTENER_SMTP || listener->protocol == LISTENER_SUBMISSION;
    if (!takes_mail) {
        if (auth != NULL) {
            settings_complain(settings, auth->at, "auth is for protocol = smtp and submission");
        }
        return;
    }
    if (auth == NULL) {
        if (listener->protocol == LISTENER_SUBMISSION) {
            listener->login_sources = users_only;
            listener->login_source_count = 1;
        }
        return;
    }
    struct login_source *sources = settings_allocate(settings, SOURCES_MAX, sizeof(*sources));
    if (auth->count > SOURCES_MAX) {
        settings_complain(settings, auth->at, "auth: more than %d sources", SOURCES_MAX);
        return;
    }
    for (uint32_t i = 0; sources != NULL && i < auth->count; i++) {
        listener->login_source_count +=
            fill_source(settings, &auth->values[i], &sources[listener->login_source_count]);
    }
    listener->login_sources = sources;
    if (auth->count == 0 && !block->broken) {
        settings_complain(settings, auth->at, "auth: a source is needed");
    }
}

void settings_users(struct settings *settings)
{
    uint32_t source, line = 0;
    if (!settings_shared_file(settings, SLICE_LITERAL(SETTINGS_USERS), SETTINGS_FOR_LOGIN,
                              &source)) {
        return;
    }
    struct slice text = settings->sources[source].content;
    settings->config.users_text = text;
    if (settings->sealed) {
        return;
    }
    struct login_store *store = NULL;
    enum error error = login_store_parse(text, &store, &line);
    login_store_free(store);
    if (error == ERROR_MEMORY) {
        settings->out_of_memory = true;
    } else if (error != ERROR_NONE) {
        settings_complain(settings, (struct place){source, line},
                          "this is no line of a table of users");
    }
}
