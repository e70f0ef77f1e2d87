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

/* Texts become descriptors, in their order. */
static enum error answer(int channel, enum keeper_kind kind, struct slice bytes,
                         const struct slice *texts, size_t count)
{
    struct keeper_message message = {.kind = kind, .bytes = bytes};
    enum error error = ERROR_NONE;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = keeper_text_to_descriptor(texts[i], &message.descriptors[i]);
        message.descriptor_count += error == ERROR_NONE;
    }
    if (error == ERROR_NONE) {
        error = keeper_send(channel, &message);
    }
    keeper_message_close(&message);
    return error;
}

static enum error read_and_answer(int channel, const char *path)
{
    static struct plan plan;
    struct buffer errors, text, bytes;
    buffer_init(&errors, 0);
    buffer_init(&text, 0);
    buffer_init(&bytes, KEEPER_MESSAGE_MAX);
    struct settings *settings = settings_read(path, &errors);
    enum error error;
    if (settings == NULL || !plan_make(settings_config(settings), path, &plan, &errors)) {
        const struct slice texts[] = {buffer_slice(&errors)};
        error = answer(channel, KEEPER_REFUSED, SLICE_EMPTY, texts, 1);
    } else {
        settings_expand(settings, &text);
        plan_put(&bytes, &plan);
        const struct slice texts[] = {buffer_slice(&text), buffer_slice(&errors)};
        error = text.failed || bytes.failed
                    ? ERROR_MEMORY
                    : answer(channel, KEEPER_PLAN, buffer_slice(&bytes), texts, 2);
    }
    settings_free(settings);
    buffer_done(&errors);
    buffer_done(&text);
    buffer_done(&bytes);
    return error;
}

int role_reader(int channel, const char *path)
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
    error = read_and_answer(channel, path);
    return error == ERROR_NONE ? ROLE_EXIT_STOPPED : role_fail("answer", error);
}
