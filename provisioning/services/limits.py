"""Limit how many steps run at once in an environment, or of a template."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from django.contrib.auth.models import User
from django.db import transaction

from provisioning.exceptions import ConductorError
from provisioning.models import Environment, Organisation, ResourceTemplate, Step
from provisioning.services.audit import record
from provisioning.services.people import require_staff

MOST = 2_147_483_647
Limited = TypeVar("Limited", Environment, ResourceTemplate)


class LimitError(ConductorError):
    """Refuse a limit under which nothing could run."""


def set_limit(*, limited: Limited, max_concurrent: int | None, actor: User) -> Limited:
    """Let at most so many steps run on the resources of an environment or a template; None: no limit.

    What runs already goes on. Raises LimitError, or NotAllowedError for others than staff.
    """
    noun = str(limited._meta.verbose_name)
    require_staff(actor, f"limit the {noun} {limited.name}")
    if max_concurrent is not None and not 1 <= max_concurrent <= MOST:
        raise LimitError("A limit is at least 1; to let nothing begin, use manage.py maintenance.")
    with transaction.atomic():
        limited.max_concurrent = max_concurrent
        limited.save(update_fields=["max_concurrent"])
        record(
            actor=actor,
            action=f"{noun.replace(' ', '_')}.limited",
            subject_type=noun.replace(" ", "_"),
            subject_id=limited.pk,
            subject=str(limited),
            reason="No limit." if max_concurrent is None else f"At most {max_concurrent} at once.",
        )
    return limited


class Limit(NamedTuple):
    """Hold a limit and how many steps run under it now."""

    noun: str
    name: str
    most: int
    running: int


def list_limits(*, organisation: Organisation) -> list[Limit]:
    """Return an organisation's limits, environments first."""
    held = Step.objects.held()
    environments = organisation.environments.exclude(max_concurrent=None).order_by("name")
    templates = organisation.resource_templates.exclude(max_concurrent=None).order_by("name")
    return [
        Limit(noun, row.name, row.max_concurrent or 0, held.filter(**{field: row}).count())
        for noun, rows, field in (
            ("environment", environments, "resource__environment"),
            ("template", templates, "resource__template_version__template"),
        )
        for row in rows
    ]
