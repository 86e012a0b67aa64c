from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from portal.management.base import UsageError, named
from portal.management.deploying import DeployingCommand
from portal.management.map_file import map_in
from provisioning.drivers.terraform.journal import import_block
from provisioning.models import Environment, Resource, ResourceTemplate
from provisioning.planning.maintenance import short_name
from provisioning.services.resources import adopt, destroy, grace, history, importing, policy
from provisioning.services.resources.find import find_past_resources, find_resource
from provisioning.services.state import events

ADDRESS = re.compile(r'(?P<address>(?:[^="]|"(?:[^"\\]|\\.)*")+)=(?P<id>.*)', re.DOTALL)


class Command(DeployingCommand):
    """Decide about single resources: what is kept, adopted, forgotten or destroyed."""

    help = "Keep, adopt, detach or destroy a resource; list the unused; tell one's history."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        self._add_destroy(actions)
        for action, text in {
            "protect": "let nothing but force destroy it",
            "unprotect": "end its protection",
            "retain": "keep it when its last user has left",
            "release": "let it be destroyed when its last user has left",
            "detach": "forget it without destroying anything",
            "grace": "say how long it outlives its last consumer",
            "history": "tell what happened to it, from its first deployment to its last",
        }.items():
            each = actions.add_parser(action, help=text)
            self._add_name(each)
            if action == "detach":
                _add_force(each)
            if action == "grace":
                each.add_argument(
                    "seconds", metavar="SECONDS", help="or `template`: as its template says"
                )
            if action == "history":
                self.add_format(each)
        self._add_adopt(actions)
        orphans = actions.add_parser("orphans", help="list what may exist beside its state")
        self._add_name(orphans)
        orphans.add_argument("--dismiss", action="store_true", help="forget them: you have looked")
        orphans.add_argument("--reason", default="", help="what became of them; with --dismiss")
        self.add_format(orphans)
        unused = actions.add_parser("unused", help="list the resources that nobody uses")
        self._add_place(unused)
        self.add_format(unused)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        environment = self.environment(self.organisation(options), options["env"])
        getattr(self, f"_{action}")(environment, options)

    def _add_place(self, parser: CommandParser) -> None:
        parser.add_argument("--env", required=True, metavar="ENVIRONMENT")
        self.add_organisation(parser)
        self.add_actor(parser)

    def _add_name(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="its shared name, key, name or id")
        self._add_place(parser)

    def _add_destroy(self, actions: Any) -> None:
        parser = actions.add_parser("destroy", help="destroy it, and what nothing holds without it")
        self._add_name(parser)
        _add_force(parser)
        self.add_wait(parser)
        self.add_format(parser)

    def _add_adopt(self, actions: Any) -> None:
        parser = actions.add_parser("adopt", help="take an existing thing in as a shared resource")
        self._add_place(parser)
        parser.add_argument("--name", required=True, help="the name under which it is shared")
        parser.add_argument("--type", required=True, help="its Score type")
        parser.add_argument("--class", dest="class_", default="default", help="its Score class")
        parser.add_argument("--template", required=True, help="what describes it")
        parser.add_argument(
            "--version", dest="template_version", default="", help="default: newest"
        )
        parser.add_argument("--team", required=True, help="who owns it")
        parser.add_argument("--params", metavar="FILE", help="a map of the params it was made with")
        how = parser.add_mutually_exclusive_group(required=True)
        how.add_argument("--outputs", metavar="FILE", help="a YAML or JSON map of its outputs")
        how.add_argument(
            "--import",
            dest="imports",
            action="append",
            metavar="ADDRESS=ID",
            help="take it into the template's module; may be repeated",
        )
        parser.add_argument(
            "--allow-changes",
            action="store_true",
            help="import although the module would change, create or destroy something",
        )
        self.add_wait(parser)
        self.add_format(parser)

    def _find(self, environment: Environment, options: dict[str, Any]) -> Resource:
        return find_resource(
            environment=environment, name=options["name"], actor=self.actor(options)
        )

    def _destroy(self, environment: Environment, options: dict[str, Any]) -> None:
        deployment = destroy.destroy_resource(
            resource=self._find(environment, options),
            actor=self.actor(options),
            force=options["force"],
            reason=options["reason"],
        )
        self.report(deployment, options)

    def _detach(self, environment: Environment, options: dict[str, Any]) -> None:
        resource = adopt.detach_resource(
            resource=self._find(environment, options),
            actor=self.actor(options),
            force=options["force"],
            reason=options["reason"],
        )
        self.stdout.write(f"Conductor forgot {short_name(resource.key)}; the thing itself stays.")

    def _protect(self, environment: Environment, options: dict[str, Any]) -> None:
        resource = self._find(environment, options)
        policy.protect_resource(resource=resource, protected=True, actor=self.actor(options))
        self.stdout.write(f"{short_name(resource.key)} is protected.")

    def _unprotect(self, environment: Environment, options: dict[str, Any]) -> None:
        resource = self._find(environment, options)
        policy.protect_resource(resource=resource, protected=False, actor=self.actor(options))
        self.stdout.write(f"{short_name(resource.key)} is not protected any more.")

    def _retain(self, environment: Environment, options: dict[str, Any]) -> None:
        resource = self._find(environment, options)
        policy.retain_resource(resource=resource, retain=True, actor=self.actor(options))
        self.stdout.write(f"{short_name(resource.key)} is kept when its last user has left.")

    def _release(self, environment: Environment, options: dict[str, Any]) -> None:
        resource = self._find(environment, options)
        policy.retain_resource(resource=resource, retain=False, actor=self.actor(options))
        self.stdout.write(f"{short_name(resource.key)} is destroyed when its last user has left.")

    def _grace(self, environment: Environment, options: dict[str, Any]) -> None:
        given = options["seconds"]
        if given != "template" and not given.isdecimal():
            raise UsageError(f"{given} is neither a number of seconds nor the word template.")
        resource = policy.set_grace(
            resource=self._find(environment, options),
            seconds=None if given == "template" else int(given),
            actor=self.actor(options),
        )
        self.stdout.write(
            f"{short_name(resource.key)} outlives its last consumer by {resource.grace} s."
        )

    def _unused(self, environment: Environment, options: dict[str, Any]) -> None:
        rows = grace.list_unused(environment=environment, actor=self.actor(options))
        self.print_rows(
            options,
            ["name", "owner", "state", "kept_because", "destroyed_after"],
            [
                (
                    short_name(row.key),
                    row.owner_team.name,
                    row.state,
                    grace.why_kept(row),
                    row.grace_until.isoformat(timespec="seconds") if row.grace_until else "",
                )
                for row in rows
            ],
        )

    def _orphans(self, environment: Environment, options: dict[str, Any]) -> None:
        actor = self.actor(options)
        found = find_past_resources(environment=environment, name=options["name"], actor=actor)
        resource = found[-1]
        if options["dismiss"]:
            gone = events.dismiss_orphans(resource=resource, reason=options["reason"], actor=actor)
            self.stdout.write(
                f"{len(gone)} possible orphans of {short_name(resource.key)} forgotten."
            )
            return
        orphans = events.list_orphans(resource=resource)
        if options["format"] == "json":
            self.print_json([{**asdict(each), "import": import_block(each)} for each in orphans])
        elif not orphans:
            self.stdout.write(
                f"Nothing is suspected beside the state of {short_name(resource.key)}."
            )
        else:
            self.stdout.write("".join(import_block(each) for each in orphans), ending="")

    def _adopt(self, environment: Environment, options: dict[str, Any]) -> None:
        organisation = environment.organisation
        templates = ResourceTemplate.objects.filter(organisation=organisation)
        what: dict[str, Any] = {
            "environment": environment,
            "name": options["name"],
            "type_": options["type"],
            "class_": options["class_"],
            "template": named(templates, options["template"]),
            "version": options["template_version"],
            "team": self.team(organisation, options["team"]),
            "params": map_in(options["params"]) if options["params"] else None,
            "actor": self.actor(options),
        }
        if options["imports"]:
            imports = [_import(text) for text in options["imports"]]
            changes = options["allow_changes"]
            deployment = importing.import_resource(imports=imports, allow_changes=changes, **what)
            self.report(deployment, options)
            return
        if options["allow_changes"] or options["wait"]:
            raise UsageError("--allow-changes and --wait are for --import: nothing is done here.")
        resource = adopt.adopt_resource(outputs=map_in(options["outputs"]), **what)
        self.stdout.write(f"Adopted {short_name(resource.key)} ({resource.pk}).")

    def _history(self, environment: Environment, options: dict[str, Any]) -> None:
        events = history.resource_history(
            environment=environment, name=options["name"], actor=self.actor(options)
        )
        self.print_rows(
            options,
            ["at", "who", "what", "subject", "deployment", "why"],
            [
                (
                    event.at.isoformat(timespec="seconds"),
                    event.actor,
                    event.action,
                    event.subject,
                    event.deployment,
                    event.reason,
                )
                for event in events
            ],
        )


def _import(text: str) -> tuple[str, str]:
    """Split ADDRESS=ID; the address may have a `=` in quotes, the id anywhere."""
    match = ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"{text} is not written as ADDRESS=ID.")
    return match["address"], match["id"]


def _add_force(parser: CommandParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="even if others use it: this breaks what they run"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; needed with --force")
