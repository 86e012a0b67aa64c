from __future__ import annotations

from provisioning.graph.drawing import dot, mermaid

NODES = ["dns.default#a.dns", "route.default#a.web"]
EDGES = [("route.default#a.web", "dns.default#a.dns")]


def test_mermaid_has_a_node_for_each_and_arrows_to_what_is_needed() -> None:
    assert mermaid(NODES, EDGES, {NODES[0]: 'the "name"'}) == (
        'flowchart LR\n  n0["the #quot;name#quot;"]\n  n1["route.default#35;a.web"]\n  n1 --> n0\n'
    )


def test_dot_has_a_node_for_each_and_arrows_to_what_is_needed() -> None:
    assert dot(NODES, EDGES, {NODES[0]: 'a "b" \\ c'}) == (
        "digraph {\n"
        "  rankdir=LR;\n"
        "  node [shape=box];\n"
        '  "dns.default#a.dns" [label="a \\"b\\" \\\\ c"];\n'
        '  "route.default#a.web";\n'
        '  "route.default#a.web" -> "dns.default#a.dns";\n'
        "}\n"
    )
