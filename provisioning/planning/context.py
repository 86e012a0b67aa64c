"""What drivers are told of a resource besides its params."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provisioning.planning.facts import ResourceFacts, Snapshot, VersionFacts, WorkloadFacts
from provisioning.planning.requirements import Requirement
from provisioning.score.workload import Workload


def unowned_context(version: VersionFacts, snapshot: Snapshot) -> dict[str, Any]:
    """Build the context of a resource that is of no application."""
    context: dict[str, Any] = {
        "organisation": snapshot.organisation,
        "application": "",
        "environment": snapshot.environment,
        "environment_kind": snapshot.environment_kind,
        "workload": "",
        "metadata": {},
        "tags": snapshot.tags,
    }
    if "workloads" in version.uses:
        context["workloads"] = {}
    if "variables" in version.uses:
        context["variables"] = snapshot.variables
    return context


class ContextBuilder:
    """Build the contexts of one plan: an explicit input of drivers, part of the spec digest."""

    def __init__(self, workloads: Sequence[Workload], snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        known = dict(snapshot.workloads)
        for workload in workloads:
            ports = workload.service.get("ports", {})
            known[workload.name] = WorkloadFacts(workload.name, ports, workload.metadata)
        self._workloads = {name: {"ports": known[name].ports} for name in sorted(known)}

    def of(
        self,
        asked: Sequence[Requirement],
        present: ResourceFacts | None,
        version: VersionFacts,
    ) -> Mapping[str, Any]:
        """Build the context of a required resource; one made by another application keeps its own."""
        if present is not None and present.created_by != self._snapshot.application:
            return present.context
        declared = [each.declaration.metadata for each in asked if each.declaration.metadata]
        kept = present.context if present else {}
        return self._own(
            version,
            workload=kept.get("workload", asked[0].workload.name),
            metadata=declared[0] if declared else {},
        )

    def again(self, present: ResourceFacts) -> Mapping[str, Any]:
        """Build the context of a resource of this application that no given file declares."""
        return self._own(
            present.version,
            workload=present.context.get("workload", ""),
            metadata=present.context.get("metadata", {}),
        )

    def _own(
        self, version: VersionFacts, *, workload: str, metadata: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        context: dict[str, Any] = {
            "organisation": self._snapshot.organisation,
            "application": self._snapshot.application,
            "environment": self._snapshot.environment,
            "environment_kind": self._snapshot.environment_kind,
            "workload": workload,
            "metadata": metadata,
            "tags": self._snapshot.tags,
        }
        if "workloads" in version.uses:
            context["workloads"] = self._workloads
        if "variables" in version.uses:
            context["variables"] = self._snapshot.variables
        return context
