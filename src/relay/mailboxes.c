/* SPDX-License-Identifier: Apache-2.0
 *
 * Entries in one array, names in another, and an open-addressed index of entry numbers by a keyed
 * hash: three allocations whatever the number. What is removed leaves its entry on a free list and
 * its name behind, until half of the names are such; then they are written anew.
 *
 * An entry that a server has accepted keeps that when it is refused once: only refusals that come
 * to a verdict take it away.
 */
#include "relay/mailboxes_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { INDEX_LEAST = 16, NAMES_LEAST = 4096 };
#define NAMES_MAX UINT32_MAX

struct mailboxes *mailboxes_new(struct hash_key key)
{
    struct mailboxes *mailboxes = calloc(1, sizeof(*mailboxes));
    if (mailboxes != NULL) {
        mailboxes->key = key;
        mailboxes->free = NO_ENTRY;
    }
    return mailboxes;
}

void mailboxes_free(struct mailboxes *mailboxes)
{
    if (mailboxes != NULL) {
        free(mailboxes->entries);
        free(mailboxes->names);
        free(mailboxes->index);
        free(mailboxes);
    }
}

struct mailboxes_count mailboxes_count(const struct mailboxes *mailboxes)
{
    return mailboxes->count;
}

uint64_t mailboxes_serial(const struct mailboxes *mailboxes)
{
    return mailboxes->serial;
}

uint64_t mailboxes_doubts(const struct mailboxes *mailboxes)
{
    return mailboxes->doubts;
}

size_t mailboxes_bytes(const struct mailboxes *mailboxes)
{
    return sizeof(*mailboxes) + mailboxes->room * sizeof(struct entry) + mailboxes->names_room +
           mailboxes->index_room * sizeof(uint32_t);
}

/* ---- the index ------------------------------------------------------------------------------- */

struct slice mailboxes_name_of(const struct mailboxes *mailboxes, const struct entry *entry)
{
    const uint8_t *at = mailboxes->names + entry->name;
    return slice_make(at + 1, at[0]);
}

static uint32_t home_of(const struct mailboxes *mailboxes, struct slice name)
{
    return (uint32_t)hash_bytes(mailboxes->key, name) & (mailboxes->index_room - 1);
}

/* Its place in the index: that of the name, or the free one where it belongs. */
static uint32_t place_of(const struct mailboxes *mailboxes, struct slice name)
{
    uint32_t place = home_of(mailboxes, name);
    for (;;) {
        uint32_t number = mailboxes->index[place];
        if (number == 0 ||
            slice_equal(mailboxes_name_of(mailboxes, &mailboxes->entries[number - 1]), name)) {
            return place;
        }
        place = (place + 1) & (mailboxes->index_room - 1);
    }
}

static struct entry *find(const struct mailboxes *mailboxes, struct slice name)
{
    if (mailboxes->index_room == 0) {
        return NULL;
    }
    uint32_t number = mailboxes->index[place_of(mailboxes, name)];
    return number == 0 ? NULL : &mailboxes->entries[number - 1];
}

static bool index_resize(struct mailboxes *mailboxes, uint32_t room)
{
    uint32_t *index = calloc(room, sizeof(*index));
    if (index == NULL) {
        return false;
    }
    free(mailboxes->index);
    mailboxes->index = index;
    mailboxes->index_room = room;
    for (uint32_t i = 0; i < mailboxes->used; i++) {
        const struct entry *entry = &mailboxes->entries[i];
        if ((entry->flags & ENTRY_FREE) == 0) {
            index[place_of(mailboxes, mailboxes_name_of(mailboxes, entry))] = i + 1;
        }
    }
    return true;
}

/* At most three in four are taken. */
static bool index_reserve(struct mailboxes *mailboxes, uint32_t count)
{
    uint64_t room = mailboxes->index_room == 0 ? INDEX_LEAST : mailboxes->index_room;
    while (count > room / 4 * 3) {
        room *= 2;
    }
    return room == mailboxes->index_room || index_resize(mailboxes, (uint32_t)room);
}

