/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/share.h"

#include "base/hash.h"

#include <assert.h>
#include <stdio.h>

static const struct slice site_mark = {(const uint8_t *)"site=", 5};

bool node_name_is_good(struct slice name)
{
    if (name.length == 0 || name.length > NODE_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.length; i++) {
        uint8_t c = name.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        bool within = (c == '.' || c == '-' || c == '_') && i > 0;
        if (!plain && !within) {
            return false;
        }
    }
    return true;
}

/* ---- groups ------------------------------------------------------------------------------- */

/* The bytes' order, a shorter one first. */
static int compare(struct slice a, struct slice b)
{
    size_t both = a.length < b.length ? a.length : b.length;
    int order = both == 0 ? 0 : memcmp(a.data, b.data, both);
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

/* The first after `previous` in order; NULL: none. */
static const struct slice *next_name(const struct slice *names, size_t count,
                                     const struct slice *previous)
{
    const struct slice *next = NULL;
    for (size_t i = 0; i < count; i++) {
        if ((previous == NULL || compare(names[i], *previous) > 0) &&
            (next == NULL || compare(names[i], *next) < 0)) {
            next = &names[i];
        }
    }
    return next;
}

enum error share_group_of_nodes(const struct slice *nodes, size_t count,
                                char ret_group[SHARE_GROUP_MAX + 1])
{
    size_t length = 0;
    assert(count > 0);
    for (size_t i = 0; i < count; i++) {
        if (!node_name_is_good(nodes[i])) {
            return ERROR_INVALID;
        }
    }
    for (const struct slice *name = next_name(nodes, count, NULL); name != NULL;
         name = next_name(nodes, count, name)) {
        size_t comma = length > 0 ? 1 : 0;
        if (length + comma + name->length > SHARE_GROUP_MAX) {
            return ERROR_LIMIT;
        }
        if (comma > 0) {
            ret_group[length++] = ',';
        }
        memcpy(ret_group + length, name->data, name->length);
        length += name->length;
    }
    ret_group[length] = '\0';
    return ERROR_NONE;
}

enum error share_group_of_site(struct slice site, char ret_group[SHARE_GROUP_MAX + 1])
{
    if (!node_name_is_good(site)) {
        return ERROR_INVALID;
    }
    snprintf(ret_group, SHARE_GROUP_MAX + 1, "%.*s%.*s", SLICE_PRINT(site_mark), SLICE_PRINT(site));
    return ERROR_NONE;
}

static bool is_site(struct slice group)
{
    return slice_equal(slice_take(group, site_mark.length), site_mark);
}

bool share_group_has_node(struct slice group, struct slice node)
{
    if (is_site(group)) {
        return false;
    }
    while (group.length > 0) {
        size_t end = slice_find(group, ',');
        if (slice_equal(slice_take(group, end), node)) {
            return true;
        }
        group = slice_skip(group, end + 1);
    }
    return false;
}

bool share_group_has_site(struct slice group, struct slice site)
{
    return is_site(group) && slice_equal(slice_skip(group, site_mark.length), site);
}

static bool is_list(struct slice group)
{
    return slice_find(group, ',') < group.length;
}

unsigned share_parts(enum share_family family, struct slice group)
{
    if (family == SHARE_LEADER) {
        return 1;
    }
    if (group.length == 0) {
        return SHARE_PARTS;
    }
    return is_site(group) || is_list(group) ? SHARE_GROUP_PARTS : 1;
}

/* ---- names -------------------------------------------------------------------------------- */

static struct slice domain_of(struct slice address)
{
    size_t at = slice_find_last(address, '@');
    return slice_skip(address, at < address.length ? at + 1 : address.length);
}

void share_name_of(enum share_family family, struct slice group, bool split, struct slice address,
                   char ret_name[SHARE_NAME_MAX + 1])
{
    assert(family != SHARE_LEADER && group.length <= SHARE_GROUP_MAX);
    assert(family == SHARE_IN || group.length == 0);
    struct slice hashed = split || is_list(group) ? address : domain_of(address);
    uint64_t hash = hash_bytes_fold((struct hash_key){0, 0}, hashed);
    snprintf(ret_name, SHARE_NAME_MAX + 1, "%s%s%.*s:%u", family == SHARE_IN ? "in" : "out",
             group.length > 0 ? "@" : "", SLICE_PRINT(group),
             (unsigned)(hash % share_parts(family, group)));
}

/* As the functions above write it: names in order, each once. */
static bool group_is_good(struct slice group)
{
    if (is_site(group)) {
        return node_name_is_good(slice_skip(group, site_mark.length));
    }
    struct slice previous = SLICE_EMPTY;
    for (;;) {
        size_t end = slice_find(group, ',');
        struct slice name = slice_take(group, end);
        if (!node_name_is_good(name) || compare(name, previous) <= 0) {
            return false;
        }
        if (end == group.length) {
            return true;
        }
        previous = name;
        group = slice_skip(group, end + 1);
    }
}

bool share_name_parse(struct slice name, struct share_name *ret_name)
{
    *ret_name = (struct share_name){SHARE_LEADER, SLICE_EMPTY, 0};
    if (slice_equal(name, SLICE_LITERAL("leader"))) {
        return true;
    }
    size_t colon = slice_find_last(name, ':');
    struct slice digits = slice_skip(name, colon + 1);
    uint64_t part = 0;
    if (name.length > SHARE_NAME_MAX || !slice_to_u64(digits, &part) ||
        (digits.length > 1 && digits.data[0] == '0')) {
        return false;
    }
    struct slice head = slice_take(name, colon);
    size_t at = slice_find(head, '@');
    struct slice family = slice_take(head, at);
    ret_name->group = slice_skip(head, at + 1);
    if (slice_equal(family, SLICE_LITERAL("in"))) {
        ret_name->family = SHARE_IN;
    } else if (slice_equal(family, SLICE_LITERAL("out")) && at == head.length) {
        ret_name->family = SHARE_OUT;
    } else {
        return false;
    }
    if (at < head.length &&
        (ret_name->group.length > SHARE_GROUP_MAX || !group_is_good(ret_name->group))) {
        return false;
    }
    ret_name->part = (unsigned)part;
    return part < share_parts(ret_name->family, ret_name->group);
}
