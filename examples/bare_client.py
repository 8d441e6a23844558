"""Submit a job and print its result, with nothing but pyzmq and msgpack: a pattern for a client in another language.

    python examples/bare_client.py 127.0.0.1:5555 echo '{"hello": "world"}'

Everything it knows is in docs/protocol.md. It speaks to two of the broker's four ports: requests go to a DEALER at base port + 1, and a
SUB at base port + 2 hears how the job gets on. Every verb may be repeated without harm, so what is not answered is simply asked again.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time

import msgpack
import zmq

HELLO, SUBMIT, RESULT_GET = 0x41, 0x42, 0x47
SUBMIT_ACK, RESULT_REPLY, NACK = 0x62, 0x67, 0x7F
TERMINAL = {"done", "failed", "cancelled", "timed_out"}
RESEND, REPAIR, PATIENCE = 3.0, 5.0, 30.0


class Refused(Exception):
    """The broker said no; ``args`` are its code and its text."""


class BareClient:
    """One dialogue with one broker."""

    def __init__(self, host: str, base_port: int) -> None:
        context = zmq.Context.instance()
        self.dealer = context.socket(zmq.DEALER)
        self.sub = context.socket(zmq.SUB)
        for socket, port in ((self.dealer, base_port + 1), (self.sub, base_port + 2)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"tcp://{host}:{port}")
        self.request = 0

    def send(self, verb: int, fields: list, body: bytes | None = None) -> None:
        """One message: 'K' 'Z' major verb and a MessagePack array, then the body if there is one."""
        header = b"KZ" + bytes((1, verb)) + msgpack.packb(fields)
        self.dealer.send_multipart([header] if body is None else [header, body])

    def receive(self, seconds: float) -> tuple[int, list, bytes] | None:
        """The next message that this client can read; None when none came in time."""
        if not self.dealer.poll(max(seconds, 0) * 1000):
            return None
        header, *rest = self.dealer.recv_multipart()
        if header[:3] != b"KZ\x01":
            return None
        return header[3], msgpack.unpackb(header[4:]), rest[0] if rest else b""

    def hello(self) -> None:
        """Say who is there; messages on one connection arrive in order, so there is no need to wait for the answer."""
        self.request += 1
        self.send(HELLO, [self.request, {"versions": [1], "submitter": f"bare@{os.uname().nodename}", "pid": os.getpid()}])

    def ask(self, verb: int, fields: list, body: bytes | None, wanted: int) -> tuple[list, bytes]:
        """Send a request until it is answered. ``fields`` are those behind the request number."""
        self.request += 1
        number = self.request
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            self.send(verb, [number, *fields], body)
            resend_at = time.monotonic() + RESEND
            while (left := resend_at - time.monotonic()) > 0:
                message = self.receive(left)
                if message is None:
                    continue
                got, values, data = message
                if got == NACK:  # code, verb, request, retryable, retry_after, epoch, text
                    if values[0] == "HELLO_REQUIRED":  # we are strangers: at first, after a reconnect, after a restart of the broker
                        self.hello()
                        break  # and say it again
                    if values[0] == "VERSION" or values[2] == number:
                        raise Refused(values[0], values[6])
                elif got == wanted and values[0] == number:
                    return values, data
        raise TimeoutError("The broker does not answer.")

    def run(self, kind: str, body: dict) -> dict:
        """Submit one job and wait for its end; returns its view and result."""
        job_id = os.urandom(16)  # chosen here: the same id submitted twice is one job
        topic = b"j." + job_id[10:].hex().encode() + b"." + job_id.hex().encode() + b"."
        self.sub.setsockopt(zmq.SUBSCRIBE, topic)
        spec, octets = msgpack.packb([kind]), msgpack.packb(body)  # the other fields of a JobSpec have defaults
        self.hello()
        values, _ = self.ask(SUBMIT, [[[job_id, spec, len(octets)]]], octets, SUBMIT_ACK)
        _, code, text, *_ = values[1][0]
        if code != "OK":
            raise Refused(code, text)
        while True:
            # Events are hints: after one, and after some seconds without any, the broker is asked how the job stands.
            (_, job, _, dropped, *_), result = self.ask(RESULT_GET, [job_id.hex()], None, RESULT_REPLY)
            if job["state"] in TERMINAL:
                return {"job": job, "dropped": dropped, "result": msgpack.unpackb(result, ext_hook=show) if result else None}
            if self.sub.poll(REPAIR * 1000):
                while self.sub.poll(0):
                    self.sub.recv_multipart()


def show(code: int, data: bytes) -> str:
    """The two extension types of bodies, as something that can be printed."""
    if code == 2:
        microseconds = int.from_bytes(data, "big", signed=True)
        return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)).isoformat()
    dtype, shape, _ = msgpack.unpackb(data)
    return f"<array {dtype} {shape}>"


def main(argv: list[str]) -> int:
    if len(argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    host, _, port = argv[0].removeprefix("tcp://").rpartition(":")
    try:
        outcome = BareClient(host, int(port)).run(argv[1], json.loads(argv[2]))
    except Refused as refusal:
        print(f"refused: {refusal.args[0]}: {refusal.args[1]}", file=sys.stderr)
        return 3
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 4
    job = outcome["job"]
    if job["state"] != "done":
        error, text, *_ = job["failure"] or ("", "")
        print(f"{job['state']} ({job['reason']}) {error}: {text}", file=sys.stderr)
        return 1
    print(json.dumps(outcome["result"], default=repr))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
