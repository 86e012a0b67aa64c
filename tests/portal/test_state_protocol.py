"""The protocol of Terraform's `http` backend, request by request, with each fault that was seen."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.test import Client
from django.test.client import FakePayload
from rest_framework.authtoken.models import Token

from provisioning.drivers.base import LeaseLostError
from provisioning.models import AuditEvent, Membership, Resource, StateLock, StateVersion, Step
from provisioning.services.state import serve
from provisioning.services.state.versions import content_of
from provisioning.workers.tasks import claim
from tests.provisioning.place import Place


def state(serial: int, lineage: str = "a", **more: Any) -> bytes:
    return json.dumps({"serial": serial, "lineage": lineage, **more}).encode()


def lock(id_: str, who: str = "root@host") -> bytes:
    said = {"ID": id_, "Operation": "OperationTypeApply", "Who": who, "Path": ""}
    return json.dumps(said).encode()


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class Caller:
    """Speak to the state address of a resource as Terraform does, under one name."""

    def __init__(self, resource: Resource, username: str, password: str) -> None:
        self.address = f"/api/state/{resource.pk}"
        word = base64.b64encode(f"{username}:{password}".encode()).decode()
        self.client = Client(enforce_csrf_checks=True, headers={"authorization": f"Basic {word}"})

    def send(self, method: str, body: bytes = b"", query: str = "", **headers: str) -> Any:
        return self.client.generic(
            method,
            self.address + query,
            body,
            "application/json",
            headers={"content-md5": md5(body), **headers},
        )

    def get(self) -> Any:
        return self.send("GET")

    def post(self, body: bytes, id_: str = "l1", **headers: str) -> Any:
        return self.send("POST", body, f"?ID={id_}", **headers)

    def lock(self, id_: str = "l1", who: str = "root@host") -> Any:
        return self.send("LOCK", lock(id_, who))

    def unlock(self, id_: str = "l1") -> Any:
        return self.send("UNLOCK", lock(id_))

    def force_unlock(self) -> Any:
        """Unlock as `terraform force-unlock` does: chunked, without any body, without an ID."""
        return self.client.request(
            REQUEST_METHOD="UNLOCK",
            PATH_INFO=self.address,
            HTTP_TRANSFER_ENCODING="chunked",
            HTTP_CONTENT_MD5="1B2M2Y8AsgTpgAmY7PhCfg==",
            **{"wsgi.input": FakePayload(b"")},
        )


pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def claimed(lasting_place: Place) -> int:
    """Store a running step on a resource whose state is served by Conductor."""
    lasting_place.environment.state_backend = {"type": "http"}
    lasting_place.environment.save()
    lasting_place.template("thing")
    lasting_place.submit("  thing:\n    type: thing\n")
    step = claim("default")
    assert step is not None
    Step.objects.update(lease_until=Now() + timedelta(hours=1))
    Resource.objects.update(state_backend="http", state_location="resources/x")
    return step.pk


@pytest.fixture
def step(claimed: int) -> Step:
    return Step.objects.get(pk=claimed)


@pytest.fixture
def run(step: Step) -> Caller:
    return opened(step)


def opened(step: Step) -> Caller:
    """Return the caller that a step's next tool is."""
    token = serve.open_state(step=step.pk, attempt=step.attempt)
    return Caller(step.resource, "run", token)


@pytest.fixture
def owner(step: Step, charlie: User) -> Caller:
    """Return an owner of the resource's team, with an API token."""
    team = step.resource.owner_team
    Membership.objects.create(team=team, user=charlie, role="owner")
    return Caller(step.resource, "charlie", Token.objects.create(user=charlie).key)


def stored() -> list[bytes]:
    return [content_of(each) for each in StateVersion.objects.order_by("number")]


