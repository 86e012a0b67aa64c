from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Prefetch

from portal.management.base import ConductorCommand, named
from provisioning.models import ResourceTemplate, ResourceTemplateVersion, VersionState
from provisioning.services.catalog import SyncResult, deprecate_version, newest, sync_catalog


class Command(ConductorCommand):
    help = "Register resource templates from files, and look at those there are."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        sync = actions.add_parser("sync", help="register every template.yaml under a source")
        sync.add_argument("source", metavar="PATH|GIT_URL[@REF]")
        sync.add_argument(
            "--force",
            action="store_true",
            help="also where live requirements would match another template",
        )
        self.add_actor(sync)
        listing = actions.add_parser("list", help="list the templates")
        show = actions.add_parser("show", help="show a template's params and outputs")
        show.add_argument("name", metavar="NAME")
        deprecate = actions.add_parser("deprecate", help="let a version serve no new resources")
        deprecate.add_argument("name", metavar="NAME")
        deprecate.add_argument("version_name", metavar="VERSION")
        self.add_actor(deprecate)
        for each in (sync, listing, show, deprecate):
            self.add_organisation(each)
        for each in (sync, listing, show):
            self.add_format(each)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        match action:
            case "sync":
                self.sync(options)
            case "list":
                self.list_templates(options)
            case "show":
                self.show(options)
            case _:
                self.deprecate(options)

    def sync(self, options: dict[str, Any]) -> None:
        """Register a source's templates."""
        results = sync_catalog(
            organisation=self.organisation(options),
            source=options["source"],
            actor=self.actor(options),
            force=options["force"],
        )
        if options["format"] == "json":
            self.print_json([asdict(result) for result in results])
            return
        self.print_table(
            ["TEMPLATE", "VERSION", "STATUS", "RULES", "DIGEST"],
            [
                (each.template, each.version, each.status, _rules(each), each.digest[:19])
                for each in results
            ],
        )

    def list_templates(self, options: dict[str, Any]) -> None:
        """Print every template with the version that serves new resources."""
        rows = []
        for template in _templates(self.organisation(options).resource_templates.all()):
            version = newest(template.versions.all())
            rows.append(
                {
                    "name": template.name,
                    "type": template.type,
                    "class": template.class_name,
                    "driver": template.driver,
                    "version": version.version if version else None,
                    "description": template.description,
                }
            )
        if options["format"] == "json":
            self.print_json(rows)
            return
        self.print_table(
            ["NAME", "TYPE", "CLASS", "DRIVER", "VERSION"],
            [
                (row["name"], row["type"], row["class"], row["driver"], row["version"] or "-")
                for row in rows
            ],
        )

    def show(self, options: dict[str, Any]) -> None:
        """Print what a template's newest version takes and gives."""
        template = named(_templates(self.organisation(options).resource_templates), options["name"])
        version = newest(template.versions.all())
        shown = _described(template, version)
        if options["format"] == "json":
            self.print_json(shown)
            return
        for key in ("name", "type", "class", "driver", "version", "digest", "source"):
            self.stdout.write(f"{key:<8} {shown[key] or '-'}")
        if template.description:
            self.stdout.write(f"\n{template.description.strip()}")
        self.stdout.write("")
        self.print_table(["PARAM", "TYPE", "REQUIRED", "DEFAULT", "DESCRIPTION"], _params(version))
        self.stdout.write("")
        self.print_table(["OUTPUT", "TYPE", "SENSITIVE", "DESCRIPTION"], _outputs(version))

    def deprecate(self, options: dict[str, Any]) -> None:
        """Let a version serve no new resources."""
        template = named(self.organisation(options).resource_templates.all(), options["name"])
        version = named(template.versions.defer("archive"), options["version_name"], "version")
        deprecate_version(version=version, actor=self.actor(options))
        self.stdout.write(f"{template.name} {version.version} is deprecated.")


def _templates(rows: Any) -> Any:
    active = ResourceTemplateVersion.objects.filter(state=VersionState.ACTIVE).defer("archive")
    return rows.order_by("name").prefetch_related(Prefetch("versions", queryset=active))


def _rules(result: SyncResult) -> str:
    counts = ((result.rules.added, "+"), (result.rules.removed, "-"))
    return " ".join(f"{sign}{count}" for count, sign in counts if count) or "="


def _described(
    template: ResourceTemplate, version: ResourceTemplateVersion | None
) -> Mapping[str, Any]:
    return {
        "name": template.name,
        "type": template.type,
        "class": template.class_name,
        "driver": template.driver,
        "description": template.description,
        "version": version.version if version else None,
        "digest": version.digest if version else None,
        "source": version.source if version else None,
        "params_schema": version.params_schema if version else {},
        "outputs": version.outputs if version else [],
    }


def _params(version: ResourceTemplateVersion | None) -> list[tuple[str, ...]]:
    schema = version.params_schema if version else {}
    required = schema.get("required", [])
    rows: list[tuple[str, ...]] = []
    for name, said in sorted(schema.get("properties", {}).items()):
        param = said if isinstance(said, dict) else {}
        type_ = param.get("type", "any")
        rows.append(
            (
                name,
                " or ".join(type_) if isinstance(type_, list) else str(type_),
                "yes" if name in required else "no",
                str(param["default"]) if "default" in param else "-",
                " ".join(str(param.get("description", "")).split()),
            )
        )
    return rows


def _outputs(version: ResourceTemplateVersion | None) -> list[tuple[str, ...]]:
    return [
        (
            output["name"],
            output["type"],
            "yes" if output["sensitive"] else "no",
            " ".join(output["description"].split()),
        )
        for output in (version.outputs if version else [])
    ]
