"""What exists: resources, and who consumes them."""

from __future__ import annotations

import uuid
from typing import Self

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q

from provisioning.models.catalog import ResourceTemplateVersion
from provisioning.models.organisation import Application, Environment, Team, Workload


class ResourceState(models.TextChoices):
    """Where a resource is in its life."""

    PROVISIONING = "provisioning", "Provisioning"
    """Wanted, but not brought about yet."""
    ACTIVE = "active", "Active"
    """As its desired input says."""
    UPDATING = "updating", "Updating"
    """Was active; a newer desired input is being brought about."""
    DELETING = "deleting", "Deleting"
    """Nothing holds it; a step will destroy it."""
    DELETED = "deleted", "Deleted"
    """Gone; the row is kept as history."""
    FAILED = "failed", "Failed"
    """The last step on it failed; the next deployment that needs it tries again."""


OF_ONE_APPLICATION = ("private/", "app/", "component/")
"""The keys that begin so are of resources that one application alone uses."""
OF_A_POOL = "pool/"
"""The keys of the members of pools begin so."""

LIVE_RESOURCE_STATES = [state for state in ResourceState.values if state != ResourceState.DELETED]


class DeletionPolicy(models.TextChoices):
    """What happens when the last user has left."""

    DELETE = "delete", "Delete"
    RETAIN = "retain", "Retain"


class SharingPolicy(models.TextChoices):
    """Whether other teams may use a resource; its own team is never asked."""

    OPEN = "open", "Open"
    """They may."""
    APPROVAL = "approval", "Approval"
    """Its owners are asked each time."""
    CLOSED = "closed", "Closed"
    """Only those who were granted it beforehand may."""


class ConsumerMode(models.TextChoices):
    """How a workload names the resource it consumes."""

    PRIVATE = "private", "Private"
    APPLICATION = "application", "Application"
    SHARED = "shared", "Shared"
    EXISTING = "existing", "Existing"
    MATCH = "match", "Match"
    POOL = "pool", "Pool"


class ConsumerState(models.TextChoices):
    """Whether a consumer counts."""

    PENDING = "pending", "Pending"
    """Asked for; counts for nothing yet."""
    ACTIVE = "active", "Active"
    """Holds the resource."""
    RELEASED = "released", "Released"
    """Left by itself."""
    REVOKED = "revoked", "Revoked"
    """Put out by the owner."""
    BROKEN = "broken", "Broken"
    """The resource was destroyed under it by force."""
    WITHDRAWN = "withdrawn", "Withdrawn"
    """The deployment that asked ended before it came to it."""


class ResourceQuerySet(models.QuerySet["Resource"]):
    """Resources, chosen by who asks."""

    def visible_to(self, user: User) -> Self:
        """Keep those that the person's teams own or consume; staff see all."""
        if user.is_staff:
            return self
        teams = Team.objects.filter(memberships__user=user)
        consumed = ResourceConsumer.objects.filter(
            workload__application__team__in=teams, state=ConsumerState.ACTIVE
        )
        return self.filter(Q(owner_team__in=teams) | Q(pk__in=consumed.values("resource")))


