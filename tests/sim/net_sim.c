/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated twin of sys/net.h and sys/dns.h. A connection is two pipes; bytes travel in pieces of
 * drawn size with drawn delay, never out of order. Endpoints can refuse, be silent, or be cut.
 */
#include "sys/net.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/sim.h"
#include "sys/dns.h"

enum {
    SOCKETS = 4096,
    PIPE_BYTES = 64 << 10,
    BACKLOG = 128,
    REACHES = 64,
    BASE_FD = 1000,
    CROWD = 20
};

enum kind { FREE, LISTENER, CONNECTING, STREAM };

struct sock {
    enum kind kind;
    uint32_t generation;
    struct sim_process *process;
    struct ip_endpoint local, remote;
    /* STREAM, CONNECTING */
    int peer;       /* index or -1 */
    uint8_t *bytes; /* received, not yet read */
    size_t length;
    size_t travelling; /* sent to us, not yet here */
    int64_t last_arrival_ns;
    int64_t syn_wait_ns; /* CONNECTING to nobody: until the SYN is sent again */
    bool peer_ended;     /* orderly end has arrived */
    struct sock *given;  /* the connection is that one's */
    enum error failed;   /* reset, refused */
    /* LISTENER */
    int waiting[BACKLOG];
    size_t waiting_count;
};

static struct sock *sockets;
static struct {
    struct ip_endpoint at;
    enum sim_reach reach;
} reaches[REACHES];
static size_t reach_count;
static uint16_t next_port;

static bool same_endpoint(const struct ip_endpoint *a, const struct ip_endpoint *b)
{
    return a->port == b->port && ip_equal(&a->address, &b->address);
}

void sim_net_begin(void)
{
    sim_dns_fail(0);
    sockets = calloc(SOCKETS, sizeof(*sockets));
    assert(sockets != NULL);
    reach_count = 0;
    next_port = 20000;
}

void sim_net_end(void)
{
    for (size_t i = 0; sockets != NULL && i < SOCKETS; i++) {
        free(sockets[i].bytes);
    }
    free(sockets);
    sockets = NULL;
}

size_t sim_net_open(void)
{
    size_t count = 0;
    for (size_t i = 0; i < SOCKETS; i++) {
        count += sockets[i].kind == STREAM;
    }
    return count / 2;
}

static struct sock *sock_of(int fd)
{
    assert(fd >= BASE_FD && fd < BASE_FD + SOCKETS);
    struct sock *sock = &sockets[fd - BASE_FD];
    assert(sock->kind != FREE);
    return sock;
}

static int index_of(const struct sock *sock)
{
    return (int)(sock - sockets);
}

static struct sock *sock_new(enum kind kind)
{
    for (size_t i = 0; i < SOCKETS; i++) {
        if (sockets[i].kind == FREE) {
            uint32_t generation = sockets[i].generation + 1;
            sockets[i] = (struct sock){
                .kind = kind, .generation = generation, .process = sim_current(), .peer = -1};
            return &sockets[i];
        }
    }
    return NULL;
}

static void ready(struct sock *sock)
{
    sim_loop_ready(index_of(sock) + BASE_FD);
}

unsigned sim_net_readiness(int fd)
{
    struct sock *sock = &sockets[fd - BASE_FD];
    switch (sock->kind) {
    case LISTENER:
        return sock->waiting_count > 0 ? LOOP_READ : 0;
    case CONNECTING:
        return sock->failed != ERROR_NONE ? LOOP_READ | LOOP_WRITE : 0;
    case STREAM: {
        unsigned mask = 0;
        if (sock->length > 0 || sock->peer_ended || sock->failed != ERROR_NONE) {
            mask |= LOOP_READ;
        }
        const struct sock *peer = sock->peer < 0 ? NULL : &sockets[sock->peer];
        if (peer == NULL || sock->failed != ERROR_NONE ||
            peer->length + peer->travelling < PIPE_BYTES) {
            mask |= LOOP_WRITE;
        }
        return mask;
    }
    case FREE:
        break;
    }
    return 0;
}

