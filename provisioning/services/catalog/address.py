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
    address = _address_of(host)
    if not trusted and not ipaddress.ip_address(address).is_global:
        raise CatalogError(
            f"{host} is {address}, which is in a private network. If catalogues may be fetched from "
            f"there, name it in CONDUCTOR_CATALOG_HOSTS."
        )
    if parts.scheme != "https":
        return ""
    shown = f"[{address}]" if ":" in address else address
    return f"{host}:{parts.port or HTTPS_PORT}:{shown}"


def _address_of(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CatalogError(f"There is no host {host}: {error.strerror}.") from error
    return str(found[0][4][0])
