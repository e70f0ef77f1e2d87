/* SPDX-License-Identifier: Apache-2.0 */
#include "app/keeper_channel.h"

#include "sys/fdpass.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SEND_WAIT_MS = 2000,
    TEXT_MAX = 256 << 20, /* a configuration with its recipient lists */
};

/* How many descriptors belong to each kind. */
static bool descriptors_fit(const struct keeper_message *message)
{
    switch (message->kind) {
    case KEEPER_CONFIG:
    case KEEPER_COUNTERS:
    case KEEPER_GREYLIST:
    case KEEPER_LEASE:
    case KEEPER_LISTENER:
    case KEEPER_CONTROL:
    case KEEPER_LINK:
    case KEEPER_LISTS:
    case KEEPER_SETTINGS:
    case KEEPER_REFUSED:
        return message->descriptor_count == 1;
    case KEEPER_PLAN:
        return message->descriptor_count == 1 + KEEPER_TEXTS;
    case KEEPER_DIRECTORIES:
        return message->descriptor_count == 1 || message->descriptor_count == 5;
    case KEEPER_RING:
        return message->descriptor_count == 3;
    case KEEPER_FILTERS:
        return message->descriptor_count == 2;
    case KEEPER_IDENTITY:
    case KEEPER_START:
    case KEEPER_APPLY:
    case KEEPER_STOP:
    case KEEPER_STALE:
    case KEEPER_ASK:
    case KEEPER_ALIVE:
    case KEEPER_READY:
    case KEEPER_BROKEN:
        return message->descriptor_count == 0;
    }
    return false;
}

static void encode(struct buffer *buffer, const struct keeper_message *message)
{
    buffer_put_u8(buffer, (uint8_t)message->kind);
    buffer_put_u32(buffer, message->generation);
    buffer_put_u32(buffer, message->index);
    buffer_put_u32(buffer, message->count);
    buffer_put_u32(buffer, message->grace_ms);
    buffer_put_u8(buffer, (uint8_t)message->edge);
    buffer_put_u8(buffer, (uint8_t)message->error);
    buffer_put_u8(buffer, message->identity.change);
    buffer_put_u32(buffer, message->identity.user);
    buffer_put_u32(buffer, message->identity.group);
    buffer_put_u8(buffer, message->identity.has_control_group);
    buffer_put_u32(buffer, message->identity.control_group);
    buffer_put_bytes(buffer, message->bytes);
}

static bool decode(struct slice bytes, struct keeper_message *ret_message)
{
    struct reader reader = reader_make(bytes);
    ret_message->kind = (enum keeper_kind)reader_u8(&reader);
    ret_message->generation = reader_u32(&reader);
    ret_message->index = reader_u32(&reader);
    ret_message->count = reader_u32(&reader);
    ret_message->grace_ms = reader_u32(&reader);
    uint8_t edge = reader_u8(&reader);
    ret_message->edge = edge == KEEPER_EDGE_IN ? KEEPER_EDGE_IN : KEEPER_EDGE_OUT;
    uint8_t error = reader_u8(&reader);
    ret_message->error = error <= ERROR_DENIED ? (enum error)error : ERROR_INVALID;
    ret_message->identity.change = reader_u8(&reader) != 0;
    ret_message->identity.user = reader_u32(&reader);
    ret_message->identity.group = reader_u32(&reader);
    ret_message->identity.has_control_group = reader_u8(&reader) != 0;
    ret_message->identity.control_group = reader_u32(&reader);
    ret_message->bytes = reader_bytes(&reader);
    return !reader.failed && reader.rest.length == 0 && edge <= KEEPER_EDGE_OUT &&
           descriptors_fit(ret_message);
}

enum error keeper_send(int channel, const struct keeper_message *message)
{
    assert(descriptors_fit(message));
    struct buffer buffer;
    buffer_init(&buffer, 0);
    encode(&buffer, message);
    enum error error = buffer.failed                        ? ERROR_MEMORY
                       : buffer.length > KEEPER_MESSAGE_MAX ? ERROR_LIMIT
                                                            : ERROR_AGAIN;
    while (error == ERROR_AGAIN) {
        error = fdpass_send(channel, buffer_slice(&buffer), message->descriptors,
                            message->descriptor_count);
        struct pollfd poll_fd = {.fd = channel, .events = POLLOUT};
        if (error == ERROR_AGAIN && poll(&poll_fd, 1, SEND_WAIT_MS) == 0) {
            error = ERROR_TIMEOUT;
        }
    }
    buffer_done(&buffer);
    return error;
}

enum error keeper_receive(int channel, uint8_t buffer[KEEPER_MESSAGE_MAX],
                          struct keeper_message *ret_message)
{
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    size_t length, count;
    enum error error =
        fdpass_receive(channel, buffer, KEEPER_MESSAGE_MAX, &length, descriptors, &count);
    if (error != ERROR_NONE) {
        return error;
    }
    *ret_message = (struct keeper_message){0};
    size_t kept = count < KEEPER_DESCRIPTORS_MAX ? count : KEEPER_DESCRIPTORS_MAX;
    memcpy(ret_message->descriptors, descriptors, kept * sizeof(int));
    ret_message->descriptor_count = kept;
    for (size_t i = kept; i < count; i++) {
        close(descriptors[i]);
    }
    if (count > kept || !decode(slice_make(buffer, length), ret_message)) {
        keeper_message_close(ret_message);
        return ERROR_INVALID;
    }
    return ERROR_NONE;
}

enum error keeper_receive_wait(int channel, uint8_t buffer[KEEPER_MESSAGE_MAX],
                               struct keeper_message *ret_message)
{
    for (;;) {
        enum error error = keeper_receive(channel, buffer, ret_message);
        if (error != ERROR_AGAIN) {
            return error;
        }
        struct pollfd poll_fd = {.fd = channel, .events = POLLIN};
        (void)poll(&poll_fd, 1, -1);
    }
}

void keeper_message_close(struct keeper_message *message)
{
    for (size_t i = 0; i < message->descriptor_count; i++) {
        close(message->descriptors[i]);
    }
    message->descriptor_count = 0;
}

/* ---- texts ------------------------------------------------------------------------------- */

/* What cannot change nor end under the eyes of who has mapped it. */
enum { SEALS_FIXED = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

enum error keeper_text_to_descriptor(struct slice text, int *ret_fd)
{
    int fd = memfd_create("holdfast-text", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    while (text.length > 0) {
        ssize_t put = write(fd, text.data, text.length);
        if (put < 0 && errno != EINTR) {
            enum error error = error_from_errno(errno);
            close(fd);
            return error;
        }
        text = slice_skip(text, put > 0 ? (size_t)put : 0);
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | SEALS_FIXED) != 0) {
        enum error error = error_from_errno(errno);
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return ERROR_NONE;
}

enum error keeper_text_from_descriptor(int fd, char **ret_text, size_t *ret_length)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS_FIXED) != SEALS_FIXED || fstat(fd, &status) != 0) {
        return ERROR_INVALID;
    }
    if (status.st_size > TEXT_MAX) {
        return ERROR_LIMIT;
    }
    size_t length = (size_t)status.st_size;
    char *text = malloc(length + 1);
    if (text == NULL) {
        return ERROR_MEMORY;
    }
    /* Mapped, because a sandboxed reader of memory needs no call that reads files. */
    if (length > 0) {
        void *mapped = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (mapped == MAP_FAILED) {
            free(text);
            return error_from_errno(errno);
        }
        memcpy(text, mapped, length);
        munmap(mapped, length);
    }
    text[length] = '\0';
    *ret_text = text;
    *ret_length = length;
    return ERROR_NONE;
}
