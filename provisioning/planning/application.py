"""Bring the workloads of one application together without a database: bound, checked, in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from provisioning.graph.build import CycleError, order
from provisioning.score.application import Application, bind_application
from provisioning.score.document import Document, read_documents
from provisioning.score.workload import Problem, ScoreError, Workload

MAX_CYCLES = 20


def order_application(workloads: Sequence[Workload]) -> tuple[Application, list[str]]:
    """Bind the workloads' resources and order their uids, dependencies first.

    Raises ScoreError for resources on which the workloads differ, and for cycles.
    """
    application = bind_application(workloads)
    edges = set(application.edges)
    problems: list[Problem] = []
    while len(problems) < MAX_CYCLES:
        try:
            ordered = order(application.resources, edges)
        except CycleError as error:
            problems += application.cycle_error(error.path).problems
            edges -= set(pairwise(error.path))
        else:
            break
    if problems:
        raise ScoreError(sorted(problems, key=lambda each: (each.file, each)))
    return application, ordered


def lint(files: Sequence[tuple[str, str]]) -> list[Document]:
    """Read files, given as (file, text), and add what is wrong between their valid documents.

    Files that name the same workload twice are not of one application: then each file is taken
    for an application of its own.
    """
    by_file = [read_documents(text, file=file) for file, text in files]
    documents = [document for group in by_file for document in group]
    names = [each.workload.name for each in documents if each.workload is not None]
    for group in [documents] if len(set(names)) == len(names) else by_file:
        try:
            order_application([each.workload for each in group if each.workload is not None])
        except ScoreError as error:
            for problem in error.problems:
                _document_at(group, problem.file, problem.line).problems.append(problem)
    return documents


def _document_at(documents: Sequence[Document], file: str, line: int) -> Document:
    """Find the document of a file that a line is in: the last that starts before it."""
    return [each for each in documents if each.file == file and each.line <= line][-1]
