from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import FAILED, ConductorCommand, UsageError
from provisioning.graph import drawing
from provisioning.planning.application import lint, order_application
from provisioning.score.application import Application
from provisioning.score.document import Document, parse_application
from provisioning.score.embedding import embed_files
from provisioning.score.rendering import render
from provisioning.score.workload import Problem, Workload, sorted_maps

STDIN = "-"


class Command(ConductorCommand):
    """Check Score files, draw what they need, or fill them in; needs no database and no server."""

    help = "Check Score files, show the graph of their resources, or substitute their placeholders."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the three subcommands."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="lint|graph|render")
        checks = actions.add_parser("lint", help="list every problem; exit status 1 if any")
        graphs = actions.add_parser("graph", help="show resources, what needs what, and the order")
        renders = actions.add_parser("render", help="substitute every placeholder")
        for each in (checks, graphs, renders):
            each.add_argument("files", nargs="+", metavar="FILE", help="a Score file, - for stdin")
        self.add_format(checks)
        self.add_format(graphs, "mermaid", "dot")
        renders.add_argument(
            "--outputs",
            required=True,
            metavar="FILE.json",
            help='the resources\' outputs: {"type.class#id": {"key": value}}',
        )
        renders.add_argument(
            "--embed-files",
            action="store_true",
            help="read the files that containers name by `source` into the result",
        )

    def handle(self, *, action: str, files: list[str], **options: Any) -> None:
        """Run the subcommand."""
        texts = [(name, _read(name)) for name in files]
        if action == "lint":
            self.lint(texts, options["format"])
        elif action == "graph":
            self.graph(texts, options["format"])
        else:
            self.render(texts, options["outputs"], embed=options["embed_files"])

    def lint(self, texts: Sequence[tuple[str, str]], format_: str) -> None:
        """Print every document's problems and exit with 1 if there is one."""
        documents = lint(texts)
        if format_ == "json":
            self.print_json([_document_as_json(document) for document in documents])
        else:
            self.print_documents(documents)
        if any(document.problems for document in documents):
            sys.exit(FAILED)

    def print_documents(self, documents: Sequence[Document]) -> None:
        """Print problems as `file:line:column: message`, each remedy below, and a summary."""
        for document in documents:
            for problem in sorted(document.problems):
                self.print_problem(problem)
        for document in documents:
            if not document.problems:
                resources = _count(len(document.uids), "resource")
                changed = "; deprecated forms were migrated" if document.changes else ""
                self.stdout.write(
                    f"{document.file}: {document.name} is valid, {resources}{changed}."
                )
        problems = sum(len(document.problems) for document in documents)
        self.stdout.write(f"{_count(problems, 'problem')} in {_count(len(documents), 'document')}.")

    def print_problem(self, problem: Problem) -> None:
        """Print one problem and its remedy."""
        place = f"{problem.file}:{problem.line}:{problem.column}"
        self.stdout.write(f"{place}: {problem.message}")
        if problem.hint:
            self.stdout.write(f"    {problem.hint}")

    def graph(self, texts: Sequence[tuple[str, str]], format_: str) -> None:
        """Print the application's resources, edges and order."""
        application, order = order_application(parse_application(texts))
        if format_ == "json":
            self.print_json(_graph_as_json(application, order))
        elif format_ == "mermaid":
            self.stdout.write(drawing.mermaid(order, application.edges), ending="")
        elif format_ == "dot":
            self.stdout.write(drawing.dot(order, application.edges), ending="")
        else:
            self.print_order(application, order)

    def print_order(self, application: Application, order: Sequence[str]) -> None:
        """Print each resource in its turn, with who declares it and what it needs."""
        if not order:
            self.stdout.write("No workload needs a resource.")
        for number, uid in enumerate(order, start=1):
            declared = ", ".join(".".join(each) for each in application.resources[uid].declared_by)
            self.stdout.write(f"{number:>3}  {uid}  for {declared}")
            for source, target in application.edges:
                if source == uid:
                    self.stdout.write(f"       needs {target}")

    def render(self, texts: Sequence[tuple[str, str]], outputs: str, *, embed: bool) -> None:
        """Print every workload with its placeholders substituted."""
        values = _read_outputs(outputs)
        rendered = {}
        for workload in parse_application(texts):
            filled = render(_embedded(workload) if embed else workload, values)
            rendered[workload.name] = filled
        self.print_json(rendered)


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except FileNotFoundError:
        raise UsageError(f"There is no file {name}.") from None
    except OSError as error:
        raise UsageError(f"The file {name} cannot be read: {error.strerror}.") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"The file {name} is not UTF-8 text: see line {line}. Save it as UTF-8."
        raise UsageError(message) from None


def _read_outputs(name: str) -> dict[str, dict[str, Any]]:
    try:
        outputs = json.loads(_read(name))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"The file {name} is not JSON: line {error.lineno}: {error.msg}."
        ) from None
    if not isinstance(outputs, dict) or not all(
        isinstance(each, dict) for each in outputs.values()
    ):
        raise UsageError(f'The file {name} must hold {{"type.class#id": {{"key": value}}}}.')
    return outputs


def _embedded(workload: Workload) -> Workload:
    folder = Path() if workload.file == STDIN else Path(workload.file).parent
    containers = embed_files(workload.containers, folder)
    return replace(workload, containers=containers)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"


def _document_as_json(document: Document) -> dict[str, Any]:
    return {
        "file": document.file,
        "workload": document.name or None,
        "valid": not document.problems,
        "problems": [
            {
                "line": problem.line,
                "column": problem.column,
                "path": problem.path,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in sorted(document.problems)
        ],
        "resources": [{"alias": alias, "uid": uid} for alias, uid in sorted(document.uids.items())],
    }


def _graph_as_json(application: Application, order: Sequence[str]) -> dict[str, Any]:
    return {
        "resources": {
            uid: {
                "type": resource.type,
                "class": resource.class_,
                "id": resource.id,
                "params": sorted_maps(resource.params),
                "workloads": sorted({workload for workload, _ in resource.declared_by}),
            }
            for uid, resource in application.resources.items()
        },
        "edges": [list(edge) for edge in application.edges],
        "order": list(order),
    }
