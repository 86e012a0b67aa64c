"""Names that are the same in every run: of keys, and of the real things drivers make."""

from __future__ import annotations

import hashlib
import re

from provisioning.score.workload import Binding, ResourceDeclaration

NAME_LENGTH = 40
HASH_LENGTH = 8


def resource_key(application: str, workload: str, declaration: ResourceDeclaration) -> str:
    """Return what identifies a declared resource among all of its environment.

    The first segment keeps the spaces apart, so that no id or shared name can spell another
    workload's private resource. An `existing` resource has the key it was created with; that of a
    matched one follows from its slot (`planning.slots`), that of a pool's member from its claim
    (`planning.pools`).
    """
    type_class = f"{declaration.type}.{declaration.class_}"
    binding: Binding = declaration.binding
    if binding.mode == "private":
        return f"private/{application}/{workload}/{declaration.alias}/{type_class}"
    if binding.mode == "application":
        return f"app/{application}/{type_class}#{binding.name}"
    if binding.mode == "shared":
        return f"shared/{binding.name}"
    raise AssertionError(f"a binding of mode {binding.mode} has no key of its own")


def resource_name(organisation: str, environment: str, key: str, type_: str) -> str:
    """Return the name a driver gives the real thing: lower-case letters, digits and hyphens.

    It ends in a hash of organisation, environment and key, so two resources never share one, and a
    resource that is destroyed and wanted again gets its old name; 40 characters at most.
    """
    suffix = hashlib.sha256(f"{organisation}/{environment}/{key}".encode()).hexdigest()
    label = re.sub(r"[^a-z0-9]+", "-", f"{type_}-{_spoken_part(key)}".lower()).strip("-")
    label = label[: NAME_LENGTH - HASH_LENGTH - 1].strip("-")
    if not label[:1].isalpha():
        label = f"r{label}"[: NAME_LENGTH - HASH_LENGTH - 1]
    return f"{label}-{suffix[:HASH_LENGTH]}"


def _spoken_part(key: str) -> str:
    space, _, rest = key.partition("/")
    if space == "private":
        application, workload, alias, *_ = rest.split("/")
        return f"{application}-{workload}-{alias}"
    if space == "slot":
        return f"shared-{rest.rpartition('/')[2]}"
    return rest.rpartition("#")[2] or rest
