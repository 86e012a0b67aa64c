from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioning.drivers.base import DriverError
from provisioning.drivers.fake import FakeDriver
from provisioning.models import (
    AuditEvent,
    Deployment,
    Environment,
    LogChunk,
    Organisation,
    Resource,
    ResourceConsumer,
    Step,
)
from provisioning.services.deployments import submit_teardown
from provisioning.services.deployments.requests import ForeignEnvironmentError
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

KEY = "private/shop/web/{}/{}.default"
BASE, MIDDLE, TOP, OTHER = (
    KEY.format("base", "base"),
    KEY.format("middle", "part"),
    KEY.format("top", "part"),
    KEY.format("other", "part"),
)
CHAIN = """\
  base:
    type: base
    params: {fail: 'the disk is full', permanent: true}
  middle:
    type: part
    params: {of: '${resources.base.host}'}
  top:
    type: part
    params: {of: '${resources.middle.host}'}
  other:
    type: part
"""
WELL = CHAIN.replace("fail: 'the disk is full', permanent: true", "size: 1")


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("base", outputs={"host": False, "password": True})
    place.template("part", outputs={"host": False})


def ran(ledger: Path) -> int:
    return len(ledger.read_text().splitlines())


def test_a_failure_blocks_its_descendants_by_name_and_nothing_else(place: Place) -> None:
    deployment = place.deploy(CHAIN)

    assert deployment.status == "failed"
    assert place.steps(deployment) == {
        BASE: ("ensure", "failed", True),
        MIDDLE: ("ensure", "blocked", False),
        TOP: ("ensure", "blocked", False),
        OTHER: ("ensure", "succeeded", True),
    }
    blocked = deployment.steps.filter(status="blocked")
    assert set(blocked.values_list("blocked_by", flat=True)) == {BASE}
    assert deployment.status_reason == (
        f"{BASE} failed: the disk is full\nBlocked by that: {MIDDLE}, {TOP}."
    )


def test_wishes_for_what_was_never_begun_are_withdrawn(place: Place) -> None:
    place.deploy(CHAIN)

    assert place.states() == {
        BASE: "failed",
        MIDDLE: "deleted",
        TOP: "deleted",
        OTHER: "active",
    }
    assert dict(ResourceConsumer.objects.values_list("alias", "state")) == {
        "base": "active",
        "middle": "withdrawn",
        "top": "withdrawn",
        "other": "active",
    }


def test_a_deploy_after_a_failure_resumes(place: Place, ledger: Path) -> None:
    place.deploy(CHAIN)
    assert ran(ledger) == 1

    again = place.deploy(WELL)

    assert again.status == "succeeded"
    assert ran(ledger) == 4
    assert place.steps(again).keys() == {BASE, MIDDLE, TOP}
    assert set(Resource.objects.exclude(state="deleted").values_list("state", flat=True)) == {
        "active"
    }


def test_a_failed_update_keeps_what_exists_and_resumes(place: Place, ledger: Path) -> None:
    place.deploy(WELL)

    failed = place.deploy(CHAIN)
    assert failed.status == "failed"
    assert place.states() == {BASE: "failed", MIDDLE: "active", TOP: "active", OTHER: "active"}
    assert not ResourceConsumer.objects.exclude(state="active").exists()

    # The driver must run again although the input is what was applied before the failure.
    again = place.deploy(WELL)
    assert place.steps(again)[BASE] == ("ensure", "succeeded", True)
    assert place.states()[BASE] == "active"


def test_a_failure_after_a_partial_change_leaves_no_applied_input(place: Place) -> None:
    place.deploy(WELL)
    assert place.resource(BASE).applied_mac != ""

    place.deploy(CHAIN)

    assert place.resource(BASE).applied_mac == ""


def test_an_error_that_may_pass_is_tried_again(place: Place) -> None:
    deployment = place.deploy("  base:\n    type: base\n    params: {fail: busy, fail_times: 2}\n")

    assert deployment.status == "succeeded"
    assert deployment.steps.get().attempt == 3
    said = "".join(LogChunk.objects.order_by("attempt", "sequence").values_list("text", flat=True))
    assert said.count("busy\nTrying again in 0 s.") == 2


def test_an_error_that_does_not_pass_ends_the_step_after_three_attempts(place: Place) -> None:
    deployment = place.deploy("  base:\n    type: base\n    params: {fail: busy}\n")

    step = deployment.steps.get()
    assert (deployment.status, step.attempt, step.error) == ("failed", 3, "busy")


