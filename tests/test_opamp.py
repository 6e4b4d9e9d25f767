"""Our OpAMP messages are those of the official classes, byte for byte understood both ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._opamp.proto import opamp_pb2 as official

from kat_otel.capture import Capture, Orders, Poll, capture_nonce
from kat_otel.errors import DecodeError
from kat_otel.opamp import MAX_MESSAGE_BYTES, AgentToServer, CustomMessage, ServerToAgent

UID = bytes(range(16))
TEXTS = st.text(max_size=40)
MESSAGES = st.builds(CustomMessage, TEXTS, TEXTS, st.binary(max_size=200))


@given(
    st.binary(max_size=16),
    st.integers(0, 2**64 - 1),
    st.lists(TEXTS, max_size=3).map(tuple),
    MESSAGES,
)
def test_what_a_worker_says_is_understood_by_the_official_classes(
    uid: bytes, number: int, capabilities: tuple[str, ...], message: CustomMessage
) -> None:
    mine = AgentToServer(uid, number, capabilities, message)
    read = official.AgentToServer.FromString(mine.encode())
    assert (read.instance_uid, read.sequence_num) == (uid, number)
    assert tuple(read.custom_capabilities.capabilities) == capabilities
    assert read.custom_message.data == message.data
    assert (read.custom_message.capability, read.custom_message.type) == (
        message.capability,
        message.type,
    )
    assert AgentToServer.decode(read.SerializeToString()) == mine


@given(st.binary(max_size=16), st.integers(0, 2), TEXTS, st.integers(0, 2**63), MESSAGES)
def test_what_the_server_answers_is_understood_by_the_official_classes(
    uid: bytes, error: int, why: str, wait: int, message: CustomMessage
) -> None:
    mine = ServerToAgent(uid, error, why if error else "", wait if error else 0, ("a.b",), message)
    read = official.ServerToAgent.FromString(mine.encode())
    assert read.instance_uid == uid
    assert read.capabilities == official.ServerCapabilities_AcceptsStatus
    assert (read.error_response.type, read.error_response.error_message) == (
        error,
        mine.error_message,
    )
    assert read.error_response.retry_info.retry_after_nanoseconds == mine.retry_after_ns
    assert ServerToAgent.decode(read.SerializeToString()) == mine


def test_fields_that_are_not_ours_are_skipped() -> None:
    full = official.AgentToServer(instance_uid=UID, sequence_num=3)
    full.agent_description.identifying_attributes.add(key="service.name").value.string_value = "x"
    full.health.healthy = True
    full.health.start_time_unix_nano = 5
    full.agent_disconnect.SetInParent()
    assert AgentToServer.decode(full.SerializeToString()) == AgentToServer(UID, 3)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    for read in (AgentToServer.decode, ServerToAgent.decode):
        try:
            read(data)
        except DecodeError:
            continue


def test_a_long_message_is_refused() -> None:
    with pytest.raises(DecodeError, match="at most 65536"):
        AgentToServer.decode(bytes(MAX_MESSAGE_BYTES + 1))


def test_questions_and_answers_come_back() -> None:
    poll = Poll("instance", 3, 120, 60)
    assert Poll.decode(poll.encode()) == poll
    orders = Orders("digest", 100, 0.5, (Capture("ab", (5, 8), (20, 23), "incident"),))
    assert Orders.decode(orders.encode()) == orders


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version": 2}',
        b'{"version":1,"instance":"i","rank":-1,"step":0,"recorded_from":0}',
        b'{"version":1,"instance":"i","rank":true,"step":0,"recorded_from":0}',
        b'{"version":1,"instance":7,"rank":0,"step":0,"recorded_from":0}',
        b'{"version":1,"instance":"i","rank":0,"step":1e9,"recorded_from":0}',
        b"[" * 5000,
        b'{"version":1,"instance":"' + b"x" * 300 + b'","rank":0,"step":0,"recorded_from":0}',
    ],
)
def test_odd_questions_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Poll.decode(data)


@pytest.mark.parametrize(
    "change",
    [
        b'"mode":"loud"',
        b'"sample_every":-1',
        b'"sample_every":true',
        b'"sample_every":"7"',
        b'"captures":7',
        b'"captures":[7]',
        b'"captures":[{"id":"a","recorded":[1],"next":[1,2],"reason":""}]',
    ],
)
def test_odd_answers_are_refused(change: bytes) -> None:
    plain = b'{"version":1,"mode":"full","sample_every":0,"poll_ms":5,"captures":[],' + change
    with pytest.raises(DecodeError):
        Orders.decode(plain + b"}")


@pytest.mark.parametrize("every", [None, 0, 7])
def test_orders_say_how_much_is_sampled_or_nothing_of_it(every: int | None) -> None:
    orders = Orders(sample_every=every)
    assert json.loads(orders.encode())["sample_every"] is every
    assert Orders.decode(orders.encode()) == orders


def test_orders_that_leave_sampling_out_say_nothing_of_it() -> None:
    orders = Orders.decode(b'{"version":1,"mode":"full","poll_ms":5,"captures":[]}')
    assert orders.sample_every is None


def test_a_capture_wants_its_steps_only() -> None:
    capture = Capture("ab", (5, 8), (20, 23), "")
    assert [s for s in range(30) if capture.wants(s)] == [5, 6, 7, 8, 20, 21, 22, 23]
    assert not any(Capture("ab", (9, 8), (0, 0), "").wants(s) for s in range(1, 30))


def test_all_ranks_derive_the_same_trace_for_a_step_sent_again() -> None:
    assert capture_nonce(5, "ab") == capture_nonce(5, "ab")
    assert len({capture_nonce(5, "ab"), capture_nonce(5, "ac"), capture_nonce(6, "ab"), 5}) == 4
