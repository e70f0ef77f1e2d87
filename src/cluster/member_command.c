/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands: they are copied, wait for the next change, and are answered once.
 */
#include "cluster/member_internal.h"

#include <stdlib.h>

static bool command(struct member *member, enum command_kind kind, struct slice name,
                    member_answer_fn *done, void *context)
{
    uint8_t *copy = NULL;
    if (member->command_count == MEMBER_COMMANDS_MAX || member->stopping ||
        (copy = malloc(name.length + 1)) == NULL) {
        return false;
    }
    if (name.length > 0) {
        memcpy(copy, name.data, name.length);
    }
    struct command *new = &member->commands[member->command_count++];
    *new = (struct command){
        .kind = kind, .name = slice_make(copy, name.length), .done = done, .context = context};
    if (kind == COMMAND_REMOVE) {
        new->answered = true;
        new->answer = MEMBER_MISSING;
        for (size_t i = 0; i < member->view.member_count; i++) {
            const struct view_member *node = &member->view.members[i];
            if (slice_equal(node->name, name)) {
                new->answered = node->state != NODE_DOWN;
                new->answer = MEMBER_ALIVE;
                new->node = node->number;
                new->beat_us = node->beat_us;
            }
        }
    }
    if (!member->busy) {
        loop_timer_set(member->round_timer, 0);
    }
    return true;
}

bool member_name_share(struct member *member, struct slice name, member_answer_fn *done,
                       void *context)
{
    return command(member, COMMAND_NAME_SHARE, name, done, context);
}

bool member_drain(struct member *member, struct slice node, member_answer_fn *done, void *context)
{
    return command(member, COMMAND_DRAIN, node, done, context);
}

bool member_undrain(struct member *member, struct slice node, member_answer_fn *done, void *context)
{
    return command(member, COMMAND_UNDRAIN, node, done, context);
}

bool member_remove(struct member *member, struct slice node, member_answer_fn *done, void *context)
{
    return command(member, COMMAND_REMOVE, node, done, context);
}

void member_answer_commands(struct member *member)
{
    struct member_job *job = &member->job;
    size_t count = job->command_count;
    struct command commands[MEMBER_COMMANDS_MAX];
    memcpy(commands, job->commands, sizeof(commands));
    job->command_count = 0;
    for (size_t i = 0; i < count; i++) {
        commands[i].done(commands[i].context, commands[i].answer, commands[i].number);
        free((void *)commands[i].name.data);
    }
}

void member_fail_commands(struct member *member)
{
    struct member_job *job = &member->job;
    for (size_t i = 0; i < job->command_count; i++) { /* at the end: they were cut off */
        job->commands[i].answer = MEMBER_UNREACHABLE;
    }
    member_answer_commands(member);
    memcpy(job->commands, member->commands, sizeof(job->commands));
    job->command_count = member->command_count;
    member->command_count = 0;
    for (size_t i = 0; i < job->command_count; i++) {
        if (!job->commands[i].answered) {
            job->commands[i].answer = MEMBER_UNREACHABLE;
        }
    }
    member_answer_commands(member);
}
