"""Try to break every guarantee that the database itself gives."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connection, models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from provisioning.models import (
    Application,
    Approval,
    AuditEvent,
    ConsumerOutput,
    Deployment,
    Environment,
    Figure,
    Grant,
    LogChunk,
    MaintenanceMode,
    Membership,
    Organisation,
    PossibleOrphan,
    Resource,
    ResourceConsumer,
    ResourceDependency,
    ResourceOutput,
    ResourcePool,
    ResourceTemplate,
    ResourceTemplateVersion,
    StateLock,
    StateVersion,
    Step,
    Team,
    TemplateRule,
    ToolEvent,
    Workload,
)
from tests.provisioning.place import Place

pytestmark = pytest.mark.django_db

MODELS = [
    Application, Approval, ConsumerOutput, Deployment, Environment, Figure, Grant, LogChunk,
    MaintenanceMode, Membership, Organisation, PossibleOrphan, Resource, ResourceConsumer,
    ResourceDependency, ResourceOutput, ResourcePool, ResourceTemplate, ResourceTemplateVersion,
    StateLock, StateVersion, Step, Team, TemplateRule, ToolEvent, Workload,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def rows(lasting_place: Place) -> None:
    """Store at least one row of every model."""
    place = lasting_place
    place.template(
        "part",
        outputs={"host": False, "password": True, "token": True},
        config={"own": ["token"]},
        uses=["consumers"],
    )
    place.deploy(
        "  one:\n    type: part\n  two:\n    type: part\n    params: {of: '${resources.one.host}'}\n"
    )
    Membership.objects.create(team=place.application().team, user=User.objects.create_user("dora"))
    step = Step.objects.first()
    assert step is not None
    asked = {"team": place.application().team, "asks": {}, "expires_at": timezone.now()}
    for kind, resource in {"resource": step.resource, "deployment": None}.items():
        Approval.objects.create(deployment=step.deployment, kind=kind, resource=resource, **asked)
    Grant.objects.create(resource=step.resource, team=place.application().team)
    ResourcePool.objects.create(
        environment=place.environment,
        owner_team=place.application().team,
        name="warm",
        template_version=place.templates["part"],
        size=1,
        max_size=2,
    )
    Figure.objects.create(name="steps", labels={"status": "failed"}, value=1)
    MaintenanceMode.objects.create()
    StateVersion.objects.create(
        resource=step.resource, number=1, step=step, attempt=1, data=b"x", size=1, digest="d",
        serial=5, lineage="a",
    )  # fmt: skip
    StateLock.objects.create(resource=step.resource, lock_id="a", info={}, step=step, attempt=1)
    ToolEvent.objects.create(
        resource=step.resource, step=step, attempt=1, sequence=1, event="apply_start", address="a.b"
    )
    PossibleOrphan.objects.create(resource=step.resource, step=step, address="a.b")


def copied(model: type[models.Model], **changes: Any) -> Callable[[], object]:
    """Return an insert of the first row of a model once more, with changes."""

    def insert() -> object:
        row = model._default_manager.order_by("pk").first()
        assert row is not None
        row.pk = uuid.uuid4() if model is Resource else None
        row._state.adding = True
        for field, value in changes.items():
            setattr(row, field, value)
        return row.save(force_insert=True)

    return insert


def changed(model: type[models.Model], **changes: Any) -> Callable[[], object]:
    """Return an update of all rows of a model."""
    return lambda: model._default_manager.update(**changes)


def second_step(**changes: Any) -> Callable[[], object]:
    """Return an insert of a step of another deployment on the first step's resource."""

    def insert() -> object:
        copied(Deployment, status="failed")()
        Step.objects.order_by("pk").filter(pk=Step.objects.earliest("pk").pk).update(
            status="running", lease_until=Now()
        )
        return copied(Step, deployment=Deployment.objects.latest("pk"), **changes)()

    return insert


def claimed_twice() -> object:
    """Let two aliases claim the same member of a pool."""
    return ResourceConsumer.objects.update(mode="pool", resource=Resource.objects.first())


def slot_twice() -> object:
    """Put two live resources into one place of a slot."""
    Resource.objects.update(match_slot="slot", slot_ordinal=0)
    return copied(Resource, key="slot/another/0", name="another")()


