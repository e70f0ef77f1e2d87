/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/fdpass.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* A control message's room, aligned as one. */
union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(FDPASS_DESCRIPTORS_MAX * sizeof(int))];
};

enum error fdpass_pair(int ret_ends[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_ends) != 0) {
        return error_from_errno(errno);
    }
    return ERROR_NONE;
}

enum error fdpass_send(int socket, struct slice bytes, const int *descriptors, size_t count)
{
    /* An empty message could not be told from the end. */
    assert(bytes.length > 0 && bytes.length <= FDPASS_BYTES_MAX && count <= FDPASS_DESCRIPTORS_MAX);
    union control control;
    struct iovec part = {(void *)(uintptr_t)bytes.data, bytes.length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? error_from_errno(errno) : ERROR_NONE;
}

static size_t take_descriptors(struct msghdr *message, int *ret_descriptors)
{
    size_t count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            assert(count + here <= FDPASS_DESCRIPTORS_MAX);
            memcpy(ret_descriptors + count, CMSG_DATA(header), here * sizeof(int));
            count += here;
        }
    }
    return count;
}

enum error fdpass_receive(int socket, void *ret_bytes, size_t size, size_t *ret_length,
                          int ret_descriptors[FDPASS_DESCRIPTORS_MAX], size_t *ret_count)
{
    union control control;
    struct iovec part = {ret_bytes, size};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t length;
    do {
        length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (length < 0 && errno == EINTR);
    if (length < 0) {
        return error_from_errno(errno);
    }
    size_t count = take_descriptors(&message, ret_descriptors);
    if (length == 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        for (size_t i = 0; i < count; i++) {
            close(ret_descriptors[i]);
        }
        return length == 0 ? ERROR_CLOSED : ERROR_LIMIT;
    }
    *ret_length = (size_t)length;
    *ret_count = count;
    return ERROR_NONE;
}

enum error fdpass_receive_bytes(int socket, void *ret_bytes, size_t size, size_t *ret_length)
{
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    size_t count = 0;
    enum error error = fdpass_receive(socket, ret_bytes, size, ret_length, descriptors, &count);
    for (size_t i = 0; error == ERROR_NONE && i < count; i++) {
        close(descriptors[i]);
    }
    return error == ERROR_NONE && count > 0 ? ERROR_CORRUPT : error;
}
