/* SPDX-License-Identifier: Apache-2.0 */
#include "app/role_channel.h"

#include "service/greylist.h"
#include "service/lease_page.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct role_channel {
    int fd;
    struct loop_watch *watch;
    const struct role_handlers *handlers;
    /* A reload on its way. */
    struct settings *settings;
    uint32_t generation;
    uint32_t taken; /* of the one that was given to the role last */
    int listeners[LISTENERS_MAX];
    uint8_t buffer[KEEPER_MESSAGE_MAX];
};

/* ---- the start --------------------------------------------------------------------------- */

static void no_listeners(int listeners[LISTENERS_MAX])
{
    for (size_t i = 0; i < LISTENERS_MAX; i++) {
        listeners[i] = -1;
    }
}

static void start_init(struct role_start *start, int channel, enum role role)
{
    *start = (struct role_start){.channel = channel,
                                 .role = role,
                                 .spool_directory = -1,
                                 .events_directory = -1,
                                 .recipients_directory = -1,
                                 .state_directory = -1,
                                 .lock = -1,
                                 .control = -1,
                                 .lists = -1,
                                 .settings_link = -1};
    for (int link = 0; link < KEEPER_LINKS; link++) {
        start->links[link] = -1;
    }
    no_listeners(start->listeners);
    for (size_t i = 0; i < LOOPS_MAX; i++) {
        start->rings[KEEPER_EDGE_IN][i] = (struct ring_descriptors){-1, -1, -1};
        start->rings[KEEPER_EDGE_OUT][i] = (struct ring_descriptors){-1, -1, -1};
        start->filters[i] = (struct filter_descriptors){-1, -1};
    }
}

static enum error take_config(struct keeper_message *message, struct settings **ret_settings)
{
    char *text;
    size_t length;
    enum error error = keeper_text_from_descriptor(message->descriptors[0], &text, &length);
    keeper_message_close(message);
    if (error != ERROR_NONE) {
        return error;
    }
    struct buffer errors;
    buffer_init(&errors, 0);
    *ret_settings = settings_parse(slice_make(text, length), &errors);
    buffer_done(&errors);
    free(text);
    return *ret_settings != NULL ? ERROR_NONE : ERROR_INVALID;
}

static enum error take_memory(struct keeper_message *message, int protection, size_t bytes,
                              void **ret_memory)
{
    *ret_memory = mmap(NULL, bytes, protection, MAP_SHARED, message->descriptors[0], 0);
    int number = errno;
    keeper_message_close(message);
    return *ret_memory == MAP_FAILED ? error_from_errno(number) : ERROR_NONE;
}

static enum error take_counters(struct keeper_message *message, int role,
                                struct counter_page **ret_page)
{
    int protection = role == ROLE_WEB ? PROT_READ : PROT_READ | PROT_WRITE;
    void *page;
    enum error error = take_memory(message, protection, sizeof(struct counter_page), &page);
    *ret_page = error == ERROR_NONE ? page : NULL;
    return error;
}

static enum error take_greylist(struct keeper_message *message, struct greylist **ret_list)
{
    void *list;
    enum error error = take_memory(message, PROT_READ | PROT_WRITE, greylist_bytes(), &list);
    *ret_list = error == ERROR_NONE ? list : NULL;
    return error;
}

static enum error take_lease(struct keeper_message *message, const struct lease_page **ret_lease)
{
    void *page;
    enum error error = take_memory(message, PROT_READ, sizeof(struct lease_page), &page);
    *ret_lease = error == ERROR_NONE ? page : NULL;
    return error;
}

static enum error take_ring(struct keeper_message *message, struct ring_descriptors *ret_ring)
{
    if (message->count < 1 || message->count > LOOPS_MAX || message->index >= message->count) {
        keeper_message_close(message);
        return ERROR_INVALID;
    }
    *ret_ring = (struct ring_descriptors){message->descriptors[0], message->descriptors[1],
                                          message->descriptors[2]};
    return ERROR_NONE;
}

static enum error take_listener(struct keeper_message *message, int listeners[LISTENERS_MAX])
{
    if (message->index >= LISTENERS_MAX || listeners[message->index] >= 0) {
        keeper_message_close(message);
        return ERROR_INVALID;
    }
    listeners[message->index] = message->descriptors[0];
    return ERROR_NONE;
}

static void take_directories(const struct keeper_message *message, struct role_start *start)
{
    start->spool_directory = message->descriptors[0];
    if (message->descriptor_count == 5) {
        start->events_directory = message->descriptors[1];
        start->recipients_directory = message->descriptors[2];
        start->state_directory = message->descriptors[3];
        start->lock = message->descriptors[4];
    }
}

static enum error take_link(struct keeper_message *message, struct role_start *start)
{
    if (message->index >= KEEPER_LINKS || start->links[message->index] >= 0) {
        keeper_message_close(message);
        return ERROR_INVALID;
    }
    start->links[message->index] = message->descriptors[0];
    return ERROR_NONE;
}

