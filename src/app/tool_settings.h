/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands about a cluster's settings share: tool_settings.c makes versions,
 * tool_settings_show.c shows them.
 */
#ifndef HOLDFAST_APP_TOOL_SETTINGS_H
#define HOLDFAST_APP_TOOL_SETTINGS_H

#include "app/tool.h"
#include "cluster/settings_store.h"

struct settings_access {
    struct database *database;
    struct buffer name; /* of this member; ends in NUL, which the length does not count */
};

/* The database that the configuration names. False: with a message. To be closed in any case. */
bool settings_access_open(const struct tool *tool, struct settings_access *ret_access);
void settings_access_close(struct settings_access *access);
/* False: with a message. */
bool settings_access_done(const struct settings_access *access, enum database_outcome outcome);

enum { SETTINGS_WORDS = SETTINGS_COMMENT_MAX + 1 };

/* What there is to say of a version. */
struct settings_about {
    bool found;
    uint64_t number;
    enum settings_state state;
    bool refused; /* by a member, which another may not do */
    int64_t made_ms;
    char author[SETTINGS_WORDS], comment[SETTINGS_WORDS], problem[SETTINGS_WORDS];
};
/* Of a version; 0: of the newest. False: with a message. */
bool settings_look(const struct settings_access *access, uint64_t number,
                   struct settings_about *ret_about);
/* What another version is to be made from: the newest, or the newest in force if that one is bad or
 * was refused. While a member tries the newest it is waited for; if `settled`, until a member has.
 * False: with a message. */
struct settings_base {
    struct settings_about newest;
    uint64_t number; /* 0: of nothing */
};
bool settings_find_base(const struct settings_access *access, bool settled,
                        struct settings_base *ret_base);
/* The same as it is now. */
bool settings_see_base(const struct settings_access *access, struct settings_base *ret_base);
/* One version and what it points into: files with secrets among it. */
struct settings_side {
    uint64_t number;
    struct buffer bytes;
    struct settings_version version;
    struct settings_file files[SETTINGS_FILES_MAX];
};
void settings_side_init(struct settings_side *side); /* of no files */
void settings_side_done(struct settings_side *side); /* wipes it */
/* False: with a message. */
bool settings_side_fetch(const struct settings_access *access, uint64_t number,
                         struct settings_side *side);
/* NULL: it has none of that name. */
struct settings_file *settings_side_file(struct settings_side *side, struct slice name);
/* A file that points to these, in the place of one of that name. False: there is no room. */
bool settings_side_put(struct settings_side *side, struct slice name, struct slice content);
void settings_side_remove(struct settings_side *side, struct settings_file *file);
/* The number that an operand gives, or of the newest. False: with a message. */
bool settings_number(const struct tool *tool, const struct settings_access *access,
                     unsigned operand, uint64_t *ret_number);
/* Takes the line off that says from which version a text was made. False: there is none. */
bool settings_take_mark(struct slice *text, uint64_t *ret_number);
/* Makes `version`, whose text has no such line, and waits until a member has tried it. All but a
 * failure is left unsaid if `quiet`. */
enum control_exit settings_make(const struct tool *tool, const struct settings_access *access,
                                struct settings_version *version, const struct settings_base *base,
                                const char *usual_comment, bool quiet);
/* As it is shown. */
const char *settings_state_name(enum settings_state state, bool refused);

#endif
