/* SPDX-License-Identifier: Apache-2.0
 *
 * The control protocol between core and those who ask: the tool over state/control.sock, the web
 * process over a socket pair. A stream of frames, each a u32 length (big-endian, at most
 * CONTROL_FRAME_MAX) and one JSON object.
 *
 *   request  {"command":"queue list","arguments":{"domain":"example.com", ...}}
 *   answers  {"row":{...}}        any number, in order; flow-controlled by the socket
 *            {"progress":{"done":n,"all":n}}
 *            {"end":{"exit":0}} or {"end":{"exit":1,"error":"no such message"}}   exactly one
 *
 * One request at a time on a connection, several one after another. Long answers are produced in
 * slices between other work, so no command holds up mail.
 *
 * Commands are those of DESIGN section 4 by the same names ("status", "queue list", "queue show",
 * "queue retry", "queue hold", "queue release", "queue redirect", "queue discard", "queue bounce",
 * "queue export", "queue import", "server list", "server probe", "server down", "server up",
 * "trace"). Arguments: "ids" (array of "ID" or "ID/N"), "domain", "server", "sender", "recipient",
 * "older" (seconds), "dead" (bool), "to", "force" (bool), "all" (bool), "name", "what".
 * "queue export" rows carry {"id","envelope":{...},"content":"base64"} in pieces of at most
 * CONTROL_FRAME_MAX / 2; the tool writes the files, for core opens none outside its state.
 * "queue import" is a request per message or piece of the same form.
 */
#ifndef HOLDFAST_SERVICE_CONTROL_H
#define HOLDFAST_SERVICE_CONTROL_H

enum { CONTROL_FRAME_MAX = 1 << 20 };

enum control_exit {
    CONTROL_DONE = 0,
    CONTROL_NOTHING_MATCHED = 1,
    CONTROL_USAGE = 2,
    CONTROL_NOT_RUNNING = 3,
};

#endif
