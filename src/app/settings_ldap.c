/* SPDX-License-Identifier: Apache-2.0
 *
 * The ldap blocks: directories, how they are reached, and how a user, or all recipients, are found
 * in one. Password and authorities are for the process that asks.
 */
#include "app/settings_internal.h"

struct reading {
    struct settings *settings;
    const struct block *block;
    const struct entry *const *entries;
    struct ldap_config *ldap;
};

static const struct entry *entry_of(const struct reading *reading, const char *key)
{
    return settings_entry(reading->entries, BLOCK_LDAP, key);
}

static struct place place_of(const struct reading *reading, const char *key)
{
    const struct entry *entry = entry_of(reading, key);
    return entry != NULL ? entry->at : reading->block->at;
}

/* Without TLS a password may not leave the machine. */
static bool is_safe(const struct reading *reading, const struct ldap_url *url)
{
    struct ip_address literal;
    bool is_local = ip_from_text(url->host, &literal)
                        ? ip_is_loopback(&literal)
                        : slice_equal_fold(url->host, SLICE_LITERAL("localhost"));
    return reading->ldap->has_tls || is_local;
}

static void fill_urls(struct reading *reading)
{
    struct settings *settings = reading->settings;
    const struct entry *entry = entry_of(reading, "url");
    if (entry == NULL) {
        return;
    }
    struct ldap_url *urls = settings_allocate(settings, entry->count, sizeof(*urls));
    if (entry->count > LDAP_URLS_MAX) {
        settings_complain(settings, entry->at, "url: more than %d servers", LDAP_URLS_MAX);
        return;
    }
    for (uint32_t i = 0; urls != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        const char *why;
        struct ldap_url *url = &urls[reading->ldap->url_count];
        struct ip_address literal;
        if (!ldap_url_read(value->text, url) ||
            !(ip_from_text(url->host, &literal) || value_hostname(url->host, &why))) {
            settings_complain(settings, value->at,
                              "url: '%.*s' is neither ldaps://HOST[:PORT] nor ldap://HOST[:PORT]",
                              SHOWN(value->text));
        } else if (url->has_tls && !reading->ldap->has_tls) {
            settings_complain(settings, value->at, "url: ldaps is TLS, but tls = none");
        } else if (!is_safe(reading, url)) {
            settings_complain(settings, value->at,
                              "url: tls = none is only for servers on this machine (127.0.0.1, "
                              "::1, localhost): passwords go there");
        } else {
            reading->ldap->url_count++;
        }
    }
    reading->ldap->urls = urls;
}

static bool is_attribute(struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool is_other = (c >= '0' && c <= '9') || c == '-' || c == ';' || c == '.';
        if (!is_letter && !is_other) {
            return false;
        }
    }
    return text.length > 0 && text.length < 256;
}

static void fill_attributes(struct reading *reading)
{
    static const char *const usual[] = {"mail", NULL};
    struct settings *settings = reading->settings;
    const struct entry *entry = entry_of(reading, "address-attribute");
    reading->ldap->attributes = usual;
    reading->ldap->attribute_count = 1;
    if (entry == NULL) {
        return;
    }
    const char **names = settings_allocate(settings, entry->count + 1, sizeof(*names));
    if (entry->count > LDAP_ATTRIBUTES_MAX || names == NULL) {
        settings_complain(settings, entry->at, "address-attribute: more than %d",
                          LDAP_ATTRIBUTES_MAX);
        return;
    }
    for (uint32_t i = 0; i < entry->count; i++) {
        struct slice text = entry->values[i].text;
        char *name = settings_allocate(settings, text.length + 1, 1);
        if (!is_attribute(text) || name == NULL) {
            settings_complain(settings, entry->values[i].at,
                              "address-attribute: '%.*s' is no name of an attribute", SHOWN(text));
            return;
        }
        memcpy(name, text.data, text.length);
        names[i] = name;
    }
    reading->ldap->attributes = names;
    reading->ldap->attribute_count = entry->count;
}

static void check_text(const struct reading *reading, const char *key, struct slice text,
                       const char *why)
{
    if (why == NULL && (text.length > LDAP_TEXT_MAX / 4 || slice_find(text, 0) != text.length)) {
        why = "is too long, or has a NUL";
    }
    if (why != NULL) {
        settings_complain(reading->settings, place_of(reading, key), "%s: '%.*s' %s", key,
                          SHOWN(text), why);
    }
}

