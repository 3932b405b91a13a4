#!/usr/bin/env python3
"""B of examples/foreman in Python: it answers with the message and its own name. Run it beside or instead of the one in Go, as often as you like."""

from worker import serve


def handle(message, node, task):
    yield "reply", {"worker": f"B{task + 1}", "msg": message["msg"] + ",from StreamWorkerB"}


if __name__ == "__main__":
    serve("foreman-b", handle)
