"""Candidates of other environments: which there are, in which order, and how they are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.addresses import (
    NOWHERE,
    environment_of,
    in_own_terms,
    key_of,
    rewritten,
    seen_from,
    spoken,
)
from provisioning.planning.candidates import SCOPES, scope_of
from provisioning.planning.decide import decide
from provisioning.planning.facts import (
    ConsumerFacts,
    EnvironmentFacts,
    ResourceFacts,
    Snapshot,
    VersionFacts,
)
from provisioning.planning.plan import Plan, PlanError
from provisioning.planning.references import bound_text
from tests.provisioning.planning.facts import actions, make_snapshot, make_version, score, workloads
from tests.provisioning.planning.test_slots import ANY, among, asking, live, matching

NEAR, FAR = "acme/prod", "rival/dev"
PATHS = ["acme/dev", NEAR, FAR]


def at(path: str, resource: ResourceFacts, *, published: bool = False) -> ResourceFacts:
    """Put a resource into another environment, as the application `shop` in acme/dev sees it."""
    if path == "acme/dev":
        return replace(resource, published=published)
    organisation = path.partition("/")[0]
    team = (
        resource.owner_team if organisation == "acme" else f"{organisation}/{resource.owner_team}"
    )
    return replace(
        resource,
        key=f"in/{path}/{resource.key}",
        owner_team=team,
        created_by=f"{path}/other",
        published=published,
    )


class Resource(NamedTuple):
    """What a plan makes of a resource, in the resource's own terms."""

    spec_digest: str
    params: Mapping[str, Any]
    context: Mapping[str, Any]


def around(*resources: ResourceFacts, users: tuple[str, ...] = ()) -> Snapshot:
    paths = {environment_of(each.key) for each in resources} - {""}
    elsewhere = {path: EnvironmentFacts() for path in sorted(paths)}
    return replace(among(*resources, users=users), elsewhere=elsewhere)


def ask(scope: str) -> str:
    return asking(matching(f"scope: {scope}"))


def planned(snapshot: Snapshot, resources: str) -> Plan:
    return decide(workloads(score("api", resources)), snapshot)


def bound(plan: Plan) -> str:
    (binding,) = plan.bindings
    return binding.key


RESOURCES = st.builds(
    at,
    st.sampled_from(PATHS),
    st.builds(
        live,
        st.text("abcdef", min_size=1, max_size=3),
        size=st.sampled_from([3, 3, 4]),
        team=st.sampled_from(["one", "two"]),
        created_at=st.sampled_from(["1", "2", "3"]),
        max_consumers=st.sampled_from([None, 1]),
    ),
    published=st.booleans(),
)


@given(
    st.lists(RESOURCES, max_size=9, unique_by=lambda each: key_of(each.key)),
    st.sampled_from(SCOPES),
    st.data(),
)
def test_the_nearest_of_the_own_team_that_is_oldest_is_taken(
    resources: list[ResourceFacts], scope: str, data: st.DataObject
) -> None:
    users = tuple(each.key for each in resources if data.draw(st.booleans(), label=each.key))
    shuffled = data.draw(st.permutations(resources))
    distances = {each.key: SCOPES.index(scope_of(each.key, "acme")) for each in resources}
    offered = [
        each
        for each in resources
        if distances[each.key] <= SCOPES.index(scope)
        and (each.published or distances[each.key] < SCOPES.index("global"))
    ]
    fitting = [
        each
        for each in offered
        if each.params == {"size": 3}
        and each.slot is not None
        and (each.slot.max_consumers is None or each.key not in users)
    ]
    best = min(
        fitting,
        key=lambda each: (distances[each.key], each.owner_team != "one", each.created_at, each.key),
        default=None,
    )

    if best is None and scope == "global":
        with pytest.raises(PlanError, match="in the scope global, which makes nothing"):
            planned(around(*resources, users=users), ask(scope))
        return
    plan = planned(around(*resources, users=users), ask(scope))
    again = planned(around(*shuffled, users=users), ask(scope))
    assert plan.to_json() == again.to_json()
    assert {each.key for each in plan.bindings[0].considered} == {each.key for each in offered}
    if best is None:
        assert list(actions(plan).values()) == ["create"]
        assert environment_of(bound(plan)) == ""
    else:
        assert bound(plan) == best.key


def test_a_binding_beyond_stays_when_it_is_published_no_more() -> None:
    far = at(FAR, live("far"))
    mine = ConsumerFacts("shop", "api", "db", far.key, "match", {"size": 3}, matching={})
    snapshot = replace(around(far), consumers=[mine])
    changed = planned(snapshot, ask("global"))

    assert bound(changed) == far.key
    with pytest.raises(PlanError, match=r"there is no database\.default to be found"):
        planned(replace(snapshot, consumers=[]), ask("global"))