BREAKS: dict[str, Callable[[], object]] = {
    "organisation_name_unique": copied(Organisation),
    "team_name_unique": copied(Team),
    "membership_unique": copied(Membership),
    "membership_role_valid": changed(Membership, role="king"),
    "application_name_unique": copied(Application),
    "environment_name_unique": copied(Environment),
    "environment_kind_valid": changed(Environment, kind="moon"),
    "environment_max_concurrent_positive": changed(Environment, max_concurrent=0),
    "environment_state_backend_typed": changed(Environment, state_backend={"type": "moon"}),
    "workload_name_unique": copied(Workload),
    "resource_template_name_unique": copied(ResourceTemplate),
    "resource_template_max_concurrent_positive": changed(ResourceTemplate, max_concurrent=0),
    "template_version_unique": copied(ResourceTemplateVersion),
    "template_version_state_valid": copied(ResourceTemplateVersion, version="2", state="odd"),
    "template_version_shrink_valid": copied(ResourceTemplateVersion, version="3", shrink="odd"),
    "template_version_timeout_positive": copied(
        ResourceTemplateVersion, version="4", timeout_seconds=0
    ),
    "template_version_active_has_digest": copied(ResourceTemplateVersion, version="2", digest=""),
    "template_rule_unique": copied(TemplateRule),
    "template_rule_environment_kind_valid": changed(TemplateRule, environment_kind="moon"),
    "resource_one_live_per_key": copied(Resource, name="another"),
    "resource_one_live_per_name": copied(Resource, key="shared/another"),
    "resource_one_live_per_slot": slot_twice,
    "resource_slot_whole": changed(Resource, match_slot="slot"),
    "resource_published_in_slot": changed(Resource, published=True),
    "resource_max_consumers_positive": changed(Resource, max_consumers=0),
    "resource_claimed_of_pool": changed(Resource, claimed_at=timezone.now()),
    "pool_name_unique": copied(ResourcePool),
    "pool_size_within_max_size": changed(ResourcePool, size=3),
    "pool_max_concurrent_positive": changed(ResourcePool, max_concurrent=0),
    "pool_sharing_policy_valid": changed(ResourcePool, sharing_policy="approval"),
    "pool_claim_seconds_positive": changed(ResourcePool, claim_seconds=0),
    "resource_adopted_imports_nothing": changed(Resource, adopted=True, imports={"a.b": "1"}),
    "resource_state_valid": changed(Resource, state="odd"),
    "resource_sharing_policy_valid": changed(Resource, sharing_policy="odd"),
    "approval_one_pending_per_resource": copied(Approval),
    "approval_one_pending_per_deployment": copied(Approval, kind="deployment", resource=None),
    "approval_status_valid": changed(Approval, status="odd"),
    "approval_has_its_subject": changed(Approval, kind="deployment"),
    "approval_rejected_with_comment": changed(Approval, status="rejected"),
    "grant_one_per_team": copied(Grant),
    "grant_one_per_application": lambda: [
        copied(Grant, team=None, application=Application.objects.get())() for _ in range(2)
    ],
    "grant_to_one": changed(Grant, team=None),
    "resource_deletion_policy_valid": changed(Resource, deletion_policy="odd"),
    "consumer_one_active_per_alias": copied(ResourceConsumer),
    "consumer_one_pending_per_alias": lambda: [
        copied(ResourceConsumer, state="pending")() for _ in range(2)
    ],
    "consumer_one_claim_per_member": claimed_twice,
    "consumer_state_valid": changed(ResourceConsumer, state="odd"),
    "consumer_mode_valid": changed(ResourceConsumer, mode="odd"),
    "output_key_unique": copied(ResourceOutput),
    "output_sensitive_only_encrypted": changed(ResourceOutput, value="in clear", sensitive=True),
    "consumer_output_key_unique": copied(ConsumerOutput),
    "consumer_output_of_one": changed(ConsumerOutput, consumer=None, dependent=None),
    "consumer_output_sensitive_only_encrypted": changed(ConsumerOutput, value="in clear"),
    "dependency_unique": copied(ResourceDependency),
    "dependency_not_self": changed(ResourceDependency, target=models.F("source")),
    "dependency_kind_valid": changed(ResourceDependency, kind="odd"),
    "deployment_one_running": lambda: [
        copied(Deployment, status=status, ends_as="cancelled")()
        for status in ("running", "cancelling")
    ],
    "deployment_status_valid": changed(Deployment, status="odd"),
    "deployment_kind_valid": changed(Deployment, kind="odd"),
    "deployment_ensures_in_maintenance": changed(Deployment, ensures=True),
    "deployment_scope_valid": changed(Deployment, scope="universe"),
    "deployment_has_application": changed(Deployment, application=None),
    "deployment_priority_valid": changed(Deployment, priority=101),
    "figure_unique": copied(Figure),
    "maintenance_mode_one_per_place": copied(MaintenanceMode),
    "deployment_one_retry": lambda: [
        copied(Deployment, retry_of=Deployment.objects.earliest("pk"))() for _ in range(2)
    ],
    "deployment_one_rollback": lambda: [
        copied(Deployment, kind="maintenance", rollback_of=Deployment.objects.earliest("pk"))()
        for _ in range(2)
    ],
    "deployment_rollback_of_deploy": changed(Deployment, kind="teardown", rollback=True),
    "deployment_rollback_is_maintenance": changed(Deployment, rollback_of=models.F("pk")),
    "deployment_cancelling_has_end": changed(Deployment, status="cancelling", ends_as="failed"),
    "deployment_timeout_positive": changed(Deployment, timeout_seconds=0),
    "step_one_at_a_time": second_step(status="recovering"),
    "step_one_per_resource": copied(Step),
    "step_status_valid": changed(Step, status="odd"),
    "step_action_valid": changed(Step, action="odd"),
    "step_running_has_lease": changed(Step, status="running", lease_until=None),
    "log_chunk_sequence_unique": copied(LogChunk),
    "state_version_number_unique": copied(StateVersion, serial=6),
    "state_lock_one_holder": changed(StateLock, step=None),
    "tool_event_sequence_unique": copied(ToolEvent),
    "possible_orphan_unique": copied(PossibleOrphan),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_database_refuses_what_would_break(name: str) -> None:
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        BREAKS[name]()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"serial": 5}, "lineage a and serial 5 cannot follow one of lineage a and serial 5"),
        ({"serial": 4}, "lineage a and serial 4 cannot follow"),
        ({"serial": 9, "lineage": "b"}, "lineage b and serial 9 cannot follow one of lineage a"),
        ({"serial": None, "lineage": ""}, "cannot follow one of lineage a and serial 5"),
    ],
)
def test_a_state_that_does_not_follow_the_newest_one_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(IntegrityError, match=words), transaction.atomic():
        copied(StateVersion, number=2, **changes)()

    assert StateVersion.objects.count() == 1


