"""Two teams share a real database, each with a login of its own, until they part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import LazySettings, settings
from django.contrib.auth.models import User

from provisioning.models import Deployment, ResourceConsumer
from provisioning.services.approvals import approve
from provisioning.services.catalog import sync_catalog
from provisioning.services.outputs import resolved_outputs
from provisioning.services.people import system_user
from provisioning.services.sharing import revoke
from provisioning.workers.tasks import work
from tests.provisioning.place import QUEUE, Place, chores, new_place

CATALOG = Path(__file__).resolve().parent.parent.parent / "catalog"
DB = "shared/orders"
SHARED = "  db:\n    type: postgres\n    reference: {mode: shared, name: orders}\n"
TOLD = "  told:\n    type: told\n    params: {url: '${resources.db.url}'}\n"
REFUSED = "authentication failed"


@pytest.fixture
def place(
    db: None, tmp_path: Path, settings: LazySettings, charlie: User, bob: User
) -> Iterator[Place]:
    """Return a place where charlie's application orders has a database, and bob has reports."""
    settings.VAR_DIR = tmp_path / "var"
    settings.CONDUCTOR_WORK_DIR = tmp_path / "work"
    place = new_place()
    place.team = ""
    sync_catalog(organisation=place.organisation, source=str(CATALOG), actor=system_user())
    config = {"outputs": {"url": "${params.url}"}}
    place.template("told", driver="template", outputs={"url": True}, config=config)
    place.team_named("orders-team", charlie)
    place.team_named("reports-team", bob)
    place.deploy(SHARED, application="orders")
    yield place
    for application in ("reports", "orders"):
        place.teardown(application)


def ask(place: Place, bob: User, resources: str = SHARED) -> Deployment:
    return place.submit(resources, application="reports", actor=bob)


def join(place: Place, bob: User, charlie: User, resources: str = SHARED) -> Deployment:
    approval = ask(place, bob, resources).approvals.get(status="pending")
    return place.done(approve(approval=approval, actor=charlie))


def outputs(place: Place, application: str) -> dict[str, dict[str, Any]]:
    """Return what an application's workload gets, in clear."""
    found = resolved_outputs(
        application=place.application(application),
        environment=place.environment,
        reveal=True,
        actor=system_user(),
    )
    return found.get("web", {})


def query(url: str, statement: str) -> Any:
    """Run one statement as whoever the address is for; return the first value."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchone()[0] if cursor.description else None


def logins(place: Place) -> list[str]:
    """Return the logins of the database."""
    with psycopg.connect(settings.CONDUCTOR_POSTGRES_ADMIN_URL()) as server:
        rows = server.execute(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin"
            " AND starts_with(shobj_description(oid, 'pg_authid'), %s) ORDER BY rolname",
            (f"conductor {place.resource(DB).pk} ",),
        )
        return [name.rpartition("_")[0] for (name,) in rows]


def use(application: str) -> ResourceConsumer:
    return ResourceConsumer.objects.select_related("resource", "workload__application").get(
        workload__application__name=application, resource__key=DB, state="active"
    )


def test_two_teams_share_tables_and_part_without_a_trace(
    place: Place, bob: User, charlie: User
) -> None:
    join(place, bob, charlie)
    orders, reports = outputs(place, "orders")["db"], outputs(place, "reports")["db"]
    query(orders["url"], "CREATE TABLE orders AS SELECT 'apples' AS text")
    query(reports["url"], "ALTER TABLE orders ADD COLUMN count int")

    assert query(reports["url"], "SELECT text FROM orders") == "apples"
    assert {orders["username"], reports["username"]} == {
        query(each["url"], "SELECT session_user") for each in (orders, reports)
    }
    assert orders["database"] == reports["database"]

    place.teardown("reports")

    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(reports["url"], "SELECT 1")
    assert outputs(place, "orders")["db"] == orders
    assert query(orders["url"], "SELECT text FROM orders") == "apples"
    assert logins(place) == ["orders_web_db"]


def test_whoever_waits_for_approval_has_no_login(place: Place, bob: User) -> None:
    ask(place, bob)
    place.deploy(SHARED + "    params: {connection_limit: 5}\n", application="orders")
    chores()
    work(QUEUE)

    assert outputs(place, "reports") == {}
    assert logins(place) == ["orders_web_db"]


def test_nothing_works_that_a_revoked_team_knew(place: Place, bob: User, charlie: User) -> None:
    join(place, bob, charlie, SHARED + TOLD)
    orders, before = outputs(place, "orders"), outputs(place, "reports")
    known = [before["db"]["url"], before["told"]["url"]]
    assert len({query(url, "SELECT session_user") for url in known}) == 2
    held = psycopg.connect(known[0], autocommit=True)

    revoke(consumer=use("reports"), reason="It moves to its own.", actor=charlie)
    work(QUEUE)

    for url in known:
        with pytest.raises(psycopg.OperationalError, match=REFUSED):
            query(url, "SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    assert outputs(place, "orders") == orders
    assert query(orders["db"]["url"], "SELECT 1") == 1
    assert logins(place) == ["orders_web_db"]

    join(place, bob, charlie, SHARED + TOLD)

    after = outputs(place, "reports")
    assert not {*known} & {after["db"]["url"], after["told"]["url"]}
    for each in (after["db"], after["told"]):
        assert query(each["url"], "SELECT 1") == 1
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(known[0], "SELECT 1")


def test_who_is_allowed_again_before_anything_was_done_is_given_something_new(
    place: Place, bob: User, charlie: User
) -> None:
    join(place, bob, charlie)
    before = outputs(place, "reports")["db"]
    revoke(consumer=use("reports"), reason="Wait.", actor=charlie)

    join(place, bob, charlie)

    after = outputs(place, "reports")["db"]
    assert query(after["url"], "SELECT 1") == 1
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(before["url"], "SELECT 1")
    assert logins(place) == ["orders_web_db", "reports_web_db"]


def test_the_workloads_of_one_application_have_each_their_own(place: Place) -> None:
    place.deploy(SHARED, application="orders", workload="jobs")
    found = resolved_outputs(
        application=place.application("orders"),
        environment=place.environment,
        reveal=True,
        actor=system_user(),
    )
    web, jobs = found["web"]["db"], found["jobs"]["db"]

    place.teardown("orders", ["web"])

    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(web["url"], "SELECT 1")
    assert query(jobs["url"], "SELECT 1") == 1
