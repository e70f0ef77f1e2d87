/* SPDX-License-Identifier: Apache-2.0
 *
 * The model: what a spool means, without storage. Tests compare the log back-end with it, and
 * simulations that are not about disks run on it. A batch takes effect when it completes, at the
 * end of the loop's turn.
 */
#include "spool/memory_internal.h"

#include "base/list.h"

#include <assert.h>
#include <stdlib.h>

enum model_kind { MODEL_NEW, MODEL_FATE, MODEL_NOTE, MODEL_GLOBAL };

struct model_operation {
    enum model_kind kind;
    uint32_t index, delivery;
    uint16_t note;
    enum spool_fate fate;
    int64_t when_ms;           /* of who was handed over, the server being the payload */
    struct slice key, payload; /* owned by the batch's arena */
};

struct model_batch {
    struct link link;
    struct arena arena;
    struct buffer operations; /* struct model_operation */
    struct buffer handles;    /* struct spool_handle */
    spool_done_fn *fn;
    void *context;
};

struct memory_content {
    struct spool_content content;
    struct buffer bytes;
};

static struct memory_content *content_of(struct spool_content *content)
{
    return (struct memory_content *)content;
}

/* ---- the store --------------------------------------------------------------------------- */

struct spool_memory_store *spool_memory_store_new(void)
{
    struct spool_memory_store *store = calloc(1, sizeof(*store));
    if (store == NULL || table_init(&store->table) != ERROR_NONE) {
        free(store);
        return NULL;
    }
    store->next_sequence = 1;
    list_init(&store->globals);
    return store;
}

void model_message_free(struct model_message *message)
{
    if (message != NULL) {
        arena_done(&message->arena);
        buffer_done(&message->content);
        buffer_done(&message->notes);
        free(message);
    }
}

static void note_free(struct model_note *note)
{
    list_remove(&note->link);
    free((void *)(uintptr_t)note->key.data);
    free((void *)(uintptr_t)note->payload.data);
    free(note);
}

void spool_memory_store_free(struct spool_memory_store *store)
{
    if (store == NULL) {
        return;
    }
    for (uint32_t i = 0; i < store->capacity; i++) {
        model_message_free(store->messages[i]);
    }
    struct model_message **kept = (void *)store->kept.data;
    for (size_t i = 0; i < store->kept.length / sizeof(*kept); i++) {
        model_message_free(kept[i]);
    }
    buffer_done(&store->kept);
    LIST_EACH(&store->globals, at, after)
    {
        note_free(LIST_ENTRY(at, struct model_note, link));
    }
    free(store->messages);
    table_done(&store->table);
    free(store);
}

static bool store_reserve(struct spool_memory_store *store, uint32_t index)
{
    if (index < store->capacity) {
        return true;
    }
    uint32_t capacity = store->capacity == 0 ? 64 : store->capacity * 2;
    struct model_message **grown = realloc(store->messages, capacity * sizeof(*grown));
    if (grown == NULL) {
        return false;
    }
    memset(grown + store->capacity, 0, (capacity - store->capacity) * sizeof(*grown));
    store->messages = grown;
    store->capacity = capacity;
    return true;
}

static void store_forget(struct spool_memory_store *store, uint32_t index)
{
    model_message_free(store->messages[index]);
    store->messages[index] = NULL;
    table_free(&store->table, index);
}

/* Nothing needs it but, maybe, who looks for copies. */
static void store_release(struct memory_spool *memory, uint32_t index)
{
    memory_ended(memory, memory->store->messages[index]);
    memory->store->messages[index] = NULL;
    store_forget(memory->store, index);
}

static void set_global(struct spool_memory_store *store, struct slice key, struct slice payload)
{
    LIST_EACH(&store->globals, at, after)
    {
        struct model_note *note = LIST_ENTRY(at, struct model_note, link);
        if (slice_equal(note->key, key)) {
            note_free(note);
        }
    }
    if (payload.length == 0) {
        return;
    }
    struct model_note *note = calloc(1, sizeof(*note));
    uint8_t *key_copy = malloc(key.length + 1), *payload_copy = malloc(payload.length);
    if (note == NULL || key_copy == NULL || payload_copy == NULL) {
        abort(); /* a model for tests does not go on without memory */
    }
    memcpy(key_copy, key.data, key.length);
    memcpy(payload_copy, payload.data, payload.length);
    note->key = slice_make(key_copy, key.length);
    note->payload = slice_make(payload_copy, payload.length);
    list_append(&store->globals, &note->link);
}

