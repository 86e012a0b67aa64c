from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from provisioning.models import LogChunk, Step
from provisioning.services.deployments import end, finish
from provisioning.services.logs import following
from tests.portal.commands import Ran, run
from tests.provisioning.place import Place
from tests.provisioning.services.logs.saying import claimed, next_attempt, say
from tests.provisioning.services.logs.test_following import in_thread

FAILS = "  db:\n    type: part\n    params: {fail: No quota, permanent: true}\n"


@pytest.fixture
def steps(place: Place) -> list[Step]:
    """Return the running steps of a deployment, which have spoken."""
    steps = claimed(place, 2)
    say(steps[0], "1a\n", "1b\n")
    say(steps[1], "2a\n")
    return steps


def logs(steps: list[Step], *arguments: str) -> Ran:
    return run("logs", str(steps[0].deployment_id), *arguments)


def headings(steps: list[Step]) -> list[str]:
    return [f"ensure {step.resource.uid} (attempt {step.attempt})\n" for step in steps]


def test_logs_are_shown_by_step(steps: list[Step]) -> None:
    one, two = headings(steps)

    ran = logs(steps)

    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{one}  1a\n  1b\n{two}  2a\n"


def test_each_attempt_has_its_heading(steps: list[Step]) -> None:
    first = headings(steps)[1]
    say(next_attempt(steps[1]), "2b\n")

    ran = logs(steps, "--step", str(steps[1].pk))

    assert ran.out == f"{first}  2a\n{headings(steps)[1]}  2b\n"


def test_one_step_is_chosen_by_its_resource(steps: list[Step]) -> None:
    assert logs(steps, "--step", steps[1].resource.uid).out.endswith("  2a\n")
    assert "1a" not in logs(steps, "--step", steps[1].resource.uid).out


def test_a_step_that_is_not_there_is_refused(steps: list[Step]) -> None:
    ran = logs(steps, "--step", "postgres#no")

    assert ran.status == 2
    assert ran.err == (
        f"Deployment {steps[0].deployment_id} has no step postgres#no. "
        f"There are {steps[0].resource.uid}, {steps[1].resource.uid}.\n"
    )


def test_json_is_one_line_per_chunk(steps: list[Step]) -> None:
    chunks = [json.loads(line) for line in logs(steps, "--format", "json").out.splitlines()]

    assert [(chunk["resource"], chunk["text"]) for chunk in chunks] == [
        (steps[0].resource.uid, "1a\n"),
        (steps[0].resource.uid, "1b\n"),
        (steps[1].resource.uid, "2a\n"),
    ]


@pytest.mark.parametrize("since", ["90s", "30m", "1h", "1d", None])
def test_only_what_was_said_since_is_shown(steps: list[Step], since: str | None) -> None:
    then = timezone.now() - timedelta(minutes=10)
    LogChunk.objects.filter(text="1a\n").update(created_at=then - timedelta(days=2))
    LogChunk.objects.filter(text="1b\n").update(created_at=then)

    ran = logs(steps, "--since", since or (then - timedelta(seconds=1)).isoformat())

    assert "1a" not in ran.out
    assert ("1b" in ran.out) == (since != "90s")
    assert "2a" in ran.out


@pytest.mark.parametrize("since", ["soon", "10", "2026-13-01T00:00", "5w"])
def test_a_time_that_is_none_is_refused(steps: list[Step], since: str) -> None:
    ran = logs(steps, "--since", since)

    assert ran.status == 2
    assert f"{since} is neither a duration such as 10m nor a time" in ran.err


def test_logs_of_a_deployment_that_others_made_do_not_exist(steps: list[Step], bob: User) -> None:
    ran = logs(steps, "--as", "bob")

    assert ran.status == 2
    assert ran.err == f"There is no deployment {steps[0].deployment_id}.\n"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", ["text", "json"])
def test_following_shows_what_is_said_and_ends_with_the_deployment(
    steps: list[Step], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(following, "LOOK_AGAIN_SECONDS", 60.0)
    number = steps[0].deployment_id

    def work() -> None:
        for step in steps:
            say(next_attempt(step), f"{step.pk} goes on\n")
            finish.finish_unchanged(step, "")
            end.advance(number)

    working = in_thread(work)
    ran = logs(steps, "-f", "--format", form)
    working.join()

    assert ran.status == 0
    for step in steps:
        assert ran.out.count(f"{step.pk} goes on") == 1
    last = ran.out.splitlines()[-1] if form == "text" else ran.err
    assert last.startswith(f"Deployment {number} succeeded in ")


def test_following_one_step_ends_with_it(steps: list[Step]) -> None:
    finish.finish_unchanged(steps[0], "")

    done = logs(steps, "-f", "--step", str(steps[0].pk))

    assert done.status == 0
    assert done.out.endswith(f"  1b\n{steps[0].resource.uid} succeeded.\n")
    finish.fail_step(steps[1], "No quota.")
    failed = logs(steps, "-f", "--step", str(steps[1].pk))
    assert failed.status == 1
    assert f"{steps[1].resource.uid} failed:\n  No quota." in failed.err


def test_following_what_failed_fails(place: Place) -> None:
    place.template("part")
    deployment = place.deploy(FAILS)

    ran = run("logs", str(deployment.pk), "--follow")

    assert ran.status == 1
    assert "No quota" in ran.out
    assert f"Deployment {deployment.pk} ended: failed." in ran.err


def test_following_ends_where_somebody_has_to_agree(place: Place) -> None:
    place.template("part")
    shared = "  one:\n    type: part\n    reference: {mode: shared, name: one}\n"
    own = "  two:\n    type: part\n"
    place.submit(shared + own)
    changed = place.submit(own)
    place.deploy(shared, application="billing")

    ran = run("logs", str(changed.pk), "--follow")

    assert ran.status == 1
    assert f"Agree to the new plan with: manage.py confirm {changed.pk}" in ran.err
