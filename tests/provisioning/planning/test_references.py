from __future__ import annotations

import pytest

from provisioning.planning.references import keys_in, sensitive_params, substitute_bound
from provisioning.score.placeholders import PlaceholderError

PARAMS = {
    "url": "db://${resources.shared/a.host}:${resources.shared/a.port}",
    "port": "${resources.shared/a.port}",
    "token": ["x${resources.private/b\\.c.token}"],
}
OUTPUTS = {"shared/a": {"host": "h", "port": 5432}, "private/b.c": {"token": "s3"}}


def test_every_string_of_lists_and_maps_is_filled():
    assert substitute_bound(PARAMS, OUTPUTS) == {
        "url": "db://h:5432",
        "port": "5432",
        "token": ["xs3"],
    }


def test_lone_placeholder_keeps_its_type_where_the_schema_wants_no_text():
    schema = {"properties": {"port": {"type": "integer"}}}

    assert substitute_bound({"port": PARAMS["port"]}, OUTPUTS, schema) == {"port": 5432}


def test_missing_output_is_an_error():
    with pytest.raises(PlaceholderError, match="there is no `port`"):
        substitute_bound(PARAMS, {"shared/a": {"host": "h"}})


def test_keys_are_collected():
    assert keys_in(PARAMS) == {"shared/a", "private/b.c"}


def test_param_composed_from_a_secret_is_sensitive():
    assert sensitive_params(PARAMS, {"private/b.c": {"token"}, "shared/a": set()}) == {"token"}
