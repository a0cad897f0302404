"""How a browser reaches the page: on this machine, on a phone in the same network, or over USB."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import segno
import trustme

from runtime.errors import UserError

LOCAL = "127.0.0.1"

_DAYS = 30  # iOS refuses certificates of more than 825
_SECONDS = 20
# An address that is nobody's (RFC 5737): asking for the route to it sends nothing.
_FAR = ("192.0.2.1", 9)


@dataclass(frozen=True)
class Reach:
    """Where the server listens, and how that is written in a link.

    Attributes:
        host: Address to listen on.
        shown: The same in links.
        certificate: Made for that address; None for HTTP, which browsers trust on the machine
            itself only: threads, WebGPU and cameras need a trusted address or HTTPS.
    """

    host: str
    shown: str
    certificate: Certificate | None = None

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self.certificate is None else "https"


@dataclass(frozen=True)
class Certificate:
    """A certificate of a server.

    Attributes:
        context: Makes the context of HTTPS.
        fingerprint: SHA-256 of the certificate, as browsers show it.
    """

    context: Callable[[], ssl.SSLContext]
    fingerprint: str


def reach_of(host: str | None, phone: bool) -> Reach:
    """Return how a browser reaches the page.

    Args:
        host: Address to listen on; None for this machine alone or, for a phone, for the address
            that this machine has in its network.
        phone: Whether it is for a phone in the same network.

    Raises:
        UserError: If this machine has no address in a network.
    """
    if host is None:
        host = _address_in_network() if phone else LOCAL
    if _is_local(host):
        return Reach(host, _in_link(host))
    shown = _address_in_network() if host in ("0.0.0.0", "::") else host
    return Reach(host, _in_link(shown), _certificate(shown))


def qr_code(link: str) -> str:
    """Return a link as a QR code of characters, for a terminal."""
    text = io.StringIO()
    segno.make(link, error="l").terminal(out=text, compact=True)
    return text.getvalue()


@contextmanager
def reversed_port(serial: str, port: int) -> Iterator[None]:
    """Let a phone on USB reach a port of this machine as its own, while the block runs.

    Args:
        serial: The phone, as ``adb devices`` lists it.
        port: The port.

    Raises:
        UserError: If adb is missing, or does not reach the phone.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise UserError("adb is not installed: apt-get install adb (Debian)")
    command = [adb, "-s", serial, "reverse"]
    _adb([*command, f"tcp:{port}", f"tcp:{port}"], serial)
    try:
        yield
    finally:
        # The phone may be unplugged by now.
        subprocess.run([*command, "--remove", f"tcp:{port}"], capture_output=True, check=False)


def _adb(command: list[str], serial: str) -> None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        said = (run.stderr or run.stdout).strip()
    except subprocess.TimeoutExpired:
        raise UserError(f"adb does not reach {serial} within {_SECONDS} seconds") from None
    if run.returncode:
        raise UserError(f"adb does not reach {serial} ({said or 'no message'}); see 'adb devices'")


def _address_in_network() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_FAR)
            return str(probe.getsockname()[0])
        except OSError as error:
            raise UserError(
                "this machine is in no network; connect it to the phone's, name its address with "
                "--host, or use --adb over USB"
            ) from error


def _certificate(host: str) -> Certificate:
    authority = trustme.CA(organization_name="reslite", organization_unit_name="reslite serve")
    until = datetime.now(UTC) + timedelta(days=_DAYS)
    leaf = authority.issue_cert(host, organization_name="reslite serve", not_after=until)
    content = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    digest = hashlib.sha256(content).hexdigest().upper()

    def context() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(made)
        return made

    return Certificate(context, ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_link(host: str) -> str:
    return f"[{host}]" if ":" in host else host
