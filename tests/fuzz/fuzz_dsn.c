/* SPDX-License-Identifier: Apache-2.0
 *
 * A notification about strangers' words: the first byte says what it tells, then texts follow, each
 * ended by a byte 0x1e: the sender, the envelope's id, the Message-ID, the header block, and of
 * each recipient the address, ORCPT, the reply and the server. Whatever they hold, the message is
 * lines of 7 bits (but of an internationalised To), has each field of its header once, three parts
 * and no more, and the fields of RFC 3464 of just these recipients.
 */
#include "proto/dsn.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECIPIENTS_MAX = 4, TEXT_END = 0x1e };

struct lines {
    struct slice rest;
};

static bool next_line(struct lines *lines, struct slice *ret_line)
{
    size_t length = slice_find(lines->rest, '\n');
    if (lines->rest.length == 0) {
        return false;
    }
    assert(length < lines->rest.length && length > 0 && lines->rest.data[length - 1] == '\r');
    assert(length - 1 <= 998);
    *ret_line = slice_take(lines->rest, length - 1);
    lines->rest = slice_skip(lines->rest, length + 1);
    assert(slice_find(*ret_line, '\r') == ret_line->length);
    assert(slice_find(*ret_line, '\0') == ret_line->length);
    return true;
}

static bool is_ascii(struct slice line)
{
    for (size_t i = 0; i < line.length; i++) {
        if (line.data[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

/* Counts the field that begins here. */
static void count_field(struct slice line, const char *const *fields, size_t count, uint32_t *seen)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_starts_fold(line, slice_from_text(fields[i]))) {
            seen[i]++;
            return;
        }
    }
    assert(!"a field that is none of ours");
}

static struct slice check_header(struct slice header, bool utf8)
{
    static const char *const fields[] = {
        "Date: ",         "From: ",         "To: ",          "Subject: ",
        "Message-ID: ",   "In-Reply-To: ",  "References: ",  "Auto-Submitted: ",
        "MIME-Version: ", "Content-Type: ", "TLS-Required: "};
    enum { COUNT = sizeof(fields) / sizeof(fields[0]) };
    uint32_t seen[COUNT] = {0};
    struct lines lines = {header};
    struct slice line, boundary = SLICE_EMPTY;
    while (next_line(&lines, &line) && line.length > 0) {
        static const struct slice before = SLICE_LITERAL(" boundary=\"");
        assert(is_ascii(line) || (utf8 && slice_starts_fold(line, SLICE_LITERAL("To: "))));
        if (slice_starts_fold(line, before)) {
            boundary = slice_skip(line, before.length);
            boundary.length--;
        } else {
            count_field(line, fields, COUNT, seen);
        }
    }
    assert(lines.rest.length == 0 && line.length == 0 && boundary.length > 0);
    for (size_t i = 0; i < COUNT; i++) {
        assert(seen[i] == 1 || (seen[i] == 0 && (i == 5 || i == 6 || i == 10)));
    }
    return boundary;
}

static void check_status(struct slice body, uint32_t recipients)
{
    static const char *const fields[] = {"Original-Envelope-Id: ",
                                         "Reporting-MTA: ",
                                         "Arrival-Date: ",
                                         "Deliver-By-Date: ",
                                         "Original-Recipient: ",
                                         "Final-Recipient: ",
                                         "Action: ",
                                         "Status: ",
                                         "Remote-MTA: ",
                                         "Diagnostic-Code: ",
                                         "Last-Attempt-Date: ",
                                         "Will-Retry-Until: "};
    enum { COUNT = sizeof(fields) / sizeof(fields[0]) };
    uint32_t seen[COUNT] = {0}, blocks = 0;
    struct lines lines = {body};
    for (struct slice line; next_line(&lines, &line);) {
        if (line.length == 0) {
            blocks += lines.rest.length > 0;
        } else {
            count_field(line, fields, COUNT, seen);
        }
    }
    assert(blocks == recipients && seen[1] == 1 && seen[2] == 1);
    for (size_t i = 5; i <= 7; i++) { /* one of each, and none that a stranger wrote */
        assert(seen[i] == recipients);
    }
    for (size_t i = 0; i < COUNT; i++) {
        assert(seen[i] <= (i < 4 ? 1 : recipients));
    }
}

/* Three parts between boundaries; the second is RFC 3464's, and in 7 bits. */
static void check_parts(struct slice body, struct slice boundary, uint32_t recipients)
{
    struct lines lines = {body};
    uint32_t parts = 0;
    bool is_over = false, in_head = false;
    struct slice from = SLICE_EMPTY;
    for (struct slice line; next_line(&lines, &line);) {
        bool dashed = line.length >= boundary.length + 2 && line.data[0] == '-' &&
                      line.data[1] == '-' &&
                      memcmp(line.data + 2, boundary.data, boundary.length) == 0;
        assert(is_ascii(line) && !is_over);
        if (dashed) {
            if (parts == 2) {
                check_status(slice_make(from.data, (size_t)(line.data - from.data)), recipients);
            }
            is_over = line.length > boundary.length + 2;
            assert(!is_over ||
                   slice_equal(slice_skip(line, boundary.length + 2), SLICE_LITERAL("--")));
            parts += !is_over;
            in_head = true;
        } else if (in_head && line.length == 0) {
            in_head = false;
            from = lines.rest;
        } else if (in_head && parts == 2) {
            assert(
                !slice_equal(line, SLICE_LITERAL("Content-Transfer-Encoding: quoted-printable")));
        }
    }
    assert(is_over && parts == 3);
}

static struct slice take_text(struct slice *rest)
{
    size_t length = slice_find(*rest, TEXT_END);
    struct slice text = slice_take(*rest, length);
    *rest = slice_skip(*rest, length < rest->length ? length + 1 : length);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dsn_recipient recipients[RECIPIENTS_MAX];
    struct slice rest = slice_make(data, size);
    uint8_t flags = size > 0 ? data[0] : 0;
    rest = slice_skip(rest, size > 0);
    struct dsn_report report = {
        .action = (enum dsn_action)(flags & 3),
        .hostname = SLICE_LITERAL("mx2.example.net"),
        .id = "01abcdefghjkmnpqrstvwxyz01",
        .now_ms = 1790000001000,
        .original_id = "01zzz",
        .arrival_ms = 1789999999000,
        .retry_until_ms = flags & 4 ? 1790000900000 : 0,
        .deliver_by_ms = flags & 8 ? 1790000900000 : 0,
        .tls_optional = (flags & 8) != 0,
        .recipients = recipients,
    };
    report.sender = take_text(&rest);
    report.envelope_id = take_text(&rest);
    report.message_id = take_text(&rest);
    report.header = take_text(&rest);
    do {
        struct dsn_recipient *recipient = &recipients[report.recipient_count++];
        *recipient = (struct dsn_recipient){.code = flags & 16   ? 550
                                                    : flags & 32 ? 451
                                                                 : 0,
                                            .enhanced = {flags & 64 ? 5 : 0, 1, 255},
                                            .last_attempt_ms = flags & 128 ? 1790000000000 : 0};
        recipient->address = take_text(&rest);
        recipient->orcpt = take_text(&rest);
        recipient->diagnostic = take_text(&rest);
        recipient->remote = take_text(&rest);
    } while (rest.length > 0 && report.recipient_count < RECIPIENTS_MAX);

    struct buffer content;
    uint64_t header_length = 0;
    bool utf8 = false;
    buffer_init(&content, 0);
    if (dsn_write(&report, &content, &header_length, &utf8)) {
        struct slice whole = buffer_slice(&content);
        assert(header_length <= whole.length);
        struct slice boundary = check_header(slice_take(whole, header_length), utf8);
        check_parts(slice_skip(whole, header_length), boundary, report.recipient_count);
    }
    buffer_done(&content);
    return 0;
}
