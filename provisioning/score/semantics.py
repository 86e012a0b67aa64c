from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from provisioning.score.binding import OwnKeys
from provisioning.score.placeholders import (
    ROOTS,
    PlaceholderError,
    malformed_placeholder,
    parse_reference,
    placeholders,
)
from provisioning.score.schema.validation import Finding, did_you_mean
from provisioning.score.secretref import HINT, malformed, secretrefs
from provisioning.score.workload import Json, Part, join_path

Place = tuple[tuple[Part, ...], str]


def placeholders_in(document: Mapping[str, Json]) -> Iterator[tuple[Place, bool]]:
    """Find the placeholders of a workload where score-go looks for them, and whether in params.

    That is in the variables, in the content of files that are expanded, in the sources of volumes
    and in the params of resources; nowhere else.
    """
    for name, container in _maps(document.get("containers")):
        at = ("containers", name)
        for place in placeholders(container.get("variables"), (*at, "variables")):
            yield place, False
        for target, file in _maps(container.get("files")):
            if file.get("noExpand") is not True and isinstance(file.get("content"), str):
                for place in placeholders(file["content"], (*at, "files", target, "content")):
                    yield place, False
        for target, volume in _maps(container.get("volumes")):
            for place in placeholders(volume.get("source"), (*at, "volumes", target, "source")):
                yield place, False
    for alias, resource in _maps(document.get("resources")):
        for place in placeholders(resource.get("params"), ("resources", alias, "params")):
            yield place, True


def _maps(value: Json) -> Iterator[tuple[str, dict[str, Json]]]:
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield key, item


def check(document: Mapping[str, Json], own: Mapping[str, OwnKeys]) -> Iterator[Finding]:
    """Check what the schema cannot: the name, placeholders, `before`, `dependsOn` and `matchOn`.

    Works on any map, whether or not the schema holds, so that all problems show at once.
    """
    yield from _check_name(document)
    resources = document.get("resources")
    aliases = list(resources) if isinstance(resources, dict) else []
    yield from _check_placeholders(document, aliases)
    yield from _check_secretrefs(document)
    yield from _check_before(document)
    for alias, keys in own.items():
        yield from _check_own_keys(document, alias, keys, aliases)


def _check_name(document: Mapping[str, Json]) -> Iterator[Finding]:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or "name" not in metadata:
        yield Finding(("metadata",), "metadata.name is required.", "add `name:`")
    elif not isinstance(metadata["name"], str) or not metadata["name"]:
        yield Finding(("metadata", "name"), "metadata.name must be a non-empty string.")


def _check_placeholders(document: Mapping[str, Json], aliases: list[str]) -> Iterator[Finding]:
    known = set(aliases)
    for (parts, text), in_params in placeholders_in(document):
        try:
            reference = parse_reference(text, aliases=known if in_params else ())
            # Only the names of annotations have a slash, only the keys of bound references a #.
            if "#" in text or (reference.alias and "/" in text):
                raise malformed_placeholder(text)
        except PlaceholderError as error:
            yield Finding(parts, str(error), _short_form_hint(text, known, in_params) or error.hint)
            continue
        if reference.parts[0] == "resources" and reference.alias not in known:
            yield Finding(
                parts,
                f"The placeholder ${{{text}}} does not resolve to a resource: there is no resource "
                f'with name "{reference.alias}".',
                did_you_mean(reference.alias, aliases) or _add_hint(aliases),
            )


def _check_secretrefs(document: Mapping[str, Json]) -> Iterator[Finding]:
    for alias, resource in _maps(document.get("resources")):
        params = resource.get("params")
        for name, param in params.items() if isinstance(params, dict) else ():
            for parts, value in secretrefs(param, ("resources", alias, "params", name)):
                if wrong := malformed(value):
                    yield Finding(parts, wrong, HINT)