def test_the_environment_of_a_resource_gives_its_defaults_and_tools() -> None:
    near = at(NEAR, live("near"))
    facts = EnvironmentFacts(defaults={"*": {"tier": "big"}}, missing_tools={"fake": "faketool"})
    snapshot = replace(around(near), elsewhere={NEAR: facts}, defaults={"*": {"tier": "small"}})
    only_size = asking(matching("scope: organisation, matchOn: [size]"))

    with pytest.raises(PlanError, match="installed on no worker of the environment acme/prod"):
        planned(snapshot, only_size)
    plan = planned(replace(snapshot, elsewhere={NEAR: replace(facts, missing_tools={})}), only_size)
    assert plan.resources[0].params == {"size": 3, "tier": "big"}
    assert plan.resources[0].decided_by["tier"] == ("environment acme/prod",)


def test_two_environments_plan_one_resource_alike_to_the_digest() -> None:
    dev, prod = "acme/dev", "acme/prod"
    version = make_version("database", params=ANY, merge_rules={"from": {"rule": "union"}})
    wish = asking(
        matching("scope: organisation, matchOn: []"), "{from: ['${resources.net.host}']}"
    ) + ("net:\n  type: database\n")
    net = "private/shop/api/net/database.default"
    own = {"from": [f"${{{bound_text(net, ('host',))}}}"]}
    of_prod = replace(live("both"), version=version, params=own, created_by="shop")
    of_dev = replace(live("both"), key=net, version=version, params={}, slot=None)

    def seen(here: str, there: str, shared: ResourceFacts) -> Resource:
        key = seen_from(shared.key, prod, here)
        net_of_other = seen_from(net, there, here)
        snapshot = replace(
            make_snapshot(version, environment=here.partition("/")[2]),
            resources={
                key: replace(shared, key=key, params=rewritten(shared.params, prod, here)),
                net_of_other: replace(of_dev, key=net_of_other),
            },
            consumers=[
                ConsumerFacts(
                    f"{there}/shop", "api", "db", key, "match", rewritten(own, there, here)
                )
            ],
            elsewhere={there: EnvironmentFacts()},
        )
        (found,) = (each for each in planned(snapshot, wish).resources if each.key == key)
        return Resource(found.spec_digest, in_own_terms(found.params, key, here), found.context)

    from_prod = seen(prod, dev, of_prod)
    from_dev = seen(dev, prod, replace(of_prod, created_by="", context=from_prod.context))

    assert from_dev == from_prod
    assert len(from_dev.params["from"]) == 2


@pytest.mark.parametrize("scope", SCOPES)
def test_the_fact_organisation_is_known_to_rules(scope: str) -> None:
    rule = "consumer.organisation == resource.organisation"
    version: VersionFacts = make_version("database", params=ANY, share_when=rule)
    far = at(FAR, replace(live("far"), version=version), published=True)
    far = replace(far, context={"organisation": "rival"})
    near = at(NEAR, replace(live("near"), version=version, context={"organisation": "acme"}))
    snapshot = replace(around(near, far), templates=make_snapshot(version).templates)
    plan = planned(snapshot, asking(matching(f"scope: {scope}, sharingPolicy: conditional")))

    assert environment_of(bound(plan)) == ("" if scope == "environment" else NEAR)


KEYS = st.from_regex(r"(private|app|slot|with)/[a-z0-9/.#-]{1,20}", fullmatch=True)
ADDRESSES = st.one_of(KEYS, st.builds("in/{}/{}".format, st.sampled_from(PATHS), KEYS))


@given(ADDRESSES, st.sampled_from(PATHS), st.sampled_from(PATHS))
def test_an_address_seen_from_elsewhere_means_the_same(address: str, here: str, there: str) -> None:
    elsewhere = seen_from(address, here, there)

    assert key_of(elsewhere) == key_of(address)
    assert (environment_of(elsewhere) or there) == (environment_of(address) or here)
    assert seen_from(elsewhere, there, here) == seen_from(address, here, here)
    assert environment_of(seen_from(address, here, NOWHERE)) == (environment_of(address) or here)


@given(ADDRESSES, st.text("ab${}"), st.sampled_from(PATHS), st.sampled_from(PATHS))
def test_params_written_there_and_back_are_the_same(
    address: str, text: str, here: str, there: str
) -> None:
    address = seen_from(address, here, here)
    params = {"a": [f"${{{bound_text(address, ('host',))}}}", text.replace("$", "$$")], "b": 1}

    assert rewritten(rewritten(params, here, there), there, here) == params


def test_addresses_are_spoken_without_their_mark() -> None:
    assert spoken("in/acme/prod/slot/x/0") == "acme/prod/slot/x/0"
    assert spoken("slot/x/0") == "slot/x/0"
