"""The address to listen at. Apart from what serves, so that a wrong one is refused before anything is loaded."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hsd_cli.errors import HsdError


@contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """An address of one's own, before anything slow begins. Raises ``HsdError``."""
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except (OSError, UnicodeError) as error:  # of names that can be none
            reason = getattr(error, "strerror", None) or error
            message = f"cannot listen at {host!r}, port {port}: {reason}; choose another --host or --port"
            raise HsdError(message) from None
        yield bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url(bound: socket.socket) -> str:
    """Where to find it, without a path."""
    address, port, *_ = bound.getsockname()
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