def test_a_run_locks_writes_reads_and_unlocks(run: Caller, step: Step) -> None:
    assert run.get().status_code == 204
    assert run.lock().status_code == 200
    assert run.post(state(1)).status_code == 200
    assert run.post(state(2)).status_code == 200
    assert run.unlock().status_code == 200
    answer = run.get()
    assert (answer.status_code, answer.content) == (200, state(2))
    assert answer["Content-MD5"] == md5(state(2))
    assert not StateLock.objects.exists()
    newest = StateVersion.objects.latest("number")
    assert (newest.number, newest.serial, newest.lineage) == (2, 2, "a")
    assert (newest.step, newest.attempt, newest.stored_by) == (step, 1, "")
    assert b"lineage" not in bytes(newest.data)


def test_the_answer_to_a_lock_may_be_lost(run: Caller) -> None:
    assert [run.lock().status_code for _ in range(2)] == [200, 200]
    assert StateLock.objects.count() == 1


def test_the_answer_to_an_unlock_may_be_lost(run: Caller) -> None:
    run.lock()
    assert [run.unlock().status_code for _ in range(2)] == [200, 200]


def test_the_answer_to_a_write_may_be_lost(run: Caller) -> None:
    run.lock()
    assert [run.post(state(1)).status_code for _ in range(2)] == [200, 200]
    assert stored() == [state(1)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (state(5, outputs={}), "is of lineage a and serial 5, and the stored one is of lineage a"),
        (state(4), "is of lineage a and serial 4"),
        (
            state(6, "b"),
            "is of lineage b and serial 6, and the stored one is of lineage a and serial 5",
        ),
    ],
)
def test_a_state_that_does_not_follow_is_refused(run: Caller, body: bytes, said: str) -> None:
    run.lock()
    run.post(state(5))
    answer = run.post(body)
    assert answer.status_code == 409
    assert said in answer.json()["detail"]
    assert stored() == [state(5)]


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (state(1), {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, "not what its Content-MD5 says"),
        (state(1)[:-4], {}, "not a complete Terraform state"),
        (b"", {}, "not a complete Terraform state"),
        (b"[" * 100_000, {}, "not a complete Terraform state"),
        (state(2**63), {}, "not a complete Terraform state"),
        (state(1, ""), {}, "not a complete Terraform state"),
        (state(1, "a\0"), {}, "not a complete Terraform state"),
    ],
)
def test_a_damaged_state_is_refused(
    run: Caller, body: bytes, headers: dict[str, str], said: str
) -> None:
    run.lock()
    answer = run.post(body, **headers)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert stored() == []


def test_a_state_of_fifty_megabytes_is_stored_whole(run: Caller) -> None:
    big = state(1, resources=[{"mode": "data", "x": "y" * 50_000_000}])
    run.lock()
    assert run.post(big).status_code == 200
    assert run.get().content == big
    kept = StateVersion.objects.get()
    assert (kept.size, kept.compressed) == (len(big), True)


def test_a_state_that_is_too_large_is_refused(run: Caller, settings: LazySettings) -> None:
    settings.CONDUCTOR_STATE_MEGABYTES = 1
    run.lock()
    answer = run.post(state(1, x="y" * 1_048_576))
    assert (answer.status_code, answer.json()) == (
        413,
        {"detail": "A body has 1,048,576 bytes at most."},
    )
    assert stored() == []


def test_writing_needs_the_lock(run: Caller, owner: Caller) -> None:
    assert run.post(state(1)).status_code == 409
    run.lock("l1")
    assert run.post(state(1), "l2").status_code == 423
    assert owner.post(state(1), "l1").status_code == 423
    assert stored() == []


def test_whoever_finds_it_locked_is_told_who_holds_it(run: Caller, owner: Caller) -> None:
    owner.lock("l1", "charlie@laptop")
    answer = run.lock("l2")
    assert answer.status_code == 423
    assert answer.json() == json.loads(lock("l1", "charlie@laptop"))


