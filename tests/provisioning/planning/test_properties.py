from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provisioning.planning.decide import decide
from provisioning.planning.naming import resource_name
from provisioning.planning.references import bind, bound_text, substitute_bound
from tests.provisioning.planning.facts import make_snapshot, score, workloads

ALIASES = ["aa", "bb", "cc", "dd"]


@st.composite
def applications(draw):
    """Draw the Score texts of an application whose aliases only refer to earlier ones."""
    texts = []
    for name in draw(st.lists(st.sampled_from(["api", "web", "job"]), min_size=1, unique=True)):
        lines = []
        for index, alias in enumerate(draw(st.lists(st.sampled_from(ALIASES), unique=True))):
            shared = draw(st.booleans())
            lines += [f"{alias}:", "  type: queue"]
            if shared:
                lines.append(f"  reference: {{mode: shared, name: {name}-{alias}}}")
            if index and draw(st.booleans()):
                lines.append(f"  params: {{from: '${{resources.{lines[0][:-1]}.host}}'}}")
        texts.append(score(name, "\n".join(lines)))
    return texts


@given(applications(), st.randoms(use_true_random=False))
def test_plan_is_the_same_in_any_order_of_files(texts, random):
    shuffled = random.sample(texts, len(texts))

    first = decide(workloads(*texts), make_snapshot())
    second = decide(workloads(*shuffled), make_snapshot())

    assert first.to_json() == second.to_json()


@given(applications())
def test_steps_come_after_all_they_need(texts):
    plan = decide(workloads(*texts), make_snapshot())

    done: set[str] = set()
    for step in plan.steps:
        assert done >= set(step.needs)
        done.add(step.key)


@given(st.text(alphabet="ab$"), st.text())
def test_binding_leaves_what_is_escaped_for_the_substitution(text, output):
    bound = bind(
        {"x": f"{text.replace('$', '$$')}${{resources.db.host}}"},
        lambda _: bound_text("shared/a.b", ("host",)),
    )

    assert substitute_bound(bound, {"shared/a.b": {"host": output}}) == {"x": text + output}


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_suit_the_strictest_tools(key, type_):
    name = resource_name("acme", "dev", f"shared/{key}", type_)

    assert len(name) <= 40
    assert name[0].isascii()
    assert name[0].isalpha()
    assert all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in name)
