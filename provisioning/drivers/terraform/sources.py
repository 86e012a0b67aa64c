"""Say where a module may take other modules and its providers from.

Whoever writes a module chooses programs that a worker runs and addresses that it asks. Both are held
to the module's own folder and to hosts that the operator trusts: CONDUCTOR_TERRAFORM_HOSTS, separated by
commas. Grammar: Terraform, "Module Sources" and "Provider Requirements".
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

HOSTS_VARIABLE = "CONDUCTOR_TERRAFORM_HOSTS"
DEFAULT_HOSTS = ("registry.terraform.io", "registry.opentofu.org", "github.com")

_SCP_LIKE = re.compile(r"\A(?:[\w.-]+@)?(?P<host>[\w.-]+):(?!//)")
_REGISTRY_PARTS = re.compile(r"\A[\w-]+(?:/[\w-]+){2}\Z")


def trusted_hosts() -> tuple[str, ...]:
    """Return the hosts that modules and providers may come from."""
    words = os.environ.get(HOSTS_VARIABLE, "").replace(",", " ").split()
    return tuple(words) or DEFAULT_HOSTS


def refused_module(source: str, place: PurePosixPath) -> str:
    """Say why a module may not take another from a source, or return "".

    `place` is the folder of the asking file, relative to the template's.
    """
    if source.startswith(("./", "../")):
        depth = 0
        for part in (place / source).parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                return f"the module source {source!r} leads out of the template's folder."
        return ""
    address = source.removeprefix("git::")
    if "::" in address or address.startswith(("/", "~", "file:")):
        return (
            f"the module source {source!r} is neither in the template's folder nor a registry's or a git "
            "repository's."
        )
    return _refused_host(source, _host_of_module(address))


def refused_provider(source: str) -> str:
    """Say why a provider may not come from a source (`[HOST/]NAMESPACE/TYPE`), or return ""."""
    host, _, rest = source.partition("/")
    return _refused_host(source, host) if rest.count("/") == 1 else ""


def refused_installed(folder: Path, data: Path) -> str:
    """Say why what `init` has installed for the module in a folder may not be used, or return "".

    In its data folder Terraform notes every module and has every provider that will run, also those that
    only a downloaded module asks for.
    """
    noted = data / "modules" / "modules.json"
    for module in json.loads(noted.read_bytes())["Modules"] if noted.is_file() else ():
        source, place = module["Source"], folder / module["Dir"]
        if not place.resolve().is_relative_to(folder.resolve()):
            return f"the module {module['Key']!r} leads out of the template's folder."
        own = not module["Key"] or source.startswith(("./", "../"))
        if not own and (why := refused_module(source, PurePosixPath())):
            return f"in the module {module['Key']!r}, {why}"
    for provider in sorted((data / "providers").glob("*/*/*")):
        if why := refused_provider(provider.relative_to(data / "providers").as_posix()):
            return f"the provider {why}"
    return ""


def _host_of_module(address: str) -> str:
    bare = address.partition("//")[0] if "://" not in address else address
    if "://" in address:
        parts = urlsplit(address)
        return (parts.hostname or "") if parts.scheme in ("https", "ssh") else ""
    if scp_like := _SCP_LIKE.match(address):
        return scp_like["host"]
    if _REGISTRY_PARTS.match(bare.partition("?")[0]):
        return DEFAULT_HOSTS[0]
    return address.partition("/")[0]


def _refused_host(source: str, host: str) -> str:
    if host and host.lower() in trusted_hosts():
        return ""
    where = f"the host {host}" if host else "an address that is neither https nor ssh"
    return (
        f"{source!r} comes from {where}; modules and providers may come from "
        f"{', '.join(trusted_hosts())}, or what {HOSTS_VARIABLE} names instead."
    )
