"""Single files out of an engine's real package, without installing or downloading it whole.

The package index is the one that pip is configured for. Wheels of hundreds of megabytes are read
by range requests: their directory, then the files asked for. What was read is kept in
``KAT_CACHE`` (``~/.cache/kat-otel``), so a second run needs no network.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import urllib3

_CHUNK = 256 * 1024
_LARGEST_SDIST = 30 * 2**20
_http = urllib3.PoolManager(retries=urllib3.Retry(3, backoff_factor=0.5), timeout=60)


class NotReachedError(Exception):
    """The package index cannot be reached: the caller skips, and says so."""


def cache_folder() -> Path:
    return Path(os.environ.get("KAT_CACHE") or Path.home() / ".cache" / "kat-otel")


@cache
def index() -> str:
    """The simple index that pip would ask."""
    for key in ("global.index-url", "install.index-url", "download.index-url"):
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", key],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            return asked.stdout.strip()
    if os.environ.get("PIP_INDEX_URL"):
        return os.environ["PIP_INDEX_URL"]
    from pip._internal.models.index import PyPI

    return PyPI.simple_url


def _get(url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    try:
        answer = _http.request("GET", url, headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise NotReachedError(str(error)) from error
    if answer.status not in (200, 206):
        raise NotReachedError(f"status {answer.status}")
    return answer


@cache
def _files(name: str) -> list[dict[str, Any]]:
    page = index().rstrip("/") + f"/{name}/"
    answer = _get(page, Accept="application/vnd.pypi.simple.v1+json")
    if "json" not in answer.headers.get("Content-Type", ""):
        raise NotReachedError("an index without PEP 691's JSON")
    return [{**one, "url": urljoin(page, one["url"])} for one in answer.json()["files"]]


class _Remote(io.RawIOBase):
    """A file on the index that is read in pieces."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._at + len(buffer))
        if self._at >= end:
            return 0
        answer = _get(self._url, Range=f"bytes={self._at}-{end - 1}")
        if answer.status != 206:
            raise NotReachedError("the index does not answer range requests")
        buffer[: len(answer.data)] = answer.data
        self._at += len(answer.data)
        return len(answer.data)


class Package:
    """One version of a package; ``read`` gives its files."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self._folder = cache_folder() / "engines" / f"{name}-{version}"

    def read(self, path: str) -> str | None:
        """The text of a file, None where the package has none of that name."""
        kept = self._folder / path
        if kept.is_file():
            return kept.read_text()
        known = self._folder / "NAMES.json"
        if known.is_file() and path not in json.loads(known.read_text()):
            return None
        data = self._archive.read(path) if path in self._archive.names else None
        self._keep(known, json.dumps(self._archive.names))
        if data is None:
            return None
        self._keep(kept, data.decode())
        return data.decode()

    def names(self) -> list[str]:
        """Every file of the package."""
        known = self._folder / "NAMES.json"
        if not known.is_file():
            self._keep(known, json.dumps(self._archive.names))
        return json.loads(known.read_text())

    @staticmethod
    def _keep(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f"{path.name}.{os.getpid()}")
        whole.write_text(text)
        whole.replace(path)  # at once: two runs may share the folder

    @cached_property
    def _archive(self) -> _Wheel | _Sdist:
        stem = re.escape(re.sub(r"[-_.]+", "_", self.name))
        wheel = re.compile(rf"{stem}-{re.escape(self.version)}-.*(x86_64|-any)\.whl", re.IGNORECASE)
        sdist = re.compile(rf"{stem}-{re.escape(self.version)}\.tar\.gz", re.IGNORECASE)
        files = _files(self.name)
        for one in files:
            name = one["filename"]
            if wheel.fullmatch(name) and "macos" not in name and "win" not in name:
                return _Wheel(one["url"], one.get("size") or _size(one["url"]))
        for one in files:
            if sdist.fullmatch(one["filename"]) and (one.get("size") or 0) < _LARGEST_SDIST:
                return _Sdist(one["url"])
        raise AssertionError(f"the index has no {self.name} {self.version} for Linux on x86_64")


def _size(url: str) -> int:
    return int(_http.request("HEAD", url).headers["Content-Length"])


class _Wheel:
    def __init__(self, url: str, size: int) -> None:
        self._zip = zipfile.ZipFile(io.BufferedReader(_Remote(url, size), _CHUNK))
        self.names = [name for name in self._zip.namelist() if name.endswith(".py")]

    def read(self, path: str) -> bytes:
        return self._zip.read(path)


class _Sdist:
    def __init__(self, url: str) -> None:
        self._files: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(_get(url).data), mode="r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and member.name.endswith(".py"):
                    self._files[member.name.partition("/")[2]] = file.read()
        self.names = sorted(self._files)

    def read(self, path: str) -> bytes:
        return self._files[path]
