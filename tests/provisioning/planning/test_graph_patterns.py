"""The ways in which resources need one another give the graphs that their authors drew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioning.planning.decide import decide
from provisioning.planning.plan import PlanError
from provisioning.score.document import parse_application
from tests.provisioning.planning.definitions import catalogue, definitions
from tests.provisioning.planning.facts import score, workloads

PATTERNS = Path(__file__).resolve().parents[2] / "scores" / "graph-patterns"
EXPECTED = json.loads((PATTERNS / "expected-graphs.json").read_text())
DNS = "entity: {type: dns, criteria: [{}]}\nmetadata: {id: dns}"
ROUTE = """
metadata: {id: route}
entity: {type: route, criteria: [{}]}
"""
S3 = "metadata: {id: s3}\nentity: {type: s3, provision: {aws-policy: {is_dependent: false}}}"
POLICY = """
metadata: {id: policy}
entity:
  type: aws-policy
  driver_inputs: {values: {bucket: "${resources['s3.default'].outputs.bucket}"}}
"""


def graph_of(plan):
    """Return (nodes, edges) by uid; workloads need what they declare and what follows that."""
    uids = {each.key: each.uid for each in plan.resources}
    edges = {
        (uids[each.key], uids[target]) for each in plan.resources for target in each.depends_on
    }
    edges |= {
        (each.workload, uids[each.key])
        for each in plan.bindings
        if each.origin in ("declared", "followed")
    }
    return {*uids.values(), *plan.workloads}, edges


def plan_of(pattern, *, change=("", "")):
    folder = PATTERNS / pattern
    files = [(each.name, each.read_text().replace(*change)) for each in folder.glob("score*.yaml")]
    return decide(parse_application(files), catalogue(definitions(folder)))


def expected(pattern, rename):
    """Return the expected graph in the names of this planner."""

    def named(node):
        for old, new in rename.items():
            node = node.replace(old, new)
        return node

    said = EXPECTED[pattern]
    edges = [*said["edges"], *said.get("match_dependents_edges", [])]
    return {named(each) for each in said["nodes"]}, {(named(a), named(b)) for a, b in edges}


def test_delegators_lead_to_one_concrete_resource_and_bring_their_policies():
    rename = {"workload.default#modules.": "", "shared.": ""}
    assert graph_of(plan_of("delegator-resource")) == expected("delegator-resource", rename)


def test_class_is_handed_on_to_what_is_needed():
    rename = {
        "workload.default#modules.": "",
        "modules.example-workload.externals.": "example-workload.",
    }
    assert graph_of(plan_of("propagate-class")) == expected("propagate-class", rename)
    other = plan_of("propagate-class", change=("class: one", "class: two"))
    assert "config.two#example" in graph_of(other)[0]


def identity_plan(*more):
    needed = score("example-workload", "identity: {type: k8s-service-account}")
    known = definitions(PATTERNS / "break-a-loop-additional-resource")
    return decide(workloads(needed), catalogue(more or known))


def test_additional_resource_breaks_a_loop():
    rename = {
        "workload.default#modules.example-workload": "example-workload",
        "#modules.example-workload": "#example-workload.identity",
    }
    assert graph_of(identity_plan()) == expected("break-a-loop-additional-resource", rename)


def test_two_that_need_one_another_are_refused_with_the_cycle():
    account = POLICY.replace("aws-policy", "k8s-service-account").replace("s3.default", "aws-role")
    role = POLICY.replace("aws-policy", "aws-role").replace("s3.default", "k8s-service-account")
    with pytest.raises(PlanError) as refused:
        identity_plan(account, role)
    assert "k8s-service-account.default → aws-role.default → k8s-service-account.default" in str(
        refused.value
    )


def test_what_is_provisioned_beside_may_need_what_brought_it():
    plan = decide(workloads(score("web", "bucket: {type: s3}")), catalogue([S3, POLICY]))
    s3, policy = "s3.default#web.bucket", "aws-policy.default#web.bucket"
    assert graph_of(plan) == ({"web", s3, policy}, {("web", s3), (policy, s3)})


def test_shared_resource_is_one_under_two_names():
    nodes, edges = graph_of(
        decide(
            parse_application(
                [(each.name, each.read_text()) for each in (PATTERNS / "shared-resource").iterdir()]
            ),
            catalogue([DNS, ROUTE]),
        )
    )
    front, back = "shared-resource-example-frontend", "shared-resource-example-backend"
    own, route, other = (
        f"dns.default#{front}.fe-dns",
        f"route.default#{front}.fe-route",
        "dns.default#backend-dns",
    )
    assert nodes == {front, back, own, route, other, f"route.default#{back}.my-route"}
    assert edges == {
        (front, route), (route, own), (front, own), (front, other),
        (back, f"route.default#{back}.my-route"), (f"route.default#{back}.my-route", other), (back, other),
    }  # fmt: skip
