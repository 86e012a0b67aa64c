from __future__ import annotations

from tests.provisioning.place import Place

ONE = """\
  db:
    type: database
"""


def test_a_deployment_runs_its_steps_and_stores_outputs(place: Place) -> None:
    place.template("database", outputs={"host": False, "password": True})

    deployment = place.deploy(ONE)

    assert (deployment.status, deployment.status_reason) == ("succeeded", "")
    assert place.states() == {"private/shop/web/db/database.default": "active"}
