"""A login of its own for each who uses a database, on a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from provisioning.drivers import get_driver
from provisioning.drivers.base import Consumer, DriverError, DriverInput, DriverResult
from provisioning.drivers.postgres.driver import database_name
from tests.provisioning.drivers.runs import MemoryRun, driver_input

DRIVER = get_driver("postgres")
REFUSED = "no password assigned|not permitted to log in|authentication failed"
ONE, TWO = Consumer("alias/1", "orders/api.db"), Consumer("alias/2", "reports/dashboard.orders")
LANDLORD = f"landlord_{os.getpid()}"
Outputs = Mapping[str, Any]


@pytest.fixture
def admin_url() -> str:
    url: str = settings.CONDUCTOR_POSTGRES_ADMIN_URL()
    return url


@pytest.fixture
def run(tmp_path: Path, admin_url: str) -> MemoryRun:
    return MemoryRun(tmp_path, environment={"CONDUCTOR_POSTGRES_ADMIN_URL": admin_url})


@pytest.fixture
def resource(tmp_path: Path, run: MemoryRun, admin_url: str) -> Iterator[DriverInput]:
    resource = driver_input(
        tmp_path, resource_id=str(tmp_path), name="shop-db", consumers=(ONE, TWO)
    )
    yield resource
    DRIVER.destroy(resource, MemoryRun(tmp_path, environment=run.environment))
    assert roles(resource, admin_url) == []


def roles(resource: DriverInput, admin_url: str) -> list[str]:
    """Return the names of all roles that belong to a resource."""
    with psycopg.connect(admin_url) as connection:
        found = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = %s"
            " OR starts_with(shobj_description(oid, 'pg_authid'), %s) ORDER BY rolname",
            (database_name(resource), f"conductor {resource.resource_id}"),
        )
        return [name for (name,) in found]


def login(outputs: Outputs) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(str(outputs["url"]), autocommit=True, connect_timeout=5)


def query(outputs: Outputs, statement: str) -> list[tuple[Any, ...]]:
    with login(outputs) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return list(cursor.fetchall()) if cursor.description else []


def again(resource: DriverInput, result: DriverResult, *consumers: Consumer) -> DriverInput:
    """Return the input of the next ensure: with these consumers and what they were given before."""
    return replace(
        resource,
        previous_outputs=result.outputs,
        consumers=tuple(
            replace(each, previous_outputs=result.consumer_outputs.get(each.id, {}))
            for each in consumers
        ),
    )


def test_each_logs_in_as_itself_and_acts_as_the_owner(
    resource: DriverInput, run: MemoryRun
) -> None:
    result = DRIVER.ensure(resource, run)
    one, two = (result.consumer_outputs[each.id] for each in (ONE, TWO))

    assert set(result.outputs) == {"host", "port", "name", "database"}
    assert set(one) == {"username", "password", "url"}
    assert one["username"].startswith("orders_api_db_")
    assert two["username"].startswith("reports_dashboard_orders_")
    for own in (one, two):
        assert query(own, "SELECT session_user, current_user") == [
            (own["username"], database_name(resource))
        ]
    assert result.sensitive == {"password", "url"}


def test_each_uses_and_changes_what_the_other_makes(resource: DriverInput, run: MemoryRun) -> None:
    result = DRIVER.ensure(resource, run)
    one, two = (result.consumer_outputs[each.id] for each in (ONE, TWO))

    query(one, "CREATE SCHEMA shop CREATE TABLE orders (id bigserial, text text)")
    query(two, "INSERT INTO shop.orders (text) VALUES ('apples')")
    query(two, "ALTER TABLE shop.orders ADD COLUMN count int")

    assert query(one, "SELECT id, text, count FROM shop.orders") == [(1, "apples", None)]


def test_nobody_is_an_administrator_or_logs_in_as_the_owner(
    resource: DriverInput, run: MemoryRun
) -> None:
    result = DRIVER.ensure(resource, run)
    one = result.consumer_outputs[ONE.id]
    owner = {"url": one["url"].replace(one["username"], database_name(resource))}

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(one, "CREATE ROLE backdoor LOGIN")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(one, f"GRANT {database_name(resource)} TO pg_monitor")
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(owner, "SELECT 1")


def test_ensured_again_everybody_keeps_its_password_and_session(
    resource: DriverInput, run: MemoryRun
) -> None:
    first = DRIVER.ensure(resource, run)
    with login(first.consumer_outputs[ONE.id]) as session:
        second = DRIVER.ensure(again(resource, first, ONE, TWO), run)

        assert second == first
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert query(second.consumer_outputs[TWO.id], "SELECT 1") == [(1,)]


def test_who_leaves_is_refused_its_session_ends_and_its_tables_stay(
    resource: DriverInput, run: MemoryRun, admin_url: str
) -> None:
    first = DRIVER.ensure(resource, run)
    one, two = (first.consumer_outputs[each.id] for each in (ONE, TWO))
    with login(two) as session:
        session.execute("CREATE TABLE shared (id int)")
        session.execute("SET ROLE NONE")
        session.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER CREATE TABLE own (id int)")

        second = DRIVER.ensure(again(resource, first, ONE), run)

        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(two, "SELECT 1")
    assert second.consumer_outputs == {ONE.id: one}
    tables = query(one, "SELECT tablename, tableowner FROM pg_tables WHERE tablename <> 'x'"
        " AND schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1")  # fmt: skip
    assert tables == [("own", database_name(resource)), ("shared", database_name(resource))]
    assert roles(resource, admin_url) == sorted([database_name(resource), one["username"]])


def test_who_comes_back_is_somebody_else(resource: DriverInput, run: MemoryRun) -> None:
    first = DRIVER.ensure(resource, run)
    alone = DRIVER.ensure(again(resource, first, ONE), run)
    back = replace(TWO, id="alias/3")

    second = DRIVER.ensure(again(resource, alone, ONE, back), run)

    old, new = first.consumer_outputs[TWO.id], second.consumer_outputs[back.id]
    assert (old["username"] != new["username"], old["password"] != new["password"]) == (True, True)
    assert query(new, "SELECT 1") == [(1,)]
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(old, "SELECT 1")


def test_nobody_uses_it_and_nobody_gets_in(
    resource: DriverInput, run: MemoryRun, admin_url: str
) -> None:
    first = DRIVER.ensure(resource, run)
    second = DRIVER.ensure(again(resource, first), run)

    assert (second.outputs, second.consumer_outputs) == (first.outputs, {})
    assert roles(resource, admin_url) == [database_name(resource)]


def test_what_all_knew_is_worth_nothing_once_each_has_its_own(
    resource: DriverInput, run: MemoryRun
) -> None:
    before = DRIVER.ensure(replace(resource, consumers=None), run)
    query(before.outputs, "CREATE TABLE kept (id int)")
    with login(before.outputs) as session:
        after = DRIVER.ensure(again(resource, before, ONE), run)

        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        query(before.outputs, "SELECT 1")
    assert query(after.consumer_outputs[ONE.id], "SELECT count(*) FROM kept") == [(0,)]


def test_a_login_that_was_bent_by_hand_is_put_right(resource: DriverInput, run: MemoryRun) -> None:
    first = DRIVER.ensure(resource, run)
    one = first.consumer_outputs[ONE.id]
    with login(one) as session:
        session.execute("SET ROLE NONE")
        session.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
        name = sql.Identifier(database_name(resource))
        session.execute(sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {} RESET role").format(name))

    second = DRIVER.ensure(again(resource, first, ONE, TWO), run)

    assert query(second.consumer_outputs[ONE.id], "SELECT current_user") == [
        (database_name(resource),)
    ]
    assert second == first


def test_a_role_of_somebody_else_is_left_alone(
    resource: DriverInput, run: MemoryRun, admin_url: str
) -> None:
    taken = DRIVER.ensure(resource, run).consumer_outputs[ONE.id]["username"]
    with psycopg.connect(admin_url, autocommit=True) as connection:
        role = sql.Identifier(taken)
        connection.execute(sql.SQL("COMMENT ON ROLE {} IS 'the cook''s'").format(role))
        try:
            with pytest.raises(DriverError, match="belongs to something else") as refused:
                DRIVER.ensure(resource, run)
        finally:
            mark = sql.Literal(f"conductor {resource.resource_id} {ONE.id}")
            connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(role, mark))
    assert refused.value.permanent is True


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("orders/api.db", "orders_api_db_"),
        ('"; DROP ROLE postgres; --', "drop_role_postgres_"),
        ("private/" + "x" * 200, "private_" + "x" * 44 + "_"),
    ],
)
def test_names_are_safe_short_and_each_one_s_own(
    resource: DriverInput, run: MemoryRun, name: str, start: str
) -> None:
    twins = replace(ONE, name=name), replace(TWO, name=name)

    given = DRIVER.ensure(replace(resource, consumers=twins), run).consumer_outputs
    names = [str(own["username"]) for own in given.values()]

    assert all(each.startswith(start) and len(each) <= 63 for each in names)
    assert len(set(names)) == 2


def test_no_password_of_anybody_reaches_the_log(resource: DriverInput, run: MemoryRun) -> None:
    result = DRIVER.ensure(resource, run)
    DRIVER.ensure(again(resource, result, ONE), run)

    secrets = {own[key] for own in result.consumer_outputs.values() for key in ("password", "url")}
    logged = "".join(text for _, _, text in run.unmasked)
    assert secrets <= run.masked
    assert not [secret for secret in secrets if secret in logged]


def test_an_administrator_without_all_rights_will_do(
    resource: DriverInput, tmp_path: Path, admin_url: str
) -> None:
    url = make_conninfo(admin_url, user=LANDLORD, password=LANDLORD)
    run = MemoryRun(tmp_path, environment={"CONDUCTOR_POSTGRES_ADMIN_URL": url})
    with psycopg.connect(admin_url, autocommit=True) as connection:
        create = sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}")
        connection.execute(create.format(sql.Identifier(LANDLORD), sql.Literal(LANDLORD)))
        try:
            first = DRIVER.ensure(resource, run)
            query(first.consumer_outputs[TWO.id], "SET ROLE NONE; CREATE TEMP TABLE x (id int)")
            second = DRIVER.ensure(again(resource, first, ONE), run)
            assert query(second.consumer_outputs[ONE.id], "SELECT 1") == [(1,)]
            DRIVER.destroy(again(resource, second, ONE), run)
            assert roles(resource, admin_url) == []
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(LANDLORD)))
