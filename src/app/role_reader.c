/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that reads the configuration, and ends. It can open files for reading and has no
 * network; what it answers is the plan, the whole text and what to warn of, or what is wrong.
 *
 * It cannot become `user` first: who that is stands in the file.
 */
#include "app/plan.h"
#include "app/role_channel.h"
#include "app/settings.h"
#include "sys/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A text becomes the message's next descriptor. */
static enum error add_text(struct keeper_message *message, struct slice text)
{
    enum error error =
        keeper_text_to_descriptor(text, &message->descriptors[message->descriptor_count]);
    message->descriptor_count += error == ERROR_NONE;
    return error;
}

/* The configuration for some readers; that for all, which is descriptor `common`, where it says the
 * same: the lists in it can be long. */
static enum error add_expanded(struct keeper_message *message, const struct settings *settings,
                               unsigned readers, size_t common)
{
    struct buffer text;
    if (readers != SETTINGS_FOR_ALL && !settings_has_secrets(settings, readers)) {
        int copy = fcntl(message->descriptors[common], F_DUPFD_CLOEXEC, 0);
        message->descriptors[message->descriptor_count] = copy;
        message->descriptor_count += copy >= 0;
        return copy >= 0 ? ERROR_NONE : ERROR_SPACE;
    }
    buffer_init(&text, 0);
    settings_expand(settings, readers, &text);
    enum error error = text.failed ? ERROR_MEMORY : add_text(message, buffer_slice(&text));
    buffer_done(&text);
    return error;
}

static enum error refuse(int channel, struct slice errors)
{
    struct keeper_message message = {.kind = KEEPER_REFUSED};
    enum error error = add_text(&message, errors);
    if (error == ERROR_NONE) {
        error = keeper_send(channel, &message);
    }
    keeper_message_close(&message);
    return error;
}

static enum error answer(int channel, const struct settings *settings, const struct plan *plan,
                         struct slice warnings)
{
    static const unsigned readers[KEEPER_TEXTS] = {[KEEPER_TEXT_COMMON] = SETTINGS_FOR_ALL,
                                                   [KEEPER_TEXT_EDGE_OUT] = SETTINGS_FOR_EDGE_OUT,
                                                   [KEEPER_TEXT_EDGE_IN] = SETTINGS_FOR_EDGE_IN,
                                                   [KEEPER_TEXT_HELPER] = SETTINGS_FOR_HELPER,
                                                   [KEEPER_TEXT_LOGIN] = SETTINGS_FOR_LOGIN,
                                                   [KEEPER_TEXT_DIRECTORY] = SETTINGS_FOR_DIRECTORY,
                                                   [KEEPER_TEXT_CORE] = SETTINGS_FOR_CORE};
    struct keeper_message message = {.kind = KEEPER_PLAN};
    struct buffer bytes;
    buffer_init(&bytes, KEEPER_MESSAGE_MAX);
    plan_put(&bytes, plan);
    message.bytes = buffer_slice(&bytes);
    enum error error = bytes.failed ? ERROR_MEMORY : add_text(&message, warnings);
    for (int i = 0; i < KEEPER_TEXTS && error == ERROR_NONE; i++) {
        error = add_expanded(&message, settings, readers[i], 1 + KEEPER_TEXT_COMMON);
    }
    if (error == ERROR_NONE) {
        error = keeper_send(channel, &message);
    }
    keeper_message_close(&message);
    buffer_done(&bytes);
    return error;
}

static enum error read_and_answer(int channel, const char *path, const char *copy)
{
    static struct plan plan;
    struct buffer errors, conflict;
    buffer_init(&errors, 0);
    buffer_init(&conflict, 0);
    struct settings *settings = copy == NULL ? settings_read(path, &errors)
                                : strcmp(copy, READER_TO_START) == 0
                                    ? settings_read_to_start(path, &errors, &conflict)
                                    : settings_read_copy(path, copy, &errors);
    bool good = settings != NULL && plan_make(settings_config(settings), path, &plan, &errors);
    if (good) {
        plan_set_conflict(&plan, buffer_slice(&conflict));
    }
    enum error error = good ? answer(channel, settings, &plan, buffer_slice(&errors))
                            : refuse(channel, buffer_slice(&errors));
    settings_free(settings);
    buffer_done(&errors);
    buffer_done(&conflict);
    return error;
}

int role_reader(int channel, const char *path, const char *copy)
{
    pid_t keeper = getppid();
    int everything = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct sandbox_result result;
    enum error error = everything >= 0 ? ERROR_NONE : ERROR_MISSING;
    if (error == ERROR_NONE) {
        error = sandbox_bind_to_parent(keeper);
    }
    if (error == ERROR_NONE) {
        error = sandbox_confine(&reader_privileges, &everything, 1, &result);
    }
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    error = read_and_answer(channel, path, copy);
    return error == ERROR_NONE ? ROLE_EXIT_STOPPED : role_fail("answer", error);
}
