from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from provisioning.score.reader import RawDocument, read
from provisioning.score.schema.validation import (
    CONDUCTOR_KEYS,
    Finding,
    did_you_mean,
    findings,
    show,
)
from provisioning.score.workload import Binding, Json, Matching, Part, Problem

PREFIX = "conductor.dev/"
SHARING = {
    "dedicated": Binding("private"),
    "shared": Binding("match", matching=Matching()),
    "shared-by-params": Binding("match", matching=Matching()),
    "shared-always": Binding("match", matching=Matching(match_on=())),
}


@dataclass(slots=True)
class OwnKeys:
    """Hold Conductor's keys of one resource, wherever they stood, and where each stood."""

    values: dict[str, Json] = field(default_factory=dict)
    places: dict[str, tuple[Part, ...]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def take_own_keys(document: RawDocument) -> tuple[dict[str, Json], dict[str, OwnKeys]]:
    """Part a document from Conductor's keys, which the official schema does not know.

    Returns the document without them (copied where it changed) and, by alias, the keys with the
    problems they have in themselves.
    """
    resources = document.value.get("resources")
    if not isinstance(resources, dict):
        return document.value, {}
    plain: dict[str, Json] = {}
    own: dict[str, OwnKeys] = {}
    for alias, resource in resources.items():
        plain[alias] = resource
        if isinstance(resource, dict):
            own[alias] = _collect(document, alias, resource)
            if not own[alias].values.keys().isdisjoint(resource):
                plain[alias] = {key: resource[key] for key in resource if key not in CONDUCTOR_KEYS}
    return {**document.value, "resources": plain}, own


def _collect(document: RawDocument, alias: str, resource: dict[str, Json]) -> OwnKeys:
    own = OwnKeys()
    for key in CONDUCTOR_KEYS:
        if key in resource:
            own.values[key] = _as_list(resource[key]) if key == "dependsOn" else resource[key]
            own.places[key] = ("resources", alias, key)
    for key, place, value in _annotations(document, alias, resource, own.problems):
        value = _as_list(value) if key == "dependsOn" else value
        if key in own.values and own.values[key] != value:
            own.problems.append(
                document.problem(
                    place,
                    f"The annotation `{PREFIX}{key}` says {show(value)}, the key `{key}` of "
                    f"`{alias}` says {show(own.values[key])}.",
                    hint="keep one of the two",
                )
            )
        own.values.setdefault(key, value)
        own.places.setdefault(key, place)
    if own.values:
        _check(document, alias, own)
    return own


def _annotations(
    document: RawDocument, alias: str, resource: dict[str, Json], problems: list[Problem]
) -> Iterator[tuple[str, tuple[Part, ...], Json]]:
    metadata = resource.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    for name, text in annotations.items() if isinstance(annotations, dict) else ():
        if not name.startswith(PREFIX) or not isinstance(text, str):
            continue
        key, place = (
            name.removeprefix(PREFIX),
            ("resources", alias, "metadata", "annotations", name),
        )
        if key not in CONDUCTOR_KEYS:
            known = [f"{PREFIX}{each}" for each in CONDUCTOR_KEYS]
            hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
            message = f"`{name}` is not an annotation that Conductor knows."
            problems.append(document.problem(place, message, hint=hint, at_key=True))
            continue
        inner = next(iter(read(text)), None)
        if inner is None or inner.problems:
            said = inner.problems[0].message if inner else "It is empty."
            problems.append(document.problem(place, f"`{name}` is not YAML or JSON. {said}"))
            continue
        yield key, place, inner.value


def _as_list(depends_on: Json) -> Json:
    """Write `dependsOn` in its long form; what has no such form stays, for the schema to refuse."""
    entries = depends_on if isinstance(depends_on, list) else [depends_on]
    return [{"resource": entry} if isinstance(entry, str) else entry for entry in entries]


def _check(document: RawDocument, alias: str, own: OwnKeys) -> None:
    for finding in findings(own.values, "conductor.json"):
        place = _place(own, alias, finding)
        own.problems.append(
            document.problem(place, finding.message, hint=finding.hint, at_key=finding.at_key)
        )
    if own.problems:
        return
    for message, key, hint in _disagreements(own.values):
        own.problems.append(document.problem(own.places[key], message, hint=hint, at_key=True))


def _place(own: OwnKeys, alias: str, finding: Finding) -> tuple[Part, ...]:
    if not finding.parts:
        return ("resources", alias)
    key, *rest = finding.parts
    place = own.places[str(key)]
    return (*place, *rest) if place[-1] == key else place


def _disagreements(values: Mapping[str, Json]) -> Iterator[tuple[str, str, str]]:
    reference = values.get("reference", {})
    mode = reference.get("mode")
    if "reference" in values and mode is None and values.get("sharing") != "shared-by-name":
        yield "`reference` does not say its `mode`.", "reference", "add `mode: shared`"
    if mode == "shared" and "name" not in reference:
        yield "`reference` of mode shared has no `name`.", "reference", "add `name:`"
    if mode == "existing" and "id" not in reference:
        yield "`reference` of mode existing has no `id`.", "reference", "add the resource's `id:`"
    if mode != "existing" and "id" in reference:
        yield "`reference.id` needs `mode: existing`.", "reference", ""
    if mode in ("dedicated", "existing") and "name" in reference:
        yield f"`reference.name` has no meaning with `mode: {mode}`.", "reference", "leave it out"
    wishes = list(_wishes(values, ""))
    for key, binding in wishes[1:]:
        if binding != wishes[0][1]:
            first = wishes[0][0]
            message = f"`{first}` and `{key}` disagree: {_say(wishes[0][1])} or {_say(binding)}?"
            yield message, key, "keep one of the two"
    if "pool" in values and wishes and wishes[0][1].mode != "private":
        message = f"`pool` and `{wishes[0][0]}` disagree: a member of a pool is one's own."
        yield message, "pool", "keep one of the two"


def _wishes(values: Mapping[str, Json], fallback: str) -> Iterator[tuple[str, Binding]]:
    """Normalise each key by itself; keys that agree give equal bindings."""
    reference = values.get("reference", {})
    name = reference.get("name", fallback)
    if reference.get("mode") == "dedicated":
        yield "reference", Binding("private")
    elif reference.get("mode") == "shared":
        yield "reference", Binding("shared", name=name)
    elif reference.get("mode") == "existing":
        yield "reference", Binding("existing", resource_id=str(reference.get("id", "")).lower())
    if values.get("sharing") == "shared-by-name":
        yield "sharing", Binding("shared", name=name)
    elif "sharing" in values:
        yield "sharing", SHARING[values["sharing"]]
    if "matching" in values:
        yield "matching", _matching(values["matching"])


def _matching(matching: Mapping[str, Json]) -> Binding:
    if matching.get("sharingPolicy") == "dedicated":
        return Binding("private")
    match_on = matching.get("matchOn")
    return Binding(
        "match",
        matching=Matching(
            scope=matching.get("scope", "environment"),
            sharing_policy=matching.get("sharingPolicy", "shared"),
            match_on=None if match_on is None else tuple(sorted(match_on)),
            max_consumers=matching.get("maxConsumers"),
        ),
    )


def _say(binding: Binding) -> str:
    if binding.mode == "shared":
        return "shared by name"
    if binding.mode == "match":
        return _say_matching(binding.matching or Matching())
    return "one's own" if binding.mode == "private" else "an existing resource"


def _say_matching(matching: Matching) -> str:
    on = "all params" if matching.match_on is None else ", ".join(matching.match_on) or "nothing"
    said = f"matched on {on} in scope {matching.scope}"
    if matching.sharing_policy != "shared":
        said += f" with sharingPolicy {matching.sharing_policy}"
    if matching.max_consumers is not None:
        said += f" for at most {matching.max_consumers} consumers"
    return said


def bind(alias: str, id_: str | None, values: Mapping[str, Json]) -> Binding:
    """Normalise Conductor's keys, free of problems, to the one way that finds the resource.

    A Score `id` makes a dedicated resource the application's; shared by name without a name takes
    the id, else the alias.
    """
    wishes = list(_wishes(values, id_ or alias))
    binding = wishes[0][1] if wishes else Binding("private")
    if binding.mode == "private" and id_:
        binding = Binding("application", name=id_)
    if values.get("pool"):
        binding = Binding(binding.mode, name=binding.name, pool=values["pool"])
    return binding
