from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from portal.management.base import ConductorCommand, UsageError
from provisioning.models import Approval, ApprovalStatus, Deployment
from provisioning.services.approvals import approve, reject, withdraw


class Command(ConductorCommand):
    """Answer what deployments ask of owners."""

    help = "List what owners are asked, and approve, reject or withdraw it."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="list what is asked, oldest first")
        listing.add_argument("--all", action="store_true", help="what has been answered, too")
        self.add_format(listing)
        helps = {
            "approve": "allow it; with the last answer the deployment starts",
            "reject": "refuse it; the deployment ends",
            "withdraw": "take back a request of your own; the deployment ends",
        }
        for action, text in helps.items():
            each = actions.add_parser(action, help=text)
            each.add_argument("approval", type=int, metavar="ID", help="its number in the list")
            if action != "withdraw":
                each.add_argument("--comment", default="", required=action == "reject")
            self.add_actor(each)
        self.add_actor(listing)

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        actor = self.actor(options)
        if action == "list":
            self._list(actor, options)
            return
        approval = self._approval(options["approval"], actor)
        if action == "approve":
            deployment = approve(approval=approval, actor=actor, comment=options["comment"])
        elif action == "reject":
            deployment = reject(approval=approval, actor=actor, comment=options["comment"])
        else:
            deployment = withdraw(approval=approval, actor=actor)
        self.stdout.write(_told(deployment))

    def _approval(self, number: int, actor: User) -> Approval:
        rows = Approval.objects.visible_to(actor).select_related("deployment__environment", "team")
        found = rows.filter(pk=number).first()
        if found is None:
            raise UsageError(f"There is no approval {number}. See manage.py approvals list.")
        return found

    def _list(self, actor: User, options: dict[str, Any]) -> None:
        rows = Approval.objects.visible_to(actor).select_related("team").order_by("pk")
        if not options["all"]:
            rows = rows.filter(status=ApprovalStatus.PENDING)
        if options["format"] == "json":
            self.print_json([_as_json(row) for row in rows])
            return
        if not rows:
            self.stdout.write("Nothing is asked.")
        for row in rows:
            self._show(row)

    def _show(self, row: Approval) -> None:
        state = row.get_status_display().lower()
        if row.decided_by:
            state += f" by {row.decided_by}"
        self.stdout.write(
            self.style.MIGRATE_HEADING(f"{row.pk}  {row.asks['text']}")
            + f"\n    {state}; deployment {row.deployment_id} by {row.asked_by}; asked of the team "
            f"{row.team}; until {row.expires_at:%Y-%m-%d %H:%M} UTC"
        )
        for name, params in row.asks["wanted"].items():
            wish = "whatever there is" if params is None else json.dumps(params)
            self.stdout.write(f"    {name} wants {wish}")
        for change in row.asks["changes"]:
            before, after = json.dumps(change["before"]), json.dumps(change["after"])
            self.stdout.write(f"    changes {change['param']}: {before} → {after}")
        if row.asks["users"]:
            self.stdout.write(f"    also used by {', '.join(row.asks['users'])}")
        if row.comment:
            self.stdout.write(f"    {row.comment}")


def _told(deployment: Deployment) -> str:
    reason = f" {deployment.status_reason}" if deployment.status_reason else ""
    return f"Deployment {deployment.pk} is {deployment.get_status_display().lower()}.{reason}"


def _as_json(row: Approval) -> dict[str, Any]:
    return {
        "id": row.pk,
        "deployment": row.deployment_id,
        "kind": row.kind,
        "resource": row.key,
        "team": row.team.name,
        "status": row.status,
        "asked_by": row.asked_by,
        "decided_by": row.decided_by,
        "comment": row.comment,
        "asks": row.asks,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }
