"""The digest of one rank and step: what always flows, in at most 4,096 bytes.

``digest_of`` makes it from a step's spans, ``encode`` and ``decode`` are its bytes. NumPy and the
standard library only: workers import this.
"""

from kat_otel.digest.form import MAX_BYTES, VERSION, Digest, class_hash
from kat_otel.digest.make import digest_of, names_text, with_digests
from kat_otel.digest.wire import decode, decode_checked, encode, read_headers

__all__ = [
    "MAX_BYTES",
    "VERSION",
    "Digest",
    "class_hash",
    "decode",
    "decode_checked",
    "digest_of",
    "encode",
    "names_text",
    "read_headers",
    "with_digests",
]