static enum error take_filters(struct keeper_message *message, struct role_start *start)
{
    if (message->index >= LOOPS_MAX || start->filters[message->index].dial >= 0) {
        keeper_message_close(message);
        return ERROR_INVALID;
    }
    start->filters[message->index] =
        (struct filter_descriptors){message->descriptors[0], message->descriptors[1]};
    return ERROR_NONE;
}

static enum error take_identity(const struct keeper_message *message, struct role_start *start)
{
    start->identity = message->identity;
    if (message->bytes.length > 0) {
        start->root = strndup((const char *)message->bytes.data, message->bytes.length);
        if (start->root == NULL) {
            return ERROR_MEMORY;
        }
    }
    return ERROR_NONE;
}

static enum error take(struct keeper_message *message, struct role_start *start)
{
    struct ring_descriptors ring;
    enum error error;
    switch (message->kind) {
    case KEEPER_CONFIG:
        start->generation = message->generation;
        return take_config(message, &start->settings);
    case KEEPER_IDENTITY:
        return take_identity(message, start);
    case KEEPER_COUNTERS:
        return take_counters(message, start->role, &start->counters);
    case KEEPER_GREYLIST:
        return take_greylist(message, &start->greylist);
    case KEEPER_LEASE:
        return take_lease(message, &start->lease);
    case KEEPER_LISTENER:
        return take_listener(message, start->listeners);
    case KEEPER_DIRECTORIES:
        take_directories(message, start);
        return ERROR_NONE;
    case KEEPER_CONTROL:
        start->control = message->descriptors[0];
        return ERROR_NONE;
    case KEEPER_LINK:
        return take_link(message, start);
    case KEEPER_RING:
        error = take_ring(message, &ring);
        if (error == ERROR_NONE) {
            start->loops = message->count;
            start->rings[message->edge][message->index] = ring;
        }
        return error;
    case KEEPER_FILTERS:
        return take_filters(message, start);
    case KEEPER_LISTS:
        start->lists = message->descriptors[0];
        return ERROR_NONE;
    case KEEPER_SETTINGS:
        start->settings_link = message->descriptors[0];
        return ERROR_NONE;
    case KEEPER_START:
        return start->settings != NULL && start->counters != NULL ? ERROR_NONE : ERROR_INVALID;
    default:
        keeper_message_close(message);
        return ERROR_INVALID;
    }
}

enum error role_receive_start(int channel, enum role role, struct role_start *ret_start)
{
    start_init(ret_start, channel, role);
    uint8_t *buffer = malloc(KEEPER_MESSAGE_MAX);
    if (buffer == NULL) {
        return ERROR_MEMORY;
    }
    struct keeper_message message;
    enum error error;
    do {
        error = keeper_receive_wait(channel, buffer, &message);
        if (error == ERROR_NONE) {
            error = take(&message, ret_start);
        }
    } while (error == ERROR_NONE && message.kind != KEEPER_START);
    free(buffer);
    return error;
}

/* ---- the walls --------------------------------------------------------------------------- */

static enum error become(const struct role_start *start, const char *root)
{
    const struct service_config *config = settings_config(start->settings);
    pid_t keeper = getppid();
    enum error error = log_open(config->log_target, config->log_level, role_name(start->role));
    if (error == ERROR_NONE && start->identity.change) {
        struct sandbox_identity identity = {
            .user = start->identity.user, .group = start->identity.group, .root = root};
        error = sandbox_become(&identity);
    }
    /* After the change of user, which forgets it. */
    return error == ERROR_NONE ? sandbox_bind_to_parent(keeper) : error;
}

enum error role_become(const struct role_start *start)
{
    return become(start, NULL);
}

enum error role_confine(const struct role_start *start, const int *directories, size_t count)
{
    bool is_member = settings_config(start->settings)->cluster.database.length > 0;
    const struct sandbox_profile *member = is_member ? role_member_privileges(start->role) : NULL;
    const struct sandbox_profile *profile = member != NULL ? member : role_privileges(start->role);
    enum error error = become(start, member != NULL ? NULL : start->root);
    struct sandbox_result result = {0};
    if (error == ERROR_NONE) {
        error = sandbox_confine(profile, directories, count, &result);
    }
    if (error == ERROR_NONE) {
        log_event(result.seccomp ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, "confined",
                  LOG_NUMBER("landlock", result.landlock),
                  LOG_TEXT("seccomp", !result.seccomp ? "left out of this build"
                                      : result.strict ? "strict"
                                                      : "on"));
    }
    return error;
}

int role_fail(const char *what, enum error error)
{
    log_event(LOG_LEVEL_ERROR, "failed", LOG_TEXT("at", what),
              LOG_TEXT("reason", error_text(error)));
    return error == ERROR_NEWER || error == ERROR_INVALID ? ROLE_EXIT_REFUSED : ROLE_EXIT_FAILED;
}

