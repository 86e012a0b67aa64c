"""The provider's program: Terraform starts it and speaks with it."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from tf import schema, types
from tf.iface import Provider, Resource
from tf.runner import run_provider
from tf.utils import Diagnostics


class Thing(Resource):
    """Be a line of the ledger, `+ NAME ID`, which a line `- NAME ID` takes back."""

    def __init__(self, provider: Provider) -> None:
        """Need nothing of the provider."""

    @classmethod
    def get_name(cls) -> str:
        return "thing"

    @classmethod
    def get_schema(cls) -> schema.Schema:
        return schema.Schema(
            attributes=[
                schema.Attribute("ledger", types.String(), required=True, requires_replace=True),
                schema.Attribute("name", types.String(), required=True, requires_replace=True),
                schema.Attribute("seconds", types.Number(), required=True),
                schema.Attribute("id", types.String(), computed=True),
            ]
        )

    def create(self, ctx: Any, planned: dict[str, Any]) -> dict[str, Any]:
        """Make the thing at once, and answer after some seconds: a cloud does so as well."""
        made = {**planned, "id": uuid.uuid4().hex}
        _write("+", made)
        time.sleep(float(planned["seconds"]))
        return made

    def read(self, ctx: Any, current: dict[str, Any]) -> dict[str, Any] | None:
        held = f"- {current['name']} {current['id']}" not in _lines(current)
        return current if held else None

    def update(self, ctx: Any, current: dict[str, Any], planned: dict[str, Any]) -> dict[str, Any]:
        return {**planned, "id": current["id"]}

    def delete(self, ctx: Any, current: dict[str, Any]) -> None:
        _write("-", current)


def _write(sign: str, thing: dict[str, Any]) -> None:
    with Path(thing["ledger"]).open("a") as file:
        file.write(f"{sign} {thing['name']} {thing['id']}\n")


def _lines(thing: dict[str, Any]) -> list[str]:
    return Path(thing["ledger"]).read_text().splitlines()


class Ledger(Provider):
    """Offer things, and need no configuration."""

    def get_model_prefix(self) -> str:
        return "ledger_"

    def get_provider_schema(self, diags: Diagnostics) -> schema.Schema:
        return schema.Schema()

    def full_name(self) -> str:
        return "conductor.test/tests/ledger"

    def validate_config(self, diags: Diagnostics, config: dict[str, Any]) -> None:
        """Accept what there is."""

    def configure_provider(self, diags: Diagnostics, config: dict[str, Any]) -> None:
        """Need nothing."""

    def get_data_sources(self) -> list[Any]:
        return []

    def get_resources(self) -> list[type[Resource]]:
        return [Thing]


if __name__ == "__main__":
    run_provider(Ledger())