def test_a_permanent_error_is_not_tried_again(place: Place) -> None:
    deployment = place.deploy(CHAIN)

    assert deployment.steps.get(resource__key=BASE).attempt == 1


def test_a_missing_declared_output_fails_by_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = FakeDriver.ensure

    def forgetful(self: FakeDriver, resource: Any, run: Any) -> Any:
        result = ensure(self, resource, run)
        return type(result)({"host": "h"})

    monkeypatch.setattr(FakeDriver, "ensure", forgetful)
    deployment = place.deploy("  base:\n    type: base\n")

    assert deployment.steps.get().error == (
        "The driver did not deliver the declared output password."
    )
    assert not place.resource(BASE).outputs.exists()


def test_an_unexpected_error_tells_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: FakeDriver, resource: Any, run: Any) -> Any:
        raise RuntimeError("hunter2hunter2")

    monkeypatch.setattr(FakeDriver, "ensure", broken)
    deployment = place.deploy("  base:\n    type: base\n")

    assert deployment.steps.get().error == (
        "An unexpected error (RuntimeError) in the driver; the worker's log has the details."
    )
    assert "hunter2" not in deployment.status_reason
    assert not AuditEvent.objects.filter(reason__contains="hunter2").exists()
    assert not LogChunk.objects.filter(text__contains="hunter2").exists()


def test_a_secret_in_a_driver_error_is_masked(place: Place) -> None:
    deployment = place.deploy(
        """\
  base:
    type: base
  top:
    type: part
    params: {fail: 'no access with ${resources.base.password}', permanent: true}
"""
    )

    assert deployment.steps.get(status="failed").error == "••••••"
    assert not AuditEvent.objects.filter(reason__contains="fake-password").exists()
    assert not LogChunk.objects.filter(text__contains="fake-password").exists()


def test_a_failed_destroy_is_repeated_by_the_next_teardown(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.deploy("  other:\n    type: part\n")

    def refuse(self: FakeDriver, resource: Any, run: Any) -> None:
        raise DriverError("still in use", permanent=True)

    with monkeypatch.context() as patch:
        patch.setattr(FakeDriver, "destroy", refuse)
        failed = place.teardown(workloads=["web"])
    assert (failed.status, place.states()) == ("failed", {OTHER: "failed"})

    again = place.teardown(workloads=["web"])
    assert (again.status, place.states()) == ("succeeded", {OTHER: "deleted"})


def test_a_failed_destroy_keeps_what_it_needs(
    place: Place, monkeypatch: pytest.MonkeyPatch, ledger: Path
) -> None:
    place.deploy(WELL)
    ledger.write_text("")
    top = str(place.resource(TOP).pk)
    destroy = FakeDriver.destroy

    def refuse(self: FakeDriver, resource: Any, run: Any) -> None:
        if resource.resource_id == top:
            raise RuntimeError
        destroy(self, resource, run)

    monkeypatch.setattr(FakeDriver, "destroy", refuse)
    deployment = place.teardown()

    # What the steps never came to is as it was.
    assert place.states() == {BASE: "active", MIDDLE: "active", TOP: "failed", OTHER: "deleted"}
    assert deployment.steps.get(resource__key=BASE).blocked_by == TOP
    assert ran(ledger) == 1


def test_a_step_that_is_blocked_is_never_claimed(place: Place) -> None:
    place.deploy(CHAIN)

    assert claim("default") is None
    assert not Step.objects.filter(status__in=["pending", "running"]).exists()


def test_another_organisations_environment_is_refused(place: Place) -> None:
    application = place.application()
    foreign = Environment.objects.create(
        organisation=Organisation.objects.create(name="other"), name="dev"
    )

    with pytest.raises(ForeignEnvironmentError, match="belongs to another organisation"):
        submit_teardown(application=application, environment=foreign, workloads=None, actor=None)

    assert not Deployment.objects.exists()


def test_steps_blocked_by_two_failures_are_blocked_once(place: Place) -> None:
    fails = "    params: {fail: 'no', permanent: true}\n"
    deployment = place.deploy(
        f"  one:\n    type: base\n{fails}  two:\n    type: base\n{fails}"
        "  both:\n    type: part\n    params: {of: '${resources.one.host}${resources.two.host}'}\n"
    )

    both = deployment.steps.get(status="blocked")
    assert both.blocked_by == KEY.format("one", "base")
    assert deployment.steps.filter(status="failed").count() == 2
