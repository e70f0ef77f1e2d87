# SPDX-License-Identifier: Apache-2.0
"""What a process has in its memory."""


def memory_of(pid):
    """What is mapped and can be written, heap and shared files included."""
    parts = []
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, rights = line.split()[:2]
            if rights.startswith("rw") and "ring" not in line:
                start, end = (int(text, 16) for text in span.split("-"))
                try:
                    mem.seek(start)
                    parts.append(mem.read(end - start))
                except OSError:
                    pass
    return b"".join(parts)
