"""As much of a NATS client as a boltmesh worker needs, with nothing but Python 3: publish, subscribe, request, headers, JetStream pulls, a watch on a
key-value bucket. Workers in Python import it. It never reconnects: when the connection ends, `closed` is set, and the process should end too and be started
again. docs/wire.md says what is sent over it."""

import base64, json, os, queue, socket, threading
from urllib.parse import urlparse


class Msg:
    def __init__(self, subject, reply, data, headers):
        self.subject, self.reply, self.data, self.headers = subject, reply, data, headers

    def status(self):
        """The number of a status message, such as 404; 0 for any other message."""
        return int(self.headers.get("Status", 0))


class Refused(Exception):
    """An answer of JetStream that is an error; code is its error code."""

    def __init__(self, error):
        super().__init__(error.get("description", "refused"))
        self.code = error.get("err_code", 0)


WRONG_SEQUENCE, CONSUMER_NOT_FOUND, FULL_SUBJECT = 10071, 10014, 10077  # error codes


class Client:
    def __init__(self, url, name):
        u = urlparse(url)
        self.sock = socket.create_connection((u.hostname, u.port or 4222), timeout=5)
        self.sock.settimeout(None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.sock.makefile("rb")
        self.lock, self.closed = threading.Lock(), threading.Event()
        self.sids, self.next, self.pending, self.count = {}, 0, {}, 0
        info = json.loads(self.input.readline().split(b" ", 1)[1])
        if info.get("tls_required"):
            raise OSError("the server wants TLS, which this client does not speak")
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "python3", "version": "1", "name": name}
        if u.password is not None:
            options["user"], options["pass"] = u.username, u.password
        elif u.username:
            options["auth_token"] = u.username
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        line = self.input.readline()
        if not line.startswith(b"PONG"):
            raise OSError("refused: " + line.decode(errors="replace").strip())
        self.box = "_INBOX." + base64.b32encode(os.urandom(15)).decode()
        threading.Thread(target=self.read, daemon=True).start()
        self.subscribe(self.box + ".*", self.answered)

    def send(self, data):
        with self.lock:
            self.sock.sendall(data)

    def read(self):
        try:
            while True:
                line = self.input.readline()
                if not line:
                    break
                op, *args = line.decode().split()
                if op == "PING":
                    self.send(b"PONG\r\n")
                elif op in ("MSG", "HMSG"):
                    self.message(op == "HMSG", args)
                elif op == "-ERR":
                    raise OSError(line.decode().strip())
        except OSError:
            pass
        finally:
            self.closed.set()

    def message(self, headed, args):
        total, head = int(args[-1]), int(args[-2]) if headed else 0
        rest = args[2 : -2 if headed else -1]
        body = self.input.read(total + 2)[:total]
        f = self.sids.get(int(args[1]))
        if f:
            f(Msg(args[0], rest[0] if rest else "", body[head:], headers(body[:head])))

    def publish(self, subject, data=b"", reply="", head=None):
        if head is None:
            self.send(f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n")
            return
        h = ("NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in head.items()) + "\r\n").encode()
        self.send(f"HPUB {subject} {reply} {len(h)} {len(h) + len(data)}\r\n".encode() + h + data + b"\r\n")

    def subscribe(self, subject, f):
        """Has the reading thread call f with each message: f must not wait for another one. Returns what unsubscribe takes."""
        with self.lock:
            self.next += 1
            sid = self.next
            self.sids[sid] = f
        self.send(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid):
        self.sids.pop(sid, None)
        self.send(f"UNSUB {sid}\r\n".encode())

    def answered(self, m):
        q = self.pending.get(m.subject)
        if q:
            q.put(m)

    def request(self, subject, data=b"", head=None, timeout=5):
        """Returns the answer; TimeoutError when none comes, or nobody is there."""
        with self.lock:
            self.count += 1
            box = f"{self.box}.{self.count}"
        q = self.pending[box] = queue.Queue()
        try:
            self.publish(subject, data, box, head)
            m = q.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(subject) from None
        finally:
            del self.pending[box]
        if m.status() == 503:
            raise TimeoutError("nobody answers on " + subject)
        return m

    # JetStream

    def api(self, what, body=None, timeout=5):
        return checked(self.request("$JS.API." + what, json.dumps(body).encode() if body is not None else b"", timeout=timeout))

    def store(self, subject, data, head=None, timeout=5):
        """Publishes into whatever stream has the subject, and returns the message's sequence there once it is stored."""
        return checked(self.request(subject, data, head, timeout))["seq"]

    def pull(self, stream, consumer, most):
        """Up to most messages; none after a second. CONSUMER_NOT_FOUND is Refused when the consumer is gone."""
        found = self.ask(stream, consumer, {"batch": most, "no_wait": True})
        return found or self.ask(stream, consumer, {"batch": 1, "expires": 1_000_000_000})

    def ask(self, stream, consumer, what):
        with self.lock:
            self.count += 1
            box = f"{self.box}-{self.count}"
        q, found = queue.Queue(), []
        sid = self.subscribe(box, q.put)  # of its own: a message comes under the subject that it was stored with, not the one it is sent to
        try:
            self.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps(what).encode(), box)
            while len(found) < what["batch"]:
                m = q.get(timeout=5)
                if m.status() in (404, 408):  # there is no more, or was none in time
                    break
                if m.status() == 503 or m.status() == 409 and "Consumer" in m.headers.get("Description", ""):
                    raise Refused({"err_code": CONSUMER_NOT_FOUND, "description": "the consumer is gone"})
                if not m.status():
                    found.append(m)
        except queue.Empty:
            pass  # the server is busy: what it hands out later comes again after the ack wait
        finally:
            self.unsubscribe(sid)
        return found

    def watch(self, stream, subjects, f, headers_only=False):
        """Has the reading thread call f(message, its sequence) with the last message of each subject, then with each new one. Returns when the former have come."""
        box, name, ready, left = self.box.replace("_INBOX", "_WATCH") + f".{id(f)}", base64.b32encode(os.urandom(10)).decode(), threading.Event(), [None, 0]

        def take(m):
            if m.status():
                return  # a heartbeat, or flow control, which was not asked for
            f(m, int(m.reply.split(".")[5]))
            left[1] += 1
            if left[0] is not None and left[1] >= left[0]:
                ready.set()

        self.subscribe(box, take)
        config = {"name": name, "deliver_subject": box, "deliver_policy": "last_per_subject", "ack_policy": "none", "filter_subjects": subjects,
                  "mem_storage": True, "num_replicas": 1, "inactive_threshold": 60_000_000_000, "headers_only": headers_only}
        made = self.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
        left[0] = made["num_pending"] + made["delivered"]["consumer_seq"]
        if left[1] < left[0] and not ready.wait(10):
            raise TimeoutError("watch " + stream)


def headers(head):
    """Parses a block of headers. Status and Description are those of its first line, such as NATS/1.0 404 No Messages."""
    lines = head.decode(errors="replace").split("\r\n")
    status = lines[0].split(" ", 2)[1:]
    out = {}
    if status and status[0].isdigit():
        out["Status"], out["Description"] = status[0], " ".join(status[1:])
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if colon:
            out[key.strip()] = value.strip()
    return out


def checked(m):
    answer = json.loads(m.data)
    if "error" in answer:
        raise Refused(answer["error"])
    return answer
