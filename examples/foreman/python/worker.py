"""A boltmesh service for bolts without state, in Python 3 and nothing else, written from docs/wire.md. A program hands its function to serve; see b.py.
It takes part as the services in Go do: it holds leases, owns its share of the tasks, is replaced when it dies, and never loses a tuple that it has taken."""

import argparse, base64, json, os, signal, socket, sys, threading, time, traceback

import discovery, wire
from natsclient import CONSUMER_NOT_FOUND, FULL_SUBJECT, WRONG_SEQUENCE, Client, Refused

LEASE, ACK_WAIT, BATCH = 3, 10, 16  # seconds, seconds, frames
MOST = 700_000  # bytes of a payload that a dead letter has room for


def now():
    return int(time.time() * 1000)


class Bucket:
    """A key-value bucket as last seen."""

    def __init__(self, nc, name, filter):
        self.nc, self.prefix, self.values, self.changed = nc, f"$KV.{name}.", {}, threading.Event()
        nc.watch("KV_" + name, [self.prefix + filter], self.take)

    def take(self, m, sequence):
        gone = "KV-Operation" in m.headers or "Nats-Marker-Reason" in m.headers
        self.values[m.subject[len(self.prefix):]] = (None if gone else m.data, sequence)
        self.changed.set()

    def get(self, key):
        return self.values.get(key, (None, 0))

    def live(self, prefix):
        return [v for k, (v, _) in list(self.values.items()) if k.startswith(prefix) and v is not None]

    def put(self, key, value, head, timeout=5):
        return self.nc.store(self.prefix + key, value, head, timeout)

    def replace(self, key, value, head=None):
        """Writes the key if it is as last seen. Returns its revision, 0 when somebody has been faster."""
        for last in (self.get(key)[1], 0):  # 0: or the bucket has forgotten that it was deleted
            try:
                return self.put(key, value, {"Nats-Expected-Last-Subject-Sequence": last} | (head or {}))
            except Refused as e:
                if e.code != WRONG_SEQUENCE:
                    raise
        return 0


