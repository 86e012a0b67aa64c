from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from provisioning.exceptions import ConductorError
from provisioning.score.workload import Json


def embed_files(containers: Mapping[str, Json], folder: Path) -> dict[str, Json]:
    """Read the files that containers name by `source` into `content`, relative to `folder`.

    What is not UTF-8 becomes `binaryContent`, in base64; `mode` and `noExpand` stay. Raises
    ConductorError for a file that cannot be read.
    """
    return {
        name: {**container, "files": _embedded(name, container["files"], folder)}
        if "files" in container
        else container
        for name, container in containers.items()
    }


def _embedded(name: str, files: Mapping[str, Json], folder: Path) -> dict[str, Json]:
    return {target: _embed(name, file, folder) for target, file in files.items()}


def _embed(container: str, file: Mapping[str, Json], folder: Path) -> Mapping[str, Json]:
    if "source" not in file:
        return file
    try:
        content = (folder / file["source"]).read_bytes()
    except OSError as error:
        raise ConductorError(
            f"The file {file['source']} of container `{container}` cannot be read: {error.strerror}."
        ) from None
    rest = {key: value for key, value in file.items() if key != "source"}
    try:
        return {**rest, "content": content.decode()}
    except UnicodeDecodeError:
        return {**rest, "binaryContent": base64.b64encode(content).decode()}
