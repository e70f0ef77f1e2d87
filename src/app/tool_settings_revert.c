/* SPDX-License-Identifier: Apache-2.0
 *
 * holdfast settings revert: the text and the lists of an earlier version. The table of users, files
 * with secrets, and certificates, which go with their keys, stay as they are now: users that were
 * removed, and passwords that were changed because somebody knew them, must not come back unseen.
 */
#include "app/tool_settings.h"

#include "app/settings.h"
#include "base/digest.h"

#include <stdlib.h>

struct side {
    struct buffer bytes;
    struct settings_version version;
    struct settings_file files[SETTINGS_FILES_MAX];
};

static void side_done(struct side *side)
{
    if (side->bytes.data != NULL) {
        digest_forget(side->bytes.data, side->bytes.length);
    }
    buffer_done(&side->bytes);
}

static struct settings_file *find_file(struct side *side, struct slice name)
{
    for (uint32_t i = 0; i < side->version.file_count; i++) {
        if (slice_equal(side->files[i].name, name)) {
            return &side->files[i];
        }
    }
    return NULL;
}

static void say_kept(const struct tool *tool, struct slice name, const char *what)
{
    if (!tool->json) {
        printf("cluster:%.*s %s\n", SLICE_PRINT(name), what);
    }
}

/* False: there is no room for it. */
static bool keep_users(const struct tool *tool, struct side *now, struct side *then)
{
    struct slice name = SLICE_LITERAL(SETTINGS_USERS_FILE);
    struct settings_file *new = find_file(now, name), *old = find_file(then, name);
    if (new == NULL && old != NULL) {
        *old = then->files[--then->version.file_count];
    } else if (new != NULL && old == NULL && then->version.file_count == SETTINGS_FILES_MAX) {
        tool_error("the settings have no room for another file");
        return false;
    } else if (new != NULL && old == NULL) {
        then->files[then->version.file_count++] = *new;
    } else if (new != NULL && !slice_equal(new->content, old->content)) {
        *old = *new;
    } else {
        return true; /* the same */
    }
    say_kept(tool, name, "stays as it is now");
    return true;
}

/* What the text of then names as secrets; what only other nodes' own files may name counts, too. */
static void keep_secrets(const struct tool *tool, struct side *now, struct side *then)
{
    struct buffer findings;
    buffer_init(&findings, 0);
    struct settings *settings = settings_read_with(tool->configuration, &then->version, &findings);
    buffer_done(&findings); /* they are said when the version is made */
    for (uint32_t i = 0; settings != NULL && i < then->version.file_count; i++) {
        struct settings_file *old = &then->files[i];
        const struct settings_file *new = find_file(now, old->name);
        bool same = new != NULL &&slice_equal(new->content, old->content);
        if (same || slice_equal(old->name, SLICE_LITERAL(SETTINGS_USERS_FILE)) ||
            !settings_is_guarded_file(settings, old->name)) {
            continue;
        }
        say_kept(tool, old->name,
                 new != NULL ? "stays as it is now" : "comes back, for there is none now");
        *old = new != NULL ? *new : *old;
    }
    settings_free(settings);
}

static enum control_exit revert(const struct tool *tool, const struct settings_access *access,
                                const struct settings_base *base, uint64_t number, struct side *now,
                                struct side *then)
{
    char comment[64];
    uint64_t marked;
    bool all = (tool->given & OPTION_SECRETS) != 0;
    (void)settings_take_mark(&then->version.text, &marked);
    if (!all && !keep_users(tool, now, then)) {
        return CONTROL_FAILED;
    }
    if (!all) {
        keep_secrets(tool, now, then);
    }
    snprintf(comment, sizeof(comment), "back to version %llu%s", (unsigned long long)number,
             all ? ", with users and secrets" : "");
    return settings_make(tool, access, &then->version, base, comment, false);
}

enum control_exit tool_settings_revert(struct tool *tool)
{
    static struct side now, then;
    struct settings_access access;
    struct settings_base base;
    uint64_t number;
    buffer_init(&now.bytes, 0);
    buffer_init(&then.bytes, 0);
    enum control_exit code = CONTROL_FAILED;
    if (settings_access_open(tool, &access) && settings_number(tool, &access, 0, &number) &&
        settings_find_base(&access, false, &base) &&
        (base.number == 0 ||
         settings_fetch(&access, base.number, &now.bytes, now.files, &now.version)) &&
        settings_fetch(&access, number, &then.bytes, then.files, &then.version)) {
        code = revert(tool, &access, &base, number, &now, &then);
    }
    settings_access_close(&access);
    side_done(&now);
    side_done(&then);
    return code;
}
