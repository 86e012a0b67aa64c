from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from provisioning.score.placeholders import PlaceholderError, Reference, look_up, substitute
from provisioning.score.workload import Json, Part, Problem, ScoreError, Workload, join_path


def render(workload: Workload, outputs: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """Substitute every placeholder of a workload, `outputs` being by uid of resource.

    Returns {"containers": …, "resources": {alias: {"params": …}}}. A reference that names a
    resource and no output, as volumes do, gives the output with the empty name, else the uid.
    Raises ScoreError with every placeholder that has no value.
    """
    rendering = _Rendering(workload, outputs)
    containers = {
        name: rendering.container(container, ("containers", name))
        for name, container in workload.containers.items()
    }
    resources = {
        alias: {
            "params": rendering.tree(
                declaration.params, ("resources", alias, "params"), workload.resources
            )
        }
        for alias, declaration in workload.resources.items()
    }
    if rendering.problems:
        raise ScoreError(sorted(rendering.problems))
    return {"containers": containers, "resources": resources}


def output_lookup(
    workload: Workload, outputs: Mapping[str, Mapping[str, Json]]
) -> Callable[[Reference], Json]:
    """Make the function that gives a reference of this workload its value, for `substitute`."""

    def lookup(reference: Reference) -> Json:
        if not reference.alias:
            return look_up(workload.metadata, reference.keys, reference)
        if reference.alias not in workload.resources:  # in a file that lint did not read
            raise PlaceholderError(
                f"The placeholder ${{{reference.text}}} does not resolve to a resource: there is no "
                f'resource with name "{reference.alias}".'
            )
        uid = workload.resources[reference.alias].uid
        if not reference.keys:
            return outputs.get(uid, {}).get("", uid)
        if uid not in outputs:
            raise PlaceholderError(
                f"The placeholder ${{{reference.text}}} has no value: there are no outputs of {uid}."
            )
        whole = ".".join(reference.keys)
        if whole in outputs[uid]:  # an output may have dots in its name
            return outputs[uid][whole]
        return look_up(outputs[uid], reference.keys, reference)

    return lookup


class _Rendering:
    def __init__(self, workload: Workload, outputs: Mapping[str, Mapping[str, Json]]) -> None:
        self.workload = workload
        self.lookup = output_lookup(workload, outputs)
        self.problems: list[Problem] = []

    def container(self, container: Mapping[str, Json], parts: tuple[Part, ...]) -> Json:
        """Substitute in the places of a container that take placeholders; copy the rest."""
        rendered = dict(container)
        if "variables" in container:
            rendered["variables"] = self.tree(container["variables"], (*parts, "variables"))
        for key, inner in (("files", "content"), ("volumes", "source")):
            if key in container:
                rendered[key] = {
                    target: self.entry(entry, inner, (*parts, key, target))
                    for target, entry in container[key].items()
                }
        return rendered

    def entry(self, entry: Mapping[str, Json], key: str, parts: tuple[Part, ...]) -> Json:
        """Substitute in one file, unless it says `noExpand`, or in one volume."""
        if key not in entry or entry.get("noExpand"):
            return dict(entry)
        return {**entry, key: self.tree(entry[key], (*parts, key))}

    def tree(
        self, value: Json, parts: tuple[Part, ...], aliases: Collection[str] = frozenset()
    ) -> Json:
        """Substitute in maps and lists, keeping a problem for each string that fails."""
        if isinstance(value, Mapping):
            return {key: self.tree(item, (*parts, key), aliases) for key, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, (*parts, n), aliases) for n, item in enumerate(value)]
        try:
            return substitute(value, self.lookup, aliases=aliases)
        except PlaceholderError as error:
            path = join_path(parts)
            self.problems.append(self.workload.problem(path, str(error), hint=error.hint))
            return value
