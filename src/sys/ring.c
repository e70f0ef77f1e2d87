/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory: one page with a struct ring_shared, then the bytes of direction A to B, then those of
 * B to A. Each direction's bytes are mapped twice, one after the other, so that every record lies
 * in one piece wherever it begins.
 *
 * A direction: `head` counts bytes ever produced, `tail` bytes ever consumed; tail <= head <= tail
 * + size, all multiples of 8. A record is a u32 length, four bytes of nothing, the bytes, and
 * padding to 8.
 *
 * Sleeping: before a consumer waits it sets `asleep` and looks once more; a producer moves `head`
 * and then looks at `asleep`. Both orders are sequentially consistent, so at least one of the two
 * sees the other, and nobody sleeps over a record. In the same way a producer that finds no room
 * sets `wanted` before it looks at `tail` once more, and a consumer looks at `wanted` after it has
 * moved `tail`.
 *
 * Distrust: of a peer's words each use reads one once, and believes it only within the bounds
 * above. `asleep` and `wanted` decide about wake-ups alone: a peer that lies there sleeps or spins
 * by itself. Sizes are checked against the sealed size of the memory when attaching. (A peer must
 * not be able to make the eventfds blocking: that is the sandbox's part, see sys/sandbox.)
 */
#include "sys/ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_MAGIC 0x31676e6972646c68ULL

enum {
    CACHE_LINE = 64,
    SHARED_SIZE = 4096,
    RING_SIZE_MAX = 1 << 30,
    RECORD_HEAD = 8, /* and alignment of records */
    SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW,
};

struct ring_direction {
    /* The producer's line. */
    _Atomic uint64_t head __attribute__((aligned(CACHE_LINE)));
    _Atomic uint64_t
        wanted; /* free bytes at which the producer wants to be woken; 0: it does not */
    /* The consumer's line. */
    _Atomic uint64_t tail __attribute__((aligned(CACHE_LINE)));
    _Atomic uint32_t asleep;
};

struct ring_shared {
    uint64_t magic;
    uint64_t sizes[2]; /* by sending side */
    struct ring_direction directions[2];
};
_Static_assert(sizeof(struct ring_shared) <= SHARED_SIZE, "the head of the memory is one page");

/* The memory as mapped here; both sides of a local pair share one. */
struct ring_mapping {
    atomic_uint references;
    struct ring_shared *shared;
    uint64_t sizes[2];
    uint8_t *bytes[2]; /* each 2 * size */
};

struct ring {
    struct ring_mapping *mapping;
    struct ring_direction *out;
    struct ring_direction *in;
    uint8_t *out_bytes;
    const uint8_t *in_bytes;
    uint64_t out_size;
    uint64_t in_size;
    uint64_t out_head;
    uint64_t out_tail; /* as last seen */
    uint64_t in_tail;
    uint64_t in_head;  /* as last seen */
    uint64_t reserved; /* bytes of the open reservation, its head counted; 0: none */
    uint64_t received; /* bytes of the record that the caller is reading; 0: none */
    bool broken;       /* the peer has broken the rules; for good */
    ring_ready_fn *fn;
    void *context;
    /* To a peer behind descriptors: */
    int wake_fd;
    int peer_fd;
    struct loop_watch *watch;
    /* In a local pair: */
    struct loop_wake *wake;
    struct loop_wake *peer_wake;
};

/* ---- the memory -------------------------------------------------------------------------- */

static uint64_t record_space(uint64_t length)
{
    return (RECORD_HEAD + length + RECORD_HEAD - 1) & ~(uint64_t)(RECORD_HEAD - 1);
}

static uint64_t size_taken(size_t wanted)
{
    assert((wanted & (wanted - 1)) == 0 && wanted <= RING_SIZE_MAX);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return wanted < page ? page : wanted;
}

static bool size_is_good(uint64_t size)
{
    return size >= (uint64_t)sysconf(_SC_PAGESIZE) && size <= RING_SIZE_MAX &&
           (size & (size - 1)) == 0;
}

static enum error memory_create(const uint64_t sizes[2], int *ret_fd)
{
    int fd = memfd_create("holdfast-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    struct ring_shared *shared = MAP_FAILED;
    if (ftruncate(fd, (off_t)(SHARED_SIZE + sizes[0] + sizes[1])) == 0 &&
        fcntl(fd, F_ADD_SEALS, SEALS) == 0) {
        shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (shared == MAP_FAILED) {
        enum error error = error_from_errno(errno);
        close(fd);
        return error;
    }
    shared->magic = RING_MAGIC;
    for (size_t side = 0; side < 2; side++) {
        shared->sizes[side] = sizes[side];
        /* Nobody has looked yet, so the first record must wake. */
        atomic_init(&shared->directions[side].asleep, 1);
    }
    munmap(shared, SHARED_SIZE);
    *ret_fd = fd;
    return ERROR_NONE;
}

static uint8_t *map_twice(int fd, uint64_t offset, uint64_t size)
{
    uint8_t *place = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) {
        return NULL;
    }
    for (uint64_t i = 0; i < 2; i++) {
        if (mmap(place + i * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                 (off_t)offset) == MAP_FAILED) {
            munmap(place, 2 * size);
            return NULL;
        }
    }
    return place;
}

static void mapping_unref(struct ring_mapping *mapping)
{
    if (atomic_fetch_sub_explicit(&mapping->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t side = 0; side < 2; side++) {
        if (mapping->bytes[side] != NULL) {
            munmap(mapping->bytes[side], 2 * mapping->sizes[side]);
        }
    }
    if (mapping->shared != NULL) {
        munmap(mapping->shared, SHARED_SIZE);
    }
    free(mapping);
}

/* The peer may have the memory already: everything in it is checked. */
static enum error mapping_fill(struct ring_mapping *mapping, int fd)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &status) != 0 ||
        status.st_size < SHARED_SIZE) {
        return ERROR_CORRUPT;
    }
    void *shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) {
        return error_from_errno(errno);
    }
    mapping->shared = shared;
    const volatile struct ring_shared *said = mapping->shared;
    mapping->sizes[0] = said->sizes[0];
    mapping->sizes[1] = said->sizes[1];
    if (said->magic != RING_MAGIC || !size_is_good(mapping->sizes[0]) ||
        !size_is_good(mapping->sizes[1]) ||
        (uint64_t)status.st_size != SHARED_SIZE + mapping->sizes[0] + mapping->sizes[1]) {
        return ERROR_CORRUPT;
    }
    uint64_t offset = SHARED_SIZE;
    for (size_t side = 0; side < 2; side++) {
        mapping->bytes[side] = map_twice(fd, offset, mapping->sizes[side]);
        if (mapping->bytes[side] == NULL) {
            return ERROR_MEMORY;
        }
        offset += mapping->sizes[side];
    }
    return ERROR_NONE;
}

