from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def mermaid(
    nodes: Sequence[str], edges: Iterable[tuple[str, str]], labels: Mapping[str, str] | None = None
) -> str:
    """Draw a graph in Mermaid's language, arrows from each node to what it needs.

    Nodes without a label show their own name.
    """
    names = {node: f"n{number}" for number, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node, name in names.items():
        label = (labels or {}).get(node, node).replace("#", "#35;").replace('"', "#quot;")
        lines.append(f'  {name}["{label}"]')
    lines += [f"  {names[source]} --> {names[target]}" for source, target in edges]
    return "\n".join(lines) + "\n"


def dot(
    nodes: Sequence[str], edges: Iterable[tuple[str, str]], labels: Mapping[str, str] | None = None
) -> str:
    """Draw a graph in Graphviz' language, arrows from each node to what it needs."""
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=box];"]
    for node in nodes:
        label = (labels or {}).get(node)
        lines.append(f"  {_quoted(node)}" + (f" [label={_quoted(label)}];" if label else ";"))
    lines += [f"  {_quoted(source)} -> {_quoted(target)};" for source, target in edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
