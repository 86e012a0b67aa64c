from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from provisioning.encryption import encrypt, encrypt_bytes
from provisioning.models import (
    Application,
    Approval,
    AuditEvent,
    ConsumerOutput,
    Credential,
    Environment,
    Figure,
    Grant,
    LogChunk,
    MaintenanceMode,
    Organisation,
    PossibleOrphan,
    Resource,
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
    Worker,
)
from tests.provisioning.place import Place

MODELS = list(apps.get_app_config("provisioning").get_models())
EDITABLE = {
    "team",
    "membership",
    "application",
    "environment",
    "credential",
    "resourcetemplate",
    "templaterule",
    "resource",
}
SECRET = "fake-password"
IMAGE = "busybox"  # in every Score text of a Place


pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def place(lasting_place: Place) -> Place:
    """Return an organisation with at least one row of every model."""
    place = lasting_place
    place.template(
        "cache",
        outputs={"host": False, "password": True, "token": True},
        config={"own": ["token"]},
        uses=["consumers"],
    )
    ResourcePool.objects.create(
        environment=place.environment,
        owner_team=place.application().team,
        name="warm",
        template_version=place.templates["cache"],
        size=0,
        max_size=1,
    )
    Credential.objects.create(
        environment=place.environment, name="TOKEN", ciphertext=encrypt(SECRET)
    )
    Worker.objects.create(host="host", pid=1, last_seen_at=timezone.now())
    Figure.objects.create(name="steps_finished", labels={"status": "failed"}, value=1)
    closed = Environment.objects.create(organisation=place.organisation, name="closed")
    MaintenanceMode.objects.create(environment=closed)
    deploy(place, User.objects.create_user("alice"), "shop")
    return place


@pytest.fixture
def alice(place: Place) -> User:
    """Return the developer whose the application is."""
    return User.objects.get(username="alice")


def deploy(place: Place, user: User, application: str) -> None:
    """Add rows of every model that deployments write."""
    place.application(application, user)
    deployment = place.deploy(
        "  one: {type: cache}\n  two: {type: cache, params: {host: '${one.host}'}}\n",
        application=application,
    )
    assert deployment.status == "succeeded", deployment.status_reason
    Grant.objects.create(
        resource=place.resource(f"private/{application}/web/one/cache.default"),
        application=place.application(application),
    )
    Approval.objects.create(
        deployment=deployment,
        kind="deployment",
        team=place.application(application).team,
        asks={},
        expires_at=timezone.now(),
    )
    for step in Step.objects.filter(deployment=deployment):
        LogChunk.objects.create(step=step, attempt=1, sequence=99, text="said")
        StateVersion.objects.create(
            resource=step.resource,
            number=1,
            step=step,
            attempt=1,
            data=encrypt_bytes(SECRET.encode()),
            size=1,
            digest="ab" * 32,
        )
        StateLock.objects.create(resource=step.resource, lock_id="a", info={}, step=step, attempt=1)
        ToolEvent.objects.create(
            resource=step.resource,
            step=step,
            attempt=1,
            sequence=1,
            event="apply_start",
            address="a.b",
        )
        PossibleOrphan.objects.create(resource=step.resource, step=step, address="a.b")


@pytest.fixture
def staff(client: Client, charlie: User) -> Client:
    """Return a client logged in as a platform engineer without any permission of Django's."""
    charlie.is_staff = True
    charlie.save()
    client.force_login(charlie)
    return client


def address(model: type[Model], page: str, *arguments: Any) -> str:
    return reverse(f"admin:provisioning_{model._meta.model_name}_{page}", args=arguments)


def secrets() -> list[str]:
    """Return what no page may show."""
    states = StateVersion.objects.values_list("data", flat=True)
    return [
        SECRET,
        IMAGE,
        "fake-token",
        *ResourceOutput.objects.filter(sensitive=True).values_list("ciphertext", flat=True),
        *Credential.objects.values_list("ciphertext", flat=True),
        *ConsumerOutput.objects.values_list("ciphertext", flat=True),
        *(bytes(data).decode() for data in states),
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.model_name)
def test_pages_open_and_show_no_secret(place: Place, staff: Client, model: type[Model]) -> None:
    row = model._default_manager.first()
    assert row is not None
    for page in (address(model, "changelist"), address(model, "change", row.pk)):
        response = staff.get(page)
        assert response.status_code == 200, page
        assert not [secret for secret in secrets() if secret in response.content.decode()]


