"""An OpenAI-compatible endpoint: chat completions, a deadline over everything, what a server can.

Servers differ in whether they keep to a JSON schema: some refuse it, some answer 200 and ignore it.
So the first call asks for a word that no model would say by itself, and what comes back tells.
Below ``json_schema`` are ``json_object`` and plain text, for which the schema stands in the prompt.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import urlsplit

from kat_otel.analyzer.clean import clean
from kat_otel.analyzer.pack import token_count
from kat_otel.analyzer.prompt import Message
from kat_otel.analyzer.reasons import Failure
from kat_otel.errors import ConfigError, EndpointError, MissingDependencyError

if TYPE_CHECKING:
    import httpx2
    import openai
    from openai.types.chat import ChatCompletion

__all__ = ["Client", "Endpoint", "Form", "Reply", "Tokens", "body"]

Form = Literal["json_schema", "json_object", "text"]
_PROBED: Final[tuple[Form, ...]] = ("json_schema", "json_object")
_MOST_BYTES: Final = 4 << 20
_PROBE_TOKENS: Final = 256
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NO_SUCH_WISH: Final = frozenset({400, 404, 415, 422, 500, 501})
"""How servers say that they don't know a response_format; the others say that they can't now."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers.

    Attributes:
        url: up to and with ``/v1``.
        model: name of the model there.
        key: sent as bearer token; printed nowhere.
        insecure: whether plain text may go to another machine.
        timeout_s: of one request; ``connect_s``: of its connection.
        retries: of a request that may succeed if sent again (no connection, 408, 409, 429, 5xx),
            with the waits of the ``openai`` library, which keeps to ``Retry-After``.
        max_tokens: of an answer.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    insecure: bool = False
    timeout_s: float = 60.0
    connect_s: float = 5.0
    retries: int = 1
    max_tokens: int = 900

    def __post_init__(self) -> None:
        """Refuses what cannot be called, or would send in plain text what nobody else may read."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                f"endpoint {clean(self.url)!r}: no URL of a server — write http(s)://HOST:PORT/v1"
            )
        if parts.username or parts.password:
            raise ConfigError(
                "endpoint: a password in the URL would be logged — give it as the key"
            )
        plain = parts.scheme == "http" and parts.hostname not in _LOOPBACK
        if plain and not self.insecure:
            raise ConfigError(
                f"endpoint {self.url}: facts and key could be read on the way — use https, or "
                "allow it: insecure"
            )


@dataclass(frozen=True, slots=True)
class Tokens:
    """What calls cost.

    Attributes:
        estimated: the server did not count, or not always: these are then upper bounds of ours.
    """

    prompt: int = 0
    completion: int = 0
    estimated: bool = False

    def __add__(self, other: Tokens) -> Tokens:
        """Returns the sum."""
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text, whether it was cut at the most tokens, what it cost."""

    text: str
    cut: bool
    tokens: Tokens


def body(
    endpoint: Endpoint, messages: Sequence[Message], schema: dict[str, Any], form: Form
) -> dict[str, Any]:
    """Returns what is posted to ``/chat/completions``, whole."""
    wish: dict[Form, dict[str, Any]] = {
        "json_schema": {
            "type": "json_schema",
            "json_schema": {"name": "diagnosis", "strict": True, "schema": schema},
        },
        "json_object": {"type": "json_object"},
    }
    request: dict[str, Any] = {
        "model": endpoint.model,
        "messages": list(messages),
        "max_tokens": endpoint.max_tokens,
        "temperature": 0,
    }
    return request | ({"response_format": wish[form]} if form in wish else {})


