from __future__ import annotations

from collections.abc import Iterator

PER_WORKLOAD = 25
CHAIN = ("postgres", "redis", "s3", "dns", "route", "queue")


def generate(requirements: int) -> list[tuple[str, str]]:
    """Write the Score files of one application that needs this many things, as (file, text).

    It looks like a large real one: workloads of up to 25 resources, most of them in chains of six
    where each needs an output of the one before, every workload using one network and one event
    bus of the application by `id`.
    """
    files = []
    for number, first in enumerate(range(0, requirements, PER_WORKLOAD)):
        count = min(PER_WORKLOAD, requirements - first)
        files.append((f"workload-{number:05}.yaml", _workload(f"workload-{number:05}", count)))
    return files


def _workload(name: str, count: int) -> str:
    resources = [line for index in range(count) for line in _resource(index)]
    lines = [
        "apiVersion: score.dev/v1b1",
        "metadata:",
        f"  name: {name}",
        "containers:",
        "  main:",
        "    image: registry.example.com/team/service:1.4.2",
        "    variables:",
        "      NAME: ${metadata.name}",
        "      NETWORK: ${resources.network.name}",
        *(f"      HOST_{index}: ${{resources.r-{index}.host}}" for index in range(2, count, 5)),
        "resources:",
        *resources,
    ]
    return "\n".join(lines) + "\n"


def _resource(index: int) -> Iterator[str]:
    if index == 0:
        yield from ("  network:", "    type: network", "    id: main-network")
        yield from ("    params:", "      cidr: 10.0.0.0/16")
        return
    if index == 1:
        yield from ("  events:", "    type: queue", "    id: event-bus", "    params:")
        yield "      network: ${resources.network.name}"
        return
    place = (index - 2) % len(CHAIN)
    yield f"  r-{index}:"
    yield f"    type: {CHAIN[place]}"
    if place == 0:
        yield "    class: large"
    yield "    params:"
    yield f"      size: {1 + index}"
    yield "      tags: {owner: team, tier: standard}"
    if place:
        yield f"      upstream: ${{resources.r-{index - 1}.host}}:${{resources.r-{index - 1}.port}}"
    else:
        yield "      network: ${resources.network.name}"
