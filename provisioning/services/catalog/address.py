"""Say which addresses a catalogue may be fetched from.

A sync is asked for by people who may sync but not look around in the network that the server stands
in. So no address leads to a private network, unless the operator names its host.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from django.conf import settings

from provisioning.services.catalog.problems import CatalogError

SCP_LIKE = re.compile(r"\A[\w.-]+@(?P<host>[\w.-]+):(?!//)")
HTTPS_PORT = 443

_EMBEDDING = (
    (ipaddress.IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped, RFC 4291
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # behind NAT64, RFC 6052
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
"""IPv6 networks whose addresses lead to an IPv4 address, and how many bits stand to its right."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_address(url: str) -> None:
    """Raise CatalogError unless a git repository may be read from this address."""
    if SCP_LIKE.match(url):
        return
    parts = urlsplit(url)
    if parts.scheme not in ("https", "ssh"):
        raise CatalogError(
            f"A git repository is read over https, ssh or from a local path, not {parts.scheme}."
        )
    if parts.password:
        raise CatalogError(
            "The address holds a password, which would be kept with every version. "
            "Use a git credential helper or ssh."
        )
    if (parts.hostname or "").startswith("-"):
        raise CatalogError(f"{parts.hostname} is not the name of a host.")


def settled_host(url: str) -> str:
    """Return `HOST:PORT:IP` to which an https address is to be held, or "" for another.

    Git would look the name up again, and might be told another address than the one checked. Raises
    CatalogError for a host that is not among CONDUCTOR_CATALOG_HOSTS, if that names any, and otherwise
    for one in a private network, or one that is unknown.
    """
    scp_like = SCP_LIKE.match(url)
    parts = urlsplit("" if scp_like else url)
    host = scp_like["host"] if scp_like else (parts.hostname or "")
    trusted = settings.CONDUCTOR_CATALOG_HOSTS
    if trusted and host not in trusted:
        raise CatalogError(
            f"Catalogues may be fetched from {', '.join(trusted)}, not from {host}: "
            "CONDUCTOR_CATALOG_HOSTS says so."
        )
    addresses = _addresses_of(host)
    # Git over ssh may take any of them.
    private = next((each for each in addresses if not _is_public(each)), None)
    if not trusted and private is not None:
        raise CatalogError(
            f"{host} is {private}, which is in a private network. If catalogues may be fetched from "
            f"there, name it in CONDUCTOR_CATALOG_HOSTS."
        )
    if parts.scheme != "https":
        return ""
    address = addresses[0]
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{parts.port or HTTPS_PORT}:{shown}"


def _is_public(address: Address) -> bool:
    """Tell whether an address, and the IPv4 address that it may embed, is of the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        for network, right in _EMBEDDING:
            if address in network:
                return _is_public(ipaddress.IPv4Address(int(address) >> right & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


def _addresses_of(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CatalogError(f"There is no host {host}: {error.strerror}.") from error
    return [ipaddress.ip_address(each[4][0]) for each in found]