def _add_hint(aliases: list[str]) -> str:
    known = ", ".join(f"`{alias}`" for alias in aliases[:5])
    return f"this file has {known}" if known else "add it under `resources:`"


def _short_form_hint(text: str, known: Collection[str], in_params: bool) -> str:
    root, dot, _rest = text.partition(".")
    if root in ROOTS:
        return ""
    if dot and root in known:
        return f"did you mean `${{resources.{text}}}`?"
    close = did_you_mean(root, [*ROOTS, *(known if in_params else ())])
    return close if dot else ""


def _check_before(document: Mapping[str, Json]) -> Iterator[Finding]:
    containers = dict(_maps(document.get("containers")))
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, container in sorted(containers.items()):
        before = container.get("before")
        for other in sorted(before) if isinstance(before, dict) else ():
            parts = ("containers", name, "before", other)
            if other == name:
                message = f'container "{name}" has a self-referencing before entry.'
                yield Finding(parts, message, "leave it out", at_key=True)
            elif other not in containers:
                message = f'container "{name}" before refers to unknown container "{other}".'
                yield Finding(parts, message, did_you_mean(other, containers), at_key=True)
            else:
                sorter.add(name, other)
    try:
        sorter.prepare()
    except CycleError as error:
        path = " → ".join(reversed(error.args[1]))
        message = f"The containers before relationships contain a cycle: {path}."
        yield Finding(("containers", error.args[1][-1], "before"), message)


def check_cycle(document: Mapping[str, Json], own: Mapping[str, OwnKeys]) -> Iterator[Finding]:
    """Find a cycle between the resources of one file, which may be invalid in other ways.

    Valid files are ordered together with the others of their application, and this is left out.
    """
    uses = _uses_between_resources(document, own)
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for source, target in sorted(uses):
        sorter.add(source, target)
    try:
        sorter.prepare()
    except CycleError as error:
        path: list[str] = error.args[1][::-1]
        places = [uses[edge] for edge in pairwise(path)]
        yield Finding(
            places[0],
            f"These resources need one another, so none can be first: {' → '.join(path)}. "
            f"The references are {', '.join(f'`{join_path(place)}`' for place in places)}.",
            "take one of the references out",
        )


def _uses_between_resources(
    document: Mapping[str, Json], own: Mapping[str, OwnKeys]
) -> dict[tuple[str, str], tuple[Part, ...]]:
    known = {alias for alias, _ in _maps(document.get("resources"))}
    uses: dict[tuple[str, str], tuple[Part, ...]] = {}
    for (parts, text), in_params in placeholders_in(document):
        try:
            target = parse_reference(text, aliases=known).alias if in_params else ""
        except PlaceholderError:
            continue
        if target in known:
            uses.setdefault((str(parts[1]), target), parts)
    for alias, keys in own.items():
        for entry in () if keys.problems else keys.values.get("dependsOn", ()):
            if entry["resource"] in known:
                uses.setdefault((alias, entry["resource"]), keys.places["dependsOn"])
    return uses


def _check_own_keys(
    document: Mapping[str, Json], alias: str, own: OwnKeys, aliases: list[str]
) -> Iterator[Finding]:
    if own.problems:
        return
    for index, entry in enumerate(own.values.get("dependsOn", ())):
        if entry["resource"] not in aliases:
            place = own.places["dependsOn"]
            yield Finding(
                (*place, index),
                f"`{alias}` depends on `{entry['resource']}`, which is no resource of this file.",
                did_you_mean(entry["resource"], aliases) or _add_hint(aliases),
            )
    params = document["resources"][alias].get("params")
    names = list(params) if isinstance(params, dict) else []
    for name in own.values.get("matching", {}).get("matchOn", ()):
        # A param that is not given here may still be a default of the environment or template.
        hint = did_you_mean(name, names) if name not in names else ""
        if hint:
            message = f"`{alias}` matches on `{name}`, which is not among its params."
            yield Finding(own.places["matching"], message, hint)
