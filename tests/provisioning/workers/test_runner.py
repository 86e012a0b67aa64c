from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from provisioning.drivers.base import DriverInput, LeaseLostError, StateLocation, StoppedError
from provisioning.drivers.fake import FakeDriver
from provisioning.models import Environment, LogChunk, ResourceOutput, StateVersion, Step
from provisioning.services.credentials import set_credential
from provisioning.services.deployments import finish
from provisioning.workers import run
from provisioning.workers.run import StepRun, work_folder
from provisioning.workers.runner import run_step
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place

DB = "private/shop/web/db/database.default"
ONE = "  db:\n    type: database\n"
TWO = """\
  db:
    type: database
  app:
    type: program
    params:
      url: postgres://u:${resources.db.password}@${resources.db.host}/
      nested: {list: ['${resources.db.host}', 7]}
"""
Patch = Callable[[Callable[[DriverInput, StepRun], None]], None]


@pytest.fixture(autouse=True)
def templates(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})
    place.template("program")


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Return a function that makes the fake driver first do something."""
    ensure = FakeDriver.ensure

    def patch(do: Callable[[DriverInput, StepRun], None]) -> None:
        def patched(self: FakeDriver, resource: DriverInput, run: StepRun) -> Any:
            do(resource, run)
            return ensure(self, resource, run)

        monkeypatch.setattr(FakeDriver, "ensure", patched)

    return patch


def claimed() -> Step:
    step = claim("default")
    assert step is not None
    return step


def take_over(step: Step) -> Step:
    """Let another worker have the step, as after a lost lease."""
    Step.objects.filter(pk=step.pk).update(status="pending", lease_until=None)
    return claimed()


def test_params_are_filled_from_stored_outputs(place: Place, during: Patch) -> None:
    seen: list[DriverInput] = []
    during(lambda resource, run: seen.append(resource))

    place.deploy(TWO)

    assert seen[1].params == {
        "url": "postgres://u:fake-password@fake-host/",
        "nested": {"list": ["fake-host", 7]},
    }
    assert seen[1].sensitive_params == {"url"}
    assert seen[1].context["application"] == "shop"
    assert (seen[1].content / "template.yaml").is_file()


def test_an_output_made_from_a_secret_is_stored_encrypted(place: Place, during: Patch) -> None:
    place.template(
        "client", outputs={"echo": False}, config={"outputs": {"echo": "x-fake-password"}}
    )

    place.deploy(TWO.replace("type: program", "type: client"))

    output = ResourceOutput.objects.get(key="echo")
    assert (output.sensitive, output.value) == (True, None)
    assert "fake-password" not in output.ciphertext


def test_the_driver_runs_in_no_transaction_of_the_worker(place: Place, during: Patch) -> None:
    depths: list[int] = []
    outer = len(connection.savepoint_ids)
    during(lambda resource, run: depths.append(len(connection.savepoint_ids) - outer))

    place.deploy(ONE)

    assert depths == [0]


def test_a_worker_whose_step_was_taken_writes_nothing(place: Place, during: Patch) -> None:
    place.submit(ONE)
    first = claimed()
    during(lambda resource, run: take_over(first) if run.attempt == 1 else None)

    run_step(first)

    stored = Step.objects.get(pk=first.pk)
    assert (stored.status, stored.attempt) == ("running", 2)
    assert place.resource(DB).state == "provisioning"
    assert not ResourceOutput.objects.exists()


def test_the_new_owner_of_a_step_finishes_it(place: Place) -> None:
    place.submit(ONE)
    first = claimed()
    second = take_over(first)

    run_step(first)
    run_step(second)

    assert Step.objects.get(pk=first.pk).status == "succeeded"
    assert place.resource(DB).state == "active"


@pytest.mark.parametrize(
    "write",
    [
        finish.begin_ensure,
        finish.begin_destroy,
        finish.finish_destroy,
        lambda step: finish.finish_unchanged(step, "x"),
        lambda step: finish.fail_step(step, "no"),
        lambda step: finish.finish_ensure(
            step, outputs={"a": 1}, sensitive=(), by_consumer={}, mac="m", state=None
        ),
    ],
)
def test_every_write_of_a_lost_step_is_refused(
    place: Place, write: Callable[[Step], object]
) -> None:
    place.submit(ONE)
    first = claimed()
    take_over(first)

    with pytest.raises(LeaseLostError):
        write(first)

    assert place.resource(DB).state == "provisioning"
    assert place.resource(DB).applied_mac == ""
    assert Step.objects.get(pk=first.pk).status == "running"


def test_the_state_of_a_lost_step_is_not_stored(place: Place) -> None:
    place.submit(ONE)
    first = claimed()
    take_over(first)
    run = StepRun(first, lost=lambda: False, driver="fake")

    with pytest.raises(LeaseLostError):
        run.ship_state(b"old")

    assert not StateVersion.objects.exists()


def test_a_run_that_was_stopped_for_its_lease_leaves_the_step(place: Place, during: Patch) -> None:
    place.submit(ONE)
    step = claimed()

    def stopped(resource: DriverInput, run: StepRun) -> None:
        raise StoppedError("stopped", "lease lost")

    during(stopped)
    run_step(step)

    assert Step.objects.get(pk=step.pk).status == "running"


def test_outputs_that_no_longer_come_are_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.template("open", outputs={"*": False}, config={"outputs": {"one": 1, "two": 2}})
    place.deploy("  box:\n    type: open\n")
    ensure = FakeDriver.ensure

    def fewer(self: FakeDriver, resource: Any, run: Any) -> Any:
        result = ensure(self, resource, run)
        return type(result)({"two": [3]}, state_location=StateLocation("database", "here"))

    monkeypatch.setattr(FakeDriver, "ensure", fewer)
    place.deploy("  box:\n    type: open\n    params: {n: 1}\n")

    assert list(ResourceOutput.objects.values_list("key", "value")) == [("two", [3])]
    resource = place.resource("private/shop/web/box/open.default")
    assert (resource.state_backend, resource.state_location) == ("database", "here")


def test_the_work_folder_is_private_and_gone_after_success(place: Place, during: Patch) -> None:
    seen: list[tuple[bool, int]] = []
    during(
        lambda resource, run: seen.append(
            (run.work_folder.is_dir(), run.work_folder.stat().st_mode & 0o777)
        )
    )

    deployment = place.deploy(ONE)

    assert seen == [(True, 0o700)]
    assert not work_folder(deployment.steps.get()).exists()


def test_the_work_folder_survives_a_failure(place: Place, during: Patch) -> None:
    def leave(resource: DriverInput, run: StepRun) -> None:
        (run.work_folder / "kept").touch()

    during(leave)
    deployment = place.deploy(ONE + "    params: {fail: x, permanent: true}\n")

    assert (work_folder(deployment.steps.get()) / "kept").exists()


def test_tools_see_only_what_is_allowed(
    place: Place, during: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for tools")
    monkeypatch.setenv("CONDUCTOR_DRIVER_ENV_REGION", "eu")
    seen: list[dict[str, str]] = []
    during(lambda resource, run: seen.append(dict(run.environment)))

    deployment = place.deploy(ONE)

    (environment,) = seen
    assert environment["REGION"] == "eu"
    assert environment["HOME"] == str(work_folder(deployment.steps.get()))
    assert not {"AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "CONDUCTOR_POSTGRES_ADMIN_URL"} & set(
        environment
    )


def test_only_the_postgres_driver_is_told_the_administrators_address(place: Place) -> None:
    place.submit(ONE)
    run = StepRun(claimed(), lost=lambda: False, driver="postgres")

    assert run.environment["CONDUCTOR_POSTGRES_ADMIN_URL"] == (
        settings.CONDUCTOR_POSTGRES_ADMIN_URL()
    )


def test_a_postgres_step_without_a_server_fails_with_what_to_do(
    place: Place, settings: LazySettings
) -> None:
    def nowhere() -> str:
        raise ImproperlyConfigured("Set CONDUCTOR_POSTGRES_ADMIN_URL.")

    settings.CONDUCTOR_POSTGRES_ADMIN_URL = nowhere
    place.template("real", driver="postgres")

    deployment = place.deploy("  db:\n    type: real\n")

    assert deployment.steps.get().error == "Set CONDUCTOR_POSTGRES_ADMIN_URL."


def test_state_is_stored_encrypted_versioned_and_bounded(place: Place) -> None:
    place.submit(ONE)
    run = StepRun(claimed(), lost=lambda: False, driver="fake")
    assert run.load_state() is None

    for number in range(1, 13):
        run.ship_state(b"secret state %d" % number)

    assert run.load_state() == b"secret state 12"
    stored = StateVersion.objects.order_by("number")
    assert [each.number for each in stored] == list(range(3, 13))
    assert all(b"secret" not in bytes(each.data) for each in stored)
    assert (stored[0].size, stored[0].attempt, stored[0].lag_ms) == (14, 1, None)


@pytest.mark.parametrize(("ago", "lag"), [(3.0, 3000), (-5.0, 0), (10**9, 2_147_483_647)])
def test_a_state_tells_how_long_after_it_was_written_it_was_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch, ago: float, lag: int
) -> None:
    place.submit(ONE)
    step = StepRun(claimed(), lost=lambda: False, driver="fake")
    monkeypatch.setattr(run.time, "time", lambda: 2_000_000_000.0)

    step.ship_state(b"{}", written_at=2_000_000_000.0 - ago)

    assert StateVersion.objects.get().lag_ms == lag


def test_a_no_op_says_so_in_the_log(place: Place) -> None:
    place.deploy(TWO)
    again = place.deploy(TWO.replace("type: database", "type: database\n    params: {n: 1}"))

    unchanged = again.steps.get(driver_ran=False)
    assert LogChunk.objects.get(step=unchanged).text == (
        "Nothing to do: the input is what was applied last.\n"
    )


def test_a_tool_gets_the_credentials_of_its_environment_and_the_log_does_not(place: Place) -> None:
    staff = User.objects.create_user("root", is_staff=True)
    here = place.environment
    other = Environment.objects.create(organisation=place.organisation, name="other")
    set_credential(environment=here, name="MINE", value="value-of-mine", actor=staff)
    set_credential(
        environment=here, name="KEYFILE", value="held in file", as_file=True, actor=staff
    )
    set_credential(environment=other, name="THEIRS", value="value-of-theirs", actor=staff)
    script = (
        "cat >/dev/null; env >&2; cat $KEYFILE >&2; "
        'printf \'{"resource_outputs": {"length": "%s"}}\' ${#MINE}'
    )
    place.template(
        "spy",
        driver="script",
        outputs={"length": False},
        config={"command": "sh", "args": ["-c", script]},
    )
    deployment = place.deploy("  spy:\n    type: spy\n")
    assert deployment.status == "succeeded", deployment.status_reason
    assert ResourceOutput.objects.get(key="length").value == "13"
    log = "".join(LogChunk.objects.values_list("text", flat=True))
    assert "MINE=" in log
    assert "THEIRS" not in log
    assert "value-of-mine" not in log
    assert "held in file" not in log