void sim_net_reach(const struct ip_endpoint *at, enum sim_reach reach)
{
    for (size_t i = 0; i < reach_count; i++) {
        if (same_endpoint(&reaches[i].at, at)) {
            reaches[i].reach = reach;
            return;
        }
    }
    assert(reach_count < REACHES);
    reaches[reach_count].at = *at;
    reaches[reach_count++].reach = reach;
}

static enum sim_reach reach_of(const struct ip_endpoint *at)
{
    for (size_t i = 0; i < reach_count; i++) {
        if (same_endpoint(&reaches[i].at, at)) {
            return reaches[i].reach;
        }
    }
    return SIM_REACHABLE;
}

static void fail(struct sock *sock, enum error error)
{
    sock->failed = error;
    sock->length = 0;
    sock->peer = -1;
    ready(sock);
}

void sim_net_cut(const struct ip_endpoint *at)
{
    for (size_t i = 0; i < SOCKETS; i++) {
        struct sock *sock = &sockets[i];
        if (sock->kind == STREAM && sock->failed == ERROR_NONE &&
            (same_endpoint(&sock->local, at) || same_endpoint(&sock->remote, at))) {
            fail(sock, ERROR_CLOSED);
        }
    }
}

enum error net_listen(const struct ip_endpoint *at, int backlog, int *ret_fd)
{
    (void)backlog;
    for (size_t i = 0; i < SOCKETS; i++) {
        if (sockets[i].kind == LISTENER && same_endpoint(&sockets[i].local, at)) {
            return ERROR_EXISTS;
        }
    }
    struct sock *sock = sock_new(LISTENER);
    if (sock == NULL) {
        return ERROR_SPACE;
    }
    sock->local = *at;
    *ret_fd = index_of(sock) + BASE_FD;
    return ERROR_NONE;
}

enum error net_accept(int listener, int *ret_fd, struct ip_endpoint *ret_peer)
{
    struct sock *sock = sock_of(listener);
    if (sock->waiting_count == 0) {
        return ERROR_AGAIN;
    }
    int at = sock->waiting[0];
    sock->waiting_count--;
    memmove(sock->waiting, sock->waiting + 1, sock->waiting_count * sizeof(int));
    sockets[at].process = sim_current();
    *ret_fd = at + BASE_FD;
    *ret_peer = sockets[at].remote;
    return ERROR_NONE;
}

struct later {
    int index;
    uint32_t generation;
    struct slice bytes;
};

static struct later *later_new(const struct sock *sock, struct slice bytes)
{
    struct later *later = malloc(sizeof(*later) + bytes.length);
    assert(later != NULL);
    later->index = index_of(sock);
    later->generation = sock->generation;
    later->bytes = slice_make(later + 1, bytes.length);
    if (bytes.length > 0) {
        memcpy(later + 1, bytes.data, bytes.length);
    }
    return later;
}

static struct sock *later_target(const struct later *later)
{
    struct sock *sock = &sockets[later->index];
    return sock->kind != FREE && sock->generation == later->generation ? sock : NULL;
}

static struct sock *listener_at(const struct ip_endpoint *at)
{
    for (size_t i = 0; i < SOCKETS; i++) {
        if (sockets[i].kind == LISTENER && same_endpoint(&sockets[i].local, at)) {
            return &sockets[i];
        }
    }
    return NULL;
}

static struct sim_process *net_process;

static void net_after(int64_t delay_ns, sim_fn *fn, void *context)
{
    sim_after(net_process, delay_ns, fn, context);
}

void sim_net_in_process(struct sim_process *process)
{
    net_process = process;
}

static void connect_decide(void *context);

/* As the kernel does: after 1, 2, 4 s and so on. */
static void repeat_syn(struct sock *sock)
{
    sock->syn_wait_ns = sock->syn_wait_ns == 0 ? 1000000000 : sock->syn_wait_ns * 2;
    net_after(sock->syn_wait_ns, connect_decide, later_new(sock, SLICE_EMPTY));
}