class Host:
    """This worker at one node of one revision of a topology."""

    def __init__(self, service, topology, revision, node):
        self.service, self.nc, self.worker = service, service.nc, service.worker
        self.topology, self.revision, self.node, self.id = topology, revision, node, node["id"]
        self.copies = any(e["grouping"] == "all" for e in node.get("in", []))
        self.leases = Bucket(self.nc, "BM_leases", topology + ".>")
        self.letters, self.floors, self.loops, self.held = set(), {}, {}, {}
        self.stopping, self.since, self.renewed, self.counts, self.busy = threading.Event(), now(), 0, {"in": 0, "out": 0, "failed": 0}, 0.0
        self.nc.watch("BM_dead_letters", [f"{s}.{topology}.{self.id}.*" for s in ("bmdead", "bmdealt")], self.lettered, headers_only=True)
        self.asked = self.nc.subscribe(f"bmctl.{topology}.holders", self.holders)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def lettered(self, m, _):
        self.letters.add(m.subject.rsplit(".", 1)[1])

    def holders(self, m):
        """Says which of our loops hold a root."""
        root, found = json.loads(m.data), []
        for task, (roots, since, _) in list(self.held.items()):
            if (root["Origin"], root["First"]) in roots:
                at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
                found.append({"Node": self.id, "Task": task, "Worker": self.worker, "Since": at})
        self.nc.publish(m.reply, json.dumps(found).encode())

    # Owning tasks

    def run(self):
        try:
            self.hold(f"{self.topology}.member.{self.id}.{self.worker}")
        except Exception:
            self.service.fail(traceback.format_exc())  # to be started again is simpler than to go on with half of what was held

    def hold(self, key):
        renew, leaving = 0, False
        while not self.stopping.is_set() or self.loops:
            if time.time() >= renew or self.stopping.is_set() != leaving:
                renew, leaving = time.time() + LEASE / 3, self.stopping.is_set()
                self.lease(key)
            if time.time() - self.renewed > LEASE * 2 / 3:
                self.service.fail("the lease could not be renewed in time")  # whatever we hold may be somebody else's: end, and be started again
            self.leases.changed.clear()
            self.share()
            self.working()
            self.leases.changed.wait(0.25)
        self.nc.unsubscribe(self.asked)
        self.leases.put(key, b"", {"KV-Operation": "DEL"})

    def lease(self, key):
        began = time.time()
        m = {"topology": self.topology, "node": self.id, "kind": self.service.name, "worker": self.worker, "version": "python", "since": self.since,
             "revision": self.revision, "leaving": self.stopping.is_set(), "tasks": sorted(self.loops), "at": now(), **self.counts,
             "busy_us": int(self.busy * 1e6), "working": len(self.held), "capacity": len(self.loops)}
        held = [since for _, since, _ in list(self.held.values())]
        if held:
            m["held"] = int(min(held) * 1000)
        try:
            self.leases.put(key, json.dumps(m).encode(), {"Nats-TTL": f"{LEASE}s"}, LEASE / 3)
            self.renewed = began
        except TimeoutError:
            pass  # it is tried again at once, until it is too late

    def share(self):
        """Claims the tasks that are to be ours and gives up the others."""
        if self.node.get("shared"):
            if not self.stopping.is_set() and not self.loops:
                self.start(wire.SHARED, "shared", None)
        else:
            there = {m["worker"]: m["since"] for m in map(json.loads, self.leases.live(f"{self.topology}.member.{self.id}.")) if not m.get("leaving")}
            owners = [(self.leases.get(self.own(t))[0] or b"").decode() for t in range(self.node["tasks"])]
            plan = self.division(there) or (wire.assign(self.id, owners, list(there)) if there else [])
            for task, to in enumerate(plan):
                alive = self.leases.get(f"{self.topology}.member.{self.id}.{owners[task]}")[0] is not None
                if to == self.worker and not self.stopping.is_set() and task not in self.loops and (owners[task] in ("", self.worker) or not alive):
                    epoch = self.leases.replace(self.own(task), self.worker.encode())
                    if epoch:
                        self.take(task, epoch)
                elif to != self.worker and task in self.loops:
                    self.loops[task][0].set()
        for task, (stop, thread, _) in list(self.loops.items()):
            if self.stopping.is_set():
                stop.set()
            if not thread.is_alive():
                self.release(task)

    def division(self, there):
        """Who is to have each task because somebody has asked for that, while the same workers are there; None otherwise."""
        value, _ = self.leases.get(f"{self.topology}.division.{self.id}")
        d = json.loads(value) if value else {}
        if d.get("workers") == there and len(d["tasks"]) == self.node["tasks"]:
            return d["tasks"]

    def own(self, task):
        return f"{self.topology}.own.{self.id}.{task}"

    def stream(self, task):
        return f"BM_{self.topology}_{self.id}_{wire.task_name(task)}"

    def take(self, task, epoch):
        """Replaces the consumers of earlier owners by one of this epoch."""
        stream, consumer = self.stream(task), f"t{task}-e{epoch}-{os.urandom(6).hex()}"
        names, at = [], 0
        while True:
            page = self.nc.api(f"CONSUMER.NAMES.{stream}", {"offset": at})
            names, at = names + (page["consumers"] or []), at + page["limit"]
            if at >= page["total"]:
                break
        for old in names:
            try:
                self.nc.api(f"CONSUMER.DELETE.{stream}.{old}")
            except Refused as e:
                if e.code != CONSUMER_NOT_FOUND:
                    raise
        config = {"name": consumer, "durable_name": consumer, "ack_policy": "explicit", "ack_wait": ACK_WAIT * 10**9, "max_deliver": -1,
                  "max_ack_pending": 2 * BATCH, "deliver_policy": "all"}
        self.nc.api(f"CONSUMER.CREATE.{stream}.{consumer}", {"stream_name": stream, "config": config})
        self.start(task, consumer, epoch)

    def start(self, task, consumer, epoch):
        stop = threading.Event()
        thread = threading.Thread(target=self.loop, args=(task, consumer, stop), daemon=True)
        self.loops[task] = (stop, thread, epoch)
        thread.start()

    def release(self, task):
        _, _, epoch = self.loops.pop(task)
        if epoch:
            try:
                self.leases.put(self.own(task), b"", {"KV-Operation": "DEL", "Nats-Expected-Last-Subject-Sequence": epoch})
            except Refused:
                pass  # somebody else has it by now

    def working(self):
        """Tells the server of what is being worked on for long."""
        for task, (roots, since, messages) in list(self.held.items()):
            if time.time() - since > ACK_WAIT / 3:
                for m in messages:
                    self.nc.publish(m.reply, b"+WPI")

    # Working

    def loop(self, task, consumer, stop):
        most = 1 if self.node.get("shared") else BATCH  # what we hold back nobody else can begin with
        while not stop.is_set():
            try:
                messages = self.nc.pull(self.stream(task), consumer, most)
            except Refused:
                return  # another owner has replaced the consumer
            if messages:
                self.step(task, messages)

    def step(self, task, messages):
        frames = []
        for m in messages:
            try:
                frames.append(wire.decode(m.data))
            except wire.Version:
                self.service.fail("a frame of a newer version: upgrade this worker")
            except ValueError as e:
                self.letter(dict(id=wire.frame_id(self.id, task, []), payload=m.data[:4096]), task, e, len(m.data))
                frames.append((self.revision, "", []))
        everything = [t for _, _, tuples in frames for t in tuples]
        self.held[task] = ({(t["root"]["origin"], t["root"]["first"]) for t in everything}, time.time(), messages)
        for t in everything:
            o = t["root"]["origin"]
            self.floors[o] = max(self.floors.get(o, 0), t["root"]["floor"])
        out, reports = {}, []
        for revision, _, tuples in frames:
            if revision != self.revision:
                continue  # no delta: its roots come again
            ids, sums = [], {}
            for t in tuples:
                ids.append(wire.ledger_id(t["id"], self.id, task, t["root"]))
                xor = ids[-1]
                done = t["offset"] < self.floors[t["root"]["origin"]] or t["stream"] == "$tick"
                if not done and self.letter_id(t, task) in self.letters:
                    done = True
                    self.tell(t, self.letter_id(t, task), "")
                for child, to, at in [] if done else self.execute(t, task):
                    ledger = wire.ledger_id(child["id"], to, at, t["root"])
                    out.setdefault((to, at), []).append(child | {"ledger": ledger, "parent": ids[-1]})
                    xor ^= ledger
                    self.counts["out"] += 1
                self.counts["in"] += 1
                r = t["root"]
                attempt = (r["first"], r["generation"], r["count"])
                sums.setdefault(r["origin"], {})
                sums[r["origin"]][attempt] = sums[r["origin"]].get(attempt, 0) ^ xor
            reports.append((wire.frame_id(self.id, task, ids), sums))
        for (to, at), tuples in out.items():
            self.publish(to, at, tuples)
        for frame, sums in reports:
            for o, of in sums.items():
                self.nc.publish(f"bmdelta.{self.topology}.{o:016x}", wire.deltas(frame, of))
        for m in messages:
            self.nc.publish(m.reply, b"+ACK")
        self.busy += time.time() - self.held.pop(task)[1]

    def execute(self, t, task):
        """What the function emits for a tuple, with where each goes. What it fails for 5 times is a dead letter."""
        for tries in range(1, 6):
            try:
                return self.children(t, task, self.service.handle(json.loads(t["payload"]), self.node, task))
            except Exception as e:
                if tries == 5:
                    self.counts["failed"] += 1
                    self.letter(t, task, e, len(t["payload"]))
                    return []
                time.sleep(0.05 * 2**tries)

    def children(self, t, task, emitted):
        out, ordinals = [], {}
        for stream, value in emitted:
            n = ordinals[stream] = ordinals.get(stream, -1) + 1
            by = wire.by_task(task) if self.copies else bytes(16)
            child = t | {"id": wire.child_id(t["id"], self.id, stream, n, by), "stream": stream, "payload": json.dumps(value, separators=(",", ":")).encode()}
            for e in self.node.get("out", []):
                if e["stream"] == stream:
                    out += [(child, e["to"], at) for at in self.tasks(e, child, value)]
        return out

    def tasks(self, e, child, value):
        if e.get("shared"):
            return [wire.SHARED]
        if e["grouping"] == "all":
            return range(e["tasks"])
        if e["tasks"] == 1:
            return [0]
        if e["grouping"] == "fields" and e["by"] == ["device"]:
            return [wire.task_of(child["key"], e["tasks"])] if child["key"] else []
        raise ValueError(f"the edge to {e['to']} divides by {e['grouping']} {e.get('by')}, which this worker does not know")

    def publish(self, to, task, tuples):
        subject = f"bm.{self.topology}.{to}.{wire.task_name(task)}"
        while tuples:
            n, size = 0, 0
            while n < len(tuples) and n < wire.MAX_TUPLES and (n == 0 or size + cost(tuples[n]) <= wire.MAX_BYTES):
                size, n = size + cost(tuples[n]), n + 1
            some, tuples = tuples[:n], tuples[n:]
            id = wire.frame_id(to, task, [t["ledger"] for t in some]).hex()
            self.until(lambda: self.nc.store(subject, wire.encode(self.revision, self.id, some), {"Nats-Msg-Id": id}))

    def until(self, do):
        """Does it again, for as long as it takes: a full input, or a server that is away."""
        while True:
            try:
                return do()
            except (TimeoutError, Refused):
                if self.nc.closed.wait(0.25):
                    self.service.fail("the connection is lost")

    def letter(self, t, task, why, size):
        """Stores a dead letter, once; of a call, its owner is told before the tuple counts as handled."""
        r, id = t.get("root", {}), self.letter_id(t, task)
        l = {"id": id, "topology": self.topology, "node": self.id, "task": task, "worker": self.worker, "revision": self.revision,
             "source": t.get("source", ""), "stream": t.get("stream", ""), "device": t.get("key", ""), "time": t.get("time", 0), "group": t.get("group", ""),
             "payload": base64.b64encode(t["payload"][: None if size <= MOST else 4096]).decode(), "size": size, "origin": str(r.get("origin", 0)), "offset": t.get("offset", 0),
             "generation": r.get("generation", 0), "count": r.get("count", 0), "partition": 0, "error": f"{type(why).__name__}: {why}"[:250], "tries": 5, "failed_at": now()}

        def put():
            try:
                self.nc.store(f"bmdead.{self.topology}.{self.id}.{id}", json.dumps(l).encode())
            except Refused as e:
                if e.code != FULL_SUBJECT:  # there is one already
                    raise

        self.until(put)
        self.letters.add(id)
        self.tell(t, id, l["error"])

    def letter_id(self, t, task):
        """Where all tasks get a tuple, each has a letter of its own."""
        return (wire.letter_id(t["id"], self.id, task) if self.copies else t["id"]).hex()

    def tell(self, t, id, error):
        """Tells the owner of the calls of a call's dead letter, whenever its tuple is delivered."""
        r = t.get("root", {})
        if r.get("origin") == wire.origin(self.topology, "call"):
            failed = {"offset": t["offset"], "generation": r["generation"], "failure": {"node": self.id, "worker": self.worker, "letter": id, "error": error}}
            self.until(lambda: self.hear(json.dumps(failed).encode()))

    def hear(self, failed):
        if self.nc.request(f"bmctl.{self.topology}.callfailed", failed, timeout=2).data != b"ok":
            raise TimeoutError


