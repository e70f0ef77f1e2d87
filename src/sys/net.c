/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/net.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLICES_MAX = 8 };

union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t address_from_endpoint(const struct ip_endpoint *from, union any_address *ret_to)
{
    memset(ret_to, 0, sizeof(*ret_to));
    if (ip_is_v4(&from->address)) {
        ret_to->v4.sin_family = AF_INET;
        ret_to->v4.sin_port = htons(from->port);
        memcpy(&ret_to->v4.sin_addr, from->address.bytes + 12, 4);
        return sizeof(ret_to->v4);
    }
    ret_to->v6.sin6_family = AF_INET6;
    ret_to->v6.sin6_port = htons(from->port);
    memcpy(&ret_to->v6.sin6_addr, from->address.bytes, 16);
    return sizeof(ret_to->v6);
}

static void endpoint_from_address(const union any_address *from, struct ip_endpoint *ret_to)
{
    memset(ret_to, 0, sizeof(*ret_to));
    if (from->any.sa_family == AF_INET) {
        ret_to->address.bytes[10] = 0xff;
        ret_to->address.bytes[11] = 0xff;
        memcpy(ret_to->address.bytes + 12, &from->v4.sin_addr, 4);
        ret_to->port = ntohs(from->v4.sin_port);
    } else if (from->any.sa_family == AF_INET6) {
        memcpy(ret_to->address.bytes, &from->v6.sin6_addr, 16);
        ret_to->port = ntohs(from->v6.sin6_port);
    }
}

static bool option_on(int fd, int level, int option)
{
    int on = 1;
    return setsockopt(fd, level, option, &on, sizeof(on)) == 0;
}

static enum error fail_and_close(int fd)
{
    enum error error = error_from_errno(errno);
    close(fd);
    return error;
}