/* ---- batches ----------------------------------------------------------------------------- */

static void memory_batch_begin(struct spool *spool)
{
    struct memory_spool *memory = memory_of(spool);
    assert(memory->open == NULL);
    memory->open = calloc(1, sizeof(*memory->open));
    if (memory->open == NULL) {
        abort();
    }
    arena_init(&memory->open->arena);
    list_init(&memory->open->link);
}

static void batch_free(struct model_batch *batch)
{
    arena_done(&batch->arena);
    buffer_done(&batch->operations);
    buffer_done(&batch->handles);
    free(batch);
}

static void add(struct memory_spool *memory, const struct model_operation *operation)
{
    assert(memory->open != NULL);
    struct model_operation copy = *operation;
    copy.key = arena_copy(&memory->open->arena, operation->key);
    copy.payload = arena_copy(&memory->open->arena, operation->payload);
    buffer_append(&memory->open->operations, slice_make(&copy, sizeof(copy)));
}

static void memory_batch_cancel(struct spool *spool)
{
    struct memory_spool *memory = memory_of(spool);
    struct model_batch *batch = memory->open;
    struct table *table = &memory->store->table;
    const struct model_operation *operations = (const void *)batch->operations.data;
    size_t count = batch->operations.length / sizeof(*operations);
    for (size_t i = count; i-- > 0;) {
        if (operations[i].kind == MODEL_FATE) {
            stored_set_fate(table_at(table, operations[i].index), operations[i].delivery, 0);
        } else if (operations[i].kind == MODEL_NEW) {
            table_hide(table, operations[i].index);
            store_forget(memory->store, operations[i].index);
        }
    }
    batch_free(batch);
    memory->open = NULL;
}

void model_copy_message(struct arena *arena, struct spool_message *message,
                        const struct spool_message *from)
{
    *message = *from;
    struct slice *const texts[] = {
        &message->sender,          &message->envelope_id,     &message->message_id_header,
        &message->origin.helo,     &message->origin.listener, &message->origin.protocol,
        &message->origin.tls,      &message->origin.user,     &message->origin.verdicts,
        &message->origin.forwarded};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        *texts[i] = arena_copy(arena, *texts[i]);
    }
    struct spool_recipient *recipients =
        arena_allocate(arena, from->recipient_count * sizeof(*recipients));
    for (uint32_t i = 0; i < from->recipient_count; i++) {
        recipients[i] = from->recipients[i];
        recipients[i].address = arena_copy(arena, from->recipients[i].address);
        recipients[i].orcpt = arena_copy(arena, from->recipients[i].orcpt);
    }
    message->recipients = recipients;
}

static enum error add_message(struct memory_spool *memory, const struct spool_message *message,
                              struct slice content, struct slice tail)
{
    struct spool_memory_store *store = memory->store;
    uint32_t index;
    uint64_t stated;
    if (__builtin_add_overflow(message->header_length, message->body_length, &stated) ||
        stated != content.length + tail.length) {
        return ERROR_INVALID;
    }
    if (table_find(&store->table, message->id) != STORED_NONE) {
        return ERROR_EXISTS;
    }
    struct model_message *copy = calloc(1, sizeof(*copy));
    if (copy == NULL || table_add(&store->table, message->id, &index) != ERROR_NONE ||
        !store_reserve(store, index)) {
        abort();
    }
    struct stored *stored = table_at(&store->table, index);
    if (stored_prepare(stored, index, message->recipient_count, 0, 0) != ERROR_NONE) {
        abort();
    }
    stored->flags |= STORED_PENDING;
    stored->sequence = store->next_sequence++;
    arena_init(&copy->arena);
    model_copy_message(&copy->arena, &copy->message, message);
    copy->message.sequence = stored->sequence;
    copy->loaded = true;
    buffer_append(&copy->content, content);
    buffer_append(&copy->content, tail);
    store->messages[index] = copy;
    add(memory, &(struct model_operation){.kind = MODEL_NEW, .index = index});
    struct spool_handle handle = {index};
    buffer_append(&memory->open->handles, slice_make(&handle, sizeof(handle)));
    return ERROR_NONE;
}

static void memory_content_abort(struct spool_content *content)
{
    buffer_done(&content_of(content)->bytes);
    free(content);
}

