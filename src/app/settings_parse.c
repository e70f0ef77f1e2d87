/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokens to a tree:
 *
 *   file   = { item }
 *   item   = KEY "=" value | "include" NAME | BLOCK [ title ] "{" { item } "}"
 *   title  = value
 *   value  = NAME | "{" NAME { "," NAME } [ "," ] "}"
 *   NAME   = word | string
 *
 * After an error the parser goes on at the next line or at the end of the block. A block that was
 * not closed ends where the next one begins, so that one missing brace is one error.
 */
#include "app/settings_internal.h"

#include <assert.h>
#include <stdlib.h>

struct parser {
    struct settings *settings;
    uint32_t source;
    uint32_t depth; /* of includes */
    struct lexer lexer;
    struct token token;
    struct token saved[4]; /* put back, the next one last */
    uint32_t saved_count;
    struct value *values; /* gathered here, then copied at their right length */
    uint32_t value_count, value_capacity;
};

static void parse_source(struct settings *settings, uint32_t source, struct block *block,
                         uint32_t depth, bool nested);

static struct place here(const struct parser *parser)
{
    return (struct place){parser->source, parser->token.line};
}

/* `before` comes again, and after it what is the present token now. */
static void put_back(struct parser *parser, struct token before)
{
    assert(parser->saved_count < sizeof(parser->saved) / sizeof(parser->saved[0]));
    parser->saved[parser->saved_count++] = parser->token;
    parser->token = before;
}

static void advance(struct parser *parser)
{
    if (parser->saved_count > 0) {
        parser->token = parser->saved[--parser->saved_count];
        return;
    }
    parser->token = lexer_next(&parser->lexer);
    while (parser->token.kind == TOKEN_BAD) {
        settings_complain(parser->settings, here(parser), "%.*s", SLICE_PRINT(parser->token.text));
        struct token after = lexer_next(&parser->lexer);
        if (after.kind != TOKEN_BAD) {
            /* An unreadable value stands for it, so that nothing else is said. */
            struct token unread = parser->token;
            unread.kind = TOKEN_STRING;
            unread.text = SLICE_EMPTY;
            parser->token = after;
            put_back(parser, unread);
            return;
        }
        parser->token = after;
    }
}

static bool at_name(const struct parser *parser)
{
    return parser->token.kind == TOKEN_WORD || parser->token.kind == TOKEN_STRING;
}

/* To the next line, or to what ends the block. */
static void recover(struct parser *parser, struct block *block)
{
    block->broken = true;
    while (parser->token.kind != TOKEN_END && parser->token.kind != TOKEN_CLOSE) {
        advance(parser);
        if (parser->token.first) {
            return;
        }
    }
}

static bool gather(struct parser *parser, struct value value)
{
    if (parser->value_count == parser->value_capacity) {
        uint32_t capacity = parser->value_capacity == 0 ? 16 : parser->value_capacity * 2;
        struct value *values = realloc(parser->values, capacity * sizeof(*values));
        if (values == NULL) {
            parser->settings->out_of_memory = true;
            return false;
        }
        parser->values = values;
        parser->value_capacity = capacity;
    }
    parser->values[parser->value_count++] = value;
    return true;
}

static const struct value *take_values(struct parser *parser, uint32_t *ret_count)
{
    struct value *copy =
        settings_allocate_tree(parser->settings, parser->value_count, sizeof(struct value));
    if (copy != NULL && parser->value_count > 0) {
        memcpy(copy, parser->values, parser->value_count * sizeof(struct value));
    }
    *ret_count = copy == NULL ? 0 : parser->value_count;
    parser->value_count = 0;
    return copy;
}

/* At the "{" of a list; ends after its "}". NULL, or what is wrong with the list. */
static const char *parse_list(struct parser *parser)
{
    static const char unclosed[] = "this list is not closed; '}' is missing";
    advance(parser);
    while (parser->token.kind != TOKEN_CLOSE) {
        if (!at_name(parser)) {
            return parser->token.kind == TOKEN_END
                       ? unclosed
                       : "a list has values, separated by commas: {a, b}";
        }
        if (!gather(parser, (struct value){parser->token.text, here(parser)})) {
            return "out of memory";
        }
        advance(parser);
        if (parser->token.kind == TOKEN_COMMA) {
            advance(parser);
        } else if (parser->token.kind == TOKEN_EQUALS || parser->token.kind == TOKEN_OPEN) {
            return unclosed;
        } else if (at_name(parser)) {
            settings_complain(parser->settings, here(parser),
                              "',' is missing before '%.*s' in a list", SHOWN(parser->token.text));
        }
    }
    advance(parser);
    return NULL;
}

static void add_entry(struct parser *parser, struct block *block, struct token key, bool list)
{
    struct entry *entry = settings_allocate_tree(parser->settings, 1, sizeof(*entry));
    if (entry == NULL) {
        return;
    }
    entry->key = key.text;
    entry->at = (struct place){parser->source, key.line};
    entry->list = list;
    entry->values = take_values(parser, &entry->count);
    *block->last = entry;
    block->last = &entry->next;
}