def test_every_named_constraint_is_tried() -> None:
    named = {constraint.name for model in MODELS for constraint in model._meta.constraints}

    assert named == set(BREAKS)


def test_the_database_says_itself_what_crosses_environments(lasting_place: Place) -> None:
    other = lasting_place.beside("staging")
    assert not ResourceConsumer.objects.filter(crosses=True).exists()
    assert not ResourceDependency.objects.filter(crosses=True).exists()

    dependency = ResourceDependency.objects.get()
    Resource.objects.filter(pk=dependency.target_id).update(environment=other.environment)
    ResourceConsumer.objects.update(crosses=True)
    ResourceDependency.objects.update(crosses=False)

    crossing = ResourceConsumer.objects.filter(crosses=True)
    assert [each.resource_id for each in crossing] == [dependency.target_id]
    assert ResourceDependency.objects.filter(crosses=True).count() == 1


def test_deleted_resources_may_share_a_key_and_a_name() -> None:
    copied(Resource, state="deleted")()

    assert Resource.objects.count() == 3


def test_a_retry_that_never_started_leaves_room_for_another() -> None:
    first = Deployment.objects.earliest("pk")
    copied(Deployment, retry_of=first, status="expired")()
    copied(Deployment, retry_of=first)()

    assert first.retries.count() == 2


def test_an_ended_consumer_leaves_its_alias_free() -> None:
    copied(ResourceConsumer, state="released")()

    assert ResourceConsumer.objects.count() == 3


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE provisioning_auditevent SET reason = 'nothing happened'",
        "DELETE FROM provisioning_auditevent",
    ],
)
def test_audit_events_can_be_neither_changed_nor_deleted(sql: str) -> None:
    before = AuditEvent.objects.count()

    with pytest.raises(DatabaseError, match="audit events cannot be changed"), transaction.atomic():
        connection.cursor().execute(sql)

    assert (before > 0, AuditEvent.objects.count()) == (True, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:0"},
        {"archive": b"other"},
        {"outputs": []},
        {"params_schema": {}},
        {"config": {"a": 1}},
        {"version": "9.9.9"},
        {"uses": ["workloads"]},
        {"deletion_policy": "retain"},
        {"grace_seconds": 5},
        {"timeout_seconds": 5},
        {"merge_rules": {"size": {"rule": "maximum"}}},
        {"shrink": "never"},
        {"share_when": "True"},
        {"checks": [{"condition": "outputs.a", "message": "No."}]},
        {"state": "draft"},
    ],
)
def test_an_active_template_version_cannot_change(changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match="content cannot change"), transaction.atomic():
        ResourceTemplateVersion.objects.update(**changes)


def test_an_active_template_version_can_be_deprecated() -> None:
    assert ResourceTemplateVersion.objects.update(state="deprecated") == 1