static enum error mapping_new(int fd, struct ring_mapping **ret_mapping)
{
    struct ring_mapping *mapping = calloc(1, sizeof(*mapping));
    if (mapping == NULL) {
        return ERROR_MEMORY;
    }
    atomic_init(&mapping->references, 1);
    enum error error = mapping_fill(mapping, fd);
    if (error != ERROR_NONE) {
        mapping_unref(mapping);
        return error;
    }
    *ret_mapping = mapping;
    return ERROR_NONE;
}

/* ---- waking ------------------------------------------------------------------------------ */

static void wake_by_descriptor(int fd)
{
    uint64_t one = 1;
    /* EAGAIN: full, so it is awake. Any other failure is the peer's loss. */
    ssize_t length = write(fd, &one, sizeof(one));
    (void)length;
}

static void wake_peer(struct ring *ring)
{
    if (ring->peer_wake != NULL) {
        loop_wake_send(ring->peer_wake);
    } else {
        wake_by_descriptor(ring->peer_fd);
    }
}

static void ring_break(struct ring *ring)
{
    ring->broken = true;
    /* The handler must run to hear of it, also when the one who found out was sending. */
    if (ring->wake != NULL) {
        loop_wake_send(ring->wake);
    } else {
        wake_by_descriptor(ring->wake_fd);
    }
}

static void woken_locally(void *context)
{
    struct ring *ring = context;
    ring->fn(ring->context);
}

static void woken_by_descriptor(void *context, unsigned ready)
{
    (void)ready;
    struct ring *ring = context;
    uint64_t count;
    ssize_t length = read(ring->wake_fd, &count, sizeof(count));
    (void)length;
    ring->fn(ring->context);
}

/* ---- making and freeing ------------------------------------------------------------------ */

enum error ring_create(size_t a_to_b_bytes, size_t b_to_a_bytes,
                       struct ring_descriptors *ret_descriptors)
{
    const uint64_t sizes[2] = {size_taken(a_to_b_bytes), size_taken(b_to_a_bytes)};
    struct ring_descriptors made = {-1, -1, -1};
    enum error error = memory_create(sizes, &made.memory);
    if (error != ERROR_NONE) {
        return error;
    }
    made.wake_a = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made.wake_b = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made.wake_a < 0 || made.wake_b < 0) {
        error = error_from_errno(errno);
        ring_descriptors_close(&made);
        return error;
    }
    *ret_descriptors = made;
    return ERROR_NONE;
}

