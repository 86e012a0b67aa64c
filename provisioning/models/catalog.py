"""The catalogue: resource templates, their versions and the rules that choose one."""

from __future__ import annotations

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from provisioning.models.organisation import (
    Application,
    Environment,
    EnvironmentKind,
    Organisation,
    Team,
)


class VersionState(models.TextChoices):
    """The life of a template version."""

    DRAFT = "draft", "Draft"
    """May still change; serves nothing."""
    ACTIVE = "active", "Active"
    """Immutable; serves new resources."""
    DEPRECATED = "deprecated", "Deprecated"
    """Immutable; serves only the resources that already have it."""


class ShrinkPolicy(models.TextChoices):
    """What becomes of a parameter that grew for consumers who do not ask for it any more."""

    APPLY = "apply", "Apply"
    PROPOSE = "propose", "Propose"
    """It stays until somebody deploys with `--shrink`."""
    NEVER = "never", "Never"


class ResourceTemplate(models.Model):
    """The recipe for one kind of resource."""

    organisation = models.ForeignKey(
        Organisation, models.CASCADE, related_name="resource_templates"
    )
    owner_team = models.ForeignKey(
        Team, models.PROTECT, null=True, blank=True, related_name="resource_templates"
    )
    name = models.CharField(max_length=100)
    type = models.CharField(max_length=63)
    class_name = models.CharField("class", max_length=63, default="default")
    driver = models.CharField(max_length=50)
    description = models.TextField(blank=True)
    max_concurrent = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many steps run on its resources at once; blank: as many as workers take.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "name"], name="resource_template_name_unique"
            ),
            models.CheckConstraint(
                condition=Q(max_concurrent=None) | Q(max_concurrent__gte=1),
                name="resource_template_max_concurrent_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ResourceTemplateVersion(models.Model):
    """One published content of a template; immutable once active (a trigger guards it)."""

    template = models.ForeignKey(ResourceTemplate, models.PROTECT, related_name="versions")
    version = models.CharField(max_length=50)
    state = models.CharField(
        max_length=10, choices=VersionState.choices, default=VersionState.DRAFT
    )
    source = models.CharField(
        max_length=500, blank=True, help_text="Where the content came from: a path, or url@commit."
    )
    digest = models.CharField(max_length=80, blank=True, help_text="sha256 of the content.")
    archive = models.BinaryField(
        default=bytes,
        help_text="The content as a tar file, so that teardown needs nothing but the database.",
    )
    params_schema = models.JSONField(default=dict)
    outputs = models.JSONField(
        default=list, help_text="[{name, sensitive, description, type}]; the name * allows any."
    )
    config = models.JSONField(default=dict, blank=True)
    uses = models.JSONField(
        default=list, blank=True, help_text="Parts of the context that are inputs: workloads, …"
    )
    deletion_policy = models.CharField(max_length=10, default="delete")
    grace_seconds = models.PositiveIntegerField(
        default=0, help_text="How long a shared resource outlives its last consumer."
    )
    timeout_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="How long its driver may work at one resource."
    )
    share_when = models.TextField(
        blank=True, help_text="The rule by which a resource of it is shared conditionally."
    )
    merge_rules = models.JSONField(
        default=dict,
        blank=True,
        help_text="{param: {rule, …}}: how several consumers' wishes become one; equal if unnamed.",
    )
    shrink = models.CharField(
        max_length=10, choices=ShrinkPolicy.choices, default=ShrinkPolicy.APPLY
    )
    checks = models.JSONField(
        default=list,
        blank=True,
        help_text="[{condition, message}]: what each consumer's wish is compared with afterwards.",
    )
    requirements = models.JSONField(
        default=list,
        blank=True,
        help_text="[{key, type, class, id, params, priority}]: what it needs besides itself.",
    )
    co_provision = models.JSONField(
        default=list, blank=True, help_text="As requirements: what is provisioned beside it."
    )
    inputs = models.JSONField(
        default=dict, blank=True, help_text="{param: …}: what the template fills in itself."
    )
    share_same = models.JSONField(
        default=list,
        blank=True,
        help_text="Params in which needs must be the same to share one resource.",
    )
    naming = models.JSONField(
        default=dict, blank=True, help_text="{prefix, length, alphabet} of the real things' names."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["template", "version"], name="template_version_unique"),
            models.CheckConstraint(
                condition=Q(state__in=VersionState.values), name="template_version_state_valid"
            ),
            models.CheckConstraint(
                condition=Q(shrink__in=ShrinkPolicy.values), name="template_version_shrink_valid"
            ),
            models.CheckConstraint(
                condition=Q(state=VersionState.DRAFT) | ~Q(digest=""),
                name="template_version_active_has_digest",
            ),
            models.CheckConstraint(
                condition=Q(timeout_seconds=None) | Q(timeout_seconds__gte=1),
                name="template_version_timeout_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.template_id}@{self.version}"


class TemplateRule(models.Model):
    """Which template serves a requirement; a blank field matches everything."""

    organisation = models.ForeignKey(Organisation, models.CASCADE, related_name="template_rules")
    template = models.ForeignKey(ResourceTemplate, models.CASCADE, related_name="rules")
    type = models.CharField(max_length=63)
    class_name = models.CharField("class", max_length=63, blank=True)
    resource_id = models.CharField("Score id", max_length=100, blank=True)
    environment_kind = models.CharField(max_length=20, choices=EnvironmentKind.choices, blank=True)
    environment = models.ForeignKey(
        Environment, models.CASCADE, null=True, blank=True, related_name="template_rules"
    )
    application = models.ForeignKey(
        Application, models.CASCADE, null=True, blank=True, related_name="template_rules"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "organisation",
                    "type",
                    "class_name",
                    "resource_id",
                    "environment_kind",
                    "environment",
                    "application",
                ],
                nulls_distinct=False,
                name="template_rule_unique",
                violation_error_message="Another rule already matches exactly the same.",
            ),
            models.CheckConstraint(
                condition=Q(environment_kind="") | Q(environment_kind__in=EnvironmentKind.values),
                name="template_rule_environment_kind_valid",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type}.{self.class_name or '*'} → {self.template_id} ({self.pk})"