static enum error memory_batch_message(struct spool *spool, const struct spool_message *message,
                                       struct spool_content *content, struct slice tail)
{
    assert(memory_of(spool)->open != NULL && spool_message_is_sound(message));
    struct slice bytes = content == NULL ? SLICE_EMPTY : buffer_slice(&content_of(content)->bytes);
    enum error error = add_message(memory_of(spool), message, bytes, tail);
    if (content != NULL) {
        memory_content_abort(content);
    }
    return error;
}

static void memory_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                               enum spool_fate fate, int64_t when_ms, struct slice server)
{
    struct memory_spool *memory = memory_of(spool);
    struct stored *stored = table_at(&memory->store->table, handle.index);
    assert((stored->flags & STORED_FINISHED) == 0 && stored_fate(stored, delivery) == 0);
    stored_set_fate(stored, delivery, (unsigned)fate | STORED_FATE_UNDERWAY);
    add(memory, &(struct model_operation){.kind = MODEL_FATE,
                                          .index = handle.index,
                                          .delivery = delivery,
                                          .fate = fate,
                                          .when_ms = when_ms,
                                          .payload = server});
}

static void memory_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                              enum spool_fate fate)
{
    memory_batch_taken(spool, handle, delivery, fate, 0, SLICE_EMPTY);
}

static void memory_batch_note(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                              uint16_t kind, struct slice payload)
{
    assert(payload.length <= SPOOL_NOTE_MAX);
    add(memory_of(spool), &(struct model_operation){.kind = MODEL_NOTE,
                                                    .index = handle.index,
                                                    .delivery = delivery,
                                                    .note = kind,
                                                    .payload = payload});
}

static struct spool_handle newest(const struct memory_spool *memory)
{
    const struct spool_handle *handles = (const void *)memory->open->handles.data;
    size_t count = memory->open->handles.length / sizeof(*handles);
    assert(count > 0);
    return handles[count - 1];
}

static void memory_batch_new_fate(struct spool *spool, uint32_t delivery, enum spool_fate fate)
{
    memory_batch_fate(spool, newest(memory_of(spool)), delivery, fate);
}

static void memory_batch_new_note(struct spool *spool, uint32_t delivery, uint16_t kind,
                                  struct slice payload)
{
    memory_batch_note(spool, newest(memory_of(spool)), delivery, kind, payload);
}

static void memory_batch_global_note(struct spool *spool, struct slice key, struct slice payload)
{
    assert(key.length > 0 && key.length <= SPOOL_KEY_MAX);
    add(memory_of(spool),
        &(struct model_operation){.kind = MODEL_GLOBAL, .key = key, .payload = payload});
}

static void memory_batch_submit(struct spool *spool, enum spool_durability durability,
                                spool_done_fn *fn, void *context)
{
    struct memory_spool *memory = memory_of(spool);
    (void)durability;
    memory->open->fn = fn;
    memory->open->context = context;
    list_append(&memory->submitted, &memory->open->link);
    memory->open = NULL;
    loop_later_ask(memory->later);
}

/* ---- taking effect ----------------------------------------------------------------------- */

static void apply_fate(struct memory_spool *memory, const struct model_operation *operation)
{
    struct spool_memory_store *store = memory->store;
    struct stored *stored = table_at(&store->table, operation->index);
    stored_set_fate(stored, operation->delivery, (unsigned)operation->fate);
    memory_taken(store->messages[operation->index], operation->delivery, operation->fate,
                 operation->when_ms, operation->payload);
    if (--stored->left > 0) {
        return;
    }
    stored->flags |= STORED_FINISHED;
    memory->messages--;
    memory->live_bytes -= store->messages[operation->index]->content.length;
    table_hide(&store->table, operation->index);
    if (stored->pins == 0) {
        store_release(memory, operation->index);
    }
}

static void apply_note(struct memory_spool *memory, const struct model_operation *operation)
{
    struct model_message *message = memory->store->messages[operation->index];
    if (message != NULL) {
        buffer_put_u32(&message->notes, operation->delivery);
        buffer_put_u16(&message->notes, operation->note);
        buffer_put_bytes(&message->notes, operation->payload);
    }
}

