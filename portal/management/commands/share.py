from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand, UsageError
from provisioning.models import (
    Application,
    ConsumerState,
    Environment,
    Organisation,
    Resource,
    ResourceConsumer,
    SharingPolicy,
)
from provisioning.services.publishing import publish_resource
from provisioning.services.resources.find import find_resource
from provisioning.services.sharing import (
    Revocation,
    end_grant,
    grant,
    plan_revocation,
    revoke,
    set_policy,
    transfer,
)


class Command(ConductorCommand):
    """Decide who may use a resource of one's team."""

    help = "Decide who may use a resource of your team: policy, grants, revocation, transfer."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        policy = actions.add_parser("policy", help="whether other teams may use it")
        giving = actions.add_parser("grant", help="let an application or a team use it unasked")
        taking = actions.add_parser("ungrant", help="take a grant back; who uses it stays")
        handing = actions.add_parser("transfer", help="hand it over to another team")
        revoking = actions.add_parser("revoke", help="put a consumer out")
        publishing = actions.add_parser("publish", help="let other organisations find it (staff)")
        hiding = actions.add_parser("unpublish", help="end that; who uses it stays (staff)")
        for each in (policy, giving, taking, handing, revoking, publishing, hiding):
            each.add_argument("resource", metavar="RESOURCE", help="its shared name, key or id")
            each.add_argument("--env", required=True, metavar="ENVIRONMENT")
            self.add_organisation(each)
            self.add_actor(each)
        policy.add_argument("policy", choices=SharingPolicy.values)
        for each in (giving, taking):
            receiver = each.add_mutually_exclusive_group(required=True)
            receiver.add_argument("--app", metavar="APPLICATION")
            receiver.add_argument("--team", metavar="TEAM")
        handing.add_argument("--team", metavar="TEAM", required=True)
        revoking.add_argument("--app", metavar="APPLICATION", required=True)
        revoking.add_argument("--workload", metavar="NAME", required=True)
        revoking.add_argument("--alias", metavar="NAME", help="needed only if it has several")
        revoking.add_argument(
            "--from",
            dest="user_env",
            metavar="[ORGANISATION/]ENVIRONMENT",
            help="the consumer's own environment, if it is another one than the resource's",
        )
        revoking.add_argument("--reason", default="", help="told to the consumer; needed")
        revoking.add_argument(
            "--plan", action="store_true", help="only show what it would lose; nothing is written"
        )

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        actor = self.actor(options)
        organisation = self.organisation(options)
        environment = self.environment(organisation, options["env"])
        resource = find_resource(environment=environment, name=options["resource"], actor=actor)
        if action == "policy":
            set_policy(resource=resource, policy=options["policy"], actor=actor)
            self.stdout.write(f"{resource.key} is {options['policy']} to other teams.")
        elif action == "transfer":
            team = self.team(organisation, options["team"])
            transfer(resource=resource, team=team, actor=actor)
            self.stdout.write(f"{resource.key} belongs to the team {team} now.")
        elif action == "revoke":
            self._revoke(resource, actor, options)
        elif action in ("publish", "unpublish"):
            publish_resource(resource=resource, published=action == "publish", actor=actor)
            may = "can find it" if action == "publish" else "find it no more"
            self.stdout.write(f"{resource.key}: other organisations {may}.")
        else:
            self._grant(action, resource, organisation, actor, options)

    def _grant(
        self,
        action: str,
        resource: Resource,
        organisation: Organisation,
        actor: User,
        options: dict[str, Any],
    ) -> None:
        to: dict[str, Any]
        if options["app"]:
            to = {"application": self.application(organisation, options["app"])}
        else:
            to = {"team": self.team(organisation, options["team"])}
        ((kind, receiver),) = to.items()
        if action == "grant":
            grant(resource=resource, actor=actor, **to)
            self.stdout.write(f"The {kind} {receiver} may use {resource.key} without being asked.")
        else:
            end_grant(resource=resource, actor=actor, **to)
            self.stdout.write(f"The {kind} {receiver} has to ask for {resource.key} from now on.")

    def _revoke(self, resource: Resource, actor: User, options: dict[str, Any]) -> None:
        environment = self._environment_of_user(resource, options["user_env"])
        application = self.application(environment.organisation, options["app"])
        consumer = _consumer(resource, application, environment, options)
        if options["plan"]:
            self._show(plan_revocation(consumer))
            return
        lost = revoke(consumer=consumer, reason=options["reason"], actor=actor)
        self._show(lost)
        self.stdout.write(f"Revoked {lost.workload}.{lost.alias} of {lost.application}.")

    def _environment_of_user(self, resource: Resource, path: str | None) -> Environment:
        if not path:
            return resource.environment
        organisation, _, name = path.rpartition("/")
        chosen = {"organisation": organisation or resource.environment.organisation.name}
        return self.environment(self.organisation(chosen), name)

    def _show(self, lost: Revocation) -> None:
        self.stdout.write(
            f"{lost.application}/{lost.workload}.{lost.alias} loses {lost.resource}"
            + (f" with {', '.join(lost.outputs)}." if lost.outputs else ".")
        )
        for key in lost.parts:
            self.stdout.write(f"  {key} goes with it.")
        if lost.own:
            verbs = ("are", "work") if len(lost.own) > 1 else ("is", "works")
            own = ", ".join(lost.own)
            self.stdout.write(f"  Its own {own} {verbs[0]} taken back and {verbs[1]} no more.")
        if lost.known:
            self.stdout.write(
                f"  What it has read stays valid until it is changed: {', '.join(lost.known)}."
            )
        for key in lost.dependents:
            self.stdout.write(f"  {key} uses its outputs and will not follow them any more.")
        if lost.others:
            self.stdout.write(f"  The application keeps it by {', '.join(lost.others)}.")
        if lost.returns:
            self.stdout.write(f"  It can join again without being asked: {lost.returns}.")


def _consumer(
    resource: Resource,
    application: Application,
    environment: Environment,
    options: dict[str, Any],
) -> ResourceConsumer:
    rows = ResourceConsumer.objects.filter(
        resource=resource,
        state=ConsumerState.ACTIVE,
        workload__application=application,
        workload__environment=environment,
        workload__name=options["workload"],
    ).select_related("resource__environment", "workload__application")
    if options["alias"]:
        rows = rows.filter(alias=options["alias"])
    found = list(rows.order_by("alias"))
    who = f"{application}/{options['workload']}"
    if not found:
        raise UsageError(f"{who} in {environment} does not use {resource.key}.")
    if len(found) > 1:
        aliases = ", ".join(each.alias for each in found)
        raise UsageError(f"{who} uses {resource.key} as {aliases}: name one with --alias.")
    return found[0]
