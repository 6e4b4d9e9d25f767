"""Who may send, over both protocols: TLS, client certificates, bearer tokens; and no secret told.

Each case sends one good request in every packing that the protocol has.
"""

import logging
import socket

import pytest

from kat_otel.otlp import encode_traces
from kat_otel.processor import auth
from tests.processor.receiving import Pki, Receivers, by_grpc, by_http

GOOD, OTHER, BAD = "good-token-7f3a", "other-token-91bc", "bad-token-55de"


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    """Settings go to the port of the protocol under test; ``send`` talks to it."""

    class Protocol:
        name = request.param

        @staticmethod
        def receivers(**settings) -> Receivers:
            return Receivers(**settings) if request.param == "grpc" else Receivers(http=settings)

        @staticmethod
        def send(receivers, data, **how):
            if request.param == "grpc":
                return by_grpc(receivers.grpc.port, data, **how)
            return by_http(receivers.http.port, data, **how)

    return Protocol


@pytest.fixture
def spans(fleet) -> bytes:
    return b"".join(encode_traces(fleet.rank(0, 0)))


def packings(protocol) -> list[str]:
    return ["identity", "gzip", "deflate"] + (["zstd"] if protocol.name == "http" else [])


def test_plain_text_in_every_packing(protocol, spans):
    with protocol.receivers() as receivers:
        for encoding in packings(protocol):
            assert protocol.send(receivers, spans, encoding=encoding).outcome == "taken"
    assert [len(batch.table) for batch in receivers.taken()] == [11] * len(packings(protocol))


def test_tls_in_every_packing(protocol, spans, pki):
    with protocol.receivers(tls=pki.tls()) as receivers:
        for encoding in packings(protocol):
            told = protocol.send(receivers, spans, encoding=encoding, tls=pki.caller())
            assert told.outcome == "taken"
        assert protocol.send(receivers, spans).outcome in {"unreachable", "later"}  # plain text
    assert len(receivers.taken()) == len(packings(protocol))


def test_mutual_tls_lets_in_who_shows_our_authoritys_certificate(protocol, spans, pki):
    with protocol.receivers(tls=pki.tls(mutual=True)) as receivers:
        ours = protocol.send(receivers, spans, tls=pki.caller(pki.client))
        nobody = protocol.send(receivers, spans, tls=pki.caller())
        stranger = protocol.send(receivers, spans, tls=pki.caller(pki.stranger))
    assert ours.outcome == "taken"
    assert (nobody.outcome, stranger.outcome) == ("unreachable", "unreachable")
    assert len(receivers.taken()) == 1


def test_a_bearer_token_lets_in(protocol, spans, pki):
    with protocol.receivers(auth={"token": GOOD}, tls=pki.tls()) as receivers:
        for encoding in packings(protocol):
            told = protocol.send(receivers, spans, encoding=encoding, token=GOOD, tls=pki.caller())
            assert told.outcome == "taken"
        for token in (None, "", BAD, GOOD + "x", GOOD[:-1]):
            told = protocol.send(receivers, spans, token=token, tls=pki.caller())
            assert told.outcome == "denied", token
    assert len(receivers.taken()) == len(packings(protocol))


def test_who_may_not_call_is_told_so_before_the_request_is_read(protocol):
    with protocol.receivers(auth={"token": GOOD}) as receivers:
        told = protocol.send(receivers, b"no OTLP at all", token=BAD)
    assert told.outcome == "denied"
    assert receivers.books.marked("requests invalid") == 0


def test_a_token_file_can_be_rotated_without_a_refusal(protocol, spans, tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "_CHECK_EVERY_S", 0.0)
    file = tmp_path / "tokens"
    file.write_text(f"{GOOD}\n")
    with protocol.receivers(auth={"token_file": str(file)}) as receivers:

        def outcome(token: str) -> str:
            return protocol.send(receivers, spans, token=token).outcome

        assert (outcome(GOOD), outcome(OTHER)) == ("taken", "denied")
        file.write_text(f"{GOOD}\n{OTHER}\n")
        assert (outcome(GOOD), outcome(OTHER)) == ("taken", "taken")
        file.write_text(f"{OTHER}\n")
        assert (outcome(GOOD), outcome(OTHER)) == ("denied", "taken")


def test_no_secret_is_ever_told(protocol, spans, tmp_path, caplog, capfd, monkeypatch):
    monkeypatch.setattr(auth, "_CHECK_EVERY_S", 0.0)
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "tokens"
    file.write_text(f"{OTHER}\n")
    settings = {"token": GOOD, "token_file": str(file)}
    with protocol.receivers(auth=settings) as receivers:
        shown = [repr(vars(holder)) for holder in (receivers.grpc, receivers.http)]
        told = [
            protocol.send(receivers, data, token=token)
            for token in (GOOD, OTHER, BAD)
            for data in (spans, b"\xff\xff")
        ]
        file.write_text(f"{OTHER}\n{OTHER}-next\n")
        told.append(protocol.send(receivers, spans, token=f"{OTHER}-next"))
    assert [t.outcome for t in told] == [
        *("taken", "never", "taken", "never", "denied", "denied", "taken")
    ]
    seen = "\n".join([*shown, *(t.message for t in told), caplog.text, *capfd.readouterr()])
    for secret in (GOOD, OTHER, BAD):
        assert secret not in seen


def test_peers_that_never_shake_hands_hold_nothing_up(protocol, spans, pki):
    with protocol.receivers(tls=pki.tls()) as receivers:
        port = receivers.grpc.port if protocol.name == "grpc" else receivers.http.port
        held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
        for peer in held[::2]:
            peer.sendall(b"\x16\x03\x01\x02\x00")  # a handshake's first bytes, no more
        assert protocol.send(receivers, spans, tls=pki.caller()).outcome == "taken"
    for peer in held:  # the receivers have stopped all the same
        peer.close()