/* At "=". */
static void parse_entry(struct parser *parser, struct block *block, struct token key)
{
    struct settings *settings = parser->settings;
    struct place at = {parser->source, key.line};
    advance(parser);
    if (parser->token.kind == TOKEN_OPEN) {
        const char *why = parse_list(parser);
        if (why != NULL) {
            settings_complain(settings, at, "%.*s: %s", SHOWN(key.text), why);
            parser->value_count = 0;
            recover(parser, block);
            if (parser->token.kind == TOKEN_CLOSE && !parser->token.first) {
                advance(parser); /* the list's own */
            }
            return;
        }
        add_entry(parser, block, key, true);
        return;
    }
    if (!at_name(parser) || parser->token.first) {
        settings_complain(settings, at, "a value is missing after '%.*s ='", SHOWN(key.text));
        block->broken = true;
        if (!parser->token.first) {
            recover(parser, block);
        }
        return;
    }
    if (!gather(parser, (struct value){parser->token.text, here(parser)})) {
        return;
    }
    advance(parser);
    add_entry(parser, block, key, false);
    if (parser->token.kind == TOKEN_COMMA) {
        settings_complain(settings, here(parser), "several values stand in braces: %.*s = {a, b}",
                          SHOWN(key.text));
        recover(parser, block);
    }
}

static void parse_include(struct parser *parser, struct block *block, bool nested)
{
    struct settings *settings = parser->settings;
    struct place at = here(parser);
    struct slice path = parser->token.text;
    uint32_t source;
    advance(parser);
    if (!settings_source(settings, &at, path, &source)) {
        block->broken = true;
        return;
    }
    if (settings->sources[source].open) {
        settings_complain(settings, at, "include loop: '%.*s' is being read already", SHOWN(path));
    } else if (parser->depth + 1 > SETTINGS_INCLUDE_DEPTH) {
        settings_complain(settings, at, "includes are nested more than %d deep",
                          SETTINGS_INCLUDE_DEPTH);
    } else {
        parse_source(settings, source, block, parser->depth + 1, nested);
    }
}

static void expand_titles(struct parser *parser, struct block *block)
{
    bool good;
    block->titles = settings_list(parser->settings, block->titles, block->title_count,
                                  &block->title_count, &good);
    block->broken = block->broken || !good;
}

enum after { AFTER_CLOSED, AFTER_NEXT_BLOCK };
static enum after parse_items(struct parser *parser, struct block *block, bool nested,
                              bool opened_here);

enum titles {
    TITLES_READ,
    TITLES_FORGOTTEN, /* we are within the block */
    TITLES_EMPTY,     /* so was the block, and it is over */
};

/* After the block's word. "{" is a list of titles, or the title was forgotten and it is the block's
 * own brace. */
static enum titles parse_titles(struct parser *parser, struct block *block, bool titled)
{
    enum titles titles = TITLES_READ;
    if (at_name(parser)) {
        gather(parser, (struct value){parser->token.text, here(parser)});
        advance(parser);
    } else if (titled && parser->token.kind == TOKEN_OPEN) {
        titles = parse_list(parser) != NULL         ? TITLES_FORGOTTEN
                 : parser->token.kind != TOKEN_OPEN ? TITLES_EMPTY
                                                    : TITLES_READ;
    }
    if (titles != TITLES_READ) {
        settings_complain(parser->settings, block->at, "%.*s needs a title: %.*s NAME {",
                          SHOWN(block->kind), SHOWN(block->kind));
        parser->value_count = 0;
    }
    block->titles = take_values(parser, &block->title_count);
    return titles;
}

static void complain_unclosed(struct parser *parser, const struct block *block)
{
    struct slice title = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    settings_complain(parser->settings, block->at,
                      "the block '%.*s%s%.*s {' is not closed; '}' is missing", SHOWN(block->kind),
                      title.length > 0 ? " " : "", SHOWN(title));
}

/* From "{" of a block that nobody knows to its "}": what is inside cannot be judged. */
static void skip_block(struct parser *parser, const struct block *block)
{
    uint32_t depth = 0;
    do {
        depth += parser->token.kind == TOKEN_OPEN;
        depth -= parser->token.kind == TOKEN_CLOSE;
        advance(parser);
        if (parser->token.kind == TOKEN_END ||
            (parser->token.first && settings_block_find(parser->token.text) != BLOCK_COUNT)) {
            if (depth > 0) {
                complain_unclosed(parser, block);
            }
            return;
        }
    } while (depth > 0);
}

static struct block *new_block(struct parser *parser, struct token word)
{
    struct block *block = settings_allocate_tree(parser->settings, 1, sizeof(*block));
    if (block == NULL) {
        return NULL;
    }
    block->kind = word.text;
    block->at = (struct place){parser->source, word.line};
    block->last = &block->first;
    return block;
}

