/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/settings_version.h"

#include "base/crc32c.h"

enum { CHECKSUM_BYTES = 4 };

static const uint8_t magic[8] = {'h', 'f', 's', 'e', 't', 0, 0, 1};

static bool is_letter_or_digit(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

const char *settings_file_name_fault(struct slice name)
{
    bool good = name.length > 0 && name.length <= SETTINGS_FILE_NAME_MAX &&
                is_letter_or_digit(name.data[0]);
    for (size_t i = 0; good && i < name.length; i++) {
        uint8_t c = name.data[i];
        good = is_letter_or_digit(c) || c == '-' || c == '.' || c == '_';
    }
    return good ? NULL : "is not 1 to 64 letters, digits, '-', '.' or '_'";
}

const char *settings_version_fault(const struct settings_version *version)
{
    size_t bytes = 0;
    if (version->text.length > SETTINGS_TEXT_MAX) {
        return "the text is larger than 16 MB";
    }
    if (version->file_count > SETTINGS_FILES_MAX) {
        return "there are more than 256 files";
    }
    for (uint32_t i = 0; i < version->file_count; i++) {
        const struct settings_file *file = &version->files[i];
        if (settings_file_name_fault(file->name) != NULL) {
            return "the name of a file is not 1 to 64 letters, digits, '-', '.' or '_'";
        }
        for (uint32_t before = 0; before < i; before++) {
            if (slice_equal(version->files[before].name, file->name)) {
                return "two files have one name";
            }
        }
        if (file->content.length > SETTINGS_FILES_BYTES_MAX - bytes) {
            return "the files are larger than 64 MB";
        }
        bytes += file->content.length;
    }
    return NULL;
}

void settings_version_put(struct buffer *buffer, const struct settings_version *version)
{
    size_t start = buffer->length;
    buffer_append(buffer, slice_make(magic, sizeof(magic)));
    buffer_put_u64(buffer, version->number);
    buffer_put_bytes(buffer, version->text);
    buffer_put_u32(buffer, version->file_count);
    for (uint32_t i = 0; i < version->file_count; i++) {
        buffer_put_bytes(buffer, version->files[i].name);
        buffer_put_bytes(buffer, version->files[i].content);
    }
    if (!buffer->failed) {
        buffer_put_u32(buffer, crc32c(0, slice_skip(buffer_slice(buffer), start)));
    }
}

enum error settings_version_get(struct slice bytes, struct settings_version *ret_version,
                                struct settings_file ret_files[SETTINGS_FILES_MAX])
{
    *ret_version = (struct settings_version){.files = ret_files};
    if (bytes.length < sizeof(magic) + CHECKSUM_BYTES ||
        bytes.length > SETTINGS_VERSION_BYTES_MAX) {
        return ERROR_CORRUPT;
    }
    struct slice body = slice_take(bytes, bytes.length - CHECKSUM_BYTES);
    struct reader checksum = reader_make(slice_skip(bytes, body.length));
    struct reader reader = reader_make(body);
    if (reader_u32(&checksum) != crc32c(0, body) ||
        !slice_equal(reader_take(&reader, sizeof(magic)), slice_make(magic, sizeof(magic)))) {
        return ERROR_CORRUPT;
    }
    ret_version->number = reader_u64(&reader);
    ret_version->text = reader_bytes(&reader);
    uint32_t count = reader_u32(&reader);
    if (count > SETTINGS_FILES_MAX) {
        return ERROR_CORRUPT;
    }
    for (uint32_t i = 0; i < count && !reader.failed; i++) {
        ret_files[i].name = reader_bytes(&reader);
        ret_files[i].content = reader_bytes(&reader);
        ret_version->file_count = i + 1;
    }
    bool whole = !reader.failed && reader.rest.length == 0 && ret_version->number <= INT64_MAX &&
                 settings_version_fault(ret_version) == NULL;
    return whole ? ERROR_NONE : ERROR_CORRUPT;
}
