"""A server that answers as OpenAI's does, well or badly, over real HTTP in a thread of the test."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Answering = Callable[[Request], "Said"]


@dataclass
class Said:
    """What it answers: text of the model, or a status with a body."""

    text: str | None = ""
    status: int = 200
    error: str = ""
    finish: str = "stop"
    usage: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0.0
    raw: bytes | None = None


def keeps_schemas(answer: Answering) -> Answering:
    """A server that enforces schemas: it passes the probe, and answers the rest."""

    def answering(request: Request) -> Said:
        wish = request.get("response_format", {})
        properties = wish.get("json_schema", {}).get("schema", {}).get("properties", {})
        if "word" in properties:
            return Said(json.dumps({"word": properties["word"]["enum"][0]}))
        return answer(request)

    return answering


def grounded(request: Request) -> Said:
    """A model that takes the first cause in question, cites every fact and writes no number."""
    properties = request["response_format"]["json_schema"]["schema"]["properties"]
    cause = properties["root_cause"]["enum"][0]
    (component,) = re.findall(
        rf"^{cause} \((\w+)\): ", request["messages"][1]["content"], re.MULTILINE
    )
    ids = properties["causal_chain"]["items"]["properties"]["evidence_ids"]
    names, most = ids["items"]["enum"], ids["maxItems"]
    chain = [
        {"evidence_ids": names[at : at + most], "claim": "so the others wait"}
        for at in range(0, len(names), most)
    ]
    return Said(
        json.dumps(
            {
                "root_cause": cause,
                "component": component,
                "culprit_ranks": properties["culprit_ranks"]["items"].get("enum", []),
                "causal_chain": chain[: properties["causal_chain"]["maxItems"]],
                "hypotheses": [],
                "actions": ["A1"],
                "confidence": "medium",
                "abstained": False,
                "summary": "",
            }
        )
    )


@dataclass
class Server:
    """What came in, and where it listens."""

    url: str
    requests: list[Request] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    going: threading.Event = field(default_factory=threading.Event)

    @property
    def about(self) -> list[Request]:
        """The requests that were no probe."""
        return [r for r in self.requests if len(r["messages"]) > 1]


@contextmanager
def serving(answer: Answering) -> Iterator[Server]:
    """Serves until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            request = json.loads(raw)
            server.requests.append(request)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            assert self.path == "/v1/chat/completions"
            self._send(answer(request), request)

        def _send(self, said: Said, request: Request) -> None:
            body = said.raw if said.raw is not None else json.dumps(_body(said, request)).encode()
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                for at in range(len(body)) if said.drip_s else ():
                    if server.going.wait(said.drip_s):
                        return
                    self.wfile.write(body[at : at + 1])
                    self.wfile.flush()
                if not said.drip_s:
                    self.wfile.write(body)
            except OSError:  # the client has had enough
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.going.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _body(said: Said, request: Request) -> dict[str, Any]:
    if said.status != 200:
        return {"error": {"message": said.error or "no", "type": "error", "code": None}}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "finish_reason": said.finish,
            }
        ],
        **(
            {"usage": {"prompt_tokens": 700, "completion_tokens": 90, "total_tokens": 790}}
            if said.usage
            else {}
        ),
    }