static void connect_decide(void *context)
{
    struct later *later = context;
    struct sock *sock = later_target(later);
    free(later);
    if (sock == NULL || sock->kind != CONNECTING) {
        return;
    }
    enum sim_reach reach = reach_of(&sock->remote);
    if (reach == SIM_UNREACHABLE) {
        repeat_syn(sock); /* our side's timer will give up */
        return;
    }
    struct sock *listener = listener_at(&sock->remote);
    if (reach == SIM_REFUSED || listener == NULL || listener->waiting_count == BACKLOG) {
        sock->failed = ERROR_CLOSED;
        ready(sock);
        return;
    }
    struct sock *other = sock_new(STREAM);
    if (other == NULL) {
        sock->failed = ERROR_CLOSED;
        ready(sock);
        return;
    }
    other->process = listener->process;
    other->local = sock->remote;
    other->remote = sock->local;
    other->peer = index_of(sock);
    sock->kind = STREAM;
    sock->peer = index_of(other);
    listener->waiting[listener->waiting_count++] = index_of(other);
    ready(listener);
    ready(sock);
}

enum error net_connect(const struct ip_endpoint *to, const struct ip_address *source, int *ret_fd)
{
    struct sock *sock = sock_new(CONNECTING);
    if (sock == NULL) {
        return ERROR_SPACE;
    }
    sock->remote = *to;
    if (source != NULL) {
        sock->local.address = *source;
    } else {
        ip_from_text(SLICE_LITERAL("127.0.0.1"), &sock->local.address);
    }
    sock->local.port = next_port++;
    *ret_fd = index_of(sock) + BASE_FD;
    net_after((int64_t)(10000 + sim_draw(2000000)), connect_decide, later_new(sock, SLICE_EMPTY));
    return ERROR_NONE;
}

struct ip_endpoint sim_net_local(int fd)
{
    return sock_of(fd)->local;
}

void sim_net_pair(struct sim_process *first, struct sim_process *second, int *ret_first,
                  int *ret_second)
{
    struct sock *a = sock_new(STREAM);
    assert(a != NULL);
    struct sock *b = sock_new(STREAM);
    assert(b != NULL);
    a->process = first;
    b->process = second;
    a->peer = index_of(b);
    b->peer = index_of(a);
    *ret_first = index_of(a) + BASE_FD;
    *ret_second = index_of(b) + BASE_FD;
}

int sim_net_give(int fd, struct sim_process *to)
{
    struct sock *from = sock_of(fd);
    struct sock *sock = sock_new(STREAM);
    if (sock == NULL) {
        return -1;
    }
    sock->process = to;
    sock->local = from->local;
    sock->remote = from->remote;
    sock->peer = from->peer;
    sock->peer_ended = from->peer < 0;
    sock->failed = from->failed;
    sock->last_arrival_ns = from->last_arrival_ns;
    if (from->peer >= 0) {
        sockets[from->peer].peer = index_of(sock);
    }
    from->given = sock;
    return index_of(sock) + BASE_FD;
}

enum error net_connected(int fd)
{
    struct sock *sock = sock_of(fd);
    if (sock->failed != ERROR_NONE) {
        return sock->failed;
    }
    return sock->kind == STREAM ? ERROR_NONE : ERROR_AGAIN;
}

enum error net_receive(int fd, void *ret_bytes, size_t size, size_t *ret_length)
{
    struct sock *sock = sock_of(fd);
    *ret_length = 0;
    if (sock->length > 0) {
        size_t take = sock->length < size ? sock->length : size;
        memcpy(ret_bytes, sock->bytes, take);
        sock->length -= take;
        memmove(sock->bytes, sock->bytes + take, sock->length);
        *ret_length = take;
        if (sock->peer >= 0) {
            ready(&sockets[sock->peer]);
        }
        return ERROR_NONE;
    }
    if (sock->failed != ERROR_NONE || sock->peer_ended) {
        return ERROR_CLOSED;
    }
    return ERROR_AGAIN;
}

