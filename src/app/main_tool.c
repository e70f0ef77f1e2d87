/* SPDX-License-Identifier: Apache-2.0
 *
 * holdfast, the operator's tool: the table of its commands. Manual: holdfast(1).
 */
#include "app/tool.h"

#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANY UINT_MAX
#define IDS "[ID ...]"

const struct tool_command tool_commands[] = {
    {"status", "", "Queue, lanes, servers and disk at a glance", NULL, OPTIONS_MEMBERS, 0, 0,
     tool_status},
    {"queue list", IDS, "List waiting messages, the oldest first",
     "Without IDs or options, all but dead letters.", OPTIONS_SELECT | OPTIONS_MEMBERS, 0, ANY,
     tool_queue_list},
    {"queue show", IDS, "Show messages with all their deliveries", NULL,
     OPTIONS_SELECT | OPTIONS_MEMBERS, 0, ANY, tool_queue_show},
    {"queue retry", IDS, "Try again now, and forget earlier attempts",
     "A server that is down is not tried before it is back; see server probe.",
     OPTIONS_SELECT | OPTIONS_MEMBERS, 0, ANY, tool_queue_act},
    {"queue hold", IDS, "Keep deliveries back until they are released", NULL,
     OPTIONS_SELECT | OPTIONS_MEMBERS | OPTION_REASON, 0, ANY, tool_queue_act},
    {"queue release", IDS, "Let held deliveries and dead letters go", NULL,
     OPTIONS_SELECT | OPTIONS_MEMBERS, 0, ANY, tool_queue_act},
    {"queue redirect", IDS, "Send deliveries to another server or address", NULL,
     OPTIONS_SELECT | OPTIONS_MEMBERS | OPTION_TO, 0, ANY, tool_queue_act},
    {"queue discard", IDS, "Throw deliveries away; nobody is told",
     "What is discarded is gone. queue export first keeps a copy.",
     OPTIONS_SELECT | OPTIONS_MEMBERS | OPTION_REASON, 0, ANY, tool_queue_act},
    {"queue bounce", IDS, "Return deliveries to their senders",
     "Only verified senders get a bounce, unless --force is given: an unverified one is usually "
     "forged,\nand the bounce would hit somebody else.",
     OPTIONS_SELECT | OPTIONS_MEMBERS | OPTION_FORCE, 0, ANY, tool_queue_act},
    {"queue export", "DIR [ID ...]", "Write messages as files: DIR/ID.json and DIR/ID.eml",
     "Without IDs or options, and with --all, everything, dead letters too. The queue is not "
     "changed.",
     OPTIONS_SELECT | OPTIONS_MEMBERS, 1, ANY, tool_queue_export},
    {"queue import", "DIR", "Take in what queue export wrote; ids are kept",
     "Each message that is stored is marked in DIR, ID.json becomes ID.imported, so the command "
     "can\nbe said again and nothing is taken in twice.",
     0, 1, 1, tool_queue_import},
    {"queue resend", IDS, "Send again what was handed over, from its safety copy",
     "For a server that was restored from an old backup. --server is the one that took it, "
     "--domain "
     "and\nthe others select as ever, --since and --until by the time of hand-over; all must hold. "
     "Needs\nsafety-copy in the configuration. Nothing is sent twice, unless --again is given.",
     OPTION_DOMAIN | OPTION_SERVER | OPTION_SENDER | OPTION_RECIPIENT | OPTION_ALL | OPTION_SINCE |
         OPTION_UNTIL | OPTION_DRY_RUN | OPTION_AGAIN,
     0, ANY, tool_queue_resend},
    {"queue watch", IDS, "Print events as they happen, until interrupted", NULL,
     OPTIONS_SELECT | OPTIONS_MEMBERS, 0, ANY, tool_queue_watch},
    {"server list", "[NAME ...]", "List the servers and their state", NULL, OPTIONS_MEMBERS, 0, ANY,
     tool_server},
    {"server probe", "[NAME ...]", "Ask servers now whether they are there", NULL, OPTIONS_MEMBERS,
     0, ANY, tool_server},
    {"server down", "[NAME ...]", "Take servers out until server up", NULL, OPTION_ALL, 0, ANY,
     tool_server},
    {"server up", "[NAME ...]", "Bring servers back that were taken out, and probe them", NULL,
     OPTION_ALL, 0, ANY, tool_server},
    {"server history", "[NAME]", "What servers and lanes have come to, and when",
     "Changes of state, switches, stops and drains, as far back as trace-keep. NAME is a server, "
     "or "
     "a\nlane such as domain:example.com.",
     OPTION_NODE, 0, 1, tool_server_history},
    {"node list", "", "List the nodes of the cluster",
     "HEARD: since its last heartbeat. LANES: shares that it owns. HERE ONLY: messages that its "
     "own\njournal alone has. CLOCK: its clock less the database's. DATABASE: how long a heartbeat "
     "took.\nThe leader has a star.",
     0, 0, 0, tool_node_list},
    {"node drain", "NAME ...", "Give what nodes own to others, before they are stopped", NULL, 0, 1,
     ANY, tool_node_change},
    {"node undrain", "NAME ...", "Let nodes take their part again",
     "Also lets in again a node that was removed.", 0, 1, ANY, tool_node_change},
    {"node remove", "NAME ...", "Forget nodes that are down for good",
     "Mail that only such a node's journal has waits until its disk is back.", 0, 1, ANY,
     tool_node_change},
    {"guard list", "[NAME ...]", "Servers with a cold standby, and whether that has taken over",
     NULL, 0, 0, ANY, tool_guard},
    {"guard start", "NAME ...", "Run the script that starts a server's standby, now",
     "Make sure that the server is off: nobody else asks.", 0, 1, ANY, tool_guard},
    {"guard undo", "NAME ...", "Run the script that ends a server's standby, now",
     "Without such a script the guard only rests again. Nothing is counted before the server has "
     "been up.",
     0, 1, ANY, tool_guard},
    {"guard reset", "NAME ...", "Forget that a standby was started; nothing is run",
     "For when it was ended otherwise, or a script has failed and all is well again.", 0, 1, ANY,
     tool_guard},
    {"tls-reports list", "", "What will be reported of TLS with others' servers", NULL, 0, 0, 0,
     tool_tls_reports},
    {"tls-reports send", "", "Report it now, before the day is over", NULL, 0, 0, 0,
     tool_tls_reports},
    {"recipients list", "[DOMAIN]", "What is known of a domain's recipients",
     "Without DOMAIN: how many, of each domain with recipients = learn.", 0, 0, 1,
     tool_recipients_list},
    {"recipients import", "DOMAIN FILE", "Recipients that exist, one a line",
     "They stay until the server says otherwise. FILE - is the standard input.", 0, 2, 2,
     tool_recipients_import},
    {"recipients forget", "DOMAIN [ADDRESS ...]", "Forget what was learned of recipients", NULL,
     OPTION_ALL, 1, ANY, tool_recipients_forget},
    {"recipients verify", "DOMAIN [ADDRESS ...]", "Ask the domain's server now",
     "And whether it refuses an address that cannot exist; without addresses that alone.", 0, 1,
     ANY, tool_recipients_verify},
    {"trace", "ID|ADDRESS|USER|MESSAGE-ID", "Every event of a message, in order; what was refused",
     "ADDRESS is a sender, recipient or client; MESSAGE-ID has its angle brackets.",
     OPTIONS_MEMBERS, 1, 1, tool_trace},
    {"drill stop", "[DOMAIN]", "End a fire drill, or all",
     "What was held goes now; the drill reports as usual.", OPTION_NODE, 0, 1, tool_drill_stop},
    {"drill", "DOMAIN", "Rehearse an outage of a domain's servers, and report",
     "Its mail is accepted and held back for a while, as if its servers were away; then it goes, "
     "and "
     "how\nthat went is told. Test messages go along. A real failure, a full disk or drill stop "
     "ends it\nearlier.",
     OPTION_MINUTES | OPTION_MESSAGES | OPTION_NODE, 1, 1, tool_drill},
    {"standby status", "", "Which of two machines works, and whether the other one stands by",
     "Takes a few seconds: it waits for signs of life.", 0, 0, 0, tool_standby_status},
    {"standby takeover", "", "Take over from the other machine, said on the one that stands by",
     "It hands over in order. If it gives no sign of life it is taken over from when the time of "
     "after is over.",
     0, 0, 0, tool_standby_takeover},
    {"standby back", "", "Hand over to the other machine, from the one that works", NULL, 0, 0, 0,
     tool_standby_back},
    {"standby fenced", "", "Say that the other machine, as it was, writes no more", NULL, 0, 0, 0,
     tool_standby_fenced},
    {"check", "[DOMAIN]", "Check the configuration, or how a domain is set up",
     "Alone: says all that is wrong with the configuration, with file and line. The daemon need "
     "not "
     "run.\nWith a DOMAIN: are we among its MX, behind the primary; addresses, reverse names, "
     "greetings,\ncertificates, TLSA, MTA-STS and SPF; disk and clock. Exit code 1 if anything is "
     "bad.",
     OPTION_PORT, 0, 1, tool_check},
    {"user add", "NAME", "Let somebody log in and send mail",
     "The password is asked for, or read as a line of standard input. Without --address the NAME "
     "is "
     "the\naddress that he may send as.",
     OPTION_ADDRESS, 1, 1, tool_user_put},
    {"user passwd", "NAME", "Set a user's password", NULL, 0, 1, 1, tool_user_put},
    {"user change", "NAME", "Set what a user may send as", NULL, OPTION_ADDRESS, 1, 1,
     tool_user_put},
    {"user list", "[NAME ...]", "List the users and what they may send as", NULL, 0, 0, ANY,
     tool_user_list},
    {"user remove", "NAME ...", "Let users log in no more",
     "Who is logged in stays so until his connection ends.", 0, 1, ANY, tool_user_remove},
    {"settings show", "[VERSION]", "Print the cluster's settings",
     "Unless a version is named, the newest; or, if that is bad or was refused, the one in force.",
     0, 0, 1, tool_settings_show},
    {"settings set", "[FILE] [NAME=PATH ...]", "Make a new version of the cluster's settings",
     "FILE, or - for the standard input, is the whole text: what settings show prints, changed. "
     "NAME=PATH\nbrings a file that the text names as cluster:NAME, NAME= takes it away; files "
     "that "
     "are not named\nhere stay. Without FILE the text stays. All of it is checked before, and one "
     "member tries it before\nthe others follow. What is bad or was refused comes into no other "
     "version.",
     OPTION_COMMENT | OPTION_VERSION, 1, ANY, tool_settings_set},
    {"settings history", "[VERSION]", "Who changed the cluster's settings, when, and why",
     "The newest first, or from VERSION downwards; with the nodes that run with each.", 0, 0, 1,
     tool_settings_history},
    {"settings diff", "[VERSION [VERSION]]", "What has changed between two versions",
     "Of one version: to the newest; of none: between the last two.", 0, 0, 2, tool_settings_diff},
    {"settings revert", "VERSION", "Make what VERSION said the newest version",
     "Text and lists of that version, as another one. Users, secrets and certificates stay as they "
     "are now.",
     OPTION_COMMENT | OPTION_SECRETS, 1, 1, tool_settings_revert},
    {"spool verify", "[DIR]", "Check the journal and say what is in it",
     "Reads every byte and changes nothing; DIR is a state directory other than the "
     "configuration's.\nStop the daemon first, or what it writes meanwhile may look unfinished.",
     0, 0, 1, tool_spool_verify},
};
const unsigned tool_command_count = sizeof(tool_commands) / sizeof(tool_commands[0]);

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("holdfast " HOLDFAST_VERSION);
        return 0;
    }
    struct tool tool;
    enum control_exit code = tool_options(&tool, argc, argv);
    if (code == CONTROL_DONE && tool.command != NULL && !tool.help) {
        const char *no_colour = getenv("NO_COLOR"); /* no-color.org: set and not empty */
        tool.terminal = isatty(STDOUT_FILENO) == 1;
        tool.colour = tool.terminal && (no_colour == NULL || no_colour[0] == '\0');
        code = tool.command->run(&tool);
    }
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == CONTROL_DONE) {
        perror("holdfast: standard output");
        code = CONTROL_FAILED;
    }
    free(tool.words);
    return code;
}