class Client:
    """Asks one model; made once and used by any number of tasks of one event loop.

    Args:
        endpoint: where.
        form: what the server can, if it is known; None finds it out by the first call.

    Attributes:
        tokens: what all calls cost together, probes included.
        calls: requests made, without the library's own retries.

    Raises:
        MissingDependencyError: ``openai`` is not installed.
    """

    def __init__(self, endpoint: Endpoint, form: Form | None = None) -> None:
        self.endpoint = endpoint
        self.tokens = Tokens()
        self.calls = 0
        self._form: Form | None = form
        self._probing = asyncio.Lock()
        self._renamed: set[str] = set()
        self._openai, self._http = _library()
        self._client = self._made()

    async def form(self) -> Form:
        """Returns what the server keeps to; asks it once.

        Raises:
            EndpointError: it does not answer.
        """
        async with self._probing:  # of many tasks the first asks, the others wait for it
            known = self._form or await self._probe()
            self._form = known
            return known

    def step_down(self, form: Form) -> Form:
        """Returns what to try where ``form`` was not accepted, from now on for all."""
        if self._form == form:
            self._form = "json_object" if form == "json_schema" else "text"
        return self._form or form

    async def ask(self, messages: Sequence[Message], schema: dict[str, Any], form: Form) -> Reply:
        """Returns the model's answer.

        Raises:
            EndpointError: there is none; the error's ``reason`` is one of ``Failure``.
        """
        request = body(self.endpoint, messages, schema, form)
        answer = await self._create(request, self.endpoint.retries)
        choice = answer.choices[0] if answer.choices else None
        text = (choice.message.content if choice else None) or ""
        cost = _cost(answer, request, text)
        self.tokens += cost
        if choice and (choice.message.refusal or choice.finish_reason == "content_filter"):
            raise EndpointError("refused", f"{self._where}: the model declined to answer")
        if not text.strip():
            raise EndpointError(
                "empty",
                f"{self._where}: an answer without text — raise max_tokens if it thinks first",
            )
        return Reply(text, choice is not None and choice.finish_reason == "length", cost)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    @property
    def _where(self) -> str:
        return f"{self.endpoint.url} ({clean(self.endpoint.model, 60)})"

    def _made(self) -> openai.AsyncOpenAI:
        end = self.endpoint
        timeout = self._http.Timeout(end.timeout_s, connect=end.connect_s)
        # What the environment has of OpenAI's is for OpenAI, and this may be anybody's server.
        nothing = self._openai.Omit()
        client = self._openai.AsyncOpenAI(
            base_url=end.url,
            api_key=end.key or "none",  # servers without keys take any; an empty one is refused
            default_headers={"OpenAI-Organization": nothing, "OpenAI-Project": nothing},
            max_retries=end.retries,
            timeout=timeout,
            http_client=self._http.AsyncClient(
                timeout=timeout,
                follow_redirects=False,  # nothing leaves but to the endpoint that was named
                headers={"accept-encoding": "identity"},
                event_hooks={"response": [self._bound]},
            ),
        )
        return cast("openai.AsyncOpenAI", client)

    async def _bound(self, response: httpx2.Response) -> None:
        http = self._http
        whole = cast("httpx2.AsyncByteStream", response.stream)

        class Bounded(http.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                size = 0
                async for part in whole:
                    size += len(part)
                    if size > _MOST_BYTES:
                        raise http.ReadError(f"more than {_MOST_BYTES:,} bytes")
                    yield part

            async def aclose(self) -> None:
                await whole.aclose()

        response.stream = Bounded()

    async def _probe(self) -> Form:
        """Returns the highest rung of the ladder that the server keeps to."""
        word = f"kat{secrets.token_hex(6)}"
        schema = {
            "type": "object",
            "properties": {"word": {"type": "string", "enum": [word]}},
            "required": ["word"],
            "additionalProperties": False,
        }
        asked = [{"role": "user", "content": "Answer with a JSON object with the key word."}]
        for form in _PROBED:
            request = body(self.endpoint, asked, schema, form) | {"max_tokens": _PROBE_TOKENS}
            try:
                answer = await self._create(request, retries=0)
            except EndpointError as error:
                if error.status in _NO_SUCH_WISH:
                    continue
                raise
            text = (answer.choices[0].message.content if answer.choices else None) or ""
            self.tokens += _cost(answer, request, text)
            try:
                said: Any = json.loads(text)
            except ValueError:
                continue
            if isinstance(said, dict) and (form == "json_object" or said == {"word": word}):
                return form
        return "text"

    async def _create(self, request: dict[str, Any], retries: int) -> ChatCompletion:
        """Posts a request; where a server wants a parameter otherwise, once more as it wants it."""
        while True:
            self.calls += 1
            try:
                client = self._client.with_options(max_retries=retries)
                create = cast(
                    "Callable[..., Awaitable[ChatCompletion]]", client.chat.completions.create
                )
                return await create(**self._as_wanted(request))
            except self._openai.APIStatusError as error:
                if error.status_code == 400 and self._learns(error.message, request):
                    continue
                raise self._of_status(error) from None  # its request holds the key
            except self._openai.APITimeoutError:
                raise EndpointError(
                    "timeout", f"{self._where}: no answer within {self.endpoint.timeout_s:g} s"
                ) from None
            except (self._openai.APIError, ValueError) as error:
                raise EndpointError(
                    "unreachable",
                    f"{self._where} does not answer as a chat endpoint ({self._why(error)}) — is "
                    "it up, and does the URL end with /v1?",
                ) from None

    def _as_wanted(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted = dict(request)
        if "max_tokens" in self._renamed:
            wanted["max_completion_tokens"] = wanted.pop("max_tokens")
        if "temperature" in self._renamed:
            del wanted["temperature"]
        return wanted

    def _learns(self, message: str, request: dict[str, Any]) -> bool:
        """Says whether the refusal names a parameter that newer servers want otherwise."""
        for name in ("max_tokens", "temperature"):
            if name in message and name not in self._renamed and name in request:
                self._renamed.add(name)
                return True
        return False

    def _of_status(self, error: openai.APIStatusError) -> EndpointError:
        status = error.status_code
        reason, remedy = _meaning(status)
        said = f" ({self._without_key(error.message)})" if status not in {401, 403} else ""
        return EndpointError(
            reason, f"{self._where} answered {status}{said} — {remedy}", status=status
        )

    def _why(self, error: Exception) -> str:
        return self._without_key(str(error.__cause__ or error)) or type(error).__name__

    def _without_key(self, text: str) -> str:
        key = self.endpoint.key
        return clean(text.replace(key, "…") if key else text, 200)


def _meaning(status: int) -> tuple[Failure, str]:
    if status in {401, 403}:
        return "not_allowed", "the key is missing or wrong"
    if status == 404:
        return "no_such_model", "is the model's name right, and does the URL end with /v1?"
    if status == 429:
        return "overloaded", "it has too many requests"
    if status in {408, 504}:
        return "timeout", "it took too long"
    if status >= 500:
        return "server_error", "see the server's log"
    return "not_accepted", "the server refuses the request"


def _cost(answer: ChatCompletion, request: dict[str, Any], text: str) -> Tokens:
    if answer.usage is not None:
        return Tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    asked = sum(token_count(message["content"]) for message in request["messages"])
    return Tokens(asked, token_count(text), estimated=True)


def _library() -> tuple[Any, Any]:
    try:
        import httpx2  # noqa: PLC0415 - an extra: whoever asks no model needs neither
        import openai  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "asking a model needs the package openai 3, which is not installed: "
            "pip install 'kat-otel[processor,analyzer]'"
        ) from error
    return openai, httpx2