/* Takes a place out, and moves those up that it kept from their home. */
static void index_remove(struct mailboxes *mailboxes, uint32_t hole)
{
    uint32_t mask = mailboxes->index_room - 1;
    mailboxes->index[hole] = 0;
    for (uint32_t at = (hole + 1) & mask; mailboxes->index[at] != 0; at = (at + 1) & mask) {
        const struct entry *entry = &mailboxes->entries[mailboxes->index[at] - 1];
        uint32_t home = home_of(mailboxes, mailboxes_name_of(mailboxes, entry));
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            mailboxes->index[hole] = mailboxes->index[at];
            mailboxes->index[at] = 0;
            hole = at;
        }
    }
}

/* ---- names and entries ----------------------------------------------------------------------- */

static bool names_resize(struct mailboxes *mailboxes, size_t room)
{
    uint8_t *names = room > NAMES_MAX ? NULL : realloc(mailboxes->names, room);
    if (names == NULL) {
        return false;
    }
    mailboxes->names = names;
    mailboxes->names_room = room;
    return true;
}

static bool names_reserve(struct mailboxes *mailboxes, size_t more)
{
    return mailboxes->names_used + more <= mailboxes->names_room ||
           names_resize(mailboxes, mailboxes->names_room + mailboxes->names_room / 8 + NAMES_LEAST);
}

/* Writes the names anew without those of removed entries. Without memory the old ones stay. */
static void names_pack(struct mailboxes *mailboxes)
{
    size_t room = mailboxes->names_used - mailboxes->names_dead + NAMES_LEAST;
    uint8_t *names = malloc(room);
    size_t used = 0;
    if (names == NULL) {
        return;
    }
    for (uint32_t i = 0; i < mailboxes->used; i++) {
        struct entry *entry = &mailboxes->entries[i];
        if ((entry->flags & ENTRY_FREE) == 0) {
            const uint8_t *at = mailboxes->names + entry->name;
            memcpy(names + used, at, 1 + (size_t)at[0]);
            entry->name = (uint32_t)used;
            used += 1 + (size_t)at[0];
        }
    }
    free(mailboxes->names);
    mailboxes->names = names;
    mailboxes->names_room = room;
    mailboxes->names_used = used;
    mailboxes->names_dead = 0;
}

