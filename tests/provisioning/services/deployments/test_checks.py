from __future__ import annotations

from typing import Any

from provisioning.models import AuditEvent
from provisioning.services.deployments.wishes import wishes_not_met
from tests.provisioning.place import Place

KEY = "shared/common"
ENOUGH = {
    "condition": "outputs.max_connections >= wish.connections",
    "message": "It allows fewer connections than asked for.",
}
FEWER = "It allows fewer connections than asked for"
RIGHT = {
    "condition": "outputs.password == wish.expected",
    "message": "It has another password.",
}
MERGED = {"connections": {"rule": "maximum"}, "expected": {"rule": "priority"}}


def with_checks(place: Place, *checks: dict[str, str], **outputs: Any) -> None:
    """Register a database template that always gives these outputs."""
    place.template(
        "database",
        outputs={name: name == "password" for name in outputs},
        config={"outputs": outputs},
        checks=list(checks),
        merge_rules=MERGED,
    )


def common(params: str) -> str:
    shared = "reference: {mode: shared, name: common}"
    return f"  common:\n    type: database\n    {shared}\n    params: {params}\n"


def test_consumer_that_gets_less_than_it_asked_for_is_told(place: Place) -> None:
    with_checks(place, ENOUGH, max_connections=50)

    deployment = place.deploy(common("{connections: 100}"))

    assert deployment.status == "succeeded"
    event = AuditEvent.objects.get(action="consumer.wish_not_met")
    assert (event.subject, event.reason, event.deployment_id) == (
        "shop/web.common",
        f"{KEY} is not as it asked: {FEWER} (outputs.max_connections is 50, wish.connections is 100).",
        str(deployment.pk),
    )
    assert wishes_not_met(deployment) == [f"shop/web.common: {event.reason}"]


def test_only_who_asks_for_what_a_check_names_is_concerned(place: Place) -> None:
    with_checks(place, ENOUGH, max_connections=50)
    place.deploy(common("{connections: 40}"))
    place.deploy(common("{expected: x}"), application="mail")

    place.deploy(common("{connections: 60}"), application="blog")

    (event,) = AuditEvent.objects.filter(action="consumer.wish_not_met")
    assert event.subject == "blog/web.common"


def test_joiner_is_told_without_a_step(place: Place) -> None:
    with_checks(place, ENOUGH, max_connections=50)
    place.deploy(common("{connections: 200}"))

    deployment = place.deploy(common("{connections: 100}"), application="mail")

    assert deployment.status == "succeeded"
    assert not deployment.steps.exists()
    (told,) = wishes_not_met(deployment)
    assert told.startswith("mail/web.common: shared/common is not as it asked: It allows fewer")


def test_each_is_compared_with_what_it_has_of_its_own(place: Place) -> None:
    other = {"condition": "outputs.password != wish.expected", "message": "It is the weak one."}
    place.template(
        "database",
        outputs={"password": True},
        config={"own": ["password"]},
        uses=["consumers"],
        checks=[other],
        merge_rules=MERGED,
    )

    deployment = place.deploy(common("{expected: weak}"))

    assert deployment.status == "succeeded"
    assert wishes_not_met(deployment) == []


def test_secret_output_is_compared_in_a_worker_and_never_shown(place: Place) -> None:
    with_checks(place, RIGHT, max_connections=50, password="s3cret-one")
    place.deploy(common("{connections: 9, expected: guess}"))

    deployment = place.deploy(common("{connections: 1, expected: guess}"), application="mail")

    assert place.steps(deployment) == {KEY: ("ensure", "succeeded", False)}
    (told,) = wishes_not_met(deployment)
    assert told == (
        f"mail/web.common: {KEY} is not as it asked: It has another password (outputs.password "
        'is a secret, wish.expected is "guess").'
    )
    assert not AuditEvent.objects.filter(reason__contains="s3cret").exists()


def test_an_update_tells_all_whom_it_fails_and_a_repetition_only_its_own(place: Place) -> None:
    with_checks(place, ENOUGH, max_connections=50)
    place.deploy(common("{connections: 60}"))

    update = place.deploy(common("{connections: 70}"), application="mail")
    again = place.deploy(common("{connections: 60}"))

    assert [told.split(":")[0] for told in wishes_not_met(update)] == [
        "shop/web.common",
        "mail/web.common",
    ]
    assert [told.split(":")[0] for told in wishes_not_met(again)] == ["shop/web.common"]


def test_wish_that_refers_to_another_resource_is_compared_with_what_it_gives(place: Place) -> None:
    with_checks(place, RIGHT, password="s3cret-one")
    place.template("vault", outputs={"word": True}, config={"outputs": {"word": "s3cret-one"}})
    vault = "  vault:\n    type: vault\n    id: words\n"
    asked = "{expected: '${resources.vault.word}'}"

    deployment = place.deploy(vault + common(asked))

    assert deployment.status == "succeeded"
    assert wishes_not_met(deployment) == []