void ring_descriptors_close(struct ring_descriptors *descriptors)
{
    int all[] = {descriptors->memory, descriptors->wake_a, descriptors->wake_b};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] >= 0) {
            close(all[i]);
        }
    }
    *descriptors = (struct ring_descriptors){-1, -1, -1};
}

static struct ring *ring_new(struct ring_mapping *mapping, enum ring_side side, ring_ready_fn *fn,
                             void *context)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL) {
        return NULL;
    }
    enum ring_side other = side == RING_SIDE_A ? RING_SIDE_B : RING_SIDE_A;
    ring->mapping = mapping;
    ring->out = &mapping->shared->directions[side];
    ring->in = &mapping->shared->directions[other];
    ring->out_bytes = mapping->bytes[side];
    ring->in_bytes = mapping->bytes[other];
    ring->out_size = mapping->sizes[side];
    ring->in_size = mapping->sizes[other];
    ring->fn = fn;
    ring->context = context;
    ring->wake_fd = -1;
    ring->peer_fd = -1;
    return ring;
}

enum error ring_attach(struct ring_descriptors descriptors, enum ring_side side, struct loop *loop,
                       ring_ready_fn *fn, void *context, struct ring **ret_ring)
{
    struct ring_mapping *mapping;
    enum error error = mapping_new(descriptors.memory, &mapping);
    if (error != ERROR_NONE) {
        ring_descriptors_close(&descriptors);
        return error;
    }
    struct ring *ring = ring_new(mapping, side, fn, context);
    if (ring == NULL) {
        mapping_unref(mapping);
        ring_descriptors_close(&descriptors);
        return ERROR_MEMORY;
    }
    close(descriptors.memory);
    ring->wake_fd = side == RING_SIDE_A ? descriptors.wake_a : descriptors.wake_b;
    ring->peer_fd = side == RING_SIDE_A ? descriptors.wake_b : descriptors.wake_a;
    ring->watch = loop_watch_new(loop, ring->wake_fd, woken_by_descriptor, ring);
    if (ring->watch == NULL) {
        ring_free(ring);
        return ERROR_MEMORY;
    }
    loop_watch_set(ring->watch, LOOP_READ);
    *ret_ring = ring;
    return ERROR_NONE;
}

static void no_handler(void *context)
{
    (void)context;
}

static struct ring *ring_new_local(struct ring_mapping *mapping, enum ring_side side,
                                   struct loop *loop)
{
    struct ring *ring = ring_new(mapping, side, no_handler, NULL);
    if (ring == NULL) {
        return NULL;
    }
    atomic_fetch_add_explicit(&mapping->references, 1, memory_order_relaxed);
    ring->wake = loop_wake_new(loop, woken_locally, ring);
    if (ring->wake == NULL) {
        ring_free(ring);
        return NULL;
    }
    return ring;
}

enum error ring_pair_local(size_t a_to_b_bytes, size_t b_to_a_bytes, struct loop *loop_a,
                           struct loop *loop_b, struct ring **ret_a, struct ring **ret_b)
{
    const uint64_t sizes[2] = {size_taken(a_to_b_bytes), size_taken(b_to_a_bytes)};
    int memory;
    enum error error = memory_create(sizes, &memory);
    if (error != ERROR_NONE) {
        return error;
    }
    struct ring_mapping *mapping;
    error = mapping_new(memory, &mapping);
    close(memory);
    if (error != ERROR_NONE) {
        return error;
    }
    struct ring *a = ring_new_local(mapping, RING_SIDE_A, loop_a);
    struct ring *b = ring_new_local(mapping, RING_SIDE_B, loop_b);
    mapping_unref(mapping);
    if (a == NULL || b == NULL) {
        ring_free(a);
        ring_free(b);
        return ERROR_MEMORY;
    }
    a->peer_wake = loop_wake_ref(b->wake);
    b->peer_wake = loop_wake_ref(a->wake);
    *ret_a = a;
    *ret_b = b;
    return ERROR_NONE;
}

void ring_set_handler(struct ring *ring, ring_ready_fn *fn, void *context)
{
    ring->fn = fn;
    ring->context = context;
}

void ring_free(struct ring *ring)
{
    if (ring == NULL) {
        return;
    }
    loop_watch_free(ring->watch);
    loop_wake_free(ring->wake);
    loop_wake_unref(ring->peer_wake);
    if (ring->wake_fd >= 0) {
        close(ring->wake_fd);
        close(ring->peer_fd);
    }
    mapping_unref(ring->mapping);
    free(ring);
}

/* ---- sending ----------------------------------------------------------------------------- */

size_t ring_record_limit(const struct ring *ring)
{
    return ring->out_size - RECORD_HEAD;
}