static bool entries_resize(struct mailboxes *mailboxes, uint32_t room)
{
    struct entry *entries = realloc(mailboxes->entries, room * sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    mailboxes->entries = entries;
    mailboxes->room = room;
    return true;
}

enum error mailboxes_reserve(struct mailboxes *mailboxes, uint32_t count)
{
    if (count > MAILBOXES_MAX) {
        return ERROR_LIMIT;
    }
    bool done = (count <= mailboxes->room || entries_resize(mailboxes, count)) &&
                index_reserve(mailboxes, count);
    return done ? ERROR_NONE : ERROR_MEMORY;
}

static struct entry *entry_new(struct mailboxes *mailboxes)
{
    if (mailboxes->free != NO_ENTRY) {
        struct entry *entry = &mailboxes->entries[mailboxes->free];
        mailboxes->free = entry->name;
        return entry;
    }
    if (mailboxes->used == mailboxes->room &&
        !entries_resize(mailboxes, mailboxes->room + mailboxes->room / 8 + 16)) {
        return NULL;
    }
    return &mailboxes->entries[mailboxes->used++];
}

enum error mailboxes_take(struct mailboxes *mailboxes, struct slice name, struct entry **ret_entry)
{
    if (name.length == 0 || name.length > MAILBOX_NAME_MAX) {
        return ERROR_LIMIT;
    }
    *ret_entry = find(mailboxes, name);
    if (*ret_entry != NULL) {
        return ERROR_NONE;
    }
    if (mailboxes->count.names >= MAILBOXES_MAX) {
        return ERROR_LIMIT;
    }
    if (!index_reserve(mailboxes, mailboxes->count.names + 1) ||
        !names_reserve(mailboxes, 1 + name.length)) {
        return ERROR_MEMORY;
    }
    struct entry *entry = entry_new(mailboxes);
    if (entry == NULL) {
        return ERROR_MEMORY;
    }
    uint32_t place = place_of(mailboxes, name);
    uint8_t *at = mailboxes->names + mailboxes->names_used;
    *entry = (struct entry){.name = (uint32_t)mailboxes->names_used};
    at[0] = (uint8_t)name.length;
    memcpy(at + 1, name.data, name.length);
    mailboxes->names_used += 1 + name.length;
    mailboxes->index[place] = (uint32_t)(entry - mailboxes->entries) + 1;
    mailboxes->count.names++;
    *ret_entry = entry;
    return ERROR_NONE;
}

static void drop(struct mailboxes *mailboxes, struct entry *entry)
{
    struct slice name = mailboxes_name_of(mailboxes, entry);
    mailboxes->names_dead += 1 + name.length;
    index_remove(mailboxes, place_of(mailboxes, name));
    mailboxes->count.names--;
    *entry = (struct entry){.flags = ENTRY_FREE, .name = mailboxes->free};
    mailboxes->free = (uint32_t)(entry - mailboxes->entries);
    if (mailboxes->names_dead > NAMES_LEAST && mailboxes->names_dead > mailboxes->names_used / 2) {
        names_pack(mailboxes);
    }
}

/* ---- changes --------------------------------------------------------------------------------- */

static enum mailbox_standing standing_of(const struct entry *entry)
{
    return (entry->flags & ENTRY_IN_LIST) != 0 ? MAILBOX_GOOD
           : (entry->flags & ENTRY_BAD) != 0   ? MAILBOX_BAD
           : entry->good_s != 0                ? MAILBOX_GOOD
                                               : MAILBOX_UNKNOWN;
}

static uint32_t *counter_of(struct mailboxes *mailboxes, const struct entry *entry)
{
    static const size_t counters[] = {
        [MAILBOX_UNKNOWN] = offsetof(struct mailboxes_count, refused),
        [MAILBOX_GOOD] = offsetof(struct mailboxes_count, good),
        [MAILBOX_BAD] = offsetof(struct mailboxes_count, bad),
    };
    enum mailbox_standing standing = standing_of(entry);
    if (standing == MAILBOX_UNKNOWN && entry->last_s == 0) {
        return NULL;
    }
    return (uint32_t *)((uint8_t *)&mailboxes->count + counters[standing]);
}

void mailboxes_change_begin(struct mailboxes *mailboxes, const struct entry *entry)
{
    uint32_t *counter = counter_of(mailboxes, entry);
    if (counter != NULL) {
        (*counter)--;
    }
    mailboxes->serial++;
}

void mailboxes_change_end(struct mailboxes *mailboxes, struct entry *entry)
{
    uint32_t *counter = counter_of(mailboxes, entry);
    if (counter != NULL) {
        (*counter)++;
    } else if ((entry->flags & ENTRY_IN_NEXT) == 0) {
        drop(mailboxes, entry);
    }
}

/* ---- what is known --------------------------------------------------------------------------- */

static void view(const struct mailboxes *mailboxes, const struct entry *entry,
                 struct mailbox *ret_mailbox)
{
    bool listed = (entry->flags & ENTRY_IN_LIST) != 0;
    bool bad = (entry->flags & ENTRY_BAD) != 0;
    *ret_mailbox = (struct mailbox){
        .name = mailboxes_name_of(mailboxes, entry),
        .standing = standing_of(entry),
        .source = listed ? MAILBOX_FROM_LIST : (enum mailbox_source)entry->source,
        .said_ms =
            listed ? mailboxes->list_ms : (bad ? entry->last_s : entry->good_s) * INT64_C(1000),
        .refused_ms = entry->last_s * INT64_C(1000),
        .first_refused_ms = entry->first_s * INT64_C(1000),
        .other_accepted = entry->first_s != 0 && entry->accepted != mailboxes->accepted,
    };
}

bool mailboxes_find(const struct mailboxes *mailboxes, struct slice name,
                    struct mailbox *ret_mailbox)
{
    const struct entry *entry = find(mailboxes, name);
    bool listed = entry != NULL && (entry->flags & ENTRY_IN_LIST) != 0;
    if (mailboxes->list_ms != 0 && !listed) {
        *ret_mailbox = (struct mailbox){
            .name = name,
            .standing = mailboxes->list_everybody ? MAILBOX_GOOD : MAILBOX_BAD,
            .source = MAILBOX_FROM_LIST,
            .said_ms = mailboxes->list_ms,
        };
        return true;
    }
    if (entry == NULL) {
        return false;
    }
    view(mailboxes, entry, ret_mailbox);
    return true;
}

bool mailboxes_has(const struct mailboxes *mailboxes, struct slice name)
{
    return find(mailboxes, name) != NULL;
}

bool mailboxes_next(const struct mailboxes *mailboxes, uint32_t *at, struct mailbox *ret_mailbox)
{
    while (*at < mailboxes->used) {
        const struct entry *entry = &mailboxes->entries[(*at)++];
        if ((entry->flags & ENTRY_FREE) == 0 &&
            (standing_of(entry) != MAILBOX_UNKNOWN || entry->last_s != 0)) {
            view(mailboxes, entry, ret_mailbox);
            return true;
        }
    }
    return false;
}

/* ---- what is learned ------------------------------------------------------------------------- */

static void clear_refusals(struct entry *entry)
{
    entry->first_s = 0;
    entry->last_s = 0;
    entry->flags &= (uint8_t)~ENTRY_BAD;
}

static enum error make_good(struct mailboxes *mailboxes, struct slice name,
                            enum mailbox_source source, int64_t now_ms)
{
    struct entry *entry;
    enum error error = mailboxes_take(mailboxes, name, &entry);
    if (error == ERROR_NONE) {
        mailboxes_change_begin(mailboxes, entry);
        clear_refusals(entry);
        entry->good_s = mailboxes_seconds(now_ms);
        entry->source = (uint8_t)source;
        mailboxes_change_end(mailboxes, entry);
    }
    return error;
}

void mailboxes_accepted_another(struct mailboxes *mailboxes)
{
    mailboxes->accepted++;
}

enum error mailboxes_accepted(struct mailboxes *mailboxes, struct slice name, bool teaches,
                              enum mailbox_source source, int64_t now_ms)
{
    mailboxes->accepted++;
    if (teaches) {
        return make_good(mailboxes, name, source, now_ms);
    }
    struct entry *entry = find(mailboxes, name);
    if (entry != NULL && entry->last_s != 0) {
        mailboxes_change_begin(mailboxes, entry);
        clear_refusals(entry);
        mailboxes_change_end(mailboxes, entry);
    }
    return ERROR_NONE;
}

static void refuse(const struct mailboxes *mailboxes, struct entry *entry,
                   enum mailbox_source source, uint32_t now_s)
{
    bool first = entry->first_s == 0 || now_s < entry->first_s;
    if (first) {
        entry->first_s = now_s;
        entry->accepted = mailboxes->accepted;
    }
    entry->last_s = now_s;
    if ((entry->flags & ENTRY_BAD) == 0 && now_s - entry->first_s >= MAILBOX_APART_MS / 1000 &&
        entry->accepted != mailboxes->accepted) {
        entry->flags |= ENTRY_BAD;
        entry->good_s = 0;
    }
    if (entry->good_s == 0) {
        entry->source = (uint8_t)source;
    }
}

enum error mailboxes_refused(struct mailboxes *mailboxes, struct slice name,
                             enum mailbox_source source, int64_t now_ms)
{
    struct entry *entry;
    if (mailboxes->count.refused + mailboxes->count.bad >= MAILBOXES_REFUSED_MAX &&
        find(mailboxes, name) == NULL) {
        return ERROR_LIMIT;
    }
    enum error error = mailboxes_take(mailboxes, name, &entry);
    if (error == ERROR_NONE) {
        mailboxes_change_begin(mailboxes, entry);
        mailboxes->doubts += entry->good_s != 0;
        refuse(mailboxes, entry, source, mailboxes_seconds(now_ms));
        mailboxes_change_end(mailboxes, entry);
    }
    return error;
}

enum error mailboxes_told(struct mailboxes *mailboxes, struct slice name, int64_t now_ms)
{
    return make_good(mailboxes, name, MAILBOX_FROM_OPERATOR, now_ms);
}

static void forget(struct mailboxes *mailboxes, struct entry *entry)
{
    mailboxes_change_begin(mailboxes, entry);
    mailboxes->doubts += entry->good_s != 0;
    clear_refusals(entry);
    entry->good_s = 0;
    entry->source = MAILBOX_FROM_NOBODY;
    mailboxes_change_end(mailboxes, entry);
}

static bool is_learned(const struct entry *entry)
{
    return (entry->flags & ENTRY_FREE) == 0 && (entry->good_s != 0 || entry->last_s != 0);
}

bool mailboxes_forget(struct mailboxes *mailboxes, struct slice name)
{
    struct entry *entry = find(mailboxes, name);
    if (entry == NULL || !is_learned(entry)) {
        return false;
    }
    forget(mailboxes, entry);
    return true;
}

void mailboxes_forget_all(struct mailboxes *mailboxes)
{
    for (uint32_t i = 0; i < mailboxes->used; i++) {
        if (is_learned(&mailboxes->entries[i])) {
            forget(mailboxes, &mailboxes->entries[i]);
        }
    }
    mailboxes->random_ms = 0;
    mailboxes->serial++;
}

/* What an operator has said stays. */
static bool is_stale(const struct entry *entry, int64_t now_ms)
{
    int64_t good_ms = now_ms - entry->good_s * INT64_C(1000);
    int64_t refused_ms = now_ms - entry->last_s * INT64_C(1000);
    if (entry->good_s != 0) {
        return entry->source != MAILBOX_FROM_OPERATOR && good_ms > MAILBOX_KEPT_MS;
    }
    return refused_ms > MAILBOX_BAD_DOWN_MS;
}

void mailboxes_clean(struct mailboxes *mailboxes, uint32_t some, int64_t now_ms)
{
    for (uint32_t i = 0; i < some && i < mailboxes->used; i++) {
        mailboxes->clean_at =
            mailboxes->clean_at + 1 < mailboxes->used ? mailboxes->clean_at + 1 : 0;
        struct entry *entry = &mailboxes->entries[mailboxes->clean_at];
        if (is_learned(entry) && is_stale(entry, now_ms)) {
            forget(mailboxes, entry);
        }
    }
}

/* ---- catch-all ------------------------------------------------------------------------------- */

void mailboxes_random(struct mailboxes *mailboxes, uint64_t server, bool refused, int64_t now_ms)
{
    mailboxes->random_server = server;
    mailboxes->random_refused = refused;
    mailboxes->random_ms = now_ms > 0 ? now_ms : 1;
    mailboxes->serial++;
}

enum mailboxes_catch mailboxes_catch(const struct mailboxes *mailboxes, uint64_t server,
                                     int64_t now_ms)
{
    int64_t age_ms = now_ms - mailboxes->random_ms;
    if (mailboxes->random_ms == 0 || mailboxes->random_server != server || age_ms < 0 ||
        age_ms > MAILBOX_RANDOM_FOR_MS) {
        return CATCH_NOT_KNOWN;
    }
    return mailboxes->random_refused ? CATCH_NONE : CATCH_ALL;
}

/* ---- lists ----------------------------------------------------------------------------------- */

/* With `replace`, what was read takes the old list's place; else it is dropped. */
static void list_settle(struct mailboxes *mailboxes, bool replace)
{
    for (uint32_t i = 0; i < mailboxes->used; i++) {
        struct entry *entry = &mailboxes->entries[i];
        bool next = (entry->flags & ENTRY_IN_NEXT) != 0;
        bool listed = (entry->flags & ENTRY_IN_LIST) != 0;
        if ((entry->flags & ENTRY_FREE) != 0 || (!next && !(replace && listed))) {
            continue;
        }
        mailboxes_change_begin(mailboxes, entry);
        entry->flags &= (uint8_t)~ENTRY_IN_NEXT;
        if (replace) {
            entry->flags &= (uint8_t)~ENTRY_IN_LIST;
            entry->flags |= next ? ENTRY_IN_LIST : 0;
        }
        mailboxes_change_end(mailboxes, entry);
    }
    mailboxes->reading = false;
}

void mailboxes_list_give_up(struct mailboxes *mailboxes)
{
    if (mailboxes->reading) {
        list_settle(mailboxes, false);
    }
}

bool mailboxes_list_is_read(const struct mailboxes *mailboxes)
{
    return mailboxes->reading;
}

void mailboxes_list_begin(struct mailboxes *mailboxes)
{
    mailboxes_list_give_up(mailboxes);
    mailboxes->reading = true;
}

enum error mailboxes_list_add(struct mailboxes *mailboxes, struct slice name)
{
    struct entry *entry;
    assert(mailboxes->reading);
    enum error error = mailboxes_take(mailboxes, name, &entry);
    if (error == ERROR_NONE) {
        entry->flags |= ENTRY_IN_NEXT;
    }
    return error;
}

void mailboxes_list_end(struct mailboxes *mailboxes, bool everybody, int64_t now_ms)
{
    assert(mailboxes->reading);
    list_settle(mailboxes, true);
    mailboxes->list_ms = now_ms > 0 ? now_ms : 1;
    mailboxes->list_everybody = everybody;
    mailboxes->serial++;
}

void mailboxes_list_drop(struct mailboxes *mailboxes)
{
    mailboxes_list_give_up(mailboxes);
    if (mailboxes->list_ms != 0) {
        list_settle(mailboxes, true);
        mailboxes->list_ms = 0;
        mailboxes->list_everybody = false;
        mailboxes->serial++;
    }
}

int64_t mailboxes_list_ms(const struct mailboxes *mailboxes)
{
    return mailboxes->list_ms;
}

/* ---- what to answer -------------------------------------------------------------------------- */

enum mailbox_answer mailbox_unanswered(bool accept_unknown)
{
    return accept_unknown ? MAILBOX_TAKE : MAILBOX_DEFER;
}

static bool is_within(int64_t then_ms, int64_t now_ms, int64_t for_ms)
{
    return then_ms != 0 && now_ms - then_ms <= for_ms;
}

enum mailbox_answer mailbox_decide(const struct mailbox_question *question)
{
    static const struct mailbox nobody = {.standing = MAILBOX_UNKNOWN};
    const struct mailbox *found = question->found != NULL ? question->found : &nobody;
    int64_t now_ms = question->now_ms;
    if (found->standing != MAILBOX_UNKNOWN && found->source == MAILBOX_FROM_LIST) {
        return found->standing == MAILBOX_GOOD ? MAILBOX_TAKE : MAILBOX_REFUSE;
    }
    if (!question->up) {
        return found->standing == MAILBOX_GOOD ? MAILBOX_TAKE
               : found->standing == MAILBOX_BAD &&
                       is_within(found->said_ms, now_ms, MAILBOX_BAD_DOWN_MS)
                   ? MAILBOX_REFUSE
                   : mailbox_unanswered(question->accept_unknown);
    }
    if (is_within(found->refused_ms, now_ms, MAILBOX_REFUSED_FOR_MS)) {
        return MAILBOX_REFUSE;
    }
    bool good =
        found->standing == MAILBOX_GOOD && (found->source == MAILBOX_FROM_OPERATOR ||
                                            is_within(found->said_ms, now_ms, MAILBOX_GOOD_FOR_MS));
    return good || question->catches_all ? MAILBOX_TAKE : MAILBOX_ASK;
}