def test_searching_any_list_works(place: Place, staff: Client) -> None:
    answers = {model: staff.get(address(model, "changelist"), {"q": "one"}) for model in MODELS}
    assert {model: answer.status_code for model, answer in answers.items()} == dict.fromkeys(
        MODELS, 200
    )


def test_lists_take_as_many_queries_for_more_rows(place: Place, staff: Client, alice: User) -> None:
    def queries() -> dict[type[Model], int]:
        counts = {}
        for model in MODELS:
            with CaptureQueriesContext(connection) as captured:
                staff.get(address(model, "changelist"))
            counts[model] = len(captured)
        return counts

    queries()
    before = queries()
    deploy(place, alice, "other")
    assert queries() == before


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.model_name)
def test_only_what_is_the_engineers_can_be_edited(
    place: Place, staff: Client, model: type[Model]
) -> None:
    row = model._default_manager.first()
    assert row is not None
    before = model._default_manager.filter(pk=row.pk).values().get()
    posted = staff.post(address(model, "change", row.pk), {"status": "failed", "state": "failed"})
    assert (posted.status_code == 200) == (model._meta.model_name in EDITABLE)
    assert (posted.status_code == 403) == (model._meta.model_name not in EDITABLE)
    assert model._default_manager.filter(pk=row.pk).values().get() == before


def test_developers_see_nothing(client: Client, alice: User) -> None:
    client.force_login(alice)
    statuses = {model: client.get(address(model, "changelist")).status_code for model in MODELS}
    assert statuses == dict.fromkeys(MODELS, 302)


def test_sensitive_output_shows_the_mask(place: Place, staff: Client) -> None:
    output = ResourceOutput.objects.filter(sensitive=True).first()
    assert output is not None
    assert "••••••" in staff.get(address(ResourceOutput, "change", output.pk)).content.decode()
    plain = ResourceOutput.objects.filter(sensitive=False).first()
    assert plain is not None
    assert "fake-host" in staff.get(address(ResourceOutput, "change", plain.pk)).content.decode()


def test_protection_is_the_only_thing_saved_of_a_resource(place: Place, staff: Client) -> None:
    resource = Resource.objects.first()
    assert resource is not None
    form = {"protected": "on", "deletion_policy": "retain", "state": "deleted", "key": "x"}
    for inline in ("outputs", "consumers", "dependencies"):
        form |= {f"{inline}-TOTAL_FORMS": "0", f"{inline}-INITIAL_FORMS": "0"}
    assert staff.post(address(Resource, "change", resource.pk), form).status_code == 302
    key, state = resource.key, resource.state
    resource.refresh_from_db()
    assert (resource.protected, resource.deletion_policy) == (True, "retain")
    assert (resource.key, resource.state) == (key, state)
    event = AuditEvent.objects.get(action="resource.changed")
    assert (event.actor, event.subject_id) == ("charlie", str(resource.pk))
    assert event.reason == "In the admin: deletion_policy, protected."


def rule_form(rule: TemplateRule, **more: Any) -> dict[str, Any]:
    return {
        "organisation": rule.organisation_id,
        "template": rule.template_id,
        "type": rule.type,
        "class_name": rule.class_name,
        "resource_id": "",
        "environment_kind": "",
        **more,
    }


