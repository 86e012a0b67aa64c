"""Names that are the same in every run: of keys, and of the real things drivers make."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from provisioning.planning.addresses import address_of, environment_of, key_of
from provisioning.score.workload import Binding, ResourceDeclaration

NAME_LENGTH = 40
HASH_LENGTH = 8
LONGEST_NAME = 63
SEPARATORS = {"hyphens": "-", "underscores": "_", "alphanumeric": ""}


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


def needed_key(parent: str, type_class: str, group: str, id_: str, *, same_id: bool) -> str:
    """Return the key of what the resource with the key `parent` needs besides itself.

    An application's own resources share by `group` or by `id_` throughout the application; those of
    nobody in particular have needs of their own. With `same_id` only type and class differ. What a
    resource needs is in its own environment.
    """
    if path := environment_of(parent):
        inside = needed_key(key_of(parent), type_class, group, id_, same_id=same_id)
        return address_of(inside, path)
    space, _, rest = parent.partition("/")
    if space == "private":
        application = rest.partition("/")[0]
        if same_id:
            return f"{parent.rpartition('/')[0]}/{type_class}"
    elif space in ("app", "component"):
        application = rest.partition("/")[0]
        if same_id:
            return f"{space}/{application}/{type_class}#{parent.partition('#')[2]}"
    else:
        root = rest.rpartition("/")[0] if space == "with" else parent
        suffix = parent.rpartition("/")[2].partition("#")[2] if space == "with" else ""
        last = suffix if same_id else id_ or group
        return f"with/{root}/{type_class}" + (f"#{last}" if last else "")
    if id_:
        return f"app/{application}/{type_class}#{id_}"
    return f"component/{application}/{type_class}#{group}"


def parts_prefix(key: str) -> str:
    """Return how the keys begin of what belongs to a resource of nobody in particular."""
    return f"with/{key}/"


def is_part(key: str) -> bool:
    """Tell whether a key is of what belongs to another resource of nobody in particular."""
    return key_of(key).startswith("with/")


def resource_name(
    organisation: str,
    environment: str,
    key: str,
    type_: str,
    rule: Mapping[str, Any] | None = None,
) -> str:
    """Return the name a driver gives the real thing: lower-case letters, digits and hyphens.

    It ends in a hash of organisation, environment and key, so two resources never share one, and a
    resource that is destroyed and wanted again gets its old name; 40 characters at most. A template's
    `rule` (`prefix`, `length`, `alphabet`) makes it
    `{prefix}-{type}-{application}-{environment}-{suffix}`, whose suffix is the hash; what is too
    long is cut before the hash.
    """
    digest = hashlib.sha256(f"{organisation}/{environment}/{key}".encode()).hexdigest()
    if rule:
        return _ruled_name(rule, type_, environment, key, digest)
    label = re.sub(r"[^a-z0-9]+", "-", f"{type_}-{_spoken_part(key)}".lower()).strip("-")
    label = label[: NAME_LENGTH - HASH_LENGTH - 1].strip("-")
    if not label[:1].isalpha():
        label = f"r{label}"[: NAME_LENGTH - HASH_LENGTH - 1]
    return f"{label}-{digest[:HASH_LENGTH]}"


def _ruled_name(
    rule: Mapping[str, Any], type_: str, environment: str, key: str, digest: str
) -> str:
    """Write a name by a template's rule; it always ends in a hash, so no two are the same."""
    separator = SEPARATORS[rule.get("alphabet", "hyphens")]
    parts = [rule.get("prefix", ""), type_, _application(key), environment]
    label = separator.join(part for part in parts if part).lower()
    label = re.sub(r"[^a-z0-9]+", separator, label).strip("-_")
    if not label[:1].isalpha():
        label = f"r{label}"
    room = rule.get("length", LONGEST_NAME) - HASH_LENGTH - len(separator)
    return f"{label[:room].rstrip('-_')}{separator}{digest[:HASH_LENGTH]}"


def _application(key: str) -> str:
    """Return whose resource it is, or what a shared one is called."""
    space, _, rest = key.partition("/")
    if space in ("private", "app", "component"):
        return rest.partition("/")[0]
    return _spoken_part(key)


def _spoken_part(key: str) -> str:
    space, _, rest = key.partition("/")
    if space == "private":
        application, workload, alias, *_ = rest.split("/")
        return f"{application}-{workload}-{alias}"
    if space == "component":
        return f"{rest.partition('/')[0]}-{rest.rpartition('#')[2]}"
    if space == "slot":
        return f"shared-{rest.rpartition('/')[2]}"
    return rest.rpartition("#")[2] or rest