static void apply(struct memory_spool *memory, const struct model_operation *operation)
{
    switch (operation->kind) {
    case MODEL_NEW:
        table_at(&memory->store->table, operation->index)->flags &= (uint8_t)~STORED_PENDING;
        memory->messages++;
        memory->live_bytes += memory->store->messages[operation->index]->content.length;
        break;
    case MODEL_FATE:
        apply_fate(memory, operation);
        break;
    case MODEL_NOTE:
        apply_note(memory, operation);
        break;
    case MODEL_GLOBAL:
        set_global(memory->store, operation->key, operation->payload);
        break;
    }
}

static void complete_all(void *context)
{
    struct memory_spool *memory = context;
    memory->groups++;
    while (!list_is_empty(&memory->submitted)) {
        struct model_batch *batch = LIST_ENTRY(memory->submitted.next, struct model_batch, link);
        list_remove(&batch->link);
        const struct model_operation *operations = (const void *)batch->operations.data;
        for (size_t i = 0; i < batch->operations.length / sizeof(*operations); i++) {
            apply(memory, &operations[i]);
        }
        if (batch->fn != NULL) {
            batch->fn(batch->context, ERROR_NONE, (const void *)batch->handles.data,
                      batch->handles.length / sizeof(struct spool_handle));
        }
        batch_free(batch);
    }
}

/* ---- content ----------------------------------------------------------------------------- */

static struct spool_content *memory_content_new(struct spool *spool, uint64_t expected)
{
    (void)expected;
    struct memory_content *content = calloc(1, sizeof(*content));
    if (content == NULL) {
        return NULL;
    }
    content->content.spool = spool;
    return &content->content;
}

static enum error memory_content_append(struct spool_content *base, struct slice bytes)
{
    struct buffer *buffer = &content_of(base)->bytes;
    buffer_append(buffer, bytes);
    if (buffer->failed) {
        return ERROR_MEMORY;
    }
    return ERROR_NONE;
}

static enum error memory_content_replace_header(struct spool_content *base, uint64_t old_length,
                                                struct slice header)
{
    struct buffer *bytes = &content_of(base)->bytes;
    if (old_length > bytes->length) {
        return ERROR_INVALID;
    }
    struct buffer changed;
    buffer_init(&changed, 0);
    buffer_append(&changed, header);
    buffer_append(&changed, slice_skip(buffer_slice(bytes), (size_t)old_length));
    if (changed.failed) {
        buffer_done(&changed);
        return ERROR_MEMORY;
    }
    buffer_done(bytes);
    *bytes = changed;
    return ERROR_NONE;
}

static enum error memory_content_replace_body(struct spool_content *base, uint64_t header_length,
                                              struct slice body)
{
    struct buffer *bytes = &content_of(base)->bytes;
    if (header_length > bytes->length) {
        return ERROR_INVALID;
    }
    bytes->length = (size_t)header_length;
    return memory_content_append(base, body);
}

/* Memory is where it stays. */
static size_t memory_content_pending(const struct spool *spool)
{
    (void)spool;
    return 0;
}

static void memory_content_relieve(struct spool *spool)
{
    (void)spool;
}

/* ---- loading and reading ----------------------------------------------------------------- */

struct sequenced {
    uint64_t sequence;
    uint32_t index;
};

static int by_sequence(const void *a, const void *b)
{
    uint64_t left = ((const struct sequenced *)a)->sequence;
    uint64_t right = ((const struct sequenced *)b)->sequence;
    return (left > right) - (left < right);
}

/* Only what was there at the open. */
static void load_begin(struct memory_spool *memory)
{
    const struct spool_memory_store *store = memory->store;
    for (uint32_t i = 0; i < store->capacity; i++) {
        if (store->messages[i] != NULL && !store->messages[i]->loaded) {
            struct sequenced found = {table_at(&store->table, i)->sequence, i};
            buffer_append(&memory->to_load, slice_make(&found, sizeof(found)));
        }
    }
    if (memory->to_load.length > 0) {
        qsort(memory->to_load.data, memory->to_load.length / sizeof(struct sequenced),
              sizeof(struct sequenced), by_sequence);
    }
    memory->load_begun = true;
}

