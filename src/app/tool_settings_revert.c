/* SPDX-License-Identifier: Apache-2.0
 *
 * holdfast settings revert: the text and the lists of an earlier version. The table of users, files
 * with secrets, and certificates, which go with their keys, stay as they are now: users that were
 * removed, and passwords that were changed because somebody knew them, must not come back unseen.
 */
#include "app/tool_settings.h"

#include "app/settings.h"

#include <stdio.h>

/* Said when the version is made. */
static void keep(struct buffer *said, struct slice name, const char *what)
{
    buffer_printf(said, "cluster:%.*s %s\n", SLICE_PRINT(name), what);
}

/* False: there is no room for it. */
static bool keep_users(struct settings_side *now, struct settings_side *then, struct buffer *said)
{
    struct slice name = SLICE_LITERAL(SETTINGS_USERS_FILE);
    struct settings_file *current = settings_side_file(now, name),
                         *former = settings_side_file(then, name);
    if (current == NULL && former == NULL) {
        return true;
    }
    if (current == NULL) {
        settings_side_remove(then, former);
    } else if (former != NULL && slice_equal(current->content, former->content)) {
        return true; /* the same */
    } else if (!settings_side_put(then, name, current->content)) {
        tool_error("the settings have no room for another file");
        return false;
    }
    keep(said, name, current != NULL ? "stays as it is now" : "stays away, for there is none now");
    return true;
}

/* What the text of then names as secrets; what only other nodes' own files may name counts, too. */
static void keep_secrets(const struct tool *tool, struct settings_side *now,
                         struct settings_side *then, struct buffer *said)
{
    struct buffer findings;
    buffer_init(&findings, 0);
    struct settings *settings = settings_read_with(tool->configuration, &then->version, &findings);
    buffer_done(&findings); /* they are said when the version is made */
    for (uint32_t i = 0; settings != NULL && i < then->version.file_count; i++) {
        struct settings_file *former = &then->files[i];
        const struct settings_file *current = settings_side_file(now, former->name);
        if ((current != NULL && slice_equal(current->content, former->content)) ||
            slice_equal(former->name, SLICE_LITERAL(SETTINGS_USERS_FILE)) ||
            !settings_is_guarded_file(settings, former->name)) {
            continue;
        }
        keep(said, former->name,
             current != NULL ? "stays as it is now" : "comes back, for there is none now");
        *former = current != NULL ? *current : *former;
    }
    settings_free(settings);
}

static enum control_exit revert(const struct tool *tool, const struct settings_access *access,
                                const struct settings_base *base, struct settings_side *now,
                                struct settings_side *then)
{
    char comment[64];
    uint64_t marked;
    struct buffer said;
    buffer_init(&said, 0);
    bool all = (tool->given & OPTION_SECRETS) != 0;
    (void)settings_take_mark(&then->version.text, &marked);
    if (!all && !keep_users(now, then, &said)) {
        return CONTROL_FAILED;
    }
    if (!all) {
        keep_secrets(tool, now, then, &said);
    }
    snprintf(comment, sizeof(comment), "back to version %llu%s", (unsigned long long)then->number,
             all ? ", with users and secrets" : "");
    enum control_exit code = settings_make(tool, access, &then->version, base, comment, false);
    if (code == CONTROL_DONE && !tool->json) {
        fwrite(said.data, 1, said.length, stdout);
    }
    buffer_done(&said);
    return code;
}

enum control_exit tool_settings_revert(struct tool *tool)
{
    static struct settings_side now, then;
    struct settings_access access;
    struct settings_base base;
    uint64_t number;
    settings_side_init(&now);
    settings_side_init(&then);
    enum control_exit code = CONTROL_FAILED;
    if (settings_access_open(tool, &access) && settings_number(tool, &access, 0, &number) &&
        settings_find_base(&access, false, &base) &&
        (base.number == 0 || settings_side_fetch(&access, base.number, &now)) &&
        settings_side_fetch(&access, number, &then)) {
        code = revert(tool, &access, &base, &now, &then);
    }
    settings_access_close(&access);
    settings_side_done(&now);
    settings_side_done(&then);
    return code;
}
