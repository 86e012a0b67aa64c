from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from portal.admin.base import MASK, ConductorAdmin, LookOnlyAdmin, LookOnlyInline
from provisioning.models import (
    ConsumerOutput,
    PossibleOrphan,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceOutput,
    StateLock,
    StateVersion,
    ToolEvent,
)

EDITABLE = ("protected", "deletion_policy")


def shown_value(output: ResourceOutput | ConsumerOutput) -> str:
    """Return an output's value, or the mask for a sensitive one."""
    return MASK if output.sensitive else json.dumps(output.value, ensure_ascii=False)


class OutputInline(LookOnlyInline):
    model = ResourceOutput
    fields = ("key", "sensitive", "shown")

    @admin.display(description="Value")
    def shown(self, output: ResourceOutput) -> str:
        """Return the value, masked if it is sensitive."""
        return shown_value(output)


class ConsumerInline(LookOnlyInline):
    model = ResourceConsumer
    fields = ("who", "alias", "mode", "state", "created_at", "ended_at")

    @admin.display(description="Workload")
    def who(self, consumer: ResourceConsumer) -> str:
        """Name the application and the workload."""
        return f"{consumer.application_name}/{consumer.workload.name}"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Load the names together."""
        return super().get_queryset(request).select_related("workload__application")


class DependencyInline(LookOnlyInline):
    model = ResourceDependency
    fk_name = "source"
    fields = ("target", "kind")
    verbose_name_plural = "dependencies"


@admin.register(Resource)
class ResourceAdmin(ConductorAdmin[Resource]):
    list_display = (
        "key",
        "type",
        "class_name",
        "environment",
        "owner_team",
        "state",
        "protected",
        "deletion_policy",
        "updated_at",
    )
    list_filter = ("state", "environment", "type", "owner_team", "protected", "published")
    search_fields = ("key", "name", "uid", "id")
    list_select_related = ("environment", "owner_team")
    inlines = (OutputInline, ConsumerInline, DependencyInline)

    def get_readonly_fields(self, request: HttpRequest, obj: Resource | None = None) -> list[str]:
        """Leave only protection and deletion policy to be edited."""
        return [field.name for field in Resource._meta.fields if field.name not in EDITABLE]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: resources come from deployments."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Resource | None = None) -> bool:
        """Refuse: only a step destroys."""
        return False


@admin.register(ResourceConsumer)
class ResourceConsumerAdmin(LookOnlyAdmin[ResourceConsumer]):
    list_display = ("alias", "application", "workload_name", "resource", "mode", "state")
    list_filter = ("state", "mode", "workload__environment", "workload__application")
    search_fields = ("alias", "workload__name", "workload__application__name", "resource__key")
    list_select_related = ("workload__application", "resource")

    @admin.display(ordering="workload__application__name")
    def application(self, consumer: ResourceConsumer) -> str:
        """Name the application."""
        return consumer.workload.application.name

    @admin.display(description="Workload", ordering="workload__name")
    def workload_name(self, consumer: ResourceConsumer) -> str:
        """Name the workload."""
        return consumer.workload.name


@admin.register(ResourceOutput)
class ResourceOutputAdmin(LookOnlyAdmin[ResourceOutput]):
    list_display = ("key", "resource", "sensitive", "shown")
    list_filter = ("sensitive", "resource__type", "resource__environment")
    search_fields = ("key", "resource__key")
    list_select_related = ("resource",)
    fields = ("resource", "key", "sensitive", "shown")
    readonly_fields = ("shown",)

    @admin.display(description="Value")
    def shown(self, output: ResourceOutput) -> str:
        """Return the value, masked if it is sensitive."""
        return shown_value(output)


@admin.register(ConsumerOutput)
class ConsumerOutputAdmin(LookOnlyAdmin[ConsumerOutput]):
    list_display = ("key", "resource", "consumer", "dependent", "sensitive", "shown")
    list_filter = ("sensitive", "resource__type", "resource__environment")
    search_fields = ("key", "resource__key", "consumer__workload__name", "dependent__key")
    list_select_related = ("resource", "consumer", "dependent")
    fields = ("resource", "consumer", "dependent", "key", "sensitive", "shown")
    readonly_fields = ("shown",)

    @admin.display(description="Value")
    def shown(self, output: ConsumerOutput) -> str:
        """Return the value, masked if it is sensitive."""
        return shown_value(output)


@admin.register(ResourceDependency)
class ResourceDependencyAdmin(LookOnlyAdmin[ResourceDependency]):
    list_display = ("source", "target", "kind")
    list_filter = ("kind", "source__environment")
    search_fields = ("source__key", "target__key")
    list_select_related = ("source", "target")


@admin.register(StateVersion)
class StateVersionAdmin(LookOnlyAdmin[StateVersion]):
    list_display = (
        "resource", "number", "serial", "lineage", "attempt", "stored_by", "size", "created_at",
    )  # fmt: skip
    list_filter = ("resource__environment", "resource__type")
    search_fields = ("resource__key", "resource__id")
    list_select_related = ("resource",)
    exclude = ("data", "digest")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave the states where they are."""
        return super().get_queryset(request).defer("data")


@admin.register(StateLock)
class StateLockAdmin(LookOnlyAdmin[StateLock]):
    list_display = ("resource", "lock_id", "step", "person", "created_at", "expires_at")
    search_fields = ("resource__key", "lock_id")
    list_select_related = ("resource", "step", "person")


@admin.register(PossibleOrphan)
class PossibleOrphanAdmin(LookOnlyAdmin[PossibleOrphan]):
    list_display = ("resource", "address", "id_value", "found_at")
    list_filter = ("resource__environment",)
    search_fields = ("resource__key", "address", "id_value")
    list_select_related = ("resource",)


@admin.register(ToolEvent)
class ToolEventAdmin(LookOnlyAdmin[ToolEvent]):
    list_display = ("resource", "event", "action", "address", "id_value", "created_at")
    search_fields = ("resource__key", "address", "id_value")
    list_select_related = ("resource",)
