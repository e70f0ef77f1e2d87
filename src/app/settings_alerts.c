/* SPDX-License-Identifier: Apache-2.0
 *
 * The alert blocks: whom to tell of what.
 */
#include "app/settings_internal.h"
#include "service/alerts.h"

#include <sys/stat.h>

enum { URL_MAX = 1999 };

_Static_assert(ALERT_KIND_COUNT <= 64, "a bit for each");

static const char *const kind_words =
#define KIND_WORD(name, word, what) word "|"
    ALERT_KIND_TABLE(KIND_WORD)
#undef KIND_WORD
    ;

static void take_kinds(struct settings *settings, struct hook_config *hook,
                       const struct entry *entry)
{
    hook->kinds = entry == NULL ? UINT64_MAX : 0;
    for (uint32_t i = 0; entry != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        int kind = settings_choice_index(kind_words, value->text);
        if (kind >= 0) {
            hook->kinds |= UINT64_C(1) << kind;
            continue;
        }
        struct slice near = settings_nearest_choice(kind_words, value->text);
        settings_complain(settings, value->at, "on: '%.*s' is no kind of alert%s%.*s%s",
                          SHOWN(value->text), near.length > 0 ? "; did you mean '" : "",
                          SHOWN(near), near.length > 0 ? "'?" : "");
    }
}

/* The value of an entry with one; with a NUL behind it. Empty: none. */
static struct slice take_text(struct settings *settings, const struct entry *entry)
{
    if (entry == NULL || entry->count != 1 || entry->list) {
        return SLICE_EMPTY;
    }
    struct slice text = entry->values[0].text;
    char *copy = settings_allocate(settings, text.length + 1, 1);
    if (copy == NULL || text.length == 0) {
        return SLICE_EMPTY;
    }
    memcpy(copy, text.data, text.length);
    return slice_make(copy, text.length);
}

static const char *why_no_program(const struct settings *settings, struct slice path)
{
    struct stat status;
    if (path.length == 0 || path.data[0] != '/' || slice_find(path, 0) != path.length) {
        return "is no absolute path";
    }
    if (settings->sealed) {
        return NULL; /* looked at before, where there is a file system */
    }
    if (stat((const char *)path.data, &status) != 0) {
        return "is not there";
    }
    if (!S_ISREG(status.st_mode) || (status.st_mode & 0111) == 0) {
        return "is no executable file";
    }
    return (status.st_mode & S_IWOTH) != 0 ? "can be written by everybody" : NULL;
}

struct slice settings_program(struct settings *settings, const struct entry *entry)
{
    struct slice path = take_text(settings, entry);
    const char *why = entry != NULL ? why_no_program(settings, path) : NULL;
    if (why != NULL) {
        settings_complain(settings, entry->at, "%.*s: '%.*s' %s", SHOWN(entry->key), SHOWN(path),
                          why);
    }
    return path;
}

static bool is_url(struct slice url)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < 2; i++) {
        struct slice scheme = slice_from_text(schemes[i]);
        struct slice host = slice_skip(url, scheme.length);
        if (slice_starts_fold(url, scheme) && host.length > 0 && host.data[0] != '/' &&
            host.data[0] != ':') {
            return true;
        }
    }
    return false;
}

static bool is_good_url(struct slice url)
{
    bool good = is_url(url) && url.length <= URL_MAX;
    for (size_t i = 0; i < url.length; i++) {
        good = good && url.data[i] > ' ' && url.data[i] < 0x7f;
    }
    return good;
}

static void take_url(struct settings *settings, struct hook_config *hook, const struct entry *entry)
{
    hook->url = take_text(settings, entry);
    if (entry != NULL && !is_good_url(hook->url)) {
        settings_complain(settings, entry->at, "url: '%.*s' is no http or https address",
                          SHOWN(hook->url));
    } else if (slice_find(hook->url, '@') < hook->url.length) {
        settings_warn(settings, entry->at,
                      "url: what is secret in it is read by all who read this file; see url-file");
    }
}

