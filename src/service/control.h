/* SPDX-License-Identifier: Apache-2.0
 *
 * The control protocol between core and those who ask: the tool over state/control.sock, the web
 * process over a socket pair. A stream of frames (service/control_frame.h), each one JSON object.
 *
 *   request  {"command":"queue list","arguments":{"domain":"example.com", ...}}
 *            with "node":"n2" another member of the cluster carries it out, as if it had been asked
 *            itself (docs/decisions/0050); exit 4 and an error: it was not reached, or fell silent.
 *            What it was to change may be changed all the same then
 *   answers  {"row":{...}}         any number, in order; flow-controlled by the socket
 *            {"more":{"KEY":[...]}} the arrays are appended to those of the row before, so that no
 *                                  row is bounded by a frame. Only top-level arrays are continued
 *            {"progress":{"done":n,"all":n}}   now and then, of commands that change or export the
 *                                  queue: messages looked at, and about how many there are
 *            {"end":{"exit":0}} or {"end":{"exit":1,"error":"no such message"}}   exactly one;
 *                                  with "again":true: not now, the same request in a moment may do
 *
 * One request at a time on a connection, several one after another. Long answers are produced in
 * slices between other work, so no command holds up mail. A connection that breaks the frames is
 * closed; a request that is no known command, or lacks an argument, ends with exit 2 and an error.
 * An unprivileged connection may ask "status", "queue list", "queue show", "server list", "trace"
 * and "queue watch"; anything else ends with exit 2, "permission denied".
 *
 * Rows are what `--json` prints, unchanged: times are integer Unix milliseconds UTC, ages and
 * other durations seconds, sizes bytes. A key whose value is not known or does not apply is null,
 * never absent. Bytes that are not UTF-8 appear as U+FFFD. Readers ignore keys they do not know.
 *
 * ---- selection -----------------------------------------------------------------------------
 *
 * Arguments of the queue commands, all optional, all must hold:
 *   "ids"        array of "ID" or "ID/N" (N counts the recipients from 0), at most CONTROL_IDS_MAX.
 *                An id that matches nothing is no error unless nothing matches at all
 *   "domain"     domain of the recipient, case folded
 *   "server"     server the delivery is under way with, redirected to, or has in its chain
 *   "sender", "recipient"   address, case folded; "*" any run of characters; sender "<>": null
 *   "older"      seconds since reception, at least
 *   "dead"       true: dead letters only. Without it, dead letters are left out, except where "ids"
 *                are given, and in "queue export" with "all" or without any selection
 *   "all"        true: chooses nothing, but a command that changes something needs this or another
 *                one, so that a missing argument does not mean the whole queue
 * A message is listed if one of its unfinished deliveries matches; commands act on the deliveries
 * that match, not on all of their message. Nothing matched: exit 1, "nothing matched".
 * A message whose envelope cannot be read matches by "ids", "server", "dead" and "all" alone; what
 * its rows have from the envelope is null, "recipients" empty. It cannot be exported: exit 1.
 *
 * ---- "status" ------------------------------------------------------------------------------
 *
 * {"version":"0.1.0","hostname":"mx2.example.net","started":ms,"now":ms,
 *  "accepted":{"messages","bytes"}, since "started"
 *  "loading":false,                 still reading the journal after a start: counts are partial
 *  "accepting":true,"accepting_reason":null,
 *  "settings":null or {"version" (0: none),"state":"known|joining"}, those of the cluster
 *  "queue":{"messages","deliveries","bytes","oldest_seconds" (0 when empty),"held","in_doubt"},
 *  "dead_letters":n,                deliveries
 *  "servers":[{"name","protocol","state","since","changes","before","before_seconds","failures",
 *    "used","sessions","reason"}],  changes of state since the start; the state before and how long
 *                                   it lasted, null without any
 *  "lanes":[{"route","redirect_to","doubt","state","deliveries","server","done","left","rate",
 *    "left_seconds","switches","oldest_seconds","since","reason"}],
 *  "recipients":[{"domain","good","bad","refused","list"}], as in "recipients list", of 500 at most
 *  "disk":{"used_bytes","available_bytes","reserve_bytes","segments","quarantined"},
 *  "safety_copies":{"keep_seconds" (0: off),"bytes","segments","oldest":ms or null (the first that
 *    is kept was needed until then),"gone_until":ms or null}, of those that made room early
 *  "guards":[as "guard list"],
 *  "standby":null or {"name","of","role":"active","since":ms,"token","unfenced":bool,
 *    "taken_over":bool (from one that did not hand over),"standby_seen_seconds":n or null}
 *  "cluster":null or {"name","number" (0: not joined),"leader":bool,"lease_ms" (left of it),
 *    "read_ms_ago","database":{"up":bool,"since":ms,"commit_ms","lag_ms","reason"},
 *    "one_copy" (messages that only this node's journal has; in no queue yet),"waiting_writes",
 *    "queue":{"messages","deliveries","bytes","oldest_seconds","held"},"dead_letters" (of all
 *    members, as they were at their last heartbeats; a message in parts counts at each owner),
 *    "missing_nodes" (names of those that are down, not counted)},
 *  "nodes":null or [as "node list"],
 *  "alerts":[{"kind":"stopped","subject":"domain:example.com" or null,"since":ms,"text":"..."}]}
 * One row, continued by "more" for "servers", "lanes" and "alerts". Lanes of a domain or relay are
 * listed also when idle; lanes "mx:" and "orphan" only while they have deliveries. "done": handed
 * over in this drain; while it drains "left": what waited at its beginning and still does, "rate":
 * deliveries a second so far, "left_seconds"; else null. A server's state is one of up, suspect,
 * down, recovering and disabled, a lane's one of idle, flowing, draining, stopped, held and orphan.
 * "reason" is the last failure, null while up. "alerts" are those that stand now, in order of
 * beginning; their kinds are in holdfast(1). A lane's "oldest_seconds" is the age of its
 * oldest delivery, null without one; where that is held or deferred and thousands in the queue are
 * older, the age of the oldest that waits. "since": ms, stopped since then, or null. Its "reason":
 * why nothing goes, "m1 down: connection refused; m2 disabled", or that all of it is held or
 * deferred, null where something does; "drill until 14:05 UTC" while a drill holds it ("state" is
 * "held" then). "switches": of server, there and back, since the start.
 * A route has one more lane for each place that mail was redirected to ("redirect_to": server or
 * address, else null) and for each server that may have some of its mail ("doubt", else null).
 * Behind the configured servers stand the exchangers of MX routing that are needed just now, named
 * by their hosts; "server down" and "up" are not for them.
 *
 * ---- "node list": one row per member of the cluster ------------------------------------------
 *
 * {"name","number","role":["gateway","node","hub"],"site":null or "...",
 *  "state":"joining|up|suspect|draining|down","leader":bool,"here":bool (it is who answers),
 *  "version","place","last_contact":ms or null,"last_contact_seconds","lanes":n (shares it owns),
 *  "queue":{"messages","deliveries","one_copy"},"disk":{"available_bytes","total_bytes"},
 *  "clock_offset_ms","database_lag_ms"}; all of its last heartbeat, also while it is down.
 * Argument "alone": true: without a cluster there are no rows, and that is no error.
 * "node drain|undrain|remove": argument "name"; one row {"name","number","done":true}.
 *
 * ---- "queue list": one row per message, in acceptance order ---------------------------------
 *
 * {"id","sender" ("" is the null reverse-path),
 *  "recipients":["a@example.com"]  unfinished ones that match the "dead" choice, the first 100
 *  "recipient_count":n             all such
 *  "received":ms,"age":seconds,"bytes":n,
 *  "attempts":n                    the highest
 *  "next":ms or null               the earliest; null: waits for its server, held or dead
 *  "not_believed":bool             held by R5: a 5xx that does not count yet; it is tried again at
 *                                  "next", or if that is null when the server is well
 *  "doubt_until":ms or null        in doubt, and its server away: then others may get it, too
 *  "reason":"..." or null          the last
 *  "state":"waiting|deferred|in_flight|in_doubt|held|dead"   of the delivery nearest to leaving, in
 *                                  the order in_flight, waiting, deferred, in_doubt, held, dead
 *  "server":"m1" or null           in flight with, redirected to, else the head of the chain
 *  "route":"domain:example.com"}
 * In a cluster also "sequence", the order of acceptance over all nodes, and "part":null or
 * {"deliveries":n (that this node's part of the message has),"of":n (all)}; the tool joins parts,
 * and adds "missing_nodes":["n3"], members that have not answered.
 *
 * ---- "queue show": one row per message ------------------------------------------------------
 *
 * The keys of "queue list" ("recipients" and the rest over all its deliveries), and
 * {"message_id":"<...>" or null,"header_bytes":n,
 *  "copy_of":id or null             of the message that "queue resend" has made it of
 *  "envelope":{...},"origin":{...}  as in "queue export"
 *  "deliveries":[{"id":"ID/N","recipient","state" (as above, or "finished"; "elsewhere": in
 *                 another part, and nothing is known of its end),
 *                 "fate":null or "delivered|bounced|discarded|pulled",
 *                 "attempts","next","not_believed","doubt_until","expires","reason","server","route",
 *                 "redirect_to"}]}
 * continued by "more" for "deliveries". "expires": ms, when it becomes a dead letter or is
 * returned, or a dead letter goes, if nothing changes; null: not known, or never.
 *
 * ---- "queue retry|hold|release|redirect|discard|bounce": one row per delivery ----------------
 *
 * {"id":"ID/N","recipient","action":"hold","done":true,"error":null}
 * "done" false: it matched but could not be done, and "error" says why ("in flight", "already
 * held"). What is in no state for it, and was not named by its id, is passed over. The change is
 * durable before the row is sent. Exit 1 if none was done.
 * Further arguments: "to" (redirect: a server's name or an address; needed), "force" (bounce: also
 * to senders that are not verified), "reason" (hold, discard: text for the trace).
 *
 * ---- "queue export" --------------------------------------------------------------------------
 *
 * Per message one head row, then its content:
 * {"format":1,"id","received":ms,"bytes":n,"header_bytes":n,"message_id","copy_of":id or null,
 *  "envelope":{"sender","envelope_id","ret":null|"full"|"headers","smtputf8":bool,"eightbit":bool,
 *              "priority":n,"deliver_by":ms|null,"deliver_by_mode":null|"return"|"notify",
 *              "deliver_by_trace":bool,"sender_verified":bool,"own_dsn":bool,
 *              "envelope_only":bool,  a drill's that ends at RCPT
 *              "require_tls":bool,    REQUIRETLS (RFC 8689)
 *              "tls_optional":bool,   its header says "TLS-Required: No"
 *              "elapsed":seconds,     of the time that counts against `keep` (R7)
 *              "uncounted":seconds},  since "received" that do not: of holds that are over
 *  "origin":{"client":"192.0.2.7","port":n,"helo","listener","protocol","tls","user","verdicts",
 *            "forwarded"},        as XFORWARD told, or null
 *  "recipients":[{"n":0,"address","orcpt","notify":["never|success|failure|delay"],
 *                 "state","fate","attempts","reason","redirect_to",
 *                 "since":ms or null      that it is held or dead
 *                 "next":ms or null,"strikes":n,"doubts":n,
 *                 "server":name or null   that deferred it, refused it or may have it
 *                 "in_doubt":bool         "server" may have it: in doubt, or under way
 *                 "by_rule":bool          held by a rule, not by the operator
 *                 "refused_once":bool}]}  it is on its second try after a refusal
 * continued by "more" for "recipients", all of the message's, finished ones too, in their order.
 * {"id","offset":n,"content":"base64","last":true|false}   at least one, offsets rising from 0;
 * content of at most CONTROL_CONTENT_MAX bytes a row. If it cannot be read, the last row of the
 * message has "error":"...", the others go on, and the command ends with exit 1. Export changes
 * nothing; a message that gets its fate meanwhile may be left out.
 *
 * ---- "queue import" --------------------------------------------------------------------------
 *
 * Arguments, in one request or several one after another on one connection:
 *   "record"      the head row of an export; begins a message (and drops an unfinished one)
 *   "recipients"  array, appended to those of the record
 *   "content"     base64, appended; at most CONTROL_CONTENT_MAX bytes a request
 *   "last"        true: the message is complete; store it
 * Requests before the last end with exit 0 and no row. The last gives {"id","result":"imported"} or
 * {"id","result":"exists"} (nothing changed), durable before it is sent. An id is known while its
 * message is unfinished, no longer: who imports remembers what was imported. Deliveries
 * with a fate get that fate; the others are what they were, with their counts: held, dead, deferred
 * until "next", in doubt at "server", redirected. A key that an older export lacks is 0, null or
 * false. Its bounds are those of spool.h.
 *
 * ---- "queue resend": one row per message, in acceptance order ---------------------------------
 *
 * Arguments "ids", "domain", "sender", "recipient" and "all" as above; "server": the one that took
 * it, by name; "since", "until": Unix ms of the hand-over; "again": true: also what was sent again
 * before; "dry_run": true: nothing is sent. One of those that choose is needed.
 * {"id":of the message that was handed over,"new_id":id or null,
 *  "sender","recipients" (the first 100),"recipient_count","bytes","message_id",
 *  "handed_over":ms (the last of them),"server","done":bool,"error":null|"..."}
 * A row is sent when the new message is durable. Progress counts deliveries. Exit 1 if nothing
 * matched, if not all that is kept could be read, or if the journal takes no more: said again, it
 * goes on.
 *
 * ---- "queue watch" ---------------------------------------------------------------------------
 *
 * Rows as of "trace", as they happen, that match the selection; ends only with the connection. A
 * reader that is too slow misses events and gets {"time","event":"missed","count":n}. While lanes
 * drain there is progress each second: deliveries handed over, and all of these drains; at their
 * end once with "all" 0.
 *
 * ---- "server list", "server probe", "server down", "server up": one row per server ------------
 *
 * {"name","state","since","changes","before","before_seconds","failures","used","sessions","reason",
 *  "addresses":["mail1.example.com:25"],"protocol":"smtp|lmtp","tls":"none|opportunistic|...",
 *  "tls_waived":bool                an exchanger: for mail that says "TLS-Required: No" alone
 *  "signed_by":domain or null       an exchanger: whose signed MX records name it
 *  "connections":n (most at once),"failover":"m2" or null,
 *  "capabilities":["8BITMIME","SMTPUTF8","DSN","PIPELINING","CHUNKING","DELIVERBY","MT-PRIORITY",
 *                  "REQUIRETLS" (with its name proved)] or null (not seen yet),
 *  "size_limit":n or null,"deliveries":n (waiting in lanes that it heads)}
 * Argument "name"; without it all of them ("server down" and "server up" need "name" or "all"). The
 * row shows the state after the command; a probe has been started, not finished. Unknown name: exit
 * 1, "no such server".
 *
 * ---- "recipients list" ------------------------------------------------------------------------
 *
 * Without "domain" one row per domain whose recipients are known in part:
 * {"domain","good":n,"bad":n,"refused":n (once, of late),"list":ms|null,"bytes":n of memory,
 *  "source":"learn" or the list's path or URL,"checked":ms|null (when all was last well with it in
 *  this life),"problem":"..."|null}
 * With it one row per recipient: {"address","standing":"good|bad|unknown",
 *  "source":"list|callout|delivery|operator","said":ms|null,"refused":ms|null (the last refusal)}
 *
 * ---- "recipients load" ------------------------------------------------------------------------
 *
 * The helper hands a list over: "source", as the configuration has it, and "step": "begin"; "add"
 * with "addresses" (strings; "@domain": everybody there); "end" with "names":n, and it is in force;
 * "same": it was looked at and is as it was; "failed" with "problem". One at a time; no rows.
 *
 * ---- "recipients import", "recipients forget" --------------------------------------------------
 *
 * Arguments "domain" and "addresses"; of forget also "all". {"domain","imported" or "forgotten":n,
 * "passed_over":n (of another domain, or nothing was known)}. Exit 1 if none was done. What is
 * known is written to its file within seconds, not before the answer.
 *
 * ---- "recipients verify" -----------------------------------------------------------------------
 *
 * Arguments "domain", and "address" (without it an address that cannot exist alone).
 * {"address" or null,"exists":true|false|null (it does not say),"reply":"550 5.1.1 ..."|null,
 *  "takes_all":bool|null,"random_reply"} What it says is learned. Exit 1: nobody can be asked now.
 *
 * ---- "alert news": what has become of alerts ---------------------------------------------------
 *
 * For the helper, which tells people. Arguments, all optional: "life", "after", "done", "standing",
 * and "failing": {"ops":"why"} of the alert blocks that cannot tell anybody just now.
 * The first row is {"life":n,"after":n}: a number for the life of core, in which edges are numbered
 * from 1, and the one that the edges below come after. Then the edges that are newer than "after"
 * (without it or of another life: than "done"):
 * {"edge":"raised|changed|ended|happened","number":n,"time":ms,"kind","subject" or null,"since":ms,
 *  "text","was" (the text while it stood) or null,"ended":"over|disabled|removed" or null,
 *  "from":"m1" or null,"to":"m2" or null}    the last two of switches
 * Then, if "life" is not that of this core or "standing" is true, those that stand, in order of
 * beginning: {"edge":"stands","number":n (of its raising),"time","kind","subject","since","text"}
 * "done" says up to where people have been told; core keeps it for the next who asks without one.
 * Some latest hundreds are kept; who is later misses numbers.
 *
 * ---- "tls-reports list", "tls-reports send" ------------------------------------------------
 *
 * What will be reported of TLS (RFC 8460), one row for each domain: of this day (UTC), and of days
 * that are over and not reported yet.
 * {"domain","begins":ms,"successful":n,"failed":n,"waits":false: of this day,"next":ms or null,
 *  "until":ms (then it is given up) or null,"reason":"..." or null (why it has not gone yet)}
 * "send" ends the day before its time: what has been counted is reported now, and it gives the same
 * rows as they are then.
 *
 * ---- "guard list", "guard start", "guard undo", "guard reset": one row per guard ---------------
 *
 * Argument "name", which only "guard list" can do without. A change is durable before its row is
 * sent; exit 1 and an error where it cannot be made now.
 * {"server","state":"resting|watching|counting|blocked|starting|taken-over|returning|undoing|
 *  start-failed|undo-failed","since":ms,"down_since":ms or null (when it was taken over),
 *  "by_hand":bool,"running":bool (its script),"tries":n (that failed),
 *  "left_seconds":n or null (until something is run),"undo_when":"manual|watch|server",
 *  "reason":"..." or null,"output":"..." or null (of the last script)}
 * `status` has them as "guards".
 *
 * ---- "guard work" ------------------------------------------------------------------------------
 *
 * For who runs the scripts. Arguments "ends":[{"run":n,"well":bool,"text","lost":bool (nothing is
 * known of it),"later":bool (it was not begun; name it again)}], "places":[{"guard","watch",
 * "witness":"silent|refused|accepted"}]. One row for each guard with something to do:
 * {"guard","every_ms":n (ask its places so often; 0: not)} and where a run has no end yet
 * {"run":n,"step":"start|undo","begin":bool (this once; else say how it ended),"environment":{}}.
 *
 * ---- "errands", "errand done" ------------------------------------------------------------------
 *
 * For the helper, which has the network that core has not. "errands" gives those that were not
 * given before, "begins":true also those that a helper before this one was given:
 * {"errand":n,"url","media_type" (that the answer must have) or null,"most_bytes","timeout_ms",
 *  "post_type" or null: it is a GET,"post":"base64"}
 * "errand done": "errand":n, "problem":null or why it went wrong, "untrusted":true if that is the
 * certificate, "body":"base64" of what was fetched. One that nobody waits for any more is no error.
 *
 * ---- "drill" -----------------------------------------------------------------------------------
 *
 * Arguments "domain", "minutes" (a number above 0, at most 240; else 5), "messages" (at most 10000;
 * else 20). Freezes the hand-over of the domain's lane for so long; its mail is accepted and waits.
 * The messages, evenly over that time, go to the domain's drill-recipient; without one they are for
 * its postmaster and end at RCPT and RSET. Refused, exit 1, where the lane is in trouble. Then
 * progress each second: seconds gone, and all of them; when the lane drains once with "all" 0, and
 * after that deliveries. One row when what was held has gone, or its servers have failed before
 * that:
 * {"domain","started":ms,"minutes":n,
 *  "held":n         deliveries that waited at the end of the freeze
 *  "injected":n     messages of the drill
 *  "recipient":its address, or null: none were sent, since no name of the domain is known
 *  "envelope_only":bool  there is no drill-recipient: they end at RCPT and RSET
 *  "delivered":n    of those held, by 2xx to the dot
 *  "asked":n        likewise, of those that end at RCPT, by 2xx to that; "refused":n by 4xx or 5xx
 *  "drained_ms":n   from the end until nothing of what was held was left to go; null: never
 *  "first_ms":n     from the end to the first reply to a dot, or null
 *  "rate":n         deliveries a second, or null
 *  "out_of_order":n of the lane's deliveries since the beginning, by the replies to the dots: after
 *                   a later one of the same recipient
 *  "doubled":n      dots without a reply since then: what is repeated for them may come twice
 *  "ended":"time|stop|failure|storage"}
 * Exit 0 if it ended by time or stop. The drill does not end with the connection. After a restart
 * it goes on until its time; the report is then in the log alone, and no more messages are sent.
 *
 * ---- "drill stop": one row per drill that it ends ----------------------------------------------
 *
 * Argument "domain"; without it all. {"domain"}. Exit 1, "no drill runs".
 *
 * ---- "trace": one row per event, oldest first -------------------------------------------------
 *
 * Argument "what": an id, "ID/N", an address (sender, recipient or client), a user or
 * "<Message-ID>"; or "ids": ids, whose events come one id after the other.
 * {"time":ms,"event","id","delivery":N or null (all, or the message itself),"sender","recipient",
 *  "server","reason","reply":"250 2.0.0 ok" or null,"tls","client","bytes","next":ms or null}
 * "refused" (a client, or a recipient; "sender" null: not said yet) has "left_out":n, so many
 * others of the client's network of which there are no events. "login" and "denied" are about
 * nobody's message: "user" (null: only left_out is told), "client", "reason", of "denied" "next"
 * (until when it must wait), and "left_out", of "login" the user's. What servers and lanes came to
 * is about no message: "id" null, and "subject" (server or lane), "from","to" (states of a server,
 * servers of a switch, or null),"lasted":ms (what is over then). "server history" gives these
 * alone, by argument "name" only those that name it. Events: accepted attempt delivered deferred
 * in_doubt held released dead bounced discarded redirected retried imported orphaned pulled resent
 * ("reason": "again as ID", or of that one "a copy of ID") refused login denied; server switched
 * stopped draining drained guard.
 */
