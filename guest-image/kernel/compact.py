#!/usr/bin/env python3
"""Leaves the padding out of a kernel: compact.py VMLINUX OUT

A kernel is a third padding, to huge page boundaries: zeros, and between functions breakpoint instructions, where execution never
comes. Who loads it copies all that, too. So each loadable segment is cut into those pieces that have something in them. Nothing
moves in memory: addresses stay, and what is left out becomes the zero-filled rest of the piece before. Sections are not kept;
loaders do not look at them.
"""
import struct
import sys

PAGE = 4096
# Shorter runs of padding than this are not worth a segment.
MIN_PADDING = 16 * PAGE
PADDING = {bytes(PAGE), b"\xcc" * PAGE}
LOAD, NOTE = 1, 4
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")


def pieces(data):
    """The parts of `data` between long runs of padding, as (start, end)."""
    found, start, padding = [], 0, 0
    for at in range(0, len(data), PAGE):
        if data[at : at + PAGE] in PADDING:
            padding += PAGE
            if start is not None and padding >= MIN_PADDING:
                found.append((start, at + PAGE - padding))
                start = None
        else:
            if start is None:
                start = at
            padding = 0
    return found if start is None else [*found, (start, len(data))]


def main(source, target):
    with open(source, "rb") as file:
        elf = file.read()
    header = list(EHDR.unpack_from(elf))
    offset, count = header[5], header[10]
    segments, notes = [], []
    for index in range(count):
        kind, flags, start, virtual, physical, filled, size, align = PHDR.unpack_from(elf, offset + index * PHDR.size)
        if kind == NOTE:
            notes.append((flags, start, virtual, physical, filled, size, align))
        if kind != LOAD:
            continue
        data = elf[start : start + filled]
        parts = pieces(data)
        for (begin, end), following in zip(parts, parts[1:] + [(size, None)]):
            segments.append((flags, virtual + begin, physical + begin, data[begin:end], following[0] - begin, start + begin))
    header[5] = EHDR.size
    header[6] = 0
    header[10] = len(segments) + len(notes)
    header[11:14] = [0, 0, 0]
    table, body = [], bytearray()
    at = -(-(EHDR.size + header[10] * PHDR.size) // PAGE) * PAGE
    placed = []
    for flags, virtual, physical, data, size, old in segments:
        table.append(PHDR.pack(LOAD, flags, at, virtual, physical, len(data), size, PAGE))
        placed.append((old, old + len(data), at))
        body += data + bytes(-len(data) % PAGE)
        at += len(data) + -len(data) % PAGE
    for flags, start, virtual, physical, filled, size, align in notes:
        new = next(new + start - old for old, end, new in placed if old <= start and start + filled <= end)
        table.append(PHDR.pack(NOTE, flags, new, virtual, physical, filled, size, align))
    head = EHDR.pack(*header) + b"".join(table)
    with open(target, "wb") as file:
        file.write(head + bytes(-len(head) % PAGE) + body)


if __name__ == "__main__":
    main(*sys.argv[1:])
