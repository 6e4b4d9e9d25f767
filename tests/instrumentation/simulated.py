"""Workers whose steps are simulated, and a collector that answers as it is told."""

from __future__ import annotations

import gzip
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from kat_otel.identity import nonce_of
from kat_otel.instrumentation.capture.records import Batch, StepFlag
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.steps.step import Step
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.otlp import decode_traces
from kat_otel.spans import Resource, SpanTable

INSTANCE = "llama"
NONCE = nonce_of("llama run 1")
ZERO_NS = 1_800_000_000_000_000_000


def program_of(ranks: int, layers: int = 2) -> Program:
    """A decode step of a few layers."""
    return decode_program(replace(LLAMA_70B, layers=layers), workers(ranks, instance=INSTANCE))


def steps_of(group: Group, step: int, program: Program | None = None) -> list[Step]:
    """One step of all ranks, as a step maker closes it: no ids, no resource, no attributes."""
    noisy, times = group.play(step, program)
    zero = ZERO_NS + step * 10**8
    ranks = range(group.program.ranks)
    return [bare(to_table(noisy, times, step=step, zero_unix_ns=zero, rows=[r])) for r in ranks]


def bare(table: SpanTable, **said: object) -> Step:
    """A table as a step that has just closed."""
    none = np.zeros(len(table), np.uint64)
    table = replace(
        table,
        resources=(Resource(),),
        trace_hi=none,
        trace_lo=none,
        span_id=none,
        parent_id=none,
        attributes={},
    )
    given = {"step": int(table.step[0]), "micro": 0, "flags": StepFlag.NONE} | said
    return Step(table=table, **given)


def worker_of(group: Group, rank: int) -> Worker:
    """Who a rank of the group is."""
    return Worker(group.program.resources[rank], NONCE, group.program.ranks)


class Track:
    """A source and a step maker in one: what the test puts on it comes out as closed steps."""

    def __init__(self, worker: Worker | None) -> None:
        self.worker = worker
        self.orders: list[str] = []
        self.ordered = threading.Condition()
        self.closed = False
        self.defects: list[Exception] = []
        self._made = 0
        self._steps: queue.SimpleQueue[Step | Batch | None] = queue.SimpleQueue()
        self._taken: list[Step] = []
        self._batch = Batch()

    def put(self, *steps: Step | Batch | None) -> None:
        """Steps (or a batch without one) for the sender; None is the end of the worker."""
        for step in steps:
            self._steps.put(step)

    def take(self, timeout: float) -> Batch:
        try:
            step = self._steps.get(timeout=timeout) if timeout else self._steps.get_nowait()
        except queue.Empty:
            return self._batch
        if self.defects:
            raise self.defects.pop()
        if isinstance(step, Batch):
            self._batch = replace(self._batch, loss=step.loss, busy_ns=step.busy_ns)  # only grow
            return step
        if step is None:
            return replace(self._batch, ended=True)
        self._taken.append(step)
        return self._batch

    def add(self, _: Batch) -> list[Step]:
        steps, self._taken = self._taken, []
        with self.ordered:
            self._made += len(steps)
            self.ordered.notify_all()
        return steps

    def flush(self) -> list[Step]:
        return []

    def order(self, mode: str) -> None:
        with self.ordered:
            self.orders.append(mode)
            self.ordered.notify_all()

    def close(self) -> None:
        self.closed = True

    def wait_taken(self, steps: int, timeout: float = 10.0) -> None:
        """Waits until so many steps have closed."""
        with self.ordered:
            assert self.ordered.wait_for(lambda: self._made >= steps, timeout), self._made

    def wait_ordered(self, mode: str, timeout: float = 10.0) -> None:
        with self.ordered:
            told = self.ordered.wait_for(lambda: self.orders[-1:] == [mode], timeout)
        assert told, f"ordered {self.orders}, waited for {mode}"


@dataclass
class Request:
    """What came in one request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def table(self) -> SpanTable:
        data = self.body
        if self.headers.get("content-encoding") == "gzip":
            data = gzip.decompress(data)
        return decode_traces(data)


@dataclass
class Reply:
    """What the collector answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Collector:
    """A real HTTP server; answers from ``replies`` first, then with ``reply``."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self.reply: Callable[[Request], Reply] = lambda _: Reply()
        self.changed = threading.Condition()
        self.peers: list[socket.socket] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(self.path, headers, body)
                with collector.changed:
                    collector.requests.append(request)
                    collector.changed.notify_all()
                try:
                    reply = collector.replies.get_nowait()
                except queue.Empty:
                    reply = collector.reply(request)
                self.send_response(reply.status)
                for key, value in reply.headers.items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                peer, address = super().get_request()
                collector.peers.append(peer)
                return peer, address

            def handle_error(self, *_: object) -> None:
                pass  # a sender that goes away in the middle is what some tests are about

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def wait_for(self, condition: Callable[[Sequence[Request]], bool], timeout=15.0) -> None:
        with self.changed:
            came = self.changed.wait_for(lambda: condition(self.requests), timeout)
        assert came, f"the collector waited in vain, with {len(self.requests)} requests"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for peer in self.peers:
            with suppress(OSError):  # it went first
                peer.shutdown(socket.SHUT_RDWR)
        self._thread.join()