static bool has_room(struct ring *ring, uint64_t space)
{
    return space <= ring->out_size - (ring->out_head - ring->out_tail);
}

static bool see_tail(struct ring *ring)
{
    uint64_t tail = atomic_load(&ring->out->tail);
    uint64_t waiting = ring->out_head - tail;
    if (waiting > ring->out_size || waiting % RECORD_HEAD != 0) {
        ring_break(ring);
        return false;
    }
    ring->out_tail = tail;
    return true;
}

static bool make_room(struct ring *ring, uint64_t space)
{
    if (!see_tail(ring)) {
        return false;
    }
    if (has_room(ring, space)) {
        return true;
    }
    /* Not at every record consumed: in bursts. */
    uint64_t part = ring->out_size / 4;
    atomic_store(&ring->out->wanted, space < part ? part : space);
    if (!see_tail(ring) || !has_room(ring, space)) {
        return false;
    }
    atomic_store_explicit(&ring->out->wanted, 0, memory_order_relaxed);
    return true;
}

void *ring_reserve(struct ring *ring, size_t length)
{
    assert(ring->reserved == 0 && length <= ring_record_limit(ring));
    uint64_t space = record_space(length);
    if (ring->broken || (!has_room(ring, space) && !make_room(ring, space))) {
        return NULL;
    }
    ring->reserved = space;
    return ring->out_bytes + (ring->out_head & (ring->out_size - 1)) + RECORD_HEAD;
}

void ring_publish(struct ring *ring, size_t length)
{
    uint64_t space = record_space(length);
    assert(ring->reserved != 0 && space <= ring->reserved);
    uint32_t head = (uint32_t)length;
    memcpy(ring->out_bytes + (ring->out_head & (ring->out_size - 1)), &head, sizeof(head));
    ring->reserved = 0;
    ring->out_head += space;
    atomic_store(&ring->out->head, ring->out_head);
    if (atomic_load(&ring->out->asleep) != 0 && atomic_exchange(&ring->out->asleep, 0) != 0) {
        wake_peer(ring);
    }
}

enum error ring_send(struct ring *ring, struct slice record)
{
    if (record.length > ring_record_limit(ring)) {
        return ERROR_LIMIT;
    }
    void *place = ring_reserve(ring, record.length);
    if (place == NULL) {
        return ring->broken ? ERROR_CORRUPT : ERROR_AGAIN;
    }
    if (record.length > 0) {
        memcpy(place, record.data, record.length);
    }
    ring_publish(ring, record.length);
    return ERROR_NONE;
}

/* ---- receiving --------------------------------------------------------------------------- */

/* Looks for records beyond those seen; the last look is the one before sleep. */
static bool see_head(struct ring *ring)
{
    uint64_t head = atomic_load(&ring->in->head);
    if (head == ring->in_tail) {
        atomic_store(&ring->in->asleep, 1);
        head = atomic_load(&ring->in->head);
        if (head == ring->in_tail) {
            return false;
        }
        atomic_store_explicit(&ring->in->asleep, 0, memory_order_relaxed);
    }
    uint64_t waiting = head - ring->in_tail;
    if (waiting > ring->in_size || waiting % RECORD_HEAD != 0) {
        ring_break(ring);
        return false;
    }
    ring->in_head = head;
    return true;
}

enum error ring_receive(struct ring *ring, struct slice *ret_record)
{
    assert(ring->received == 0);
    if (ring->broken) {
        return ERROR_CORRUPT;
    }
    if (ring->in_head == ring->in_tail && !see_head(ring)) {
        return ring->broken ? ERROR_CORRUPT : ERROR_AGAIN;
    }
    const uint8_t *at = ring->in_bytes + (ring->in_tail & (ring->in_size - 1));
    uint64_t length = *(const volatile uint32_t *)(const volatile void *)at;
    uint64_t space = record_space(length);
    if (space > ring->in_head - ring->in_tail) {
        ring_break(ring);
        return ERROR_CORRUPT;
    }
    ring->received = space;
    *ret_record = slice_make(at + RECORD_HEAD, length);
    return ERROR_NONE;
}

void ring_release(struct ring *ring)
{
    assert(ring->received != 0);
    ring->in_tail += ring->received;
    ring->received = 0;
    atomic_store(&ring->in->tail, ring->in_tail);
    uint64_t wanted = atomic_load(&ring->in->wanted);
    if (wanted == 0) {
        return;
    }
    if (wanted > ring->in_size) {
        wanted = ring->in_size;
    }
    uint64_t waiting = atomic_load_explicit(&ring->in->head, memory_order_relaxed) - ring->in_tail;
    if (waiting <= ring->in_size - wanted && atomic_exchange(&ring->in->wanted, 0) != 0) {
        wake_peer(ring);
    }
}
