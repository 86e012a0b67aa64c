from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.graph.build import CycleError, dependencies_of, dependents_of, order

NAMES = [f"n{number}" for number in range(12)]
# Edges from a later to an earlier name make no cycle.
ACYCLIC = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11))
    .filter(lambda pair: pair[0] > pair[1])
    .map(lambda pair: (NAMES[pair[0]], NAMES[pair[1]])),
    max_size=30,
)


@given(ACYCLIC)
def test_each_node_comes_once_and_after_what_it_needs(edges: list[tuple[str, str]]) -> None:
    ordered = order(NAMES, edges)

    assert sorted(ordered) == sorted(NAMES)
    assert all(ordered.index(target) < ordered.index(source) for source, target in edges)


@given(ACYCLIC, st.randoms(use_true_random=False))
def test_the_order_depends_on_the_graph_alone(
    edges: list[tuple[str, str]], shuffle: random.Random
) -> None:
    nodes, shuffled = [*NAMES], [*edges]
    shuffle.shuffle(nodes)
    shuffle.shuffle(shuffled)

    assert order(nodes, shuffled) == order(NAMES, edges)


def test_nodes_that_are_ready_together_are_sorted() -> None:
    assert order(["c", "b", "a"], [("a", "c")]) == ["b", "c", "a"]


def test_a_cycle_is_a_path_that_ends_where_it_begins() -> None:
    with pytest.raises(CycleError, match="b → d → c → b") as refused:
        order("abcd", [("a", "b"), ("b", "d"), ("d", "c"), ("c", "b")])

    assert refused.value.path == ["b", "d", "c", "b"]


def test_a_node_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(CycleError) as refused:
        order(["a"], [("a", "a")])

    assert refused.value.path == ["a", "a"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=30))
def test_a_cycle_that_is_told_is_one(edges: list[tuple[str, str]]) -> None:
    path = cycle(edges)

    assert len(set(path)) == max(0, len(path) - 1)
    assert path[:1] == path[-1:]
    assert set(pairwise(path)) <= set(edges)


def cycle(edges: list[tuple[str, str]]) -> list[str]:
    try:
        order(NAMES, edges)
    except CycleError as error:
        return error.path
    return []


def test_a_long_chain_needs_no_recursion() -> None:
    chain = [(f"{number:06}", f"{number + 1:06}") for number in range(30_000)]

    assert order([], chain)[0] == "030000"
    with pytest.raises(CycleError) as refused:
        order([], [*chain, ("030000", "000000")])
    assert len(refused.value.path) == 30_002


def test_dependencies_and_dependents_are_followed_to_the_end() -> None:
    edges = [("a", "b"), ("b", "c"), ("x", "c"), ("c", "d")]

    assert dependencies_of("b", edges) == {"c", "d"}
    assert dependents_of("c", edges) == {"a", "b", "x"}
    assert dependencies_of("d", edges) == set()
