/* SPDX-License-Identifier: Apache-2.0
 *
 * The program between its servers and clients in the simulated world: strangers and relay clients
 * send; whatever a test does to them in between, at the end all works again, and every 250 must
 * have reached its fate.
 */
#ifndef HOLDFAST_TESTS_SCENE_H
#define HOLDFAST_TESTS_SCENE_H

#include "sim/actors.h"
#include "sim/program.h"
#include "sim/setting.h"

enum { SCENE_CLIENTS = 8, SCENE_SETTINGS_MAX = 256 };

struct scene {
    struct program *program;
    struct sim_server *servers[SETTING_SERVERS];
    struct sim_client *clients[SCENE_CLIENTS];
    struct ledger *ledger;
    struct setting *settings[SCENE_SETTINGS_MAX]; /* the first one plain, the last one in force */
    uint32_t setting_count;
};

/* Servers, program and clients, from a seed. `tell`: every event on stdout. */
void scene_begin(struct scene *scene, uint64_t seed, bool tell);
void scene_end(struct scene *scene);
/* Takes the setting over. */
void scene_reload(struct scene *scene, struct setting *setting);
/* The clients say no more. */
void scene_quiet(struct scene *scene);
/* Everything works again, and what was given up before is tried once more. Retries, doubts and
 * silent connections take their time: two days at most. */
void scene_heal(struct scene *scene);
/* The same, but nothing is mended: time alone passes. */
void scene_settle(struct scene *scene);
/* What is over is over in the journal too: a new core has nothing to deliver. Broken promises. */
uint32_t scene_check_end(struct scene *scene);

#endif
