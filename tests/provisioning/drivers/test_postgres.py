from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings

from provisioning.drivers import get_driver
from provisioning.drivers.base import DriverError, DriverInput
from provisioning.drivers.postgres.driver import database_name
from tests.provisioning.drivers.runs import MemoryRun, driver_input

DRIVER = get_driver("postgres")


@pytest.fixture
def admin_url() -> str:
    url: str = settings.CONDUCTOR_POSTGRES_ADMIN_URL()
    return url


@pytest.fixture
def run(tmp_path: Path, admin_url: str) -> MemoryRun:
    run = MemoryRun(tmp_path)
    run.environment = {"CONDUCTOR_POSTGRES_ADMIN_URL": admin_url}
    return run


@pytest.fixture
def resource(tmp_path: Path, run: MemoryRun) -> Iterator[DriverInput]:
    resource = driver_input(tmp_path, resource_id=str(tmp_path), name="shop-db")
    yield resource
    DRIVER.destroy(resource, MemoryRun(tmp_path, environment=run.environment))


def _query(outputs: Any, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(
        host=outputs["host"],
        port=outputs["port"],
        dbname=outputs["database"],
        user=outputs["username"],
        password=outputs["password"],
        autocommit=True,
        connect_timeout=5,
    ) as connection:
        cursor = connection.execute(query)  # type: ignore[call-overload]
        return list(cursor.fetchall()) if cursor.description else []


def test_the_outputs_open_a_database_of_one_s_own(resource: DriverInput, run: MemoryRun) -> None:
    outputs = DRIVER.ensure(resource, run).outputs
    _query(outputs, "CREATE TABLE orders (id int)")
    assert _query(outputs, "SELECT current_database(), current_user") == [
        (database_name(resource), database_name(resource))
    ]
    with psycopg.connect(str(outputs["url"])) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_the_role_is_no_administrator(resource: DriverInput, run: MemoryRun) -> None:
    outputs = DRIVER.ensure(resource, run).outputs
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        _query(outputs, "CREATE DATABASE another")


def test_another_role_may_not_connect(
    resource: DriverInput, run: MemoryRun, tmp_path: Path
) -> None:
    other = replace(resource, resource_id=f"{resource.resource_id}-other")
    mine = DRIVER.ensure(resource, run).outputs
    theirs = DRIVER.ensure(other, run).outputs
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        _query({**theirs, "database": mine["database"]}, "SELECT 1")
    DRIVER.destroy(other, run)


def test_data_and_password_stay_when_ensured_again(resource: DriverInput, run: MemoryRun) -> None:
    first = DRIVER.ensure(resource, run).outputs
    _query(first, "CREATE TABLE kept (id int)")
    again = replace(resource, previous_outputs=first, params={"connection_limit": 7})
    second = DRIVER.ensure(again, run).outputs
    assert second == first
    assert _query(second, "SELECT count(*) FROM kept") == [(0,)]
    limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user"
    assert _query(second, limit) == [(7,)]


def test_a_password_changed_by_hand_is_put_right(
    resource: DriverInput, run: MemoryRun, admin_url: str
) -> None:
    outputs = DRIVER.ensure(resource, run).outputs
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE \"{outputs['username']}\" PASSWORD 'other'")  # type: ignore[arg-type]
    DRIVER.ensure(replace(resource, previous_outputs=outputs), run)
    assert _query(outputs, "SELECT 1") == [(1,)]


def test_extensions_are_created_and_unknown_ones_refused(
    resource: DriverInput, run: MemoryRun
) -> None:
    outputs = DRIVER.ensure(replace(resource, params={"extensions": ["plpgsql"]}), run).outputs
    assert _query(outputs, "SELECT extname FROM pg_extension") == [("plpgsql",)]
    with pytest.raises(DriverError, match=r"does not offer an extension.*nowhere") as failed:
        DRIVER.ensure(replace(resource, params={"extensions": ["nowhere"]}), run)
    assert failed.value.permanent is True


def test_destroy_ends_open_connections_and_leaves_neither_database_nor_role(
    resource: DriverInput, run: MemoryRun, admin_url: str
) -> None:
    outputs = DRIVER.ensure(resource, run).outputs
    with psycopg.connect(str(outputs["url"])) as held:
        DRIVER.destroy(replace(resource, previous_outputs=outputs), run)
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
    with psycopg.connect(admin_url) as connection:
        name = database_name(resource)
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        assert connection.execute(query, (name,)).fetchone() == (0,)
        query = "SELECT count(*) FROM pg_roles WHERE rolname = %s"
        assert connection.execute(query, (name,)).fetchone() == (0,)


def test_racing_ensures_leave_one_database_that_opens(
    resource: DriverInput, run: MemoryRun
) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: DRIVER.ensure(resource, run), range(4)))
    assert {result.outputs["database"] for result in results} == {database_name(resource)}
    opened = []
    for result in results:
        try:
            opened.append(_query(result.outputs, "SELECT 1"))
        except psycopg.OperationalError:
            continue  # a first ensure has no earlier password, so the last one's counts
    assert opened == [[(1,)]]


def test_no_password_reaches_the_log(resource: DriverInput, run: MemoryRun, admin_url: str) -> None:
    outputs = DRIVER.ensure(resource, run).outputs
    logged = "".join(text for _, _, text in run.unmasked)
    assert str(outputs["password"]) not in logged
    assert {str(outputs["password"]), str(outputs["url"])} <= run.masked


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("shop-db", "shop_db_"),
        ('"; DROP DATABASE postgres; --', "drop_database_postgres_"),
        ("9lives", "db_9lives_"),
        ("x" * 200, "x" * 52 + "_"),
        ("", "db_"),
    ],
)
def test_names_are_safe_and_short(tmp_path: Path, name: str, start: str) -> None:
    found = database_name(driver_input(tmp_path, name=name))
    assert found.startswith(start)
    assert len(found) <= 63


def test_without_a_server_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="CONDUCTOR_POSTGRES_ADMIN_URL") as failed:
        DRIVER.ensure(driver_input(tmp_path), MemoryRun(tmp_path))
    assert failed.value.permanent is True


def test_an_unreachable_server_may_be_tried_again(tmp_path: Path) -> None:
    config = {"admin_url": "postgresql://admin:hidden@127.0.0.1:1/postgres"}
    with pytest.raises(DriverError, match=r"server 127\.0\.0\.1:1 could not be used") as failed:
        DRIVER.ensure(driver_input(tmp_path, config=config), MemoryRun(tmp_path))
    assert failed.value.permanent is False
    assert "hidden" not in str(failed.value)


def test_an_unreadable_url_is_not_repeated(tmp_path: Path) -> None:
    config = {"admin_url": "postgresql://admin:hidden@[oops/postgres"}
    with pytest.raises(DriverError, match="cannot be read") as failed:
        DRIVER.ensure(driver_input(tmp_path, config=config), MemoryRun(tmp_path))
    assert "hidden" not in str(failed.value)