static void load_message(struct memory_spool *memory, const struct spool_loader *loader,
                         uint32_t index)
{
    struct model_message *message = memory->store->messages[index];
    const struct stored *stored = table_at(&memory->store->table, index);
    struct spool_handle handle = {index};
    struct spool_message part = message->message;
    part.envelope_id = part.message_id_header = SLICE_EMPTY;
    part.origin.helo = part.origin.protocol = part.origin.tls = SLICE_EMPTY;
    part.origin.verdicts = part.origin.forwarded = SLICE_EMPTY;
    message->loaded = true;
    memory->messages++;
    memory->live_bytes += message->content.length;
    if (loader->message != NULL) {
        loader->message(loader->context, handle, &part);
    }
    for (uint32_t i = 0; i < stored->recipients && loader->fate != NULL; i++) {
        if (stored_fate(stored, i) != 0) {
            loader->fate(loader->context, handle, i, (enum spool_fate)stored_fate(stored, i));
        }
    }
    struct reader reader = reader_make(buffer_slice(&message->notes));
    while (reader.rest.length > 0 && loader->note != NULL) {
        uint32_t delivery = reader_u32(&reader);
        uint16_t kind = reader_u16(&reader);
        loader->note(loader->context, handle, delivery, kind, reader_bytes(&reader));
    }
}

static enum error memory_load(struct spool *spool, const struct spool_loader *loader,
                              bool *ret_complete)
{
    struct memory_spool *memory = memory_of(spool);
    if (!memory->load_begun) {
        load_begin(memory);
        LIST_EACH(&memory->store->globals, at, after)
        {
            struct model_note *note = LIST_ENTRY(at, struct model_note, link);
            if (loader->global_note != NULL) {
                loader->global_note(loader->context, note->key, note->payload);
            }
        }
    }
    const struct sequenced *found = (const void *)memory->to_load.data;
    size_t count = memory->to_load.length / sizeof(*found);
    for (unsigned i = 0; i < 2000 && memory->load_next < count; i++) {
        load_message(memory, loader, found[memory->load_next++].index);
    }
    *ret_complete = memory->load_next == count;
    return ERROR_NONE;
}

static struct spool_handle memory_find(const struct spool *spool, struct message_id id)
{
    const struct spool_memory_store *store = memory_of(spool)->store;
    uint32_t index = table_find(&store->table, id);
    if (index == STORED_NONE || !store->messages[index]->loaded ||
        (table_at(&store->table, index)->flags & STORED_PENDING) != 0) {
        return SPOOL_NO_HANDLE;
    }
    return (struct spool_handle){index};
}

/* Who submits is told when it takes effect: nobody is without an answer. */
static bool memory_was_stored(const struct spool *spool, struct message_id id)
{
    return memory_find(spool, id).index != STORED_NONE;
}

static struct message_id memory_id(const struct spool *spool, struct spool_handle handle)
{
    return table_at(&memory_of(spool)->store->table, handle.index)->id;
}

static uint64_t memory_sequence(const struct spool *spool, struct spool_handle handle)
{
    return table_at(&memory_of(spool)->store->table, handle.index)->sequence;
}

static unsigned memory_fate_of(const struct spool *spool, struct spool_handle handle,
                               uint32_t delivery)
{
    const struct stored *stored = table_at(&memory_of(spool)->store->table, handle.index);
    return stored_fate(stored, delivery) & (STORED_FATE_UNDERWAY - 1);
}

static enum error memory_read_envelope(struct spool *spool, struct spool_handle handle,
                                       struct arena *arena, struct spool_message *ret_message)
{
    model_copy_message(arena, ret_message,
                       &memory_of(spool)->store->messages[handle.index]->message);
    return ERROR_NONE;
}

static enum error memory_read_content(struct spool *spool, struct spool_handle handle,
                                      uint64_t offset, void *ret_bytes, size_t size,
                                      size_t *ret_length)
{
    const struct buffer *content = &memory_of(spool)->store->messages[handle.index]->content;
    struct slice part = slice_take(slice_skip(buffer_slice(content), (size_t)offset), size);
    if (part.length > 0) {
        memcpy(ret_bytes, part.data, part.length);
    }
    *ret_length = part.length;
    return ERROR_NONE;
}

static void memory_pin(struct spool *spool, struct spool_handle handle)
{
    table_at(&memory_of(spool)->store->table, handle.index)->pins++;
}

static void memory_unpin(struct spool *spool, struct spool_handle handle)
{
    struct memory_spool *memory = memory_of(spool);
    struct stored *stored = table_at(&memory->store->table, handle.index);
    assert(stored->pins > 0);
    if (--stored->pins == 0 && (stored->flags & STORED_FINISHED) != 0) {
        store_release(memory, handle.index);
    }
}

