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
        if (parts[i].data != NULL) {
            digest_forget(parts[i].data, parts[i].length);
        }
        buffer_done(&parts[i]);
    }
    return found;
}

static const struct settings_file *find_table(const struct shared_users *users)
{
    for (uint32_t i = 0; i < users->version.file_count; i++) {
        if (slice_equal(users->files[i].name, SLICE_LITERAL(SETTINGS_USERS_FILE))) {
            return &users->files[i];
        }
    }
    return NULL;
}

bool shared_users_open(const struct tool *tool, struct shared_users *users, bool changes,
                       struct login_store **ret_store)
{
    *ret_store = NULL;
    buffer_init(&users->bytes, 0);
    users->version = (struct settings_version){.files = users->files};
    bool found = settings_access_open(tool, &users->access) &&
                 (changes ? settings_find_base(&users->access, true, &users->base)
                          : settings_see_base(&users->access, &users->base));
    if (!found || (users->base.number != 0 &&
                   !settings_fetch(&users->access, users->base.number, &users->bytes, users->files,
                                   &users->version))) {
        return false;
    }
    const struct settings_file *table = find_table(users);
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
    if (users->bytes.data != NULL) {
        digest_forget(users->bytes.data, users->bytes.length);
    }
    buffer_done(&users->bytes);
}

enum control_exit shared_users_write(const struct tool *tool, struct shared_users *users,
                                     const struct login_store *store)
{
    struct buffer text;
    char comment[512];
    uint64_t marked;
    struct settings_version version = users->version;
    const struct settings_file *table = find_table(users);
    uint32_t at = table != NULL ? (uint32_t)(table - users->files) : version.file_count;
    if (at == SETTINGS_FILES_MAX) {
        tool_error("the settings have no room for another file");
        return CONTROL_FAILED;
    }
    buffer_init(&text, 0);
    enum control_exit code = CONTROL_FAILED;
    if (login_store_format(store, &text) != ERROR_NONE) {
        tool_error("out of memory");
    } else {
        users->files[at] =
            (struct settings_file){SLICE_LITERAL(SETTINGS_USERS_FILE), buffer_slice(&text)};
        version.file_count = at == version.file_count ? at + 1 : version.file_count;
        (void)settings_take_mark(&version.text, &marked);
        snprintf(comment, sizeof(comment), "%s %s", tool->command->words, tool->operands[0]);
        code = settings_make(tool, &users->access, &version, &users->base, comment, true);
    }
    if (text.data != NULL) {
        digest_forget(text.data, text.length);
    }
    buffer_done(&text);
    return code;
}
