from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.facts import ConsumerFacts, ResourceFacts, Snapshot
from provisioning.planning.maintenance import decide_roll_back, unneeded
from tests.provisioning.planning.facts import actions, make_snapshot, make_version

VERSION = make_version("part")


def resource(key: str, **more: Any) -> ResourceFacts:
    """Make a live resource of the application shop."""
    return ResourceFacts(
        **{
            "id": f"id-of-{key}",
            "key": key,
            "name": key,
            "uid": f"part.default#{key}",
            "type": "part",
            "class_": "default",
            "version": VERSION,
            "params": {},
            "context": {},
            "spec_digest": "d",
            "owner_team": "one",
            "created_by": "shop",
            "clean": True,
            **more,
        }
    )


def environment(
    *resources: ResourceFacts, edges: tuple[str, ...] = (), used: tuple[str, ...] = ()
) -> Snapshot:
    """Make an environment; an edge `ab` says that a needs b."""
    return make_snapshot(
        VERSION,
        application="",
        team="",
        resources={each.key: each for each in resources},
        dependencies={(edge[0], edge[1]): "output" for edge in edges},
        consumers=[ConsumerFacts("other", "web", key, key, "shared") for key in used],
    )


def test_dependents_are_destroyed_before_what_they_need() -> None:
    plan = decide_roll_back({"a", "b", "c"}, environment(*map(resource, "abc"), edges=("ab", "bc")))

    assert [(step.key, step.action) for step in plan.steps] == [
        ("a", "destroy"),
        ("b", "destroy"),
        ("c", "destroy"),
    ]


def test_what_the_deployment_did_not_make_is_no_part_of_it() -> None:
    plan = decide_roll_back({"a"}, environment(*map(resource, "ab"), edges=("ab",)))

    assert actions(plan) == {"a": "destroy"}


def test_what_another_resource_needs_stays_with_all_that_it_needs() -> None:
    snapshot = environment(*map(resource, "abcx"), edges=("xb", "bc", "ab"))

    assert unneeded({"a", "b", "c"}, snapshot) == {"a"}


def test_what_is_held_stays() -> None:
    held = [
        resource("a", protected=True),
        resource("b", deletion_policy="retain"),
        resource("c", adopted=True),
        resource("d", pool="warm"),
        resource("e", deleting=True),
    ]

    assert unneeded(set("abcdef"), environment(*held)) == set()


def test_a_grace_period_and_a_claim_do_not_hold() -> None:
    made = [resource("a", grace=60), resource("b", pool="warm", claimed=True)]

    assert unneeded({"a", "b"}, environment(*made)) == {"a", "b"}


@st.composite
def environments(draw: st.DrawFn) -> tuple[set[str], Snapshot]:
    """Draw an environment whose resources need only later ones, and what of it was just made."""
    keys = "abcdefgh"
    edges = [one + two for one in keys for two in keys if one < two]
    snapshot = environment(
        *(resource(key, protected=draw(st.integers(0, 9)) == 0) for key in keys),
        edges=tuple(draw(st.lists(st.sampled_from(edges), unique=True, max_size=10))),
        used=tuple(draw(st.lists(st.sampled_from(keys), unique=True, max_size=3))),
    )
    return draw(st.sets(st.sampled_from(keys))), snapshot


@given(environments())
def test_exactly_what_nothing_holds_is_destroyed(drawn: tuple[set[str], Snapshot]) -> None:
    made, snapshot = drawn

    plan = decide_roll_back(made, snapshot)

    gone = {key for key, action in actions(plan).items() if action == "destroy"}
    used = {consumer.key for consumer in snapshot.consumers}
    assert gone == set(actions(plan)) == {step.key for step in plan.steps}
    for key in snapshot.resources:
        needed = any(
            target == key and source not in gone for source, target in snapshot.dependencies
        )
        held = key in used or needed or snapshot.resources[key].protected
        assert (key in gone) == (key in made and not held)
