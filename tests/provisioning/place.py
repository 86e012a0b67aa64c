"""A small organisation to deploy into: one environment, applications, and templates that pretend."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from provisioning.models import (
    Application,
    Deployment,
    Environment,
    Membership,
    Organisation,
    Resource,
    ResourceTemplate,
    ResourceTemplateVersion,
    Role,
    Step,
    Team,
    TemplateRule,
    VersionState,
)
from provisioning.services.catalog.content import pack
from provisioning.services.deployments import submit_deployment, submit_teardown
from provisioning.workers.regular import expire, tend_pools
from provisioning.workers.sweeper import sweep
from provisioning.workers.tasks import work

QUEUE = "default"
ANY_PARAMS = {"type": "object", "properties": {}, "additionalProperties": True}


@dataclass
class Place:
    """Deploy Score files of workloads without containers' details, and work the steps off."""

    organisation: Organisation
    environment: Environment
    templates: dict[str, ResourceTemplateVersion] = field(default_factory=dict)
    team: str = "everybody"
    """Whose new applications are, so that nobody is asked; empty: each has a team of its own."""

    def template(
        self,
        type_: str,
        *,
        driver: str = "fake",
        outputs: dict[str, bool] | None = None,
        config: dict[str, Any] | None = None,
        policy: str = "delete",
        content: dict[str, str] | None = None,
        **more: Any,
    ) -> ResourceTemplateVersion:
        """Register a template for a type; `outputs` maps names to whether they are sensitive."""
        template = ResourceTemplate.objects.create(
            organisation=self.organisation, name=f"{type_}-template", type=type_, driver=driver
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {"template.yaml": f"name: {type_}\n", **(content or {})}.items():
                (Path(folder) / name).write_text(text)
                (Path(folder) / name).chmod(0o755 if text.startswith("#!") else 0o644)
            packed = pack(Path(folder))
        version = ResourceTemplateVersion.objects.create(
            template=template,
            version="1.0.0",
            state=VersionState.ACTIVE,
            archive=packed.archive,
            digest=packed.digest,
            outputs=[
                {"name": name, "sensitive": sensitive}
                for name, sensitive in (outputs or {}).items()
            ],
            config=config or {},
            deletion_policy=policy,
            **{"params_schema": ANY_PARAMS, **more},
        )
        TemplateRule.objects.create(organisation=self.organisation, template=template, type=type_)
        self.templates[type_] = version
        return version

    def application(self, name: str = "shop", *members: User) -> Application:
        """Return an application, made if it is missing; the members are of its team."""
        found = Application.objects.filter(organisation=self.organisation, name=name).first()
        team = found.team if found else self.team_named(self.team or f"{name}-team")
        for member in members:
            Membership.objects.get_or_create(team=team, user=member)
        application, _ = Application.objects.get_or_create(
            organisation=self.organisation, team=team, name=name
        )
        return application

    def beside(self, name: str, **more: Any) -> Place:
        """Return the same organisation with another environment, made if it is missing."""
        environment, _ = Environment.objects.get_or_create(
            organisation=self.organisation, name=name, defaults={"queue": QUEUE, **more}
        )
        return replace(self, environment=environment)

    def team_named(self, name: str, *owners: User) -> Team:
        """Return a team, made if it is missing, that has these owners."""
        team, _ = Team.objects.get_or_create(organisation=self.organisation, name=name)
        for owner in owners:
            Membership.objects.update_or_create(
                team=team, user=owner, defaults={"role": Role.OWNER}
            )
        return team

    def submit(
        self, resources: str, *, application: str = "shop", workload: str = "web", **more: Any
    ) -> Deployment:
        """Submit one workload whose `resources:` block is the given YAML, indented by two."""
        return submit_deployment(
            application=self.application(application),
            environment=self.environment,
            files=[("score.yaml", score_file(workload, resources))],
            **{"actor": None, **more},
        )

    def deploy(self, resources: str, **more: Any) -> Deployment:
        """Submit, and do all the work there is."""
        deployment = self.submit(resources, **more)
        return self.done(deployment)

    def teardown(self, application: str = "shop", workloads: list[str] | None = None) -> Deployment:
        """Submit a teardown, and do all the work there is."""
        deployment = submit_teardown(
            application=self.application(application),
            environment=self.environment,
            workloads=workloads,
            actor=None,
        )
        return self.done(deployment)

    def done(self, deployment: Deployment) -> Deployment:
        """Do all the work there is, and read the deployment again."""
        work(QUEUE)
        deployment.refresh_from_db()
        return deployment

    def states(self) -> dict[str, str]:
        """Return every resource's newest state by key."""
        return {each.key: each.state for each in Resource.objects.order_by("created_at")}

    def resource(self, key: str) -> Resource:
        """Return the newest resource with this key."""
        return Resource.objects.filter(key=key).latest("created_at")

    def steps(self, deployment: Deployment) -> dict[str, tuple[str, str, bool]]:
        """Return (action, status, whether the driver ran) by key."""
        return {
            step.resource.key: (step.action, step.status, step.driver_ran)
            for step in Step.objects.filter(deployment=deployment).select_related("resource")
        }


def chores() -> None:
    """Do what workers do regularly: the sweep, and what is scheduled."""
    sweep()
    tend_pools()
    expire()


def score_file(workload: str, resources: str) -> str:
    """Return a Score file with one container and the given resources."""
    return (
        f"apiVersion: score.dev/v1b1\nmetadata:\n  name: {workload}\n"
        "containers:\n  main:\n    image: busybox\n"
        f"resources:\n{resources}"
    )


def new_place(name: str = "acme") -> Place:
    """Store the organisation and its environment."""
    organisation = Organisation.objects.create(name=name)
    environment = Environment.objects.create(organisation=organisation, name="dev", queue=QUEUE)
    return Place(organisation, environment)
