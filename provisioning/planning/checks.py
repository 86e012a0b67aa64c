"""What has to hold of a resource once it is there, for each of its consumers.

A template states checks for all its consumers, a template that requires something states validators
for what it requires. Both compare `wish` (what one consumer asks for) with the `params` that the
resource has and the `outputs` that it gives. One that names something of `wish` concerns only the
consumers that ask for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioning.planning.conditions import UNKNOWN, Condition, Roots, fact_at, read_condition
from provisioning.planning.facts import VersionFacts
from provisioning.planning.merge_rules import text
from provisioning.planning.needs import with_defaults
from provisioning.planning.references import substitute_bound
from provisioning.score.placeholders import PlaceholderError

WISH, PARAMS, OUTPUTS = "wish", "params", "outputs"
ANY_FACT: Roots = {WISH: None, PARAMS: None, OUTPUTS: None}
MOST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Check:
    """A condition, and what to tell a consumer for which it does not hold."""

    condition: Condition
    message: str

    @classmethod
    def of(cls, said: Mapping[str, str]) -> Check:
        """Read one that was checked when its template was registered."""
        return cls(read_condition(said["condition"], ANY_FACT), said["message"])

    def concerns(self, wish: Collection[str]) -> bool:
        """Tell whether it concerns a consumer that asks for these params."""
        return self.condition.names(WISH) <= set(wish)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is compared for one consumer; `secret` are the (root, name) that may not be shown.

    A value that nobody knows yet is UNKNOWN.
    """

    wish: Mapping[str, Any]
    params: Mapping[str, Any]
    outputs: Mapping[str, Any]
    secret: frozenset[tuple[str, str]] = field(default=frozenset())

    def by_root(self) -> dict[str, Mapping[str, Any]]:
        """Return the facts as a condition names them."""
        return {WISH: self.wish, PARAMS: self.params, OUTPUTS: self.outputs}

    def verdict(self, check: Check) -> bool | None:
        """Tell whether a check holds, or does not concern the consumer; None if nobody knows yet."""
        return not check.concerns(self.wish) or check.condition.verdict(self.by_root())

    def broken(self, checks: Iterable[Check]) -> Iterator[Check]:
        """Walk the checks that do not hold, whatever is still unknown."""
        return (check for check in checks if self.verdict(check) is False)

    def sentence(self, check: Check) -> str:
        """Return a check's message with the values that it compares, as far as they may be shown."""
        shown = [f"{'.'.join(path)} {self._shown(path)}" for path in check.condition.paths()]
        return f"{check.message.rstrip('. ')} ({', '.join(shown)})."

    def _shown(self, path: tuple[str, ...]) -> str:
        if path[:2] in self.secret:
            return "is a secret"
        value = fact_at(path, self.by_root())
        if value is None or value is UNKNOWN:
            return "is not set" if value is None else "is not known yet"
        shown = text(value)
        return f"is {shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 1] + '…'}"


def checks_of(said: Iterable[Mapping[str, str]]) -> list[Check]:
    """Read checks or validators as a template version keeps them."""
    return [Check.of(each) for each in said]


def facts_of(
    version: VersionFacts,
    *,
    wish: Mapping[str, Any] | None,
    params: Mapping[str, Any],
    outputs: Mapping[str, Any],
    needed: Mapping[str, Mapping[str, Any]] | None = None,
    secret: frozenset[tuple[str, str]] = frozenset(),
) -> Facts:
    """Return what is compared for one consumer of a resource of this version.

    `wish` and `params` are bound; their references are filled from `needed`, `{key: {output:
    value}}`, and what is not there is UNKNOWN. What nobody asks for is as the schema says.
    """
    known = needed or {}
    return Facts(
        wish=_filled(version, wish or {}, known),
        params=with_defaults(version, _filled(version, params, known)),
        outputs=outputs,
        secret=secret,
    )


def _filled(
    version: VersionFacts, params: Mapping[str, Any], needed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, value in params.items():
        try:
            filled |= substitute_bound({name: value}, needed, version.params_schema)
        except PlaceholderError:
            filled[name] = UNKNOWN
    return filled
