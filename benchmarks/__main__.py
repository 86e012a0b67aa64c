"""Print every benchmark, or those named: `python -m benchmarks [NAME ...]`, such as planner or logs.

Works on a database of its own: an embedded server in a folder that is removed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def planner() -> None:
    """Print the planner's table."""
    from benchmarks.planner import table

    print("From Score text to plan (goal: 10,000 in under 3 s, near-linear to 30,000)")
    print("\n".join(table()))


def dispatch() -> None:
    """Print how long after a doorbell its task begins."""
    from benchmarks.dispatch import measure

    found = measure()
    print("From doorbell to task (goal: at most 10 ms median, 50 ms p95)")
    print(f"p50 {found.p50:.1f} ms   p95 {found.p95:.1f} ms   of {found.samples}")


def logs() -> None:
    """Print how long a line of a log takes to somebody who watches."""
    from benchmarks.logs import LINES_PER_SECOND, measure

    found = measure()
    print(f"From a tool's line to who watches, at {LINES_PER_SECOND:,} lines/s (goal: 150 ms p95)")
    print(
        f"p50 {found.p50:.0f} ms   p95 {found.p95:.0f} ms   of {found.lines:,} lines in "
        f"{found.visits} connections, none lost and none twice"
    )


def claim() -> None:
    """Print how long a claim out of a long queue takes."""
    from benchmarks.claim import PENDING, measure

    print(f"Claim of a step out of {PENDING:,} that wait (goal: at most 50 ms p95)")
    for found in measure():
        print(f"{found.case:40}p50 {found.p50:5.1f} ms   p95 {found.p95:5.1f} ms")


def merging() -> None:
    """Print how long merging the wishes of many consumers takes."""
    from benchmarks.merging import measure

    found = measure()
    print(f"Merge of {found.consumers} consumers (goal: under 50 ms)")
    print(f"median {found.median:.1f} ms   slowest {found.slowest:.1f} ms")


def matching() -> None:
    """Print how long matching among many candidates takes, and what planning among them costs."""
    from benchmarks.matching import CANDIDATES, measure_matching, measure_planning

    print(f"Matching by criteria among {CANDIDATES:,} candidates (goal: under 20 ms)")
    for found in measure_matching():
        print(f"{found.case:22}median {found.median:5.1f} ms   slowest {found.slowest:5.1f} ms")
    print("Planning one workload among live resources (goal: a constant number of queries)")
    for planned in measure_planning():
        print(
            f"{planned.resources:>6} resources {planned.where:9}  {planned.queries:>3} queries  "
            f"{planned.seconds:.2f} s"
        )


def pool() -> None:
    """Print how long a claim of a pool's member takes."""
    from benchmarks.pool import measure

    found = measure()
    print("Claim of a ready member of a pool (goal: under 50 ms)")
    print(
        f"median {found.claim:.1f} ms of a deployment of {found.claiming:.1f} ms; one that joins a "
        f"shared resource takes {found.joining:.1f} ms   of {found.claims}"
    )


def terraform() -> None:
    """Print how a deployment compares with a shell script."""
    from benchmarks.terraform import RESOURCES, measure

    print(f"Deployment of {RESOURCES} Terraform resources (goal: ratios of at most 1.0 and 1.2)")
    found = measure()
    if found is None:
        print("terraform is not installed here.")
        return
    print(f"{'':28}{'seconds':>8}  conductor is")
    print(f"{'conductor':28}{found.conductor:>8.2f}")
    for name, seconds in (
        ("script: init, apply, output", found.script),
        ("script reusing init", found.reusing_script),
    ):
        print(f"{name:28}{seconds:>8.2f}  {found.conductor / seconds:.2f} times it")


def throughput() -> None:
    """Print how many small Terraform deployments an hour there are, and how long one takes."""
    from benchmarks.throughput import DEPLOYMENTS, measure

    print("Small Terraform deployments (goal: 25,000 an hour on two cores; one alone 300 ms)")
    found = measure()
    if found is None:
        print("terraform is not installed here.")
        return
    print(f"{found.an_hour:,.0f} an hour, of {DEPLOYMENTS}; one alone {found.alone:.0f} ms")
    print(f"sandbox: {found.sandbox}")


def recovery() -> None:
    """Print how soon what died is noticed, told and begun again."""
    from benchmarks.recovery import measure

    print("After a death or a cancel, seconds (most of so many; goal)")
    for found in measure():
        print(f"{found.what:55}{found.seconds:6.2f}   ({found.samples}; {found.goal:.0f})")


BENCHMARKS: dict[str, Callable[[], None]] = {
    "planner": planner,
    "merging": merging,
    "matching": matching,
    "pool": pool,
    "dispatch": dispatch,
    "logs": logs,
    "claim": claim,
    "terraform": terraform,
    "throughput": throughput,
    "recovery": recovery,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return the exit status."""
    if unknown := set(names) - set(BENCHMARKS):
        print(f"Unknown: {', '.join(sorted(unknown))}. There are: {', '.join(BENCHMARKS)}.")
        return 2
    with tempfile.TemporaryDirectory(prefix="conductor-bench-") as folder:
        Path(folder).chmod(0o755)
        os.environ.pop("DATABASE_URL", None)
        os.environ["CONDUCTOR_VAR_DIR"] = folder
        os.environ["DJANGO_SETTINGS_MODULE"] = "conductor.settings"
        manage = [sys.executable, str(ROOT / "manage.py")]
        try:
            subprocess.run([*manage, "migrate", "--verbosity", "0"], check=True)
            import django

            django.setup()
            for name in names or BENCHMARKS:
                BENCHMARKS[name]()
                print(flush=True)
        finally:
            subprocess.run([*manage, "embedded", "stop"], check=False, stdout=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
