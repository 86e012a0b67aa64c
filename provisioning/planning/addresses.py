"""How environments name one another's resources, applications and teams.

A key is unique within its environment only. From elsewhere a resource is named by its *address*,
`in/ORGANISATION/ENVIRONMENT/KEY`, and an application by `ORGANISATION/ENVIRONMENT/APPLICATION`; no
key and no name of the environment itself can spell either. What is stored with a resource or with a
workload names things as the environment of that resource or workload does; a snapshot, and a plan
made on it, as the environment that is deployed to does.
"""

from __future__ import annotations

from provisioning.planning.references import bind, bound_text
from provisioning.score.placeholders import parse_reference
from provisioning.score.workload import Json

ELSEWHERE = "in/"
NOWHERE = ""
"""The path from which everything is elsewhere: all its addresses are the same for everybody."""


def path_of(organisation: str, environment: str) -> str:
    """Return the path by which an environment is named everywhere."""
    return f"{organisation}/{environment}"


def environment_of(address: str) -> str:
    """Return the path of the environment that an address leads to, or "" if it is a mere key."""
    if not address.startswith(ELSEWHERE):
        return ""
    _, organisation, environment, _ = address.split("/", 3)
    return path_of(organisation, environment)


def key_of(address: str) -> str:
    """Return the key that the resource at an address has in its own environment."""
    return address.split("/", 3)[3] if address.startswith(ELSEWHERE) else address


def address_of(key: str, path: str) -> str:
    """Return the address of a resource of another environment."""
    return f"{ELSEWHERE}{path}/{key}"


def seen_from(address: str, there: str, here: str) -> str:
    """Write an address of the environment with the path `there` as the one at `here` does."""
    path = environment_of(address) or there
    return key_of(address) if path == here else address_of(key_of(address), path)


def rewritten(value: Json, there: str, here: str) -> Json:
    """Write all bound references in a JSON value of `there` as `here` does."""
    if there == here:
        return value

    def rewrite(text: str) -> str:
        reference = parse_reference(text)
        return bound_text(seen_from(reference.alias, there, here), reference.keys)

    return bind(value, rewrite)


def in_own_terms(params: Json, key: str, here: str) -> Json:
    """Write what `here` knows of a resource's params as the resource's own environment does."""
    return rewritten(params, here, environment_of(key) or here)


def spoken(address: str) -> str:
    """Write an address for a person."""
    return address.removeprefix(ELSEWHERE)