size_t sim_net_peek(int fd, void *ret_bytes, size_t size)
{
    const struct sock *sock = sock_of(fd);
    size_t count = sock->length < size ? sock->length : size;
    if (count > 0) {
        memcpy(ret_bytes, sock->bytes, count);
    }
    return count;
}

bool net_has_input(int fd)
{
    const struct sock *sock = sock_of(fd);
    return sock->length > 0 || sock->failed != ERROR_NONE || sock->peer_ended;
}

static void arrive(void *context)
{
    struct later *later = context;
    struct sock *sock = later_target(later);
    if (sock != NULL && sock->kind == STREAM) {
        size_t count = later->bytes.length;
        sock->travelling -= count < sock->travelling ? count : sock->travelling;
        if (sock->failed == ERROR_NONE) {
            if (sock->bytes == NULL) {
                sock->bytes = malloc(2 * PIPE_BYTES);
                assert(sock->bytes != NULL);
            }
            assert(sock->length + count <= 2 * PIPE_BYTES);
            memcpy(sock->bytes + sock->length, later->bytes.data, count);
            sock->length += count;
            ready(sock);
        }
    }
    free(later);
}

static void arrive_end(void *context)
{
    struct later *later = context;
    struct sock *sock = later_target(later);
    if (sock != NULL && sock->kind == STREAM) {
        sock->peer_ended = true;
        ready(sock);
    }
    free(later);
}

/* Bytes arrive in the order sent: never before what was sent earlier. */
static int64_t arrival_delay(struct sock *to)
{
    int64_t at = sim_now_ns() + (int64_t)(5000 + sim_draw(300000));
    if (at <= to->last_arrival_ns) {
        at = to->last_arrival_ns + 1;
    }
    to->last_arrival_ns = at;
    return at - sim_now_ns();
}

enum error net_send(int fd, struct slice bytes, size_t *ret_sent)
{
    struct sock *sock = sock_of(fd);
    *ret_sent = 0;
    if (sock->failed != ERROR_NONE || sock->kind != STREAM || sock->peer < 0 ||
        (sock->given != NULL && sockets[sock->peer].peer != index_of(sock->given))) {
        return ERROR_CLOSED;
    }
    struct sock *peer = &sockets[sock->peer];
    size_t used = peer->length + peer->travelling;
    size_t room = used < PIPE_BYTES ? PIPE_BYTES - used : 0;
    size_t take = bytes.length < room ? bytes.length : room;
    if (take == 0) {
        return bytes.length == 0 ? ERROR_NONE : ERROR_AGAIN;
    }
    if (take > 4 && sim_chance(50) && sock->local.port != 0) {
        take = 1 + sim_draw(take);
    }
    for (size_t done = 0; done < take;) {
        size_t piece = sim_chance(100) ? 1 + sim_draw(take - done) : take - done;
        peer->travelling += piece;
        net_after(arrival_delay(peer), arrive,
                  later_new(peer, slice_make(bytes.data + done, piece)));
        done += piece;
    }
    *ret_sent = take;
    return ERROR_NONE;
}

enum error net_send_slices(int fd, const struct slice *slices, size_t count, size_t *ret_sent)
{
    *ret_sent = 0;
    for (size_t i = 0; i < count; i++) {
        size_t sent;
        enum error error = net_send(fd, slices[i], &sent);
        *ret_sent += sent;
        if (error != ERROR_NONE || sent < slices[i].length) {
            return *ret_sent > 0 ? ERROR_NONE : error;
        }
    }
    return ERROR_NONE;
}

void net_acknowledge(int fd)
{
    (void)sock_of(fd); /* nobody waits for acknowledgements here */
}

/* Hosts here do not vanish with connections open: what is cut is told at once. */
void net_give_up_after(int fd, uint32_t ms)
{
    (void)fd;
    (void)ms;
}

void net_ask_for_life(int fd, bool ask)
{
    (void)fd;
    (void)ask;
}

enum error net_local(int fd, struct ip_endpoint *ret_local)
{
    *ret_local = sock_of(fd)->local;
    return ERROR_NONE;
}

