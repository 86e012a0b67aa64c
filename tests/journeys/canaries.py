"""Planted secrets, and every place in which one could come to light."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from django.conf import settings
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.urls import URLPattern, reverse

from portal.urls import urlpatterns
from provisioning.models import Approval, Deployment, Resource, Step, Worker

_ANY_LINK = re.compile(r'\b(?:href|src|hx-get|data-[\w-]+)="(/[^"#]*)')
MOST_ROWS = 15
"""Of how many rows of a model the admin's pages are looked at; its list shows more."""
_LEADS_AWAY = ("/accounts/logout", "/static/", "/admin/logout")
_BINARY = re.compile(rb"\\\\x([0-9a-f]{2,})")


def new_canary(name: str) -> str:
    """Return a secret that looks different in base64, in a URL, in JSON and in itself."""
    return f'{name}<"{secrets.token_hex(8)}>/+& é'


def forms(secret: str) -> set[bytes]:
    """Return what is found of a secret in whatever form it is written.

    That is the part that no encoding but base64 changes, and that part in base64, wherever it begins.
    """
    core = max(re.findall(r"[\w.-]+", secret, re.ASCII), key=len).encode()
    found = {core}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            # The ends share a character with what stands beside them: nothing is certain of them.
            encoded = encode(bytes(before) + core)
            found.add(encoded[-(-before * 8 // 6) : (before + len(core)) * 8 // 6])
    return found


@dataclass
class Canaries:
    """Know the planted secrets by name, and find them in texts."""

    by_name: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def plant(self, name: str) -> str:
        """Make a secret and return it."""
        self.by_name[name] = new_canary(name)
        return self.by_name[name]

    def look(self, where: str, content: bytes | str) -> None:
        """Note which secrets are in a content, in whatever form."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        self.found += [f"{name} in {where}" for name in self.names_in(data)]

    def names_in(self, data: bytes) -> list[str]:
        """Return the names of the secrets that are in a content."""
        return sorted(
            name
            for name, secret in self.by_name.items()
            if any(form in data for form in forms(secret))
        )


def addresses() -> Iterator[str]:
    """Yield every address of the portal that can be asked for, for every row that there is."""
    numbers = {
        "deployment": Deployment.objects.values_list("pk", flat=True),
        "approval": Approval.objects.values_list("pk", flat=True),
    }
    uuids = {
        "resources": Resource.objects.values_list("pk", flat=True),
        "workers": Worker.objects.values_list("pk", flat=True),
        "state": Resource.objects.values_list("pk", flat=True),
    }
    for pattern in urlpatterns:
        assert isinstance(pattern, URLPattern)
        route = str(pattern.pattern)
        if "<int:step_pk>" in route:
            for step in Step.objects.all():
                yield _filled(route, pk=step.deployment_id, step_pk=step.pk)
        elif "<uuid:pk>" in route:
            for noun, keys in uuids.items():
                for pk in keys if noun in route else ():
                    for number in range(1, 4 if "number" in route else 2):
                        yield _filled(route, pk=pk, number=number)
        elif "<int:pk>" in route:
            for pk in {pk for keys in numbers.values() for pk in keys}:
                yield _filled(route, pk=pk)
        else:
            yield f"/{route}"


def _filled(route: str, **values: object) -> str:
    for name, value in values.items():
        route = re.sub(rf"<\w+:{name}>", str(value), route)
    return f"/{route}"


def crawl(
    client: Client, begin: Iterable[str], canaries: Canaries, who: str, *, follow: bool = True
) -> set[str]:
    """Look at pages, and at all that they lead to; return the addresses that were answered."""
    left, seen, answered = list(begin), set(), set()
    while left:
        address = left.pop().replace("&amp;", "&")
        if address in seen or address.startswith(_LEADS_AWAY):
            continue
        seen.add(address)
        answer = client.get(address, follow=False)
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        headers = " ".join(f"{name}: {value}" for name, value in answer.headers.items())
        canaries.look(f"{address} ({who})", content + headers.encode())
        if answer.status_code == 200:
            answered.add(address)
        if not follow:
            continue
        if location := answer.headers.get("Location", ""):
            left.append(urlsplit(location).path)
        if "html" in answer.headers.get("Content-Type", ""):
            left += _ANY_LINK.findall(content.decode())
    return answered


def admin_addresses() -> Iterator[str]:
    """Yield the admin's list of each model, the pages of its newest rows and the history of one."""
    for model in admin.site._registry:
        place = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{place}_changelist")
        newest = model._default_manager.order_by("-pk").values_list("pk", flat=True)
        for pk in newest[:MOST_ROWS]:
            yield reverse(f"{place}_change", args=[pk])
        for pk in newest[:1]:
            yield reverse(f"{place}_history", args=[pk])


def listen(address: str, client: Client, path: str) -> bytes:
    """Return the whole of a stream of events that a live server sends to whoever a client is."""
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    asked = urllib.request.Request(address + path, headers={"Cookie": cookie})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


def dump_database() -> bytes:
    """Return a dump of the test's whole database, with what is binary in it once more as it is."""
    server = settings.EMBEDDED_SERVER
    place = server.place() if server else None
    program = str(place.programs / "pg_dump") if place else shutil.which("pg_dump")
    assert program, "no pg_dump"
    parameters = connection.get_connection_params()
    environment = {
        "PGHOST": str(parameters["host"]),
        "PGPORT": str(parameters["port"]),
        "PGUSER": str(parameters["user"]),
        "PGPASSWORD": str(parameters["password"]),
        "PATH": os.environ["PATH"],
    }
    ran = subprocess.run(
        [program, parameters["dbname"]], env=environment, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    binary = (bytes.fromhex(found.decode()) for found in _BINARY.findall(ran.stdout))
    return ran.stdout + b"\n".join(binary)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder; no links."""
    for parent, _, names in os.walk(folder):
        yield from (
            path for path in (Path(parent, name) for name in names)
            if path.is_file() and not path.is_symlink()
        )  # fmt: skip


class Arguments(threading.Thread):
    """Collect the arguments of every process of the machine, for as long as this runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            for pid in psutil.pids():
                try:
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()