/* Of those who authenticate by the address alone. Nobody is shown it. */
static void take_url_file(struct settings *settings, struct hook_config *hook,
                          const struct entry *entry)
{
    struct slice url = SLICE_EMPTY;
    if (entry == NULL || entry->count != 1 || entry->list ||
        !settings_secret(settings, &entry->values[0].at, entry->values[0].text, SETTINGS_FOR_HELPER,
                         URL_MAX, &url) ||
        url.length == 0) {
        return;
    }
    char *copy = settings_allocate(settings, url.length + 1, 1);
    if (copy != NULL) {
        memcpy(copy, url.data, url.length);
        hook->url = slice_make(copy, url.length);
    }
    if (!is_good_url(url)) {
        settings_complain(settings, entry->at, "url-file: there is no http or https address in it");
    }
}

static void take_signature(struct settings *settings, struct hook_config *hook,
                           const struct entry *secret, bool has_url)
{
    if (secret != NULL && !has_url) {
        settings_complain(settings, secret->at, "secret-file is for a url");
    } else if (secret != NULL && secret->count == 1 && !secret->list) {
        (void)settings_secret(settings, &secret->values[0].at, secret->values[0].text,
                              SETTINGS_FOR_HELPER, SETTINGS_SECRET_MAX, &hook->secret);
    }
}

/* The mail of an alert takes the route of its address, or any relay: one must be there. */
static void check_mail(struct settings *settings, const struct hook_config *hook,
                       const struct entry *entry)
{
    const struct relay_config *config = &settings->config.relay;
    size_t at = slice_find_last(hook->mail, '@');
    struct slice domain = slice_skip(hook->mail, at + 1);
    if (entry == NULL || hook->mail.length == 0 || config->route_count == 0) {
        return;
    }
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        if (route->kind == ROUTE_RELAY) {
            return;
        }
        for (uint32_t j = 0; j < route->domain_count; j++) {
            struct slice name = route->domains[j].name;
            size_t before = domain.length > name.length ? domain.length - name.length : 0;
            bool below = route->domains[j].wild && before > 1 && domain.data[before - 1] == '.';
            if (slice_equal_fold(slice_skip(domain, before), name) &&
                (before == 0 ? !route->domains[j].wild : below)) {
                return;
            }
        }
    }
    settings_complain(settings, entry->at,
                      "mail: '%.*s' is in no domain here, and there is no relay to take it",
                      SHOWN(hook->mail));
}

static void take_block(struct settings *settings, const struct block *block,
                       const struct entry **entries, struct hook_config *hook)
{
    settings_fill(settings, BLOCK_ALERT, block, hook, entries);
    hook->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    const struct entry *exec = settings_entry(entries, BLOCK_ALERT, "exec");
    const struct entry *url = settings_entry(entries, BLOCK_ALERT, "url");
    const struct entry *url_file = settings_entry(entries, BLOCK_ALERT, "url-file");
    const struct entry *mail = settings_entry(entries, BLOCK_ALERT, "mail");
    take_kinds(settings, hook, settings_entry(entries, BLOCK_ALERT, "on"));
    hook->exec = settings_program(settings, exec);
    take_url(settings, hook, url);
    take_url_file(settings, hook, url_file);
    take_signature(settings, hook, settings_entry(entries, BLOCK_ALERT, "secret-file"),
                   url != NULL || url_file != NULL);
    check_mail(settings, hook, mail);
    unsigned ways = (exec != NULL) + (url != NULL) + (url_file != NULL) + (mail != NULL);
    if (ways != 1 && !block->broken) {
        settings_complain(settings, block->at,
                          "alert '%.*s' needs one of exec, url, url-file and mail",
                          SHOWN(hook->name));
    }
}

void settings_alerts(struct settings *settings, const struct entry **entries)
{
    struct hook_config *hooks = settings_allocate(settings, HOOKS_MAX, sizeof(*hooks));
    struct names names;
    names_init(&names);
    for (const struct block *block = settings->first_block; block != NULL && hooks != NULL;
         block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_ALERT) {
            continue;
        }
        if (settings->config.hook_count == HOOKS_MAX) {
            settings_complain(settings, block->at, "more than %d alert blocks", HOOKS_MAX);
            break;
        }
        struct hook_config *hook = &hooks[settings->config.hook_count++];
        take_block(settings, block, entries, hook);
        (void)names_once(settings, &names, hook->name, block->at, "alert");
    }
    names_done(&names);
    settings->config.hooks = hooks;
}
