/* SPDX-License-Identifier: Apache-2.0 */
#include "app/list_source.h"

#include "sys/clock.h"

#include <stdlib.h>
#include <unistd.h>

struct list_stamp list_stamp_of(const struct stat *status)
{
    const int64_t second = INT64_C(1000000000);
    return (struct list_stamp){(uint64_t)status->st_dev, (uint64_t)status->st_ino, status->st_size,
                               status->st_ctim.tv_sec * second + status->st_ctim.tv_nsec,
                               status->st_mtim.tv_sec * second + status->st_mtim.tv_nsec};
}

bool list_stamp_is(const struct list_stamp *a, const struct list_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed_ns == b->changed_ns && a->modified_ns == b->modified_ns;
}

void list_source_answer(struct list_source *source, const struct dial_answer *answer)
{
    source->answer = *answer;
    source->is_answered = true;
    source->due_ms = clock_steady_ms();
}

void list_source_forget(struct list_source *source)
{
    if (source->is_answered && source->answer.fd >= 0) {
        close(source->answer.fd);
    }
    source->is_answered = false;
    source->token = 0;
}

void list_sources_free(struct list_source *sources)
{
    while (sources != NULL) {
        struct list_source *next = sources->next;
        list_source_forget(sources);
        free(sources);
        sources = next;
    }
}

static struct list_source *find_source(struct list_source *source, struct slice name)
{
    while (source != NULL && !slice_equal(slice_from_text(source->name), name)) {
        source = source->next;
    }
    return source;
}

static struct list_source *make_source(const struct route_config *route,
                                       const struct list_source *before)
{
    struct slice name = route->recipients_list, ignored;
    struct list_source *source = calloc(1, sizeof(*source) + name.length + 1);
    if (source == NULL) {
        return NULL;
    }
    if (before != NULL) {
        *source = *before;
    }
    source->is_taken = false; /* its domains may be others now */
    source->due_ms = 0;
    source->etag[0] = '\0';
    source->is_answered = false;
    source->token = 0;
    source->kind = route_list_is_file(route)                  ? SOURCE_FILE
                   : route_list_is_shared(route)              ? SOURCE_SHARED
                   : route_list_is_directory(route, &ignored) ? SOURCE_DIRECTORY
                                                              : SOURCE_PAGE;
    source->every_ms = source->kind == SOURCE_FILE     ? LIST_FILE_EVERY_MS
                       : source->kind == SOURCE_SHARED ? LIST_SHARED_EVERY_MS
                                                       : route->recipients_every_ms;
    memcpy(source->name, name.data, name.length);
    return source;
}

enum error list_sources_make(const struct relay_config *config, struct list_source *old,
                             struct list_source **ret_sources)
{
    struct list_source *made = NULL;
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        struct slice name = route->recipients_list;
        if (route->recipients != RECIPIENTS_LIST || find_source(made, name) != NULL) {
            continue;
        }
        struct list_source *source = make_source(route, find_source(old, name));
        if (source == NULL) {
            list_sources_free(made);
            return ERROR_MEMORY;
        }
        source->next = made;
        made = source;
    }
    *ret_sources = made;
    return ERROR_NONE;
}