static void check_search(const struct reading *reading)
{
    const struct ldap_config *ldap = reading->ldap;
    bool is_searched = ldap->dn.length == 0;
    if (is_searched && ldap->base.length == 0 && !reading->block->broken) {
        settings_complain(reading->settings, reading->block->at, "ldap '%.*s' needs base or dn",
                          SHOWN(ldap->name));
    }
    check_text(reading, "base", ldap->base, NULL);
    check_text(reading, "bind-dn", ldap->bind_dn, NULL);
    check_text(reading, "filter", ldap->filter,
               ldap_template_fault(LDAP_TEMPLATE_FILTER, ldap->filter));
    if (!is_searched) {
        check_text(reading, "dn", ldap->dn, ldap_template_fault(LDAP_TEMPLATE_NAME, ldap->dn));
    }
}

/* Who has no address of theirs is none. Else whoever has one. */
static void fill_recipients_filter(struct reading *reading)
{
    struct ldap_config *ldap = reading->ldap;
    struct slice filter = ldap->recipients_filter;
    if (filter.length > 0) {
        check_text(reading, "recipients-filter", filter,
                   slice_find(filter, '%') < filter.length
                       ? "has a % (which is \\25 if it stands for itself)"
                       : ldap_filter_fault(filter));
        return;
    }
    struct buffer text;
    buffer_init(&text, LDAP_TEXT_MAX);
    buffer_append_text(&text, ldap->attribute_count > 1 ? "(|" : "");
    for (size_t i = 0; i < ldap->attribute_count; i++) {
        buffer_printf(&text, "(%s=*)", ldap->attributes[i]);
    }
    buffer_append_text(&text, ldap->attribute_count > 1 ? ")" : "");
    uint8_t *copy = settings_allocate(reading->settings, text.length + 1, 1);
    if (copy != NULL && !text.failed) {
        memcpy(copy, text.data, text.length);
        ldap->recipients_filter = slice_make(copy, text.length);
    }
    buffer_done(&text);
}

static void fill_password(struct reading *reading)
{
    const struct entry *dn = entry_of(reading, "bind-dn");
    const struct entry *file = entry_of(reading, "bind-password-file");
    if ((dn == NULL) != (file == NULL)) {
        settings_complain(reading->settings, (dn != NULL ? dn : file)->at,
                          "bind-dn and bind-password-file go together");
    } else if (file != NULL && file->count == 1 && !file->list) {
        (void)settings_secret(reading->settings, &file->values[0].at, file->values[0].text,
                              SETTINGS_FOR_DIRECTORY, SETTINGS_SECRET_MAX,
                              &reading->ldap->bind_password);
    }
}

static void fill_authorities(struct reading *reading)
{
    const struct entry *entry = entry_of(reading, "tls-ca");
    bool is_named = entry != NULL && entry->count == 1 && !entry->list;
    struct slice path =
        is_named ? entry->values[0].text : SLICE_LITERAL(SETTINGS_MACHINE_AUTHORITIES);
    struct place at = is_named ? entry->values[0].at : reading->block->at;
    if (is_named || reading->ldap->has_tls) {
        settings_authorities(reading->settings, "tls-ca", &at, path, SETTINGS_FOR_DIRECTORY,
                             &reading->ldap->tls_ca);
    }
}

const struct ldap_config *settings_find_ldap(const struct settings *settings, struct slice name)
{
    for (uint32_t i = 0; i < settings->config.ldap_count; i++) {
        if (slice_equal_fold(settings->config.ldaps[i].name, name)) {
            return &settings->config.ldaps[i];
        }
    }
    return NULL;
}

void settings_ldap(struct settings *settings, const struct entry **entries)
{
    struct ldap_config *ldaps = settings_allocate(settings, LDAPS_MAX, sizeof(*ldaps));
    struct names names;
    names_init(&names);
    for (const struct block *block = settings->first_block; block != NULL && ldaps != NULL;
         block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_LDAP) {
            continue;
        }
        if (settings->config.ldap_count == LDAPS_MAX) {
            settings_complain(settings, block->at, "more than %d ldap blocks", LDAPS_MAX);
            break;
        }
        struct ldap_config *ldap = &ldaps[settings->config.ldap_count++];
        struct reading reading = {settings, block, entries, ldap};
        settings_fill(settings, BLOCK_LDAP, block, ldap, entries);
        ldap->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
        if (ldap->name.length > LDAP_NAME_MAX) {
            settings_complain(settings, block->at, "ldap '%.*s': the name is longer than %d",
                              SHOWN(ldap->name), LDAP_NAME_MAX);
        }
        (void)names_once(settings, &names, ldap->name, block->at, "ldap");
        fill_urls(&reading);
        fill_attributes(&reading);
        check_search(&reading);
        fill_recipients_filter(&reading);
        fill_password(&reading);
        fill_authorities(&reading);
    }
    names_done(&names);
    settings->config.ldaps = ldaps;
}