/* Its index: only for a reader in the same process that knows the store. */
static enum error memory_ticket(struct spool *spool, struct spool_handle handle,
                                uint8_t *ret_ticket, size_t *ret_length)
{
    (void)spool;
    memcpy(ret_ticket, &handle.index, sizeof(handle.index));
    *ret_length = sizeof(handle.index);
    return ERROR_NONE;
}

/* ---- life -------------------------------------------------------------------------------- */

static void memory_set_reserve(struct spool *spool, uint64_t reserve_bytes)
{
    (void)spool; /* no disk */
    (void)reserve_bytes;
}

static void memory_status(const struct spool *spool, struct spool_state *ret_state)
{
    const struct memory_spool *memory = memory_of(spool);
    *ret_state = (struct spool_state){.messages = memory->messages,
                                      .live_bytes = memory->live_bytes,
                                      .disk_bytes = memory->live_bytes,
                                      .available_bytes = UINT64_MAX,
                                      .groups = memory->groups,
                                      .syncs = memory->groups};
    memory_copies_status(memory, ret_state);
}

static void memory_tick(struct spool *spool)
{
    memory_copies_tick(memory_of(spool));
}

static void memory_close(struct spool *spool)
{
    struct memory_spool *memory = memory_of(spool);
    assert(memory->open == NULL);
    complete_all(memory);
    struct spool_memory_store *store = memory->store;
    for (uint32_t i = 0; i < store->capacity; i++) {
        if (store->messages[i] == NULL) {
            continue;
        }
        struct stored *stored = table_at(&store->table, i);
        stored->pins = 0;
        if ((stored->flags & STORED_FINISHED) != 0) {
            store_release(memory, i);
        } else {
            store->messages[i]->loaded = false;
        }
    }
    loop_later_free(memory->later);
    buffer_done(&memory->to_load);
    if (memory->owns_store) {
        spool_memory_store_free(store);
    }
    free(memory);
}

static const struct spool_ops memory_ops = {
    .load = memory_load,
    .close = memory_close,
    .content_new = memory_content_new,
    .content_append = memory_content_append,
    .content_replace_header = memory_content_replace_header,
    .content_replace_body = memory_content_replace_body,
    .content_abort = memory_content_abort,
    .content_pending = memory_content_pending,
    .content_relieve = memory_content_relieve,
    .batch_begin = memory_batch_begin,
    .batch_cancel = memory_batch_cancel,
    .batch_message = memory_batch_message,
    .batch_new_fate = memory_batch_new_fate,
    .batch_new_note = memory_batch_new_note,
    .batch_fate = memory_batch_fate,
    .batch_taken = memory_batch_taken,
    .batch_note = memory_batch_note,
    .batch_global_note = memory_batch_global_note,
    .batch_submit = memory_batch_submit,
    .find = memory_find,
    .was_stored = memory_was_stored,
    .id = memory_id,
    .sequence = memory_sequence,
    .fate_of = memory_fate_of,
    .read_envelope = memory_read_envelope,
    .read_content = memory_read_content,
    .pin = memory_pin,
    .unpin = memory_unpin,
    .ticket = memory_ticket,
    .set_reserve = memory_set_reserve,
    .keep_copies = memory_keep_copies,
    .copies_find = memory_copies_find,
    .copies_progress = memory_copies_progress,
    .copies_counts = memory_copies_counts,
    .copies_get = memory_copies_get,
    .copies_read_envelope = memory_copies_read_envelope,
    .copies_read_content = memory_copies_read_content,
    .copies_free = memory_copies_free,
    .status = memory_status,
    .tick = memory_tick,
};

enum error spool_open_memory(struct loop *loop, struct spool_memory_store *store,
                             const struct spool_owner *owner, struct spool **ret_spool)
{
    struct memory_spool *memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        return ERROR_MEMORY;
    }
    memory->spool.ops = &memory_ops;
    memory->loop = loop;
    memory->owner = *owner;
    memory->owns_store = store == NULL;
    memory->store = store != NULL ? store : spool_memory_store_new();
    memory->later = loop_later_new(loop, complete_all, memory);
    list_init(&memory->submitted);
    if (memory->store == NULL || memory->later == NULL) {
        loop_later_free(memory->later);
        free(memory);
        return ERROR_MEMORY;
    }
    *ret_spool = &memory->spool;
    return ERROR_NONE;
}
