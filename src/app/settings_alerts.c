/* SPDX-License-Identifier: Apache-2.0
 *
 * The alert blocks: whom to tell of what.
 */
#include "app/settings_internal.h"
#include "service/alerts.h"

#include <sys/stat.h>

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

static void take_program(struct settings *settings, struct hook_config *hook,
                         const struct entry *entry)
{
    hook->exec = take_text(settings, entry);
    const char *why = entry != NULL ? why_no_program(settings, hook->exec) : NULL;
    if (why != NULL) {
        settings_complain(settings, entry->at, "exec: '%.*s' %s", SHOWN(hook->exec), why);
    }
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

static void take_url(struct settings *settings, struct hook_config *hook, const struct entry *entry,
                     const struct entry *secret)
{
    hook->url = take_text(settings, entry);
    bool good = entry == NULL || (is_url(hook->url) && hook->url.length < 2000);
    for (size_t i = 0; i < hook->url.length; i++) {
        good = good && hook->url.data[i] > ' ' && hook->url.data[i] < 0x7f;
    }
    if (!good) {
        settings_complain(settings, entry->at, "url: '%.*s' is no http or https address",
                          SHOWN(hook->url));
    }
    if (secret != NULL && entry == NULL) {
        settings_complain(settings, secret->at, "secret-file is for a url");
    } else if (secret != NULL && secret->count == 1 && !secret->list) {
        (void)settings_secret(settings, &secret->values[0].at, secret->values[0].text,
                              SETTINGS_FOR_HELPER, &hook->secret);
    }
}

static void take_block(struct settings *settings, const struct block *block,
                       const struct entry **entries, struct hook_config *hook)
{
    settings_fill(settings, BLOCK_ALERT, block, hook, entries);
    hook->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    const struct entry *exec = settings_entry(entries, BLOCK_ALERT, "exec");
    const struct entry *url = settings_entry(entries, BLOCK_ALERT, "url");
    const struct entry *mail = settings_entry(entries, BLOCK_ALERT, "mail");
    take_kinds(settings, hook, settings_entry(entries, BLOCK_ALERT, "on"));
    take_program(settings, hook, exec);
    take_url(settings, hook, url, settings_entry(entries, BLOCK_ALERT, "secret-file"));
    if ((exec != NULL) + (url != NULL) + (mail != NULL) != 1 && !block->broken) {
        settings_complain(settings, block->at, "alert '%.*s' needs one of exec, url and mail",
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
        uint32_t known = names_add(settings, &names, hook->name, block->at.line);
        if (known != NO_INDEX) {
            settings_complain(settings, block->at, "alert '%.*s' is there twice; first in line %u",
                              SHOWN(hook->name), known);
        }
    }
    names_done(&names);
    settings->config.hooks = hooks;
}
