"""What a worker in Python answers to NATS' own service discovery: $SRV.PING, $SRV.INFO and $SRV.STATS, to all services, to those of its name, and to it."""

import json, time


def answer(nc, service, worker, hosts):
    """hosts returns the nodes that the worker runs now."""
    name, started = "boltmesh-" + service, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def identity(kind):
        has = hosts()
        about = {"kind": service, "build": "python", "topologies": ",".join(sorted({h.topology for h in has})),
                 "working": str(sum(len(h.held) for h in has)), "capacity": str(sum(len(h.loops) for h in has))}
        return {"name": name, "id": worker, "version": "0.0.0", "metadata": about, "type": f"io.nats.micro.v1.{kind}_response"}

    def endpoint(h):
        shared = h.node.get("shared")
        about = {"topology": h.topology, "node": h.id, "revision": str(h.revision), "tasks": "any" if shared else ",".join(map(str, sorted(h.loops))),
                 "working": str(len(h.held)), "capacity": str(len(h.loops))}
        return {"name": f"{h.topology}-{h.id}", "subject": f"bm.{h.topology}.{h.id}." + ("any" if shared else "*"), "queue_group": ""}, about

    def ping():
        return identity("ping")

    def info():
        ends = [e | {"metadata": about} for e, about in map(endpoint, hosts())]
        return identity("info") | {"description": "a worker of boltmesh", "endpoints": ends}

    def stats():
        ends = []
        for h in hosts():
            e, about = endpoint(h)
            n, busy = h.counts["in"], int(h.busy * 1e9)
            ends.append(e | {"num_requests": n, "num_errors": h.counts["failed"], "last_error": "", "processing_time": busy,
                             "average_processing_time": busy // max(n, 1), "data": about})
        return identity("stats") | {"started": started, "endpoints": ends}

    for verb, say in ("PING", ping), ("INFO", info), ("STATS", stats):
        for who in "", f".{name}", f".{name}.{worker}":
            nc.subscribe(f"$SRV.{verb}{who}", lambda m, say=say: nc.publish(m.reply, json.dumps(say()).encode()))
