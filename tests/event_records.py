# SPDX-License-Identifier: Apache-2.0
"""Event files read with the standard library: records with their checksums, protocol buffers field by field."""
import glob
import os
import struct


def crc32c(data):
    """CRC-32C bit by bit, as RFC 3720 defines it."""
    c = 0xFFFFFFFF
    for byte in data:
        c ^= byte
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
    return c ^ 0xFFFFFFFF


def masked(data):
    c = crc32c(data)
    return ((c >> 15 | c << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    """The records of a file; a byte that is wrong or missing is an error."""
    at = 0
    while at < len(data):
        (length,), head = struct.unpack_from("<Q", data, at), data[at:at + 8]
        (check,) = struct.unpack_from("<I", data, at + 8)
        if check != masked(head):
            raise ValueError(f"byte {at}: the length's checksum is {check:08x}")
        record = data[at + 12:at + 12 + length]
        (check,) = struct.unpack_from("<I", data, at + 12 + length)
        if check != masked(record):
            raise ValueError(f"byte {at}: the record's checksum is {check:08x}")
        yield record
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def message(data):
    """{field: [values]}: numbers of varints, bytes of all else."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(data, at)
        else:
            n = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                n, at = varint(data, at)
            value, at = data[at:at + n], at + n
            if len(value) != n:
                raise ValueError("a field is cut off")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def doubles(data):
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def value_of(fields):
    """("scalar", x), ("histogram", {..}) or ("text", string) of a Summary.Value."""
    if 2 in fields:
        return "scalar", struct.unpack("<f", fields[2][0])[0]
    if 5 in fields:
        h = message(fields[5][0])
        least, greatest, n, total, squares = (doubles(h[k][0])[0] for k in range(1, 6))
        return "histogram", {"least": least, "greatest": greatest, "n": n, "sum": total, "squares": squares,
                             "edges": doubles(h[6][0]), "counts": doubles(h[7][0])}
    tensor, plugin = message(fields[8][0]), message(message(fields[9][0])[1][0])
    if tensor[1] != [7] or plugin[1] != [b"text"]:
        raise ValueError("a tensor that is no text")
    return "text", tensor[8][0].decode()


def messages(path):
    """The events after the version."""
    with open(path, "rb") as file:
        all_events = [message(record) for record in records(file.read())]
    if all_events[0][3] != [b"brain.Event:2"]:
        raise ValueError("no version in front")
    return all_events[1:]


def restart(path):
    """The step from which on what earlier files say is void; None: the file says nothing of that."""
    steps = [event[2][0] for event in messages(path) if 7 in event and message(event[7][0]) == {1: [1]}]
    return steps[0] if steps else None


def events(path):
    """(wall time, step, tag, kind, value) of each that has a value."""
    for event in messages(path):
        if 5 not in event:
            continue
        step = event.get(2, [0])[0]
        for summary in message(event[5][0])[1]:
            fields = message(summary)
            yield (doubles(event[1][0])[0], step, fields[1][0].decode(), *value_of(fields))


def files(folder):
    return sorted(glob.glob(os.path.join(folder, "events.out.tfevents.*")), key=os.path.getmtime)


def by_tag(path):
    """{tag: (kind, {step: value})}; a step that a tag has twice is an error."""
    found = {}
    for _, step, tag, kind, value in events(path):
        have = found.setdefault(tag, (kind, {}))
        if have[0] != kind or step in have[1]:
            raise ValueError(f"{tag} is {have[0]} and {kind}, or has step {step} twice")
        have[1][step] = value
    return found