enum error net_peer(int fd, struct ip_endpoint *ret_peer)
{
    const struct sock *sock = sock_of(fd);
    if (sock->kind != STREAM || sock->peer < 0) {
        return ERROR_CLOSED;
    }
    *ret_peer = sockets[sock->peer].local;
    return ERROR_NONE;
}

bool net_is_stream(int fd)
{
    const struct sock *sock = sock_of(fd);
    return sock->kind == STREAM && sock->peer >= 0;
}

enum error net_pair(int ret_ends[2])
{
    sim_net_pair(sim_current(), sim_current(), &ret_ends[0], &ret_ends[1]);
    return ERROR_NONE;
}

void net_hold(int fd, bool hold)
{
    (void)fd;
    (void)hold; /* there are no packets here */
}

void net_end(int fd)
{
    struct sock *sock = sock_of(fd);
    if (sock->peer >= 0) {
        struct sock *peer = &sockets[sock->peer];
        net_after(arrival_delay(peer), arrive_end, later_new(peer, SLICE_EMPTY));
    }
}

/* This machine has no address of its own in this world. */
bool net_is_ours(const struct ip_address *address)
{
    (void)address;
    return false;
}

static void sock_close(struct sock *sock, bool orderly)
{
    if (sock->kind == STREAM && sock->given == NULL && sock->peer >= 0 &&
        sockets[sock->peer].kind == STREAM) {
        struct sock *peer = &sockets[sock->peer];
        peer->peer = -1;
        /* Unread bytes at a close make a reset of it, as TCP does. */
        if (orderly && sock->length == 0) {
            net_after(arrival_delay(peer), arrive_end, later_new(peer, SLICE_EMPTY));
        } else {
            fail(peer, ERROR_CLOSED);
        }
    }
    for (size_t i = 0; sock->kind == LISTENER && i < sock->waiting_count; i++) {
        sock_close(&sockets[sock->waiting[i]], false);
    }
    free(sock->bytes);
    *sock = (struct sock){.generation = sock->generation};
}

void net_close(int fd)
{
    sock_close(sock_of(fd), true);
}

void sim_net_kill(struct sim_process *process)
{
    for (size_t i = 0; i < SOCKETS; i++) {
        if (sockets[i].kind != FREE && sockets[i].process == process) {
            sock_close(&sockets[i], true);
        }
    }
}

/* ---- names (sys/dns.h): see sim_dns_fail() in sim.h --------------------------------------------
 */

struct dns {
    struct loop *loop;
};

struct dns_query {
    struct loop_timer *timer;
    struct dns_answer answer;
    dns_fn *fn;
    struct dns_records records;
    struct dns_record exchangers[CROWD + 1];
    char names[CROWD + 1][16];
    dns_records_fn *records_fn; /* instead */
    void *context;
};

static uint32_t dns_failures_permille;

void sim_dns_fail(uint32_t permille)
{
    dns_failures_permille = permille;
}

/* Silence, a failure, a bogus signature. */
static enum error draw_failure(void)
{
    static const enum error failures[] = {ERROR_TIMEOUT, ERROR_IO, ERROR_CORRUPT};
    return dns_failures_permille > 0 && sim_chance(dns_failures_permille)
               ? failures[sim_draw(sizeof(failures) / sizeof(failures[0]))]
               : ERROR_NONE;
}

enum error dns_new(struct loop *loop, const struct dns_settings *settings, struct dns **ret_dns)
{
    (void)settings;
    struct dns *dns = malloc(sizeof(*dns));
    if (dns == NULL) {
        return ERROR_MEMORY;
    }
    dns->loop = loop;
    *ret_dns = dns;
    return ERROR_NONE;
}

void dns_free(struct dns *dns)
{
    free(dns);
}

static void dns_answer(void *context)
{
    struct dns_query *query = context;
    struct dns_query told = *query;
    told.records.records = told.exchangers;
    for (size_t i = 0; i < told.records.count; i++) {
        told.exchangers[i].name = slice_from_text(told.names[i]);
    }
    dns_cancel(query);
    if (told.records_fn != NULL) {
        told.records_fn(told.context, &told.records);
    } else {
        told.fn(told.context, &told.answer);
    }
}

