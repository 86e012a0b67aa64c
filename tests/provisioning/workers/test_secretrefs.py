from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.models import AuditEvent, LogChunk, Resource, ResourceTemplateVersion, Step
from provisioning.planning.plan import PlanError
from tests.provisioning.place import Place

DB = "  db:\n    type: database\n    params: {password: {secretref: 'env:DB'}}\n"
SECRET = "hunter2-of-the-db"


@pytest.fixture(autouse=True)
def template(place: Place) -> ResourceTemplateVersion:
    version = place.template("database", outputs={"host": False})
    schema = {
        "type": "object",
        "properties": {"password": {"type": "string", "writeOnly": True}, "size": {}},
    }
    version.pk, version.version, version.params_schema = None, "1.1.0", schema
    version._state.adding = True
    version.save()
    return version


def everything_stored() -> str:
    """Return what the database holds of the deployment, as text."""
    rows = [
        *Resource.objects.values(),
        *Step.objects.values(),
        *LogChunk.objects.values(),
        *AuditEvent.objects.values(),
    ]
    return str(rows)


def test_the_reference_is_stored_and_the_driver_gets_the_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_SECRET_DB", SECRET)

    deployment = place.deploy(DB)

    assert deployment.status == "succeeded"
    resource = Resource.objects.get()
    assert resource.params == {"password": {"secretref": "env:DB"}}
    assert deployment.plan["resources"][0]["params"] == resource.params
    assert SECRET not in everything_stored()


def test_the_secret_is_masked_in_logs_and_errors(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_SECRET_DB", SECRET)

    deployment = place.deploy(f"{DB[:-2]}, fail: 'no login with {SECRET}', permanent: true}}\n")

    assert deployment.status == "failed"
    assert "no login with" in deployment.status_reason
    assert SECRET not in deployment.status_reason
    assert SECRET not in str(list(LogChunk.objects.values()))


def test_a_missing_secret_is_a_permanent_failure_that_names_the_reference(
    place: Place, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONDUCTOR_SECRET_DB", raising=False)

    deployment = place.deploy(DB)

    step = Step.objects.get()
    assert deployment.status == "failed"
    assert (step.status, step.attempt, step.driver_ran) == ("failed", 1, False)
    assert step.error == (
        "The secret env:DB cannot be had: the worker has no variable CONDUCTOR_SECRET_DB."
    )
    assert ledger.read_text() == ""


def test_a_changed_secret_reaches_the_driver_when_the_resource_is_ensured_again(
    place: Place, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_SECRET_DB", SECRET)
    place.deploy(DB)
    monkeypatch.setenv("CONDUCTOR_SECRET_DB", "another")
    Resource.objects.update(applied_spec_digest="")

    again = place.deploy(DB)

    assert again.status == "succeeded"
    assert len(ledger.read_text().splitlines()) == 2


def test_a_reference_for_a_param_that_is_no_secret_is_refused(place: Place) -> None:
    with pytest.raises(PlanError, match="`size` is no secret of"):
        place.submit("  db:\n    type: database\n    params: {size: {secretref: 'env:DB'}}\n")

    assert not Resource.objects.exists()


def test_a_literal_secret_is_still_refused(place: Place) -> None:
    with pytest.raises(PlanError, match="must not stand in a file") as refused:
        place.submit("  db:\n    type: database\n    params: {password: text}\n")

    assert "secretref" in str(refused.value.problems[0].hint)
    assert not Resource.objects.exists()
