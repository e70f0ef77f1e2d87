/* SPDX-License-Identifier: Apache-2.0
 *
 * An intrusive doubly linked list. A head is a link that points at itself when the list is empty.
 */
#ifndef HOLDFAST_BASE_LIST_H
#define HOLDFAST_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *next;
    struct link *previous;
};

#define LIST_ENTRY(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
/* Safe against removal of the current entry. */
#define LIST_EACH(head, at, after)                                                                 \
    for (struct link *at = (head)->next, *after = at->next; at != (head);                          \
         at = after, after = at->next)

static inline void list_init(struct link *head)
{
    head->next = head;
    head->previous = head;
}

static inline bool list_is_empty(const struct link *head)
{
    return head->next == head;
}

static inline void list_insert_before(struct link *at, struct link *entry)
{
    entry->next = at;
    entry->previous = at->previous;
    at->previous->next = entry;
    at->previous = entry;
}

static inline void list_append(struct link *head, struct link *entry)
{
    list_insert_before(head, entry);
}

static inline void list_remove(struct link *entry)
{
    entry->previous->next = entry->next;
    entry->next->previous = entry->previous;
    list_init(entry);
}

#endif