enum error net_listen(const struct ip_endpoint *at, int backlog, int *ret_fd)
{
    union any_address address;
    socklen_t length = address_from_endpoint(at, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    /* 0.0.0.0 and :: may both be configured. Connections inherit TCP_NODELAY. */
    if (!option_on(fd, SOL_SOCKET, SO_REUSEADDR) || !option_on(fd, IPPROTO_TCP, TCP_NODELAY) ||
        (address.any.sa_family == AF_INET6 && !option_on(fd, IPPROTO_IPV6, IPV6_V6ONLY)) ||
        bind(fd, &address.any, length) != 0 || listen(fd, backlog) != 0) {
        return fail_and_close(fd);
    }
    *ret_fd = fd;
    return ERROR_NONE;
}

enum error net_accept(int listener, int *ret_fd, struct ip_endpoint *ret_peer)
{
    for (;;) {
        union any_address peer;
        socklen_t length = sizeof(peer);
        int fd = accept4(listener, &peer.any, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            endpoint_from_address(&peer, ret_peer);
            *ret_fd = fd;
            return ERROR_NONE;
        }
        /* A client that has gone already is none waiting; accept(2) also reports its network's
         * errors here. */
        switch (errno) {
        case EINTR:
        case ECONNABORTED:
        case EPROTO:
        case ENETDOWN:
        case ENETUNREACH:
        case EHOSTDOWN:
        case EHOSTUNREACH:
        case ENOPROTOOPT:
        case ENONET:
            continue;
        default:
            return error_from_errno(errno);
        }
    }
}

enum error net_connect(const struct ip_endpoint *to, const struct ip_address *source, int *ret_fd)
{
    union any_address address;
    socklen_t length = address_from_endpoint(to, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    if (!option_on(fd, IPPROTO_TCP, TCP_NODELAY)) {
        return fail_and_close(fd);
    }
    if (source != NULL && ip_is_v4(source) == ip_is_v4(&to->address)) {
        union any_address local;
        socklen_t local_length =
            address_from_endpoint(&(struct ip_endpoint){.address = *source}, &local);
        /* The port is chosen when connecting, so that 60,000 connections to each server fit. */
        (void)option_on(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
        if (bind(fd, &local.any, local_length) != 0) {
            return fail_and_close(fd);
        }
    }
    if (connect(fd, &address.any, length) != 0 && errno != EINPROGRESS && errno != EINTR) {
        return fail_and_close(fd);
    }
    *ret_fd = fd;
    return ERROR_NONE;
}

enum error net_connected(int fd)
{
    int number = 0;
    socklen_t length = sizeof(number);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &length) != 0) {
        return error_from_errno(errno);
    }
    return error_from_errno(number);
}

enum error net_receive(int fd, void *ret_bytes, size_t size, size_t *ret_length)
{
    ssize_t length;
    do {
        length = recv(fd, ret_bytes, size, 0);
    } while (length < 0 && errno == EINTR);
    if (length < 0) {
        return error_from_errno(errno);
    }
    *ret_length = (size_t)length;
    return length == 0 ? ERROR_CLOSED : ERROR_NONE;
}

bool net_has_input(int fd)
{
    uint8_t byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

enum error net_send(int fd, struct slice bytes, size_t *ret_sent)
{
    return net_send_slices(fd, &bytes, 1, ret_sent);
}

enum error net_send_slices(int fd, const struct slice *slices, size_t count, size_t *ret_sent)
{
    assert(count <= SLICES_MAX);
    struct iovec parts[SLICES_MAX];
    for (size_t i = 0; i < count; i++) {
        parts[i].iov_base = (void *)(uintptr_t)slices[i].data;
        parts[i].iov_len = slices[i].length;
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent;
    do {
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return error_from_errno(errno);
    }
    *ret_sent = (size_t)sent;
    return ERROR_NONE;
}

void net_acknowledge(int fd)
{
    (void)option_on(fd, IPPROTO_TCP, TCP_QUICKACK);
}

void net_give_up_after(int fd, uint32_t ms)
{
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

void net_ask_for_life(int fd, bool ask)
{
    const int on = ask, seconds = 1, count = 5;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

enum error net_local(int fd, struct ip_endpoint *ret_local)
{
    union any_address local;
    socklen_t length = sizeof(local);
    if (getsockname(fd, &local.any, &length) != 0) {
        return error_from_errno(errno);
    }
    endpoint_from_address(&local, ret_local);
    return ERROR_NONE;
}

enum error net_peer(int fd, struct ip_endpoint *ret_peer)
{
    union any_address peer;
    socklen_t length = sizeof(peer);
    if (getpeername(fd, &peer.any, &length) != 0) {
        return error_from_errno(errno);
    }
    if (peer.any.sa_family != AF_INET && peer.any.sa_family != AF_INET6) {
        return ERROR_INVALID;
    }
    endpoint_from_address(&peer, ret_peer);
    return ERROR_NONE;
}

bool net_is_stream(int fd)
{
    union any_address peer;
    int type = 0;
    socklen_t length = sizeof(peer), type_length = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length) == 0 && type == SOCK_STREAM &&
           getpeername(fd, &peer.any, &length) == 0;
}

enum error net_pair(int ret_ends[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_ends) != 0) {
        return error_from_errno(errno);
    }
    return ERROR_NONE;
}

void net_hold(int fd, bool hold)
{
    const int on = hold;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

void net_end(int fd)
{
    (void)shutdown(fd, SHUT_WR);
}

/* The kernel binds a stream only to an address of ours. The unspecified ones are no address. */
bool net_is_ours(const struct ip_address *address)
{
    static const struct ip_address unspecified[2] = {
        {{0}}, {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}}};
    const struct ip_endpoint at = {.address = *address, .port = 0};
    union any_address local;
    socklen_t length = address_from_endpoint(&at, &local);
    if (ip_equal(address, &unspecified[0]) || ip_equal(address, &unspecified[1])) {
        return false;
    }
    int fd = socket(local.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    bool ours = bind(fd, &local.any, length) == 0;
    close(fd);
    return ours;
}

void net_close(int fd)
{
    close(fd);
}
