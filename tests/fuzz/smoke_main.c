/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a fuzz target without libFuzzer: every seed file of the directory given, then seeded random
 * mutations of them. Same input, same run. smoke_main SEEDS [ROUNDS]
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEEDS_MAX = 256, SEED_BYTES = 64 << 10, ROUNDS = 4000 };

struct seed {
    uint8_t *data;
    size_t size;
};

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t draw(uint64_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % bound;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct seed read_seed(const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    struct seed seed = {malloc(SEED_BYTES), 0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || seed.data == NULL) {
        perror(path);
        exit(1);
    }
    seed.size = fread(seed.data, 1, SEED_BYTES, file);
    fclose(file);
    return seed;
}

/* In order of name, for the directory's own order differs between machines. */
static size_t read_seeds(const char *directory, struct seed seeds[SEEDS_MAX])
{
    char *names[SEEDS_MAX];
    size_t count = 0;
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        perror(directory);
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(listing)) != NULL && count < SEEDS_MAX;) {
        if (entry->d_name[0] != '.') {
            names[count++] = strdup(entry->d_name);
        }
    }
    closedir(listing);
    qsort(names, count, sizeof(names[0]), compare_names);
    for (size_t i = 0; i < count; i++) {
        seeds[i] = read_seed(directory, names[i]);
        free(names[i]);
    }
    return count;
}

/* One change of `data` in place; room for SEED_BYTES. */
static size_t mutate(uint8_t *data, size_t size, const struct seed *other)
{
    size_t at = size == 0 ? 0 : draw(size);
    size_t run = 1 + draw(16);
    switch (draw(6)) {
    case 0: /* flip a bit */
        if (size > 0) {
            data[at] ^= (uint8_t)(1 << draw(8));
        }
        return size;
    case 1: /* any byte */
        if (size > 0) {
            data[at] = (uint8_t)draw(256);
        }
        return size;
    case 2: /* drop a run */
        run = run < size - at ? run : size - at;
        memmove(data + at, data + at + run, size - at - run);
        return size - run;
    case 3: /* repeat a run */
        run = run < size - at ? run : size - at;
        if (size + run <= SEED_BYTES) {
            memmove(data + at + run, data + at, size - at);
            size += run;
        }
        return size;
    case 4: /* cut */
        return at;
    default: /* go on like another seed */
        if (other->size > 0) {
            size_t from = draw(other->size);
            run = other->size - from < SEED_BYTES - at ? other->size - from : SEED_BYTES - at;
            memcpy(data + at, other->data + from, run);
            return at + run;
        }
        return size;
    }
}

/* The target gets a copy of the exact size, so that a sanitizer sees a read past the end. */
static void run_target(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size == 0 ? 1 : size);
    if (exact == NULL) {
        exit(1);
    }
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s SEEDS [ROUNDS]\n", argv[0]);
        return 2;
    }
    static struct seed seeds[SEEDS_MAX];
    size_t count = read_seeds(argv[1], seeds);
    if (count == 0) {
        fprintf(stderr, "%s: no seeds\n", argv[1]);
        return 1;
    }
    unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : ROUNDS;
    uint8_t *work = malloc(SEED_BYTES);
    if (work == NULL) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        run_target(seeds[i].data, seeds[i].size);
    }
    for (unsigned long round = 0; round < rounds; round++) {
        const struct seed *seed = &seeds[draw(count)];
        memcpy(work, seed->data, seed->size);
        size_t size = seed->size;
        for (uint64_t change = 1 + draw(6); change > 0; change--) {
            size = mutate(work, size, &seeds[draw(count)]);
        }
        run_target(work, size);
    }
    for (size_t i = 0; i < count; i++) {
        free(seeds[i].data);
    }
    free(work);
    return 0;
}
