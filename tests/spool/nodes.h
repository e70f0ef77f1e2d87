/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes on one database and one loop, each with a share of its own: recipients with an even
 * digit are in one, the others in the other.
 */
#ifndef HOLDFAST_TESTS_SPOOL_NODES_H
#define HOLDFAST_TESTS_SPOOL_NODES_H

#include "tests/spool/harness_postgres.h"

enum { LONG_MS = 100000000, PARTS_MAX = 8192 };

struct part {
    struct spool_handle handle;
    uint64_t n; /* of harness_message() */
    uint64_t sequence;
    unsigned elsewhere, fates, late, late_count, notes; /* bits; counted */
    char last_note[32];
    int32_t share;
    size_t taken_count; /* of the node, when it came */
};

struct node {
    struct harness harness;
    struct part parts[PARTS_MAX];
    size_t count; /* in the order of their coming */
    int32_t taken[8], left[8];
    size_t taken_count, left_count;
    size_t left_at; /* so many had come when the last share was left */
    bool stale;
    int32_t leaves;                   /* as soon as something of it comes; 0: nothing */
    void (*heard)(struct node *node); /* called when something has come; NULL: nothing is */
};

struct world {
    struct node nodes[2];
    int32_t share[2];
};

extern struct world *world;
int world_set_up(void **state);
int world_tear_down(void **state);
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

/* A number that the database gives; and what gives none. */
int64_t ask(const char *format, ...);
void run(const char *format, ...);

/* As it is now the database will be when it is put back: another server that has not what came
 * since. It is stopped and started for either. */
void database_keep(void);
void database_put_back(void);

void node_open(struct node *node, uint16_t number);
void pass(void); /* the loop runs for STEP_MS */
#define UNTIL(condition) HARNESS_UNTIL(&world->nodes[0].harness, condition)

/* As who owns does: another token, in the transaction that changes the owner. */
int64_t own(struct node *node, int32_t share);
/* And all that it holds is here when this returns. */
void take(struct node *node, int32_t share);
/* Accepted by that node; completions give no handles. */
void accept_at(struct node *node, uint64_t n, size_t length);
/* And heard of by who owns it. */
void accept_heard(struct node *node, struct node *owner, uint64_t n, size_t length);
/* How many messages its journal has. */
size_t in_journal(const struct node *node);
struct pg_spool *spool_of(const struct node *node);
void deliver(struct node *node, struct spool_handle handle, uint32_t delivery);
/* The part that this stands for. */
struct part *part_of(struct node *node, struct spool_handle handle);
/* The last part of that message that came; NULL: none did. How many did. */
struct part *part_with(struct node *node, uint64_t n);
size_t parts_with(const struct node *node, uint64_t n);

struct told {
    bool done;
    enum error error;
};
void note(struct node *node, struct spool_handle handle, uint32_t delivery, const char *text,
          struct told *told);
/* As accept_at(), but does not wait. */
void offer_at(struct node *node, uint64_t n, struct told *told);

#endif