def test_a_state_backend_is_edited_checked_and_audited(place: Place, staff: Client) -> None:
    environment = Environment.objects.get(name="dev")
    form = {
        "organisation": environment.organisation_id, "name": "dev", "kind": "development",
        "queue": "default", "variables": "{}", "tags": "{}", "defaults": "{}",
    }  # fmt: skip
    page = address(Environment, "change", environment.pk)

    refused = staff.post(page, {**form, "state_backend": '{"type": "s3", "token": "sEcret"}'})
    assert "token holds a credential" in refused.content.decode()
    environment.refresh_from_db()
    assert environment.state_backend == {"type": "managed"}

    assert staff.post(page, {**form, "state_backend": '{"type": "http"}'}).status_code == 302
    environment.refresh_from_db()
    assert environment.state_backend == {"type": "http"}
    event = AuditEvent.objects.get(action="environment.changed")
    assert "state_backend" in event.reason


def test_equal_rule_is_refused(place: Place, staff: Client) -> None:
    rule = TemplateRule.objects.get()
    response = staff.post(address(TemplateRule, "add"), rule_form(rule))
    assert "Another rule already matches exactly the same." in response.content.decode()
    assert TemplateRule.objects.count() == 1
    staff.post(address(TemplateRule, "add"), rule_form(rule, resource_id="main"))
    assert TemplateRule.objects.count() == 2


def test_rule_across_organisations_is_refused(place: Place, staff: Client) -> None:
    other = Organisation.objects.create(name="other")
    environment = Environment.objects.create(organisation=other, name="prod")
    form = rule_form(TemplateRule.objects.get(), environment=environment.pk)
    response = staff.post(address(TemplateRule, "add"), form)
    assert "prod belongs to another organisation." in response.content.decode()
    assert TemplateRule.objects.count() == 1


def test_application_of_another_organisations_team_is_refused(place: Place, staff: Client) -> None:
    other = Organisation.objects.create(name="other")
    form = {"name": "new", "organisation": other.pk, "team": Team.objects.first().pk}  # type: ignore[union-attr]
    response = staff.post(address(Application, "add"), form)
    assert "belongs to another organisation." in response.content.decode()
    assert not Application.objects.filter(name="new").exists()


@pytest.mark.parametrize("model", [Organisation, Application, Environment, ResourceTemplate])
def test_nothing_that_holds_history_is_deleted(
    place: Place, staff: Client, model: type[Model]
) -> None:
    row = model._default_manager.first()
    assert row is not None
    staff.post(address(model, "delete", row.pk), {"post": "yes"})
    assert model._default_manager.filter(pk=row.pk).exists()


def test_rule_is_deleted_and_audited(place: Place, staff: Client) -> None:
    used = TemplateRule.objects.get()
    rule = TemplateRule.objects.create(
        organisation=place.organisation, template=used.template, type="unused"
    )
    staff.post(address(TemplateRule, "delete", rule.pk), {"post": "yes"})
    assert TemplateRule.objects.get() == used
    assert AuditEvent.objects.get(action="template_rule.deleted").actor == "charlie"


def test_version_is_deprecated_by_an_action(place: Place, staff: Client) -> None:
    version = ResourceTemplateVersion.objects.get()
    form = {"action": "deprecate", "_selected_action": version.pk}
    staff.post(address(ResourceTemplateVersion, "changelist"), form)
    assert ResourceTemplateVersion.objects.get().state == "deprecated"
    response = staff.post(address(ResourceTemplateVersion, "changelist"), form, follow=True)
    assert "only an active version is deprecated" in response.content.decode()


def test_team_members_are_edited_and_audited(place: Place, staff: Client, bob: User) -> None:
    team = Team.objects.get()
    form = {
        "name": team.name,
        "organisation": team.organisation_id,
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0",
        "memberships-0-user": bob.pk,
        "memberships-0-role": "owner",
    }
    assert staff.post(address(Team, "change", team.pk), form).status_code == 302
    assert team.memberships.get(user=bob).role == "owner"
    assert AuditEvent.objects.filter(action="membership.created", actor="charlie").exists()


def test_tasks_that_name_code_cannot_be_edited() -> None:
    registered = {model._meta.label for model in admin.site._registry}
    assert not [label for label in registered if label.startswith("django_q.")]
    with pytest.raises(NoReverseMatch):
        reverse("admin:django_q_schedule_add")


def test_tokens_are_not_shown() -> None:
    with pytest.raises(NoReverseMatch):
        reverse("admin:authtoken_tokenproxy_changelist")
