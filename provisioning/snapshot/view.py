"""Name what is stored of other environments as one environment does (see `planning.addresses`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from django.db.models import Q

from provisioning.models import Environment
from provisioning.planning.addresses import (
    address_of,
    environment_of,
    key_of,
    path_of,
    rewritten,
    seen_from,
)


class View:
    """Look from one environment at the rows of all; the others' names are read when one is met."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    @cached_property
    def paths(self) -> dict[int, str]:
        """Return the paths of all environments by primary key."""
        rows = Environment.objects.values_list("pk", "organisation__name", "name")
        return {pk: path_of(organisation, name) for pk, organisation, name in rows}

    @cached_property
    def pks(self) -> dict[str, int]:
        """Return the primary keys of all environments by path."""
        return {path: pk for pk, path in self.paths.items()}

    def is_here(self, environment_id: int) -> bool:
        """Tell whether an environment is the one that is looked from."""
        return environment_id == self.environment.pk

    def address(self, key: str, environment_id: int) -> str:
        """Name a resource, given its key in its environment."""
        if self.is_here(environment_id):
            return key
        return address_of(key, self.paths[environment_id])

    def resources_at(self, addresses: Iterable[str]) -> Q:
        """Match the resources at these addresses."""
        keys: dict[int, set[str]] = defaultdict(set)
        for address in addresses:
            path = environment_of(address)
            keys[self.pks.get(path, 0) if path else self.environment.pk].add(key_of(address))
        found = Q(pk__in=[])
        for environment_id in sorted(keys):
            found |= Q(environment=environment_id, key__in=keys[environment_id])
        return found

    def application(self, name: str, environment_id: int) -> str:
        """Name an application, given the environment where it is deployed."""
        return name if self.is_here(environment_id) else f"{self.paths[environment_id]}/{name}"

    def team(self, name: str, environment_id: int) -> str:
        """Name a team that owns a resource, given the resource's environment."""
        if self.is_here(environment_id):
            return name
        organisation = self.paths[environment_id].partition("/")[0]
        own = self.paths[self.environment.pk].partition("/")[0]
        return name if organisation == own else f"{organisation}/{name}"

    def seen(self, address: str, environment_id: int) -> str:
        """Write an address of an environment as this one does."""
        if self.is_here(environment_id):
            return address
        return seen_from(address, self.paths[environment_id], self.paths[self.environment.pk])

    def params(self, value: Any, environment_id: int) -> Any:
        """Write params, or anything else with bound references, of an environment as this one does."""
        if self.is_here(environment_id):
            return value
        return rewritten(value, self.paths[environment_id], self.paths[self.environment.pk])
