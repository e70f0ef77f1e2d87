/* SPDX-License-Identifier: Apache-2.0
 *
 * Content: by DATA with dots stuffed (RFC 5321 4.5.2), or as chunks (RFC 3030). Either way a CR or
 * LF that is not part of a CRLF is refused: a server that took it for a line end would see another
 * message than we stored.
 */
#include "proto/smtp_client_internal.h"

#include <assert.h>

/* The small wait for their go and then leave with their dot by one send. */
bool content_wanted(const struct smtp_client *client, const struct transaction *t)
{
    return t->send == STEP_CONTENT && t->answer == STEP_CONTENT && t->undecided > 0 && !t->asked &&
           t->content_offset < t->mail.size && (t->go || t->mail.size > SMTP_CLIENT_PIECE_MAX) &&
           output_backlog(client) == 0;
}

/* Queues the piece in runs as long as possible, broken only where a dot is put in. */
static bool queue_lines(struct smtp_client *client, struct transaction *t, struct slice piece)
{
    struct slice run = {piece.data, 0};
    while (piece.length > 0) {
        if (t->after_cr && piece.data[0] != '\n') {
            return false;
        }
        if (t->line_start && piece.data[0] == '.' && !t->chunked) {
            queue_bytes(client, run);
            queue_text(client, ".");
            run = (struct slice){piece.data, 0};
        }
        size_t end = slice_find(piece, '\n');
        struct slice line = slice_take(piece, end);
        size_t cr = slice_find(line, '\r');
        bool whole = end < piece.length;
        bool ends_in_cr = line.length > 0 && cr == line.length - 1;
        if ((cr < line.length && !ends_in_cr) || (whole && !ends_in_cr && !t->after_cr)) {
            return false;
        }
        t->after_cr = !whole && ends_in_cr;
        t->line_start = whole;
        size_t taken = whole ? end + 1 : end;
        run.length += taken;
        piece = slice_skip(piece, taken);
    }
    queue_bytes(client, run);
    return true;
}

bool queue_content(struct smtp_client *client, struct transaction *t, struct slice piece)
{
    bool last = t->content_offset + piece.length == t->mail.size;
    if (buffer_reserve(&client->output, piece.length + piece.length / 64 + 512) != ERROR_NONE) {
        return true; /* output.failed says it */
    }
    if (t->chunked) {
        bool with_dot = last && t->go;
        buffer_printf(&client->output, "BDAT %zu%s\r\n", piece.length, with_dot ? " LAST" : "");
    }
    if (!queue_lines(client, t, piece) || (last && t->after_cr)) {
        return false;
    }
    t->content_offset += piece.length;
    if (!t->chunked) {
        return true;
    }
    if (last && t->go) {
        t->dot_end = client->output.failed ? 0 : output_end(client);
        t->send = STEP_DONE;
        t->answer = t->chunks_unanswered == 0 ? STEP_DOT : STEP_CONTENT;
    } else {
        t->chunks_unanswered++;
    }
    return true;
}

void queue_dot(struct smtp_client *client, struct transaction *t)
{
    assert(t->content_offset == t->mail.size && !t->after_cr);
    if (t->chunked) {
        queue_text(client, "BDAT 0 LAST\r\n");
    } else {
        queue_text(client, t->line_start ? ".\r\n" : "\r\n.\r\n");
    }
    t->dot_end = client->output.failed ? 0 : output_end(client);
}
