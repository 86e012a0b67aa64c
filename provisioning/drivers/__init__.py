"""The drivers, by name; each is imported only when it is used."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from provisioning.drivers.base import Driver
from provisioning.exceptions import ConductorError

ENTRY_POINT_GROUP = "conductor.drivers"

DRIVERS: dict[str, str] = {
    "fake": "provisioning.drivers.fake.FakeDriver",
    "postgres": "provisioning.drivers.postgres.driver.PostgresDriver",
    "script": "provisioning.drivers.script.ScriptDriver",
    "template": "provisioning.drivers.template.TemplateDriver",
    "terraform": "provisioning.drivers.terraform.driver.TerraformDriver",
}


class UnknownDriverError(ConductorError):
    """Say that no driver has this name."""


def driver_names() -> list[str]:
    """Return the names of all installed drivers, those of other packages included."""
    return sorted({*DRIVERS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


@cache
def get_driver(name: str) -> Driver:
    """Return the driver of this name; raise UnknownDriverError naming the likeliest other."""
    if name in DRIVERS:
        module, _, class_name = DRIVERS[name].rpartition(".")
        driver: Driver = getattr(import_module(module), class_name)()
        return driver
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: Driver = point.load()()
        return loaded
    raise UnknownDriverError(_unknown(name))


def _unknown(name: str) -> str:
    known = driver_names()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the drivers are {', '.join(known)}."
    return f"There is no driver {name!r}: {hint}"
