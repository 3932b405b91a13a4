"""The bytes of boltmesh: frames, deltas and ids, as docs/wire.md describes them. worker.py talks with them. Nothing here connects to anything."""

import hashlib, struct

SHARED, MASK = -1, (1 << 64) - 1
MAX_TUPLES, MAX_BYTES = 256, 64 << 10  # of one frame


def task_name(task):
    return "any" if task == SHARED else str(task)


class Reader:
    def __init__(self, b):
        self.b, self.at = b, 0

    def take(self, n):
        if self.at + n > len(self.b):
            raise ValueError("it ends too early")
        self.at += n
        return self.b[self.at - n : self.at]

    def u8(self):
        return self.take(1)[0]

    def u64(self):
        return struct.unpack("<Q", self.take(8))[0]

    def uvarint(self):
        n = shift = 0
        while True:
            c = self.u8()
            n |= (c & 127) << shift
            if c < 128:
                return n
            shift += 7

    def varint(self):
        n = self.uvarint()
        return n >> 1 ^ -(n & 1)

    def data(self):
        return self.take(self.uvarint())

    def text(self):
        return self.data().decode()


class Version(Exception):
    """A frame of a newer version: this worker must be upgraded before it goes on."""


def decode(b):
    """A frame's revision, source and tuples. ValueError: it is damaged."""
    r = Reader(b)
    if r.u8() != 0xB7:
        raise ValueError("not a frame")
    if r.u8() != 1:
        raise Version()
    revision, source = r.uvarint(), r.text()
    streams = [r.text() for _ in range(r.uvarint())]
    roots = [dict(origin=r.u64(), first=r.varint(), generation=r.uvarint(), count=r.uvarint(), floor=r.varint()) for _ in range(r.uvarint())]
    tuples = []
    for _ in range(r.uvarint()):
        flags = r.u8()
        if flags & ~3:
            raise ValueError("unknown flags")
        t = {"id": r.take(16), "root": roots[r.uvarint()], "stream": streams[r.uvarint()], "source": source}
        t["offset"], t["time"], t["key"] = t["root"]["first"] + r.varint(), r.varint(), r.text()
        t["trace"] = r.take(24)[:16] if flags & 1 else None
        t["group"], t["n"] = (r.text(), r.uvarint()) if flags & 2 else ("", 0)
        t["payload"] = r.data()
        tuples.append(t)
    if r.at != len(b):
        raise ValueError("bytes after the last tuple")
    return revision, source, tuples


def uvarint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def varint(n):
    return uvarint(n << 1 if n >= 0 else (-n << 1) - 1)


def data(b):
    return uvarint(len(b)) + b


def encode(revision, source, tuples):
    """A frame of tuples as decode returns them, with the ledger id of each as "ledger"."""
    streams, roots = [], []
    for t in tuples:
        if t["stream"] not in streams:
            streams.append(t["stream"])
        if t["root"] not in roots:
            roots.append(t["root"])
    out = bytes([0xB7, 1]) + uvarint(revision) + data(source.encode()) + uvarint(len(streams)) + b"".join(data(s.encode()) for s in streams)
    out += uvarint(len(roots))
    for r in roots:
        out += struct.pack("<Q", r["origin"]) + varint(r["first"]) + uvarint(r["generation"]) + uvarint(r["count"]) + varint(r["floor"])
    out += uvarint(len(tuples))
    for t in tuples:
        out += bytes([1 if t["trace"] else 0]) + t["id"] + uvarint(roots.index(t["root"])) + uvarint(streams.index(t["stream"]))
        out += varint(t["offset"] - t["root"]["first"]) + varint(t["time"]) + data(t["key"].encode())
        if t["trace"]:
            out += t["trace"] + struct.pack(">Q", t["parent"])  # the span in which it was emitted
        out += data(t["payload"])
    return out


def deltas(frame, sums):
    """A delta message for one frame: sums maps (first, generation, count) to the XOR of its ledger ids."""
    out = bytes([0xB7, 1]) + uvarint(len(sums))
    for (first, generation, count), xor in sums.items():
        out += frame + varint(first) + uvarint(generation) + uvarint(count) + struct.pack("<Q", xor)
    return out


def H(b):
    return hashlib.sha256(b).digest()[:16]


def h64(b):
    return struct.unpack("<Q", hashlib.sha256(b).digest()[:8])[0]


def name(s):
    return h64(s.encode())


def origin(*parts):
    return h64(b"".join(data(p.encode()) for p in parts))


def rounds(x, *words):
    lo, hi = struct.unpack("<QQ", x)
    for w in words:
        lo, hi = hi ^ mix(lo ^ w), lo
    return struct.pack("<QQ", lo, hi)


def child_id(parent, node, stream, ordinal, by=bytes(16)):
    return rounds(parent, *struct.unpack("<QQ", by), name(node), name(stream), ordinal, 0)


def letter_id(id, node, task):
    """The id of a tuple's dead letter where all tasks get it."""
    return rounds(id, *struct.unpack("<QQ", by_task(task)), name(node), 0, 0, 0)


def by_task(task):
    return H(b"t" + struct.pack("<i", task))


def mix(z):
    z = z + 0x9E3779B97F4A7C15 & MASK
    return finish(z)


def finish(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def ledger_id(id, node, task, root):
    lo, hi = struct.unpack("<QQ", id)
    return mix(mix(mix(lo ^ name(node)) ^ hi ^ task & 0xFFFFFFFF) ^ (root["generation"] << 32 | root["count"]))


def frame_id(node, task, ids):
    return H(b"f" + struct.pack("<Qi", name(node), task) + struct.pack("<%dQ" % len(ids), *ids))


def task_of(key, tasks):
    h = 2166136261
    for c in key.encode():
        h = (h ^ c) * 16777619 & 0xFFFFFFFF
    return h % tasks


def score(node, task, worker):
    """How much a worker wants a task: FNV-1a, 64 bits, finished."""
    h = 0xCBF29CE484222325
    for c in node.encode() + bytes([0, task & 255, task >> 8 & 255]) + worker.encode():
        h = (h ^ c) * 0x100000001B3 & MASK
    return finish(h)


def assign(node, owners, workers):
    """Who is to have each task: owners says who has it now, "" for nobody."""
    workers = sorted(set(workers))
    has = {w: [t for t, o in enumerate(owners) if o == w] for w in workers}
    least, more = divmod(len(owners), len(workers))
    ranks = sorted(workers, key=lambda w: (len(has[w]) <= least, -score(node, -1, w), w))
    room = {w: least + (i < more) for i, w in enumerate(ranks)}
    out = [""] * len(owners)
    for w in workers:
        for t in sorted(has[w], key=lambda t: (-score(node, t, w), t))[: room[w]]:
            out[t] = w
            room[w] -= 1
    for t, w in enumerate(out):
        if not w:
            out[t] = max((w for w in workers if room[w] > 0), key=lambda w: (score(node, t, w)))
            room[out[t]] -= 1
    return out