def cost(t):
    return len(t["payload"]) + len(t["key"].encode()) + 64


class Service:
    def __init__(self, name, handle, worker, url):
        self.name, self.handle, self.worker, self.hosts = name, handle, worker, {}
        self.nc = Client(url, f"boltmesh-{name}-{worker}")
        self.applied = Bucket(self.nc, "BM_topologies", ">")
        discovery.answer(self.nc, name, worker, lambda: list(self.hosts.values()))

    def fail(self, why):
        print(f"{self.worker}: {why}", file=sys.stderr, flush=True)
        os._exit(1)

    def run(self, stop):
        while not stop.is_set() and not self.nc.closed.is_set():
            self.applied.changed.clear()
            wanted = {}
            for topology, (value, _) in list(self.applied.values.items()):
                a = json.loads(value) if value is not None else {}
                for node in a.get("nodes", []):
                    if node["service"] == self.name and not node.get("build") and not node.get("stateful"):
                        wanted[(topology, node["id"], a["revision"])] = node
            for key in [k for k in self.hosts if k not in wanted]:
                self.hosts.pop(key).stopping.set()
            for key in wanted:
                if key not in self.hosts:
                    topology, _, revision = key
                    self.hosts[key] = Host(self, topology, revision, wanted[key])
            self.applied.changed.wait(0.25)
        if self.nc.closed.is_set():
            self.fail("the connection is lost")
        for h in self.hosts.values():
            h.stopping.set()
        for h in self.hosts.values():
            h.thread.join(30)


def serve(name, handle):
    """Runs every node without state of a service until SIGTERM or SIGINT. handle(value, node, task) gets a tuple's JSON object, the node as `apply` wrote it, and
    the task; it returns pairs of a stream and a JSON object. It is called by one thread a task."""
    p = argparse.ArgumentParser(prog=name)
    p.add_argument("--worker", default=f"{socket.gethostname().split('.')[0]}-{os.getpid()}", help="name, unique among workers")
    p.add_argument("--nats-url", default=os.environ.get("BOLTMESH_NATS_URL", "nats://127.0.0.1:4222"))
    o = p.parse_args()
    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stop.set())
    Service(name, handle, o.worker, o.nats_url).run(stop)
