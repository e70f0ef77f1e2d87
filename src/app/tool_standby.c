/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast standby`: what two machines that share a state directory say to each other there
 * (app/lease_files.h), read and written by the same files, so that it works on both and while
 * neither runs. Who is alive shows by what changes while one looks.
 */
#include "app/lease_files.h"
#include "app/settings.h"
#include "app/shared_state.h"
#include "app/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LOOK_MS = 100,
    SIGN_MS = 3500,   /* a sign of life comes each second, and the storage may be slow */
    MORE_MS = 180000, /* beyond `after`: programs, and a queue that is loaded */
};

struct standby {
    struct tool *tool;
    struct settings *settings;
    const struct standby_config *config;
    struct disk *disk;
    struct lease_look look;  /* with what the other one says of standing by */
    struct lease_record own; /* the same of this machine */
    bool own_known;
    bool active_alive, own_alive, other_alive;
};

static void pause_ms(long ms)
{
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

static enum error look(struct standby *standby)
{
    struct lease_look own;
    enum error error = lease_files_look(standby->disk, standby->config->of, &standby->look);
    if (error == ERROR_NONE) {
        error = lease_files_look(standby->disk, standby->config->name, &own);
    }
    if (error == ERROR_NONE) {
        standby->own = own.other;
        standby->own_known = own.other_known;
    }
    return error;
}

/* Until all have shown a sign of life that may, or have had the time for it. */
static enum error look_for_life(struct standby *standby)
{
    enum error error = look(standby);
    const struct standby first = *standby;
    for (int ms = 0; ms < SIGN_MS && error == ERROR_NONE; ms += LOOK_MS) {
        bool ended = standby->look.view.token == 0 || standby->look.view.end != LEASE_GOES_ON;
        if ((standby->active_alive || ended) && (standby->own_alive || standby->other_alive)) {
            break;
        }
        pause_ms(LOOK_MS);
        error = look(standby);
        const struct lease_view *view = &standby->look.view;
        standby->active_alive |= view->readable && view->end == LEASE_GOES_ON &&
                                 (view->token != first.look.view.token ||
                                  view->record.counter != first.look.view.record.counter);
        standby->own_alive |=
            standby->own_known && (!first.own_known || standby->own.counter != first.own.counter);
        standby->other_alive |=
            standby->look.other_known &&
            (!first.look.other_known || standby->look.other.counter != first.look.other.counter);
    }
    return error;
}

/* As it is: what is not there is not made. */
static enum control_exit open_directory(struct standby *standby,
                                        const struct service_config *config)
{
    char state[STATE_PATH_MAX + 1], known[SHARED_PATH_MAX], name[LEASE_NAME_MAX + 1];
    struct shared_state shared;
    snprintf(state, sizeof(state), "%.*s", SLICE_PRINT(config->state));
    snprintf(known, sizeof(known), "%.*s", SLICE_PRINT(config->standby.known));
    snprintf(name, sizeof(name), "%.*s", SLICE_PRINT(config->standby.name));
    enum shared_verdict verdict = shared_state_look(state, known, name, &shared);
    if (verdict != SHARED_OURS && verdict != SHARED_NEW) {
        tool_error("%s: %s", state, shared_verdict_text(verdict));
    } else {
        int fd = openat(shared.fd, "standby", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || disk_from_descriptor(fd, &standby->disk) != ERROR_NONE) {
            tool_error("%s/standby: %s", state, strerror(errno));
        }
    }
    if (shared.fd >= 0) {
        close(shared.fd);
    }
    return standby->disk != NULL ? CONTROL_DONE : CONTROL_FAILED;
}

static enum control_exit standby_open(struct tool *tool, struct standby *standby)
{
    struct buffer findings;
    buffer_init(&findings, 0);
    *standby = (struct standby){.tool = tool};
    standby->settings = settings_read(tool->configuration, &findings);
    if (standby->settings == NULL) {
        tool_print_findings(tool, buffer_slice(&findings));
    }
    buffer_done(&findings);
    if (standby->settings == NULL) {
        return CONTROL_USAGE;
    }
    const struct service_config *config = settings_config(standby->settings);
    standby->config = &config->standby;
    if (standby->config->of.length == 0) {
        return tool_usage("%s has no standby block", tool->configuration);
    }
    enum control_exit code = open_directory(standby, config);
    if (code == CONTROL_DONE) {
        enum error error = look_for_life(standby);
        if (error != ERROR_NONE) {
            tool_error("%.*s/standby: %s", SLICE_PRINT(config->state), error_text(error));
            code = CONTROL_FAILED;
        }
    }
    return code;
}

static void standby_close(struct standby *standby)
{
    disk_free(standby->disk);
    settings_free(standby->settings);
}

static bool is_named(const struct lease_record *record, struct slice name)
{
    return slice_equal(slice_from_text(record->name), name);
}

static bool is_active(const struct standby *standby, struct slice name)
{
    const struct lease_view *view = &standby->look.view;
    return view->token != 0 && view->readable && view->end == LEASE_GOES_ON &&
           is_named(&view->record, name);
}

/* ---- status ------------------------------------------------------------------------------ */

static json_t *status_row(const struct standby *standby)
{
    const struct lease_view *view = &standby->look.view;
    const struct standby_config *config = standby->config;
    bool works = view->token != 0 && view->readable && view->end == LEASE_GOES_ON;
    bool ours = is_active(standby, config->name);
    const char *role = ours && standby->active_alive ? "active"
                       : standby->own_alive          ? "standby"
                                                     : "down";
    const struct lease_record *watcher = standby->own_alive     ? &standby->own
                                         : standby->other_alive ? &standby->look.other
                                                                : NULL;
    /* Who stands by has counted. */
    json_t *age = watcher != NULL && view->token != 0 && watcher->token == view->token
                      ? json_integer(watcher->hold_ms / 1000)
                  : standby->active_alive ? json_integer(0)
                                          : json_null();
    json_t *stands_by = json_array();
    if (standby->own_alive) {
        json_array_append_new(stands_by, control_string(config->name));
    }
    if (standby->other_alive) {
        json_array_append_new(stands_by, control_string(config->of));
    }
    const char *problem =
        watcher != NULL && !standby->active_alive ? lease_trouble_text(watcher->trouble) : NULL;
    uint32_t open_token = standby->look.open_token;
    return json_pack("{so so ss so so sb so so sb so so}", "name", control_string(config->name),
                     "of", control_string(config->of), "role", role, "active",
                     works ? control_string(slice_from_text(view->record.name)) : json_null(),
                     "since", works ? json_integer((json_int_t)view->record.since_ms) : json_null(),
                     "alive", standby->active_alive, "heartbeat_seconds", age, "token",
                     json_integer(view->token), "unfenced",
                     works && open_token != 0 && open_token < view->token, "standing_by", stands_by,
                     "problem", problem != NULL ? json_string(problem) : json_null());
}

static void print_status(const struct standby *standby, const json_t *row)
{
    const struct lease_view *view = &standby->look.view;
    char since[TOOL_TEXT];
    bool unfenced = json_is_true(json_object_get(row, "unfenced"));
    printf("This machine is %s: %s\n", tool_string(row, "name"), tool_string(row, "role"));
    if (tool_is_null(row, "active")) {
        printf("Nobody works%s\n", view->token == 0 ? "" : "; the last one has stopped");
    } else {
        printf("%s works since %s%s\n", tool_string(row, "active"),
               tool_time(view->record.since_ms, since),
               standby->active_alive ? "" : ", and gives no sign of life");
    }
    if (!standby->own_alive && !standby->other_alive) {
        printf("%sNobody stands by%s\n", tool_colour_text(standby->tool, COLOUR_WARN),
               tool_colour_text(standby->tool, COLOUR_PLAIN));
    } else {
        const struct lease_record *watcher =
            standby->own_alive ? &standby->own : &standby->look.other;
        printf("%s stands by since %s\n", watcher->name, tool_time(watcher->since_ms, since));
        if (!tool_is_null(row, "problem")) {
            printf("%sIt could not take over: %s; it tries again, and its log says more%s\n",
                   tool_colour_text(standby->tool, COLOUR_BAD), tool_string(row, "problem"),
                   tool_colour_text(standby->tool, COLOUR_PLAIN));
        }
    }
    if (unfenced) {
        printf("%sUnfenced: the other machine is not known to have stopped; see holdfast standby "
               "fenced%s\n",
               tool_colour_text(standby->tool, COLOUR_WARN),
               tool_colour_text(standby->tool, COLOUR_PLAIN));
    }
}

enum control_exit tool_standby_status(struct tool *tool)
{
    struct standby standby;
    enum control_exit code = standby_open(tool, &standby);
    if (code == CONTROL_DONE) {
        json_t *row = status_row(&standby);
        if (tool->json) {
            tool_print_json(row);
        } else {
            print_status(&standby, row);
        }
        json_decref(row);
    }
    standby_close(&standby);
    return code;
}

/* ---- commands ---------------------------------------------------------------------------- */

static enum control_exit hand_to(struct standby *standby, struct slice name)
{
    uint32_t before = standby->look.view.token;
    enum error error = lease_files_want(standby->disk, name, true);
    long most_ms = (long)standby->config->after_ms * 2 + MORE_MS;
    for (long ms = 0; ms < most_ms && error == ERROR_NONE; ms += LOOK_MS) {
        error = look(standby);
        if (error == ERROR_NONE && standby->look.view.token > before && is_active(standby, name)) {
            json_t *row = json_pack("{so sI}", "active", control_string(name), "token",
                                    (json_int_t)standby->look.view.token);
            if (standby->tool->json) {
                tool_print_json(row);
            } else {
                printf("%.*s works\n", SLICE_PRINT(name));
            }
            json_decref(row);
            return CONTROL_DONE;
        }
        pause_ms(LOOK_MS);
    }
    (void)!lease_files_want(standby->disk, name, false);
    tool_error("%.*s has not taken over: %s", SLICE_PRINT(name),
               error != ERROR_NONE ? error_text(error) : "see its log");
    return CONTROL_FAILED;
}

enum control_exit tool_standby_takeover(struct tool *tool)
{
    struct standby standby;
    enum control_exit code = standby_open(tool, &standby);
    if (code == CONTROL_DONE && is_active(&standby, standby.config->name) && standby.active_alive) {
        tool_error("this machine works already");
        code = CONTROL_NOTHING_MATCHED;
    } else if (code == CONTROL_DONE && !standby.own_alive) {
        tool_error("holdfastd does not stand by here");
        code = CONTROL_NOT_RUNNING;
    } else if (code == CONTROL_DONE) {
        code = hand_to(&standby, standby.config->name);
    }
    standby_close(&standby);
    return code;
}

enum control_exit tool_standby_back(struct tool *tool)
{
    struct standby standby;
    enum control_exit code = standby_open(tool, &standby);
    if (code == CONTROL_DONE && !is_active(&standby, standby.config->name)) {
        tool_error("it is not this machine that works");
        code = CONTROL_NOTHING_MATCHED;
    } else if (code == CONTROL_DONE && !standby.other_alive) {
        tool_error("%.*s does not stand by", SLICE_PRINT(standby.config->of));
        code = CONTROL_NOTHING_MATCHED;
    } else if (code == CONTROL_DONE) {
        code = hand_to(&standby, standby.config->of);
    }
    standby_close(&standby);
    return code;
}

/* Whoever says so knows: that machine is off, or will never be what it was. */
enum control_exit tool_standby_fenced(struct tool *tool)
{
    struct standby standby;
    enum control_exit code = standby_open(tool, &standby);
    const struct lease_look *look = &standby.look;
    if (code == CONTROL_DONE && (look->open_token == 0 || look->open_token >= look->view.token)) {
        tool_error("nothing is unfenced");
        code = CONTROL_NOTHING_MATCHED;
    } else if (code == CONTROL_DONE) {
        enum error error =
            lease_files_settle(standby.disk, SLICE_EMPTY, NULL, look->view.token, LEASE_FENCED);
        if (error != ERROR_NONE) {
            tool_error("it cannot be said: %s", error_text(error));
            code = CONTROL_FAILED;
        } else if (tool->json) {
            json_t *row = json_pack("{so sI}", "unfenced", json_false(), "token",
                                    (json_int_t)look->view.token);
            tool_print_json(row);
            json_decref(row);
        } else {
            printf("all who worked before %s are known to have stopped\n",
                   look->view.readable ? look->view.record.name : "the last one");
        }
    }
    standby_close(&standby);
    return code;
}
