/* SPDX-License-Identifier: Apache-2.0
 *
 * What a child that has been taken over could send to the keeper, and the other way: any bytes with
 * any number of descriptors are refused, or a message whose like can be sent again. The first byte
 * is the number of descriptors; none stays open.
 */
#include "app/keeper_channel.h"
#include "sys/fdpass.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t buffer[KEEPER_MESSAGE_MAX], again_buffer[KEEPER_MESSAGE_MAX];

static void check_message(int ends[2], const struct keeper_message *message)
{
    struct keeper_message again;
    assert(message->kind >= KEEPER_CONFIG && message->kind <= KEEPER_REFUSED);
    assert(message->edge == KEEPER_EDGE_IN || message->edge == KEEPER_EDGE_OUT);
    assert(message->error <= ERROR_DENIED);
    assert(message->descriptor_count <= KEEPER_DESCRIPTORS_MAX);
    for (size_t i = 0; i < message->descriptor_count; i++) {
        assert((fcntl(message->descriptors[i], F_GETFD) & FD_CLOEXEC) != 0);
    }
    enum error error = keeper_send(ends[0], message);
    assert(error == ERROR_NONE);
    error = keeper_receive(ends[1], again_buffer, &again);
    assert(error == ERROR_NONE);
    assert(again.kind == message->kind && again.generation == message->generation);
    assert(again.index == message->index && again.count == message->count);
    assert(again.grace_ms == message->grace_ms && again.edge == message->edge);
    assert(again.error == message->error);
    assert(again.identity.change == message->identity.change);
    assert(again.identity.user == message->identity.user);
    assert(again.identity.group == message->identity.group);
    assert(again.identity.has_control_group == message->identity.has_control_group);
    assert(again.identity.control_group == message->identity.control_group);
    assert(slice_equal(again.bytes, message->bytes));
    assert(again.descriptor_count == message->descriptor_count);
    keeper_message_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ends[2], descriptors[FDPASS_DESCRIPTORS_MAX];
    static bool open;
    if (size < 2 || size - 1 > FDPASS_BYTES_MAX) {
        return 0;
    }
    if (!open) {
        enum error error = fdpass_pair(ends);
        assert(error == ERROR_NONE);
        for (size_t i = 0; i < FDPASS_DESCRIPTORS_MAX; i++) {
            descriptors[i] = ends[0];
        }
        open = true;
    }
    int free_before = dup(ends[0]); /* the lowest that is free */
    close(free_before);
    enum error error = fdpass_send(ends[0], slice_make(data + 1, size - 1), descriptors,
                                   data[0] % (FDPASS_DESCRIPTORS_MAX + 1));
    assert(error == ERROR_NONE);
    struct keeper_message message;
    error = keeper_receive(ends[1], buffer, &message);
    if (error == ERROR_NONE) {
        check_message(ends, &message);
        keeper_message_close(&message);
    } else {
        assert(error == ERROR_INVALID || error == ERROR_LIMIT);
    }
    int free_after = dup(ends[0]);
    close(free_after);
    assert(free_after == free_before);
    return 0;
}