def test_an_unlock_with_another_id_is_refused(run: Caller) -> None:
    run.lock("l1")
    answer = run.unlock("l2")
    assert answer.status_code == 409
    assert "locked with the ID l1 by deployment" in answer.json()["detail"]
    assert StateLock.objects.get().lock_id == "l1"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ID": ""}', b'{"ID": 7}', b'{"ID": "a\\u0000"}'])
def test_a_lock_that_is_none_is_refused(run: Caller, body: bytes) -> None:
    assert run.send("LOCK", body).status_code == 400
    assert not StateLock.objects.exists()


def test_the_lock_of_a_live_run_is_broken_by_nobody(run: Caller, owner: Caller, step: Step) -> None:
    run.lock()
    Step.objects.update(lease_until=Now() - timedelta(seconds=1))  # its tool may still write
    assert owner.lock("l2").status_code == 423
    assert owner.force_unlock().status_code == 409
    assert owner.unlock("l1").status_code == 409
    assert run.post(state(1)).status_code == 200
    assert StateLock.objects.get().lock_id == "l1"


def test_the_lock_of_a_dead_run_is_free_when_its_lease_is_over(run: Caller, owner: Caller) -> None:
    run.lock()
    Step.objects.update(lease_until=Now() - timedelta(seconds=31))
    assert owner.lock("l2").status_code == 200
    assert run.post(state(1)).status_code == 423
    assert run.unlock("l1").status_code == 409


def test_the_lock_of_a_step_that_has_ended_is_free(run: Caller, owner: Caller) -> None:
    run.lock()
    Step.objects.update(status="failed")
    assert owner.lock("l2").status_code == 200


def test_the_next_tool_of_a_step_has_the_lock_of_the_last_one(run: Caller, step: Step) -> None:
    run.lock("l1")
    run.post(state(1))
    Step.objects.update(attempt=2)
    step.attempt = 2
    again = opened(step)
    assert again.lock("l2").status_code == 200
    assert again.post(state(2), "l2").status_code == 200
    assert [each.status_code for each in (run.get(), run.post(state(3)), run.unlock())] == [403] * 3


def test_an_attempt_that_follows_a_tool_leaves_it_its_state(run: Caller) -> None:
    run.lock()
    Step.objects.update(attempt=2, status="recovering")
    assert run.post(state(1)).status_code == 200
    Step.objects.update(status="pending")
    assert run.unlock().status_code == 200


def test_the_token_of_a_run_is_good_for_its_own_resource_only(
    run: Caller, lasting_place: Place
) -> None:
    lasting_place.submit("  other:\n    type: thing\n", application="billing")
    other = Resource.objects.get(created_by__name="billing")
    Resource.objects.update(state_backend="http")
    run.address = f"/api/state/{other.pk}"
    methods = {method: run.send(method, lock("l1")) for method in ("GET", "LOCK", "UNLOCK")}
    assert {name: answer.status_code for name, answer in methods.items()} == dict.fromkeys(
        methods, 403
    )
    assert run.post(state(1)).status_code == 403
    assert not StateLock.objects.exists()


def test_the_token_of_a_run_ends_with_its_step(run: Caller) -> None:
    Step.objects.update(status="succeeded")
    assert run.get().status_code == 403
    assert run.lock().status_code == 403


def test_a_lost_attempt_gets_no_token(step: Step) -> None:
    Step.objects.update(attempt=2)
    with pytest.raises(LeaseLostError):
        serve.open_state(step=step.pk, attempt=1)
    step.refresh_from_db()
    assert step.tool_attempt == 0


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("", ""),
        ("run", "1.1." + "0" * 63),
        ("charlie", "no token"),
        ("nobody", "x"),
        ("charlie", "\0"),
    ],
)
def test_a_stranger_is_asked_who_he_is(step: Step, username: str, password: str) -> None:
    answer = Caller(step.resource, username, password).get()
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Basic realm="Conductor"')


