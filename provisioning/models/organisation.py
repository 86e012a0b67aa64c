"""Who there is: organisations, teams, their applications, environments and workloads."""

from __future__ import annotations

from typing import Self

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

from provisioning.drivers.terraform.backends import (
    MANAGED,
    TYPES,
    StateBackendError,
    check_backend,
)

NAME_VALIDATOR = RegexValidator(
    r"\A[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z",
    "Use lower-case letters, digits and hyphens; start and end with a letter or a digit.",
)


class Role(models.TextChoices):
    """What a person may do in a team."""

    MEMBER = "member", "Member"
    """May deploy the team's applications."""
    OWNER = "owner", "Owner"
    """May also decide about the team's resources."""


class EnvironmentKind(models.TextChoices):
    """What an environment is for; template rules may depend on it."""

    DEVELOPMENT = "development", "Development"
    STAGING = "staging", "Staging"
    PRODUCTION = "production", "Production"


class Organisation(models.Model):
    """The tenant: everything else belongs to exactly one."""

    name = models.CharField(max_length=63, validators=[NAME_VALIDATOR])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], name="organisation_name_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Team(models.Model):
    """People who own applications and resources together."""

    organisation = models.ForeignKey(Organisation, models.CASCADE, related_name="teams")
    name = models.CharField(max_length=63, validators=[NAME_VALIDATOR])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organisation", "name"], name="team_name_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person's place in a team."""

    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="membership_unique"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_valid"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.team} ({self.role})"


class ApplicationQuerySet(models.QuerySet["Application"]):
    """Applications, chosen by who asks."""

    def visible_to(self, user: User) -> Self:
        """Keep those of the person's teams; staff see all."""
        return self if user.is_staff else self.filter(team__memberships__user=user)


class Application(models.Model):
    """A set of workloads that one team deploys together."""

    organisation = models.ForeignKey(Organisation, models.CASCADE, related_name="applications")
    team = models.ForeignKey(Team, models.PROTECT, related_name="applications")
    name = models.CharField(max_length=63, validators=[NAME_VALIDATOR])
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ApplicationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "name"], name="application_name_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.name


def managed_state() -> dict[str, str]:
    """Return the state backend of an environment that names none: Conductor itself."""
    return {"type": MANAGED}


class Environment(models.Model):
    """A place to deploy to, with its own resources, queue and defaults."""

    organisation = models.ForeignKey(Organisation, models.CASCADE, related_name="environments")
    name = models.CharField(max_length=63, validators=[NAME_VALIDATOR])
    kind = models.CharField(
        max_length=20, choices=EnvironmentKind.choices, default=EnvironmentKind.DEVELOPMENT
    )
    variables = models.JSONField(
        default=dict,
        blank=True,
        help_text="Plain values that resources of type `environment` hand to workloads.",
    )
    tags = models.JSONField(default=dict, blank=True)
    defaults = models.JSONField(
        default=dict,
        blank=True,
        help_text="{type, or *: {param: value}}: what resources get that nobody asks for.",
    )
    queue = models.CharField(
        max_length=50,
        default="default",
        help_text="The queue whose workers take this environment's steps.",
    )
    protected = models.BooleanField(
        default=False, help_text="Each deployment to it has to be approved."
    )
    max_concurrent = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many steps run on its resources at once; blank: as many as workers take.",
    )
    state_backend = models.JSONField(
        default=managed_state,
        help_text=f'{{"type": …}}, one of {", ".join(TYPES)}, with its settings and no credentials: '
        "where the states of new resources are kept.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "name"], name="environment_name_unique"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=EnvironmentKind.values), name="environment_kind_valid"
            ),
            models.CheckConstraint(
                condition=Q(max_concurrent=None) | Q(max_concurrent__gte=1),
                name="environment_max_concurrent_positive",
            ),
            models.CheckConstraint(
                condition=Q(state_backend__type__in=list(TYPES)),
                name="environment_state_backend_typed",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse defaults that are not params by type, and a state backend that is none."""
        super().clean()
        try:
            check_backend(self.state_backend)
        except StateBackendError as error:
            raise ValidationError({"state_backend": str(error)}) from error
        if not isinstance(self.defaults, dict) or not all(
            isinstance(params, dict) for params in self.defaults.values()
        ):
            message = 'It must map types, or "*", to params: {"postgres": {"tier": "small"}}.'
            raise ValidationError({"defaults": message})


class Workload(models.Model):
    """One Score file's `metadata.name` in an application and an environment."""

    application = models.ForeignKey(Application, models.CASCADE, related_name="workloads")
    environment = models.ForeignKey(Environment, models.CASCADE, related_name="workloads")
    name = models.CharField(max_length=63)
    metadata = models.JSONField(default=dict)
    ports = models.JSONField(
        default=dict, help_text="The workload's `service.ports`, for service discovery."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["application", "environment", "name"], name="workload_name_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.application_id}/{self.environment_id}/{self.name}"
