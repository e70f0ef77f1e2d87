/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/scene.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/sim.h"

enum { STRANGERS = 5, SECOND = 1000000000 };

void scene_reload(struct scene *scene, struct setting *setting)
{
    assert(scene->setting_count < SCENE_SETTINGS_MAX);
    scene->settings[scene->setting_count++] = setting;
    ledger_tell(scene->ledger, "reload %u", scene->setting_count);
    program_reload(scene->program, setting_config(setting));
}

void scene_begin(struct scene *scene, uint64_t seed, bool tell)
{
    *scene = (struct scene){.ledger = calloc(1, sizeof(struct ledger))};
    assert(scene->ledger != NULL);
    scene->ledger->tell = tell;
    sim_begin(seed);
    struct sim_process *outside = sim_current();
    struct loop *loop = loop_new();
    for (enum setting_server i = 0; i < SETTING_SERVERS; i++) {
        struct ip_endpoint at = setting_server_at(i);
        scene->servers[i] = sim_server_new(loop, setting_server_name(i), &at,
                                           setting_server_is_lmtp(i), scene->ledger);
    }
    scene->settings[scene->setting_count++] = setting_new_plain();
    scene->program =
        program_start(setting_config(scene->settings[0]), disk_sim_new(), disk_sim_new());
    sim_process_enter(outside);
    struct ip_endpoint listener = setting_listener();
    struct ip_address relay_client = setting_relay_client();
    for (uint32_t i = 0; i < SCENE_CLIENTS; i++) {
        scene->clients[i] = sim_client_new(loop, &listener, i < STRANGERS ? NULL : &relay_client,
                                           scene->ledger, i * 8, 1 + (uint32_t)sim_draw(8));
    }
}

void scene_end(struct scene *scene)
{
    sim_end();
    for (uint32_t i = 0; i < scene->setting_count; i++) {
        setting_free(scene->settings[i]);
    }
    free(scene->ledger);
}

static bool is_settled(const struct scene *scene)
{
    return ledger_is_settled(scene->ledger) && program_unfinished(scene->program) == 0;
}

void scene_quiet(struct scene *scene)
{
    for (uint32_t i = 0; i < SCENE_CLIENTS; i++) {
        sim_client_stop(scene->clients[i]);
    }
}

void scene_heal(struct scene *scene)
{
    for (enum setting_server i = 0; i < SETTING_SERVERS; i++) {
        struct ip_endpoint at = setting_server_at(i);
        sim_server_set_mood(scene->servers[i], &(struct server_mood){0});
        sim_net_reach(&at, SIM_REACHABLE);
    }
    program_mend_disk(scene->program);
    sim_dns_fail(0);
    scene_reload(scene, sim_draw(3) == 0 ? setting_new_mx() : setting_new_plain());
    scene_settle(scene);
}

void scene_settle(struct scene *scene)
{
    int64_t give_up_ns = sim_now_ns() + 2 * 86400LL * SECOND;
    do {
        sim_run_until(sim_now_ns() + 600LL * SECOND);
        /* What was doubted three times waits for an operator, and so do dead letters. */
        program_command(scene->program,
                        "{\"command\":\"queue release\",\"arguments\":{\"all\":true}}");
        program_command(scene->program,
                        "{\"command\":\"queue release\",\"arguments\":{\"dead\":true}}");
        sim_run_until(sim_now_ns() + 60LL * SECOND);
    } while (!is_settled(scene) && sim_now_ns() < give_up_ns);
}

static uint64_t taken_by_all(const struct scene *scene)
{
    uint64_t taken = 0;
    for (enum setting_server i = 0; i < SETTING_SERVERS; i++) {
        taken += sim_server_taken(scene->servers[i]);
    }
    return taken;
}

uint32_t scene_check_end(struct scene *scene)
{
    uint64_t left = program_unfinished(scene->program);
    uint64_t taken = taken_by_all(scene);
    program_kill(scene->program, ROLE_CORE);
    sim_run_until(sim_now_ns() + 3600LL * SECOND);
    uint64_t left_then = program_unfinished(scene->program);
    uint64_t taken_then = taken_by_all(scene) - taken;
    if (left + left_then + taken_then == 0) {
        return 0;
    }
    printf("left: %llu deliveries; after a restart: %llu, and %llu delivered\n",
           (unsigned long long)left, (unsigned long long)left_then, (unsigned long long)taken_then);
    return 1;
}
