from __future__ import annotations

from provisioning.score.placeholders import as_text
from provisioning.score.reader import RawDocument
from provisioning.score.workload import Json, Mark, Part


def upgrade(document: RawDocument) -> list[str]:
    """Rewrite the deprecated lists of files and volumes as maps from target to the rest.

    Changes the document and its marks, adds a problem for each entry without a target of its own,
    and says what was done, one sentence each. After score-go's ApplyCommonUpgradeTransforms.
    """
    done: list[str] = []
    containers = document.value.get("containers") if isinstance(document.value, dict) else None
    if not isinstance(containers, dict):
        return done
    for name, container in containers.items():
        for key in ("files", "volumes"):
            if isinstance(container, dict) and isinstance(container.get(key), list):
                _upgrade_list(document, ("containers", name), key, container, done)
    return done


def _upgrade_list(
    document: RawDocument,
    container_parts: tuple[Part, ...],
    key: str,
    container: dict[str, Json],
    done: list[str],
) -> None:
    entries = container[key]
    if not all(isinstance(entry, dict) for entry in entries):
        return  # the schema says what an entry must be
    path = ".".join(map(str, (*container_parts, key)))
    mark = document.marks.find((*container_parts, key))
    upgraded: dict[str, Json] = {}
    places: dict[str, Mark] = {}
    for index, entry in enumerate(entries):
        parts = (*container_parts, key, index)
        target = entry.get("target")
        if not isinstance(target, str):
            document.problems.append(
                document.problem(parts, f"`{path}.{index}` has no `target` that is text.")
            )
        elif target in upgraded:
            document.problems.append(
                document.problem((*parts, "target"), f"The target `{target}` is given twice.")
            )
        else:
            upgraded[target] = _entry(entry, key, f"{path}.{index}", done)
            places[target] = document.marks.find(parts)
    container[key] = upgraded
    siblings = document.marks.find(container_parts).children
    if isinstance(siblings, dict):
        siblings[key] = mark._replace(children=places)
    done.append(f"{path}: migrated from a list to a map.")


def _entry(entry: dict[str, Json], key: str, path: str, done: list[str]) -> dict[str, Json]:
    rest = {name: value for name, value in entry.items() if name != "target"}
    if key == "files" and isinstance(rest.get("content"), list):
        rest["content"] = "\n".join(map(as_text, rest["content"]))
        done.append(f"{path}.content: migrated from a list of lines to text.")
    if key == "volumes" and isinstance(rest.get("read_only"), bool):
        rest["readOnly"] = rest.pop("read_only")
        done.append(f"{path}.read_only: migrated to readOnly.")
    return rest
