from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from provisioning.models import Resource, ResourceOutput, Step
from provisioning.services.deployments.priority import priority_name
from provisioning.services.outputs import MASK

register = template.Library()

TONES = {
    "succeeded": "good",
    "active": "good",
    "create": "good",
    "failed": "bad",
    "timed_out": "bad",
    "rejected": "bad",
    "blocked": "bad",
    "destroy": "bad",
    "running": "busy",
    "recovering": "busy",
    "provisioning": "busy",
    "updating": "busy",
    "deleting": "busy",
    "cancelling": "busy",
    "update": "busy",
    "recheck": "busy",
    "alive": "good",
    "draining": "busy",
    "dead": "bad",
    "ok": "good",
    "firing": "bad",
    "pending_approval": "asks",
    "approved": "good",
    "pending_confirmation": "asks",
}


@register.simple_tag
def badge(status: str) -> SafeString:
    """Show a status or an action as a colored word."""
    tone = TONES.get(status, "calm")
    return format_html('<span class="badge badge-{}">{}</span>', tone, status.replace("_", " "))


@register.filter
def compact(value: Any) -> str:
    """Write a JSON value as a person would: text bare, the rest as JSON."""
    if value is None:
        return "unset"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@register.filter
def shown(output: ResourceOutput) -> str:
    """Write an output's value, a sensitive one masked."""
    return MASK if output.sensitive else compact(output.value)


@register.filter
def took(thing: Step) -> str:
    """Write how long something that has `started_at` and `finished_at` took."""
    start: datetime | None = thing.started_at
    end: datetime | None = thing.finished_at
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


@register.filter
def priority(number: int) -> str:
    """Write a priority by its name, if it has one."""
    return priority_name(number)


@register.filter
def users(resource: Resource) -> str:
    """Name the active consumers of a resource that has them prefetched."""
    consumers = resource.active_consumers  # type: ignore[attr-defined]
    return ", ".join(f"{row.application_name}/{row.workload.name}.{row.alias}" for row in consumers)