class Resource(models.Model):
    """One provisioned thing in one environment."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    environment = models.ForeignKey(Environment, models.PROTECT, related_name="resources")
    owner_team = models.ForeignKey(Team, models.PROTECT, related_name="resources")
    created_by = models.ForeignKey(
        Application, models.SET_NULL, null=True, blank=True, related_name="created_resources"
    )
    key = models.CharField(max_length=600)
    name = models.CharField(max_length=100)
    uid = models.CharField(max_length=400)
    type = models.CharField(max_length=63)
    class_name = models.CharField("class", max_length=63)
    template_version = models.ForeignKey(
        ResourceTemplateVersion, models.PROTECT, related_name="resources"
    )
    state = models.CharField(
        max_length=20, choices=ResourceState.choices, default=ResourceState.PROVISIONING
    )
    params = models.JSONField(
        default=dict, help_text="The desired params: references bound to keys, not substituted."
    )
    spec_digest = models.CharField(
        max_length=64, help_text="Digest of the desired template version and unsubstituted input."
    )
    context = models.JSONField(
        default=dict, help_text="What the driver is told besides the params."
    )
    floor = models.JSONField(
        default=dict,
        blank=True,
        help_text="The params last brought about, if its template does not let them shrink.",
    )
    applied_spec_digest = models.CharField(max_length=64, blank=True)
    applied_mac = models.CharField(
        max_length=64, blank=True, help_text="Keyed MAC of the substituted input last applied."
    )
    state_backend = models.CharField(max_length=30, blank=True)
    state_location = models.CharField(max_length=500, blank=True)
    state_metadata = models.JSONField(default=dict, blank=True)
    deletion_policy = models.CharField(
        max_length=10, choices=DeletionPolicy.choices, default=DeletionPolicy.DELETE
    )
    protected = models.BooleanField(default=False)
    adopted = models.BooleanField(
        default=False, help_text="Conductor did not make it, so no driver ever runs on it."
    )
    imports = models.JSONField(
        default=dict,
        blank=True,
        help_text="{place in the template: id} of what its driver still has to take in.",
    )
    import_changes = models.BooleanField(
        default=False, help_text="Taking it in may change, create or destroy besides."
    )
    grace_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="How long it outlives its last consumer, if shared; blank: as its template says.",
    )
    grace_until = models.DateTimeField(
        null=True, blank=True, help_text="Nobody uses it: when it is destroyed if nobody joins."
    )
    match_slot = models.CharField(
        max_length=64,
        blank=True,
        help_text="What one must ask for to find it by criteria; empty if nobody can.",
    )
    slot_ordinal = models.PositiveIntegerField(
        null=True, blank=True, help_text="The how many-eth resource of its slot it is."
    )
    max_consumers = models.PositiveIntegerField(
        null=True, blank=True, help_text="The least that any of its consumers has asked for."
    )
    share_conditionally = models.BooleanField(
        default=False, help_text="Only those share it for whom its template's rule holds."
    )
    pool = models.ForeignKey(
        "provisioning.ResourcePool",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="members",
    )
    claimed_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was claimed, or taken out of its pool."
    )
    sharing_policy = models.CharField(
        max_length=10, choices=SharingPolicy.choices, default=SharingPolicy.APPROVAL
    )
    published = models.BooleanField(
        default=False,
        help_text="Other organisations find it by criteria, in the scope global; staff decide.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    objects = ResourceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "key"],
                condition=Q(state__in=LIVE_RESOURCE_STATES),
                name="resource_one_live_per_key",
            ),
            models.UniqueConstraint(
                fields=["environment", "name"],
                condition=Q(state__in=LIVE_RESOURCE_STATES),
                name="resource_one_live_per_name",
            ),
            models.UniqueConstraint(
                fields=["match_slot", "slot_ordinal"],
                condition=Q(state__in=LIVE_RESOURCE_STATES) & ~Q(match_slot=""),
                name="resource_one_live_per_slot",
            ),
            models.CheckConstraint(
                condition=Q(match_slot="", slot_ordinal=None)
                | (~Q(match_slot="") & Q(slot_ordinal__isnull=False)),
                name="resource_slot_whole",
            ),
            models.CheckConstraint(
                condition=Q(published=False) | ~Q(match_slot=""),
                name="resource_published_in_slot",
            ),
            models.CheckConstraint(
                condition=Q(max_consumers=None) | Q(max_consumers__gte=1),
                name="resource_max_consumers_positive",
            ),
            models.CheckConstraint(
                condition=Q(claimed_at=None) | Q(pool__isnull=False),
                name="resource_claimed_of_pool",
            ),
            models.CheckConstraint(
                condition=Q(state__in=ResourceState.values), name="resource_state_valid"
            ),
            models.CheckConstraint(
                condition=Q(deletion_policy__in=DeletionPolicy.values),
                name="resource_deletion_policy_valid",
            ),
            models.CheckConstraint(
                condition=Q(sharing_policy__in=SharingPolicy.values),
                name="resource_sharing_policy_valid",
            ),
            models.CheckConstraint(
                condition=Q(adopted=False) | Q(imports={}), name="resource_adopted_imports_nothing"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} ({self.id})"

    @property
    def is_shareable(self) -> bool:
        """Tell whether workloads of several applications may use it."""
        return not self.key.startswith((*OF_ONE_APPLICATION, OF_A_POOL))

    @property
    def grace(self) -> int:
        """Return how many seconds it outlives its last consumer."""
        return self.grace_after(self.template_version.grace_seconds)

    def grace_after(self, of_template: int) -> int:
        """Return the same, given what its template version says, without reading that."""
        if not self.is_shareable:
            return 0
        return of_template if self.grace_seconds is None else self.grace_seconds


class ResourceConsumer(models.Model):
    """A workload's alias bound to a resource, with what it asked for."""

    resource = models.ForeignKey(Resource, models.PROTECT, related_name="consumers")
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="consumers")
    deployment = models.ForeignKey(
        "provisioning.Deployment", models.SET_NULL, null=True, related_name="consumers"
    )
    alias = models.CharField(max_length=300)
    mode = models.CharField(max_length=15, choices=ConsumerMode.choices)
    params = models.JSONField(
        null=True,
        blank=True,
        help_text="The params it asked for, references bound to keys as its workload's environment "
        "names them; null if it named none.",
    )
    depends_on = models.JSONField(default=list, help_text="Keys it declared with `dependsOn`.")
    priority = models.IntegerField(null=True, blank=True)
    matching = models.JSONField(
        null=True, blank=True, help_text="The criteria by which it found the resource, if it did."
    )
    state = models.CharField(
        max_length=10, choices=ConsumerState.choices, default=ConsumerState.PENDING
    )
    crosses = models.BooleanField(
        default=False,
        editable=False,
        help_text="Its resource is in another environment than its workload; the database says so.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workload", "alias"],
                condition=Q(state=ConsumerState.ACTIVE),
                name="consumer_one_active_per_alias",
            ),
            models.UniqueConstraint(
                fields=["deployment", "workload", "alias"],
                condition=Q(state=ConsumerState.PENDING),
                name="consumer_one_pending_per_alias",
            ),
            models.UniqueConstraint(
                fields=["resource"],
                condition=Q(state=ConsumerState.ACTIVE, mode=ConsumerMode.POOL),
                name="consumer_one_claim_per_member",
            ),
            models.CheckConstraint(
                condition=Q(state__in=ConsumerState.values), name="consumer_state_valid"
            ),
            models.CheckConstraint(
                condition=Q(mode__in=ConsumerMode.values), name="consumer_mode_valid"
            ),
        ]
        indexes = [
            models.Index(fields=["resource", "state"], name="consumer_resource_idx"),
            models.Index(
                fields=["workload"],
                condition=Q(crosses=True, state=ConsumerState.ACTIVE),
                name="consumer_crossing_idx",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.workload_id}:{self.alias} → {self.resource_id}"

    @property
    def application_name(self) -> str:
        """Name the application, with its environment if the resource is in another one."""
        name = self.workload.application.name
        if not self.crosses:
            return name
        environment = self.workload.environment
        return f"{environment.organisation.name}/{environment.name}/{name}"
