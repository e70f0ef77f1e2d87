/* SPDX-License-Identifier: Apache-2.0 */
#include "app/tool_user_shared.h"

#include "app/settings.h"
#include "base/digest.h"

#include <stdlib.h>

bool shared_users_are_there(const struct tool *tool)
{
    struct buffer parts[4];
    for (size_t i = 0; i < 4; i++) {
        buffer_init(&parts[i], 0);
    }
    bool found =
        settings_find_cluster(tool->configuration, &parts[0], &parts[1], &parts[2], &parts[3]);
    for (size_t i = 0; i < 4; i++) {
        digest_forget_buffer(&parts[i]);
    }
    return found;
}

bool shared_users_open(const struct tool *tool, struct shared_users *users, bool changes,
                       struct login_store **ret_store)
{
    *ret_store = NULL;
    settings_side_init(&users->side);
    bool found = settings_access_open(tool, &users->access) &&
                 (changes ? settings_find_base(&users->access, true, &users->base)
                          : settings_see_base(&users->access, &users->base));
    if (!found || (users->base.number != 0 &&
                   !settings_side_fetch(&users->access, users->base.number, &users->side))) {
        return false;
    }
    const struct settings_file *table =
        settings_side_file(&users->side, SLICE_LITERAL(SETTINGS_USERS_FILE));
    uint32_t line;
    if (table != NULL && login_store_parse(table->content, ret_store, &line) != ERROR_NONE) {
        tool_error("the cluster's table of users cannot be read");
        return false;
    }
    return true;
}

void shared_users_close(struct shared_users *users)
{
    settings_access_close(&users->access);
    settings_side_done(&users->side);
}

enum control_exit shared_users_write(const struct tool *tool, struct shared_users *users,
                                     const struct login_store *store)
{
    struct buffer text;
    char comment[512];
    uint64_t marked;
    buffer_init(&text, 0);
    enum control_exit code = CONTROL_FAILED;
    if (login_store_format(store, &text) != ERROR_NONE) {
        tool_error("out of memory");
    } else if (!settings_side_put(&users->side, SLICE_LITERAL(SETTINGS_USERS_FILE),
                                  buffer_slice(&text))) {
        tool_error("the settings have no room for another file");
    } else {
        struct settings_version version = users->side.version;
        (void)settings_take_mark(&version.text, &marked);
        snprintf(comment, sizeof(comment), "%s %s", tool->command->words, tool->operands[0]);
        code = settings_make(tool, &users->access, &version, &users->base, comment, true);
    }
    digest_forget_buffer(&text);
    return code;
}