static struct dns_query *query_new(struct dns *dns, void *context)
{
    struct dns_query *query = calloc(1, sizeof(*query));
    if (query == NULL) {
        return NULL;
    }
    query->context = context;
    query->timer = loop_timer_new(dns->loop, dns_answer, query);
    if (query->timer == NULL) {
        free(query);
        return NULL;
    }
    loop_timer_set(query->timer, (int64_t)sim_draw(20));
    return query;
}

static bool ends_with(struct slice name, const char *end)
{
    size_t length = strlen(end);
    return name.length >= length &&
           slice_equal(slice_skip(name, name.length - length), slice_from_text(end));
}

/* "aN.test" */
static bool is_host(struct slice name, uint64_t *ret_number)
{
    return name.length > 6 && name.data[0] == 'a' && ends_with(name, ".test") &&
           slice_to_u64(slice_make(name.data + 1, name.length - 6), ret_number) &&
           *ret_number < 256;
}

static void add_exchanger(struct dns_query *query, uint16_t preference, const char *name)
{
    size_t which = query->records.count++;
    query->exchangers[which].preference = preference;
    snprintf(query->names[which], sizeof(query->names[which]), "%s", name);
}

static void fill_exchangers(struct dns_query *query, struct slice name)
{
    if (slice_equal(name, SLICE_LITERAL("example.test"))) {
        add_exchanger(query, 30, "a3.test");
        add_exchanger(query, 10, "a1.test");
        add_exchanger(query, 20, "a2.test");
    } else if (slice_equal(name, SLICE_LITERAL("crowd.test"))) {
        for (unsigned i = 0; i < CROWD; i++) {
            char host[16];
            snprintf(host, sizeof(host), "b%u.test", i);
            add_exchanger(query, 10, host);
        }
        add_exchanger(query, 10, "mx2.test");
    } else {
        add_exchanger(query, 20, "a2.test");
        add_exchanger(query, 10, "a5.test");
    }
}

struct dns_query *dns_lookup(struct dns *dns, struct slice name, enum dns_type type,
                             dns_records_fn *fn, void *context)
{
    struct dns_query *query = query_new(dns, context);
    if (query == NULL) {
        return NULL;
    }
    uint64_t number;
    query->records_fn = fn;
    query->records = (struct dns_records){.error = draw_failure(), .ttl_s = 60};
    if (query->records.error != ERROR_NONE) {
        return query;
    }
    if (type == DNS_MX && ends_with(name, ".test") && !is_host(name, &number)) {
        fill_exchangers(query, name);
    } else if (type == DNS_PTR && ends_with(name, ".in-addr.arpa")) {
        char host[16];
        snprintf(host, sizeof(host), "a%u.test",
                 (unsigned)strtoul((const char *)name.data, NULL, 10));
        add_exchanger(query, 0, host);
    } else {
        query->records.error = ERROR_MISSING;
        query->records.no_name = !ends_with(name, ".test");
    }
    return query;
}

struct dns_query *dns_resolve(struct dns *dns, struct slice name, dns_fn *fn, void *context)
{
    struct dns_query *query = query_new(dns, context);
    if (query == NULL) {
        return NULL;
    }
    uint64_t number;
    query->fn = fn;
    query->answer.error = draw_failure();
    if (query->answer.error == ERROR_NONE && is_host(name, &number)) {
        query->answer = (struct dns_answer){.count = 1, .ttl_s = 60, .is_whole = true};
        ip_from_text(SLICE_LITERAL("192.0.2.0"), &query->answer.addresses[0]);
        query->answer.addresses[0].bytes[15] = (uint8_t)number;
    } else if (query->answer.error == ERROR_NONE) {
        query->answer.error = ERROR_MISSING;
    }
    return query;
}

void dns_cancel(struct dns_query *query)
{
    if (query != NULL) {
        loop_timer_free(query->timer);
        free(query);
    }
}