/* ---- later ------------------------------------------------------------------------------- */

static void say_ready(const struct role_channel *channel, enum error error)
{
    struct keeper_message ready = {
        .kind = KEEPER_READY, .generation = channel->taken, .error = error};
    error = keeper_send(channel->fd, &ready);
    if (error != ERROR_NONE) {
        exit(role_fail("keeper", error));
    }
}

static void apply_reload(struct role_channel *channel)
{
    const struct role_handlers *handlers = channel->handlers;
    enum error error = ERROR_INVALID;
    channel->taken = channel->generation;
    if (channel->settings != NULL) {
        error = handlers->reload(handlers->context, channel->settings, channel->generation,
                                 channel->listeners);
    }
    no_listeners(channel->listeners);
    channel->settings = NULL;
    if (error != ERROR_AGAIN) {
        say_ready(channel, error);
    }
}

void role_channel_alive(struct role_channel *channel, uint32_t question)
{
    struct keeper_message alive = {.kind = KEEPER_ALIVE, .index = question};
    enum error error = keeper_send(channel->fd, &alive);
    if (error != ERROR_NONE) {
        exit(role_fail("keeper", error));
    }
}

void role_channel_reloaded(struct role_channel *channel, enum error error)
{
    say_ready(channel, error);
}

void role_close_listeners(const int listeners[LISTENERS_MAX])
{
    for (size_t i = 0; i < LISTENERS_MAX; i++) {
        if (listeners[i] >= 0) {
            close(listeners[i]);
        }
    }
}

static enum error dispatch(struct role_channel *channel, struct keeper_message *message)
{
    const struct role_handlers *handlers = channel->handlers;
    struct ring_descriptors ring;
    enum error error;
    switch (message->kind) {
    case KEEPER_CONFIG:
        role_close_listeners(channel->listeners);
        no_listeners(channel->listeners);
        channel->generation = message->generation;
        settings_free(channel->settings);
        channel->settings = NULL;
        return take_config(message, &channel->settings);
    case KEEPER_LISTENER:
        return take_listener(message, channel->listeners);
    case KEEPER_APPLY:
        apply_reload(channel);
        return ERROR_NONE;
    case KEEPER_RING:
        error = take_ring(message, &ring);
        if (error == ERROR_NONE && handlers->ring != NULL) {
            handlers->ring(handlers->context, message->edge, message->index, message->count, ring);
        }
        return error;
    case KEEPER_LINK:
        if (handlers->link != NULL && message->index < KEEPER_LINKS) {
            handlers->link(handlers->context, (enum keeper_link)message->index,
                           message->descriptors[0]);
            return ERROR_NONE;
        }
        keeper_message_close(message);
        return ERROR_NONE;
    case KEEPER_STALE:
        if (handlers->stale != NULL) {
            handlers->stale(handlers->context, message->bytes);
        }
        return ERROR_NONE;
    case KEEPER_ASK:
        if (handlers->asked != NULL) {
            handlers->asked(handlers->context, channel, message->index);
        } else {
            role_channel_alive(channel, message->index);
        }
        return ERROR_NONE;
    case KEEPER_STOP:
        handlers->stop(handlers->context, message->grace_ms);
        return ERROR_NONE;
    default:
        keeper_message_close(message);
        return ERROR_INVALID;
    }
}

static void channel_ready(void *context, unsigned ready)
{
    (void)ready;
    struct role_channel *channel = context;
    struct keeper_message message;
    enum error error = keeper_receive(channel->fd, channel->buffer, &message);
    if (error == ERROR_NONE) {
        error = dispatch(channel, &message);
    }
    if (error == ERROR_CLOSED) {
        /* Without the keeper nobody restarts, reloads or stops us. */
        _exit(ROLE_EXIT_FAILED);
    }
    if (error != ERROR_NONE && error != ERROR_AGAIN) {
        exit(role_fail("keeper", error));
    }
}

enum error role_channel_new(struct loop *loop, const struct role_start *start,
                            const struct role_handlers *handlers, struct role_channel **ret_channel)
{
    struct role_channel *channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return ERROR_MEMORY;
    }
    channel->fd = start->channel;
    channel->handlers = handlers;
    channel->generation = channel->taken = start->generation;
    no_listeners(channel->listeners);
    channel->watch = loop_watch_new(loop, channel->fd, channel_ready, channel);
    if (channel->watch == NULL) {
        free(channel);
        return ERROR_MEMORY;
    }
    loop_watch_set(channel->watch, LOOP_READ);
    say_ready(channel, ERROR_NONE);
    *ret_channel = channel;
    return ERROR_NONE;
}

void role_channel_free(struct role_channel *channel)
{
    if (channel != NULL) {
        loop_watch_free(channel->watch);
        free(channel);
    }
}
