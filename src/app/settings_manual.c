/* SPDX-License-Identifier: Apache-2.0
 *
 * The table as mdoc(7), for holdfast.conf(5): one subsection a block, one item a key.
 */
#include "app/settings_internal.h"

enum { LINE_LENGTH = 76 };

/* Text of the table as mdoc text: a sentence a line, lines not too long, none beginning with a dot
 * or quote, a backslash as \e. Ends without a newline. */
static void put_text(struct buffer *out, const char *text)
{
    size_t column = 0;
    struct slice rest = slice_from_text(text);
    bool sentence_ended = false;
    while (rest.length > 0) {
        struct slice word = slice_take(rest, slice_find(rest, ' '));
        if (column > 0 && (sentence_ended || column + word.length >= LINE_LENGTH)) {
            buffer_append_text(out, "\n");
            column = 0;
        } else if (column > 0) {
            buffer_append_text(out, " ");
        }
        if (word.length > 0 && (word.data[0] == '.' || word.data[0] == '\'')) {
            buffer_append_text(out, "\\&");
        }
        for (size_t i = 0; i < word.length; i++) {
            buffer_append(out, word.data[i] == '\\' ? SLICE_LITERAL("\\e")
                                                    : slice_make(&word.data[i], 1));
        }
        column += word.length + 1;
        sentence_ended = word.length > 0 && word.data[word.length - 1] == '.';
        rest = slice_skip(rest, word.length + 1);
    }
}

static void put_choices(struct buffer *out, const char *choices)
{
    struct slice rest = slice_from_text(choices);
    bool first = true;
    while (rest.length > 0) {
        struct slice word = slice_take(rest, slice_find(rest, '|'));
        buffer_printf(out, "%s%.*s", first ? "" : " | ", SLICE_PRINT(word));
        rest = slice_skip(rest, word.length + 1);
        first = false;
    }
}

/* What is written behind the equals sign. */
static void put_form(struct buffer *out, const struct setting *setting)
{
    static const char *const forms[] = {
        [SETTING_TEXT] = "NAME",
        [SETTING_HOSTNAME] = "HOST",
        [SETTING_PATH] = "PATH",
        [SETTING_MAILBOX] = "ADDRESS",
        [SETTING_IP] = "IP",
        [SETTING_COUNT] = "NUMBER",
        [SETTING_DURATION] = "DURATION",
        [SETTING_SIZE] = "SIZE",
        [SETTING_SWITCH] = "yes | no",
        [SETTING_CHOICE] = "",
        [SETTING_DURATIONS] = "{DURATION, ...}",
        [SETTING_ENDPOINTS] = "\"IP:PORT\"",
        [SETTING_ADDRESSES] = "\"HOST:PORT\"",
        [SETTING_RESOLVERS] = "{IP, ...}",
        [SETTING_IPS] = "{IP, ...}",
        [SETTING_PLACES] = "\"IP:PORT\" | {PLACE, ...}",
        [SETTING_PROGRAM] = "PATH",
        [SETTING_URL] = "URL",
        [SETTING_KINDS] = "{KIND, ...}",
        [SETTING_NETWORKS] = "{NETWORK, ...}",
        [SETTING_MEMBERS] = "NODE | {NODE, ...}",
        [SETTING_ROLES] = "{ROLE, ...}",
        [SETTING_SENDERS] = "{PATTERN, ...}",
        [SETTING_SERVER] = "SERVER",
        [SETTING_CHAIN] = "SERVER | {SERVER, ...}",
        [SETTING_RELAY] = "RELAY | none",
        [SETTING_ANCHOR] = "RECORD",
        [SETTING_SECRET] = "FILE",
        [SETTING_FILES] = "FILE | {FILE, ...}",
        [SETTING_MILTERS] = "{MILTER, ...}",
        [SETTING_MILTER] = "\"unix:PATH\" | \"IP:PORT\"",
        [SETTING_USERS] = "\"file:PATH\"",
        [SETTING_NAMES] = "{DOMAIN, ...}",
        [SETTING_LOGINS] = "users, \"file:PATH\", ldap:NAME or pam:SERVICE, or a list",
        [SETTING_LDAP_URLS] = "\"ldaps://HOST\" | {URL, ...}",
        [SETTING_ATTRIBUTES] = "NAME | {NAME, ...}",
        [SETTING_LDAP_TEXT] = "\"TEXT\"",
        [SETTING_RECIPIENTS] = "any | learn | \"file:PATH\" | \"https://...\" | ldap:NAME",
        [SETTING_ABSENT] = "",
    };
    if (setting->type == SETTING_CHOICE) {
        put_choices(out, setting->choices);
    } else {
        buffer_append_text(out, forms[setting->type]);
    }
}

static void put_facts(struct buffer *out, const struct setting *setting)
{
    if (setting->required) {
        buffer_append_text(out, "Must be given.\n");
    } else if (setting->otherwise != NULL || setting->fallback != NULL) {
        buffer_append_text(out, "Default: ");
        put_text(out, setting->otherwise != NULL ? setting->otherwise : setting->fallback);
        buffer_append_text(out, ".\n");
    }
    if (setting->most > 0) {
        char least[32], most[32];
        settings_format(setting->type, setting->least, least);
        settings_format(setting->type, setting->most, most);
        buffer_printf(out, "Range: %s to %s%s.\n", least, most, setting->none ? ", or none" : "");
    }
    if (setting->inert) {
        buffer_append_text(out, "Accepted, without effect in this version.\n");
    }
    if (setting->restart) {
        buffer_append_text(out, "A change needs a restart.\n");
    }
    if (setting->local) {
        buffer_append_text(out, "Not in the settings of a cluster.\n");
    }
}

static bool is_kept_for_later(const struct setting *setting)
{
    return setting->type == SETTING_ABSENT;
}

static void put_later(struct buffer *out, enum setting_block block)
{
    bool any = false;
    for (uint32_t i = 0; i < settings_table_length; i++) {
        const struct setting *setting = &settings_table[i];
        if (setting->block == block && is_kept_for_later(setting)) {
            buffer_append_text(out,
                               any ? " ,\n" : "Kept for later versions, errors in this one:\n");
            buffer_printf(out, ".Cm %s", setting->name);
            any = true;
        }
    }
    if (any) {
        buffer_append_text(out, " .\n");
    }
}

static void put_setting(struct buffer *out, const struct setting *setting)
{
    buffer_printf(out, ".It Cm %s No = ", setting->name);
    put_form(out, setting);
    buffer_append_text(out, "\n");
    put_text(out, setting->text);
    buffer_append_text(out, "\n");
    put_facts(out, setting);
    if (setting->later != NULL) {
        buffer_append_text(out, "Not available in this version: ");
        put_choices(out, setting->later);
        buffer_append_text(out, ".\n");
    }
}

void settings_manual(struct buffer *ret_mdoc)
{
    for (int block = BLOCK_TOP; block < BLOCK_COUNT; block++) {
        const struct setting_block_description *description = &settings_blocks[block];
        buffer_printf(ret_mdoc, ".Ss %s\n",
                      block == BLOCK_TOP ? "\\&At the top of the file" : description->name);
        put_text(ret_mdoc, description->text);
        buffer_append_text(ret_mdoc, "\n.Bl -tag -width Ds\n");
        for (uint32_t i = 0; i < settings_table_length; i++) {
            const struct setting *setting = &settings_table[i];
            if ((int)setting->block == block && !is_kept_for_later(setting)) {
                put_setting(ret_mdoc, setting);
            }
        }
        buffer_append_text(ret_mdoc, ".El\n");
        put_later(ret_mdoc, (enum setting_block)block);
    }
}