#ifndef HOLDFAST_SERVICE_CONTROL_H
#define HOLDFAST_SERVICE_CONTROL_H

/* Errors of "recipients load" that say nothing about the list: it is to be tried again. */
#define CONTROL_LIST_ENDED "a reload, or another list, has ended this one"
#define CONTROL_LIST_UNKNOWN "no domain block has this source"

/* A command's end that has done what it should, but cannot make it last yet. */
#define CONTROL_NOT_WRITTEN                                                                        \
    "the journal, or in a cluster the database, cannot be written just now; the change holds and " \
    "will be written when it can be"

enum {
    CONTROL_FRAME_MAX = 1 << 20,
    CONTROL_IDS_MAX = 10000,         /* "ids" of one request */
    CONTROL_CONTENT_MAX = 384 << 10, /* bytes of content in one frame, before base64 */
};

/* Also the exit codes of the tool. */
enum control_exit {
    CONTROL_DONE = 0,
    CONTROL_NOTHING_MATCHED = 1,
    CONTROL_FAILED = 1, /* asked rightly, but the world was against it: a full disk, no memory */
    CONTROL_USAGE = 2,
    CONTROL_NOT_RUNNING = 3,
    CONTROL_INCOMPLETE = 4, /* members of the cluster did not answer; what others said stands */
};

#endif
