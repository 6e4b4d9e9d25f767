"""Compressed bodies: what was packed comes out, and nothing costs more memory than allowed."""

import os
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.errors import DecodeError
from kat_otel.processor.unpack import TooLargeError, guess_encoding, unpack
from tests.processor.receiving import PACK

PACKED = ["gzip", "deflate", "zstd"]
SAMPLE = os.urandom(5_000) * 40


@pytest.mark.parametrize("encoding", PACK)
def test_what_was_packed_comes_out(encoding):
    assert unpack(PACK[encoding](SAMPLE), encoding, len(SAMPLE)) == SAMPLE


@pytest.mark.parametrize("encoding", PACK)
def test_one_byte_above_the_limit_is_too_large(encoding):
    with pytest.raises(TooLargeError, match="max_recv_msg_size_mib"):
        unpack(PACK[encoding](SAMPLE), encoding, len(SAMPLE) - 1)


@pytest.mark.parametrize("encoding", PACKED)
def test_streams_after_each_other_are_one_body(encoding):
    packed = PACK[encoding](SAMPLE) + PACK[encoding](b"more")
    assert unpack(packed, encoding, len(SAMPLE) + 4) == SAMPLE + b"more"
    with pytest.raises(TooLargeError):
        unpack(packed, encoding, len(SAMPLE) + 3)
    with pytest.raises(DecodeError, match="more than 16"):
        unpack(PACK[encoding](b"") * 17, encoding, 100)


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("kept", [0, 1, 10, -1])
def test_what_is_cut_off_is_refused(encoding, kept):
    with pytest.raises(DecodeError, match="cut off"):
        unpack(PACK[encoding](SAMPLE)[:kept], encoding, len(SAMPLE))


@pytest.mark.parametrize("encoding", PACKED)
def test_what_follows_the_stream_is_refused(encoding):
    with pytest.raises(DecodeError):
        unpack(PACK[encoding](SAMPLE) + b"garbage", encoding, len(SAMPLE) + 100)


@pytest.mark.parametrize("encoding", PACKED)
def test_a_bomb_is_not_unpacked(encoding):
    limit, bomb = 2**20, PACK[encoding](bytes(100 * 2**20))
    assert len(bomb) < limit / 8
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            unpack(bomb, encoding, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20


def test_a_zstd_window_larger_than_http_allows_is_refused():
    settings = zstandard.ZstdCompressionParameters(window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    packed = stream.compress(SAMPLE) + stream.flush()
    with pytest.raises(DecodeError, match="no zstd"):
        unpack(packed, "zstd", len(SAMPLE))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_the_encoding_of_a_grpc_message_is_seen(encoding):
    request = b"\x0a\x02\x12\x00" * 50
    assert guess_encoding(PACK[encoding](request)) == encoding
    for level in range(10):
        assert guess_encoding(zlib.compress(request, level)) == "deflate"


@given(st.binary(max_size=200), st.sampled_from(PACKED), st.data())
def test_damaged_bodies_are_refused_or_come_out_within_the_limit(content, encoding, data):
    packed = bytearray(PACK[encoding](content))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpacked = unpack(bytes(packed), encoding, 1_000)
    except (DecodeError, TooLargeError):
        return
    assert len(unpacked) <= 1_000
