"""Sockets and certificates of a port; what is wrong with them is told with the setting's key."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path
from typing import Final

from kat_otel.config import ServerTlsConfig
from kat_otel.errors import ConfigError

__all__ = ["bind", "read_pem", "server_context"]

_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""An address of a name that this machine does not have: ``localhost`` without IPv6."""


def bind(endpoint: str, key: str) -> list[socket.socket]:
    """Returns sockets bound to all addresses of ``host:port``, all with the same port.

    Args:
        endpoint: port 0 picks a free port.
        key: the setting that has the endpoint, for messages.

    Raises:
        ConfigError: the port is taken, or the host is not this machine.
    """
    host, _, port_text = endpoint.rpartition(":")
    port = int(port_text)
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            try:
                sockets.append(_bound(family, kind, protocol, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE or (len(found) == 1):
                    raise
            else:
                port = port or sockets[0].getsockname()[1]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no address of this host is ours")
    except (OSError, OverflowError) as error:
        for bound in sockets:
            bound.close()
        raise ConfigError(
            f"{key} {endpoint}: cannot listen there ({error}) — is another "
            "process on that port? Set another one, or port 0 for any free one"
        ) from error
    return sockets


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        # A port in TIME_WAIT may be taken again at once; one that is listened on may not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)  # here, as bind alone lets two sockets share the address
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def server_context(tls: ServerTlsConfig, key: str) -> ssl.SSLContext:
    """Returns the TLS settings of a port: TLS 1.2 or later, clients checked if so configured.

    Args:
        tls: the files.
        key: the setting that has them, such as ``receiver.http.tls``, for messages.

    Raises:
        ConfigError: a file cannot be read, is no PEM, or key and certificate do not match.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file, name in ((tls.cert_file, "cert_file"), (tls.key_file, "key_file")):
        read_pem(file, f"{key}.{name}")

    def no_password() -> str:
        raise ConfigError(f"{key}.key_file: {tls.key_file} has a passphrase: give one without")

    try:
        context.load_cert_chain(tls.cert_file, tls.key_file, no_password)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{key}: {tls.cert_file} and {tls.key_file} are no certificate and its key "
            f"({error}) — both must be PEM and belong together"
        ) from error
    if tls.client_ca_file is not None:
        read_pem(tls.client_ca_file, f"{key}.client_ca_file")
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{key}.client_ca_file: {tls.client_ca_file} has no certificates ({error}) — "
                "it must be PEM"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def read_pem(path: str, key: str) -> bytes:
    """Returns the file's bytes.

    Raises:
        ConfigError: it cannot be read; the message names the key.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read ({error})") from error