def test_a_forged_token_is_refused(step: Step, run: Caller) -> None:
    forged = Caller(step.resource, "run", f"{step.pk}.1.{'0' * 64}")
    assert forged.get().status_code == 403


def test_a_person_needs_rights(step: Step, alice: User, bob: User) -> None:
    Membership.objects.create(team=step.resource.owner_team, user=bob)
    stranger = Caller(step.resource, "alice", Token.objects.create(user=alice).key)
    member = Caller(step.resource, "bob", Token.objects.create(user=bob).key)
    assert stranger.lock().status_code == 404
    assert member.lock().status_code == 403
    assert member.get().status_code == 403
    assert not StateLock.objects.exists()


def test_anothers_name_with_ones_own_token_is_refused(step: Step, owner: Caller) -> None:
    token = Token.objects.get()
    assert Caller(step.resource, "alice", token.key).get().status_code == 401


def test_a_token_may_come_as_in_rest(owner: Caller) -> None:
    client = Client(headers={"authorization": f"Token {Token.objects.get().key}"})
    assert client.get(owner.address).status_code == 204


def test_a_person_reads_and_writes_and_that_is_told(owner: Caller, step: Step) -> None:
    Resource.objects.update(applied_mac="m", applied_spec_digest="d")
    owner.lock()
    assert owner.post(state(1)).status_code == 200
    assert owner.get().content == state(1)
    owner.unlock()
    assert StateVersion.objects.get().stored_by == "charlie"
    resource = Resource.objects.get()
    assert (resource.applied_mac, resource.applied_spec_digest) == ("", "")
    events = AuditEvent.objects.filter(action__startswith="state.").order_by("pk")
    assert list(events.values_list("actor", "action", "subject_id")) == [
        ("charlie", "state.pushed", str(resource.pk)),
        ("charlie", "state.pulled", str(resource.pk)),
    ]


def test_a_persons_lock_ends_by_itself(owner: Caller, run: Caller) -> None:
    owner.lock("l1")
    StateLock.objects.update(expires_at=Now() + timedelta(minutes=1))
    owner.post(state(1))
    assert StateLock.objects.filter(expires_at__gt=Now() + timedelta(minutes=59)).exists()
    StateLock.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert run.lock("l2").status_code == 200


def test_a_person_forces_the_lock_of_another_person_and_that_is_told(
    owner: Caller, run: Caller, bob: User, step: Step
) -> None:
    bob.is_staff = True
    bob.save()
    staff = Caller(step.resource, "bob", Token.objects.create(user=bob).key)
    owner.lock()
    assert run.force_unlock().status_code == 409
    assert StateLock.objects.exists()
    assert staff.force_unlock().status_code == 200
    assert not StateLock.objects.exists()
    event = AuditEvent.objects.get(action="state.unlocked")
    assert (event.actor, event.reason) == ("bob", "It was locked by charlie.")


def test_a_person_may_say_that_there_is_no_state_and_begin_anew(owner: Caller, run: Caller) -> None:
    Resource.objects.update(state_metadata={"serial": "1", "lineage": "a"})
    owner.lock()
    owner.post(state(1))
    owner.unlock()
    run.lock()
    assert run.send("DELETE").status_code == 403
    assert owner.send("DELETE").status_code == 423
    run.unlock()
    assert [owner.send("DELETE").status_code for _ in range(2)] == [200, 200]
    assert owner.get().status_code == 204
    owner.lock()
    assert owner.post(state(1, "another")).status_code == 200
    assert stored() == [state(1), b"", state(1, "another")]
    assert Resource.objects.get().state_metadata == {}


def test_a_state_that_is_kept_elsewhere_is_not_served(run: Caller, owner: Caller) -> None:
    Resource.objects.update(state_backend="managed")
    assert run.get().status_code == 409
    assert owner.lock().status_code == 409


def test_other_methods_are_refused(run: Caller) -> None:
    assert run.send("PUT", state(1)).status_code == 405