/* At what follows the block's word. */
static void parse_block(struct parser *parser, struct block *outer, struct token word)
{
    struct settings *settings = parser->settings;
    enum setting_block kind = settings_block_find(word.text);
    struct block *block = new_block(parser, word);
    if (block == NULL) {
        return;
    }
    if (kind == BLOCK_COUNT) {
        settings_complain(settings, block->at,
                          "unknown block '%.*s'; there are listen, server, domain, relay, limits",
                          SHOWN(word.text));
    }
    bool titled = kind != BLOCK_COUNT && settings_blocks[kind].titled;
    enum titles titles = parse_titles(parser, block, titled);
    if (titles == TITLES_FORGOTTEN) {
        recover(parser, block);
        parse_items(parser, block, true, true);
    }
    if (titles != TITLES_READ) {
        return;
    }
    if (parser->token.kind != TOKEN_OPEN) {
        settings_complain(settings, block->at, "'{' is missing after '%.*s'", SHOWN(word.text));
        recover(parser, outer);
        return;
    }
    if (kind == BLOCK_COUNT) {
        skip_block(parser, block);
        return;
    }
    if (kind == BLOCK_DOMAIN) {
        expand_titles(parser, block);
    }
    advance(parser);
    parse_items(parser, block, true, true);
    *settings->last_block = block;
    settings->last_block = &block->next;
}

/* At a word or string. */
static enum after parse_item(struct parser *parser, struct block *block, bool nested)
{
    struct token word = parser->token;
    advance(parser);
    if (word.text.data == NULL) { /* unreadable, and said to be so */
        block->broken = true;
        return AFTER_CLOSED;
    }
    if (parser->token.kind == TOKEN_EQUALS) {
        parse_entry(parser, block, word);
        return AFTER_CLOSED;
    }
    bool same_line = !parser->token.first;
    if (word.kind == TOKEN_WORD && slice_equal(word.text, SLICE_LITERAL("include")) &&
        at_name(parser) && same_line) {
        parse_include(parser, block, nested);
        return AFTER_CLOSED;
    }
    bool known = settings_block_find(word.text) != BLOCK_COUNT;
    if (known && nested) {
        put_back(parser, word);
        return AFTER_NEXT_BLOCK;
    }
    bool opens = parser->token.kind == TOKEN_OPEN;
    if (!known && at_name(parser) && same_line) {
        /* `word name {` is a block; `word name` anything else */
        struct token name = parser->token;
        advance(parser);
        opens = parser->token.kind == TOKEN_OPEN;
        put_back(parser, name);
    }
    if (known || opens) {
        parse_block(parser, block, word);
        return AFTER_CLOSED;
    }
    settings_complain(parser->settings, (struct place){parser->source, word.line},
                      "'=' is missing after '%.*s'", SHOWN(word.text));
    block->broken = true;
    if (!parser->token.first) {
        recover(parser, block);
    }
    return AFTER_CLOSED;
}

/* The inside of a block, or of a file; ends after the block's "}". `opened_here`: in this file. */
static enum after parse_items(struct parser *parser, struct block *block, bool nested,
                              bool opened_here)
{
    for (;;) {
        switch (parser->token.kind) {
        case TOKEN_END:
            if (opened_here) {
                complain_unclosed(parser, block);
            }
            return AFTER_CLOSED;
        case TOKEN_CLOSE:
            if (opened_here) {
                advance(parser);
                return AFTER_CLOSED;
            }
            settings_complain(parser->settings, here(parser), "'}' closes no block of this file");
            advance(parser);
            break;
        case TOKEN_WORD:
        case TOKEN_STRING:
            if (parse_item(parser, block, nested) == AFTER_NEXT_BLOCK) {
                if (opened_here) {
                    complain_unclosed(parser, block);
                    return AFTER_NEXT_BLOCK;
                }
                settings_complain(parser->settings, here(parser),
                                  "a block cannot stand inside another");
                recover(parser, block);
            }
            break;
        default:
            settings_complain(parser->settings, here(parser), "'%.*s' is not expected here",
                              SHOWN(parser->token.text));
            advance(parser);
            if (!parser->token.first) {
                recover(parser, block);
            }
        }
    }
}

static void parse_source(struct settings *settings, uint32_t source, struct block *block,
                         uint32_t depth, bool nested)
{
    struct parser parser = {.settings = settings, .source = source, .depth = depth};
    settings->sources[source].open = true;
    lexer_init(&parser.lexer, settings->sources[source].content, &settings->arena);
    advance(&parser);
    parse_items(&parser, block, nested, false);
    settings->sources[source].open = false;
    free(parser.values);
}

void settings_parse_tree(struct settings *settings)
{
    settings->top.last = &settings->top.first;
    settings->last_block = &settings->first_block;
    parse_source(settings, 0, &settings->top, 0, false);
}

void settings_parse_more(struct settings *settings, uint32_t source)
{
    parse_source(settings, source, &settings->top, 0, false);
}
