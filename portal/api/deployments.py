"""REST for deployments."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from rest_framework import generics, status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal.api.serializers import (
    CancelSerializer,
    DeploymentSerializer,
    DeploymentSummarySerializer,
    LogQuerySerializer,
    RetrySerializer,
    SubmitSerializer,
)
from portal.log_file import log_file
from provisioning.models import Application, Deployment, DeploymentKind, Environment
from provisioning.services.deployments.cancel import cancel_deployment
from provisioning.services.deployments.retry import retry_deployment
from provisioning.services.deployments.submit import submit_deployment, submit_teardown

FILTERS = {
    "application": "application__name",
    "environment": "environment__name",
    "status": "status",
    "kind": "kind",
}


class Pages(LimitOffsetPagination):
    """Give a limited number of rows at once."""

    default_limit = 50
    max_limit = 500


class DeploymentListView(generics.ListAPIView[Deployment]):
    """List the deployments that the caller may see, newest first; take new ones."""

    serializer_class = DeploymentSummarySerializer
    pagination_class = Pages

    def get_queryset(self) -> QuerySet[Deployment]:
        """Return the caller's deployments, filtered by the query."""
        query = self.request.query_params
        rows = visible_deployments(self.request).filter(
            **{
                field: query[name].replace("\0", "")  # which PostgreSQL would refuse
                for name, field in FILTERS.items()
                if name in query
            }
        )
        return rows.order_by("-pk")

    def post(self, request: Request) -> Response:
        """Submit a deployment or a teardown; answer 202 with its address."""
        form = SubmitSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        return _accepted(_submit(form, user_of(request)), request)


class DeploymentDetailView(generics.RetrieveAPIView[Deployment]):
    """Show one deployment with its plan and its steps."""

    serializer_class = DeploymentSerializer

    def get_queryset(self) -> QuerySet[Deployment]:
        """Return the deployments that the caller may see."""
        return visible_deployments(self.request)


class DeploymentLogView(APIView):
    """Give the log of a deployment as a file."""

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        """Leave `format` to the view: a file is no answer that is rendered."""
        return JSONRenderer(), "application/json"

    def get(self, request: Request, pk: int) -> StreamingHttpResponse:
        """Return what was said by now, of all steps or of the one in the query."""
        deployment = get_object_or_404(visible_deployments(request), pk=pk)
        form = LogQuerySerializer(data=request.query_params.dict())
        form.is_valid(raise_exception=True)
        step = form.validated_data.get("step")
        if step is not None:
            get_object_or_404(deployment.steps, pk=step)
        return log_file(
            request._request, deployment.pk, step_id=step, form=form.validated_data["format"]
        )


class DeploymentCancelView(generics.GenericAPIView[Deployment]):
    """Cancel a deployment."""

    def get_queryset(self) -> QuerySet[Deployment]:
        """Return the deployments that the caller may see."""
        return visible_deployments(self.request)

    def post(self, request: Request, pk: int) -> Response:
        """Cancel it; answer 202 with the deployment, which may take a while to end."""
        form = CancelSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        deployment = cancel_deployment(
            deployment=self.get_object(), actor=user_of(request), **form.validated_data
        )
        return _accepted(deployment, request)


class DeploymentRetryView(generics.GenericAPIView[Deployment]):
    """Ask once more for what a deployment asked for."""

    def get_queryset(self) -> QuerySet[Deployment]:
        """Return the deployments that the caller may see."""
        return visible_deployments(self.request)

    def post(self, request: Request, pk: int) -> Response:
        """Retry it; answer 202 with the new deployment, or with the one of an earlier request."""
        form = RetrySerializer(data=request.data)
        form.is_valid(raise_exception=True)
        retry = retry_deployment(
            deployment=self.get_object(),
            actor=user_of(request),
            timeout_seconds=form.validated_data["timeout"],
        )
        return _accepted(retry, request)


def visible_deployments(request: Request) -> QuerySet[Deployment]:
    """Return the deployments that the caller may see."""
    rows = Deployment.objects.visible_to(user_of(request))
    return rows.select_related("application", "environment", "requested_by")


def user_of(request: Request) -> User:
    """Return the authenticated caller."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101 - every view requires authentication
    return user


def _accepted(deployment: Deployment, request: Request) -> Response:
    deployment.refresh_from_db(fields=["deadline"])  # the database has computed it
    body = DeploymentSerializer(deployment, context={"request": request}).data
    return Response(body, status=status.HTTP_202_ACCEPTED, headers={"Location": str(body["url"])})


def _submit(form: SubmitSerializer, actor: User) -> Deployment:
    data = form.validated_data
    application = _application(actor, data["application"], data.get("organisation"))
    environment = Environment.objects.filter(
        organisation=application.organisation_id, name=data["environment"]
    ).first()
    if environment is None:
        raise ValidationError({"environment": [f"There is no environment {data['environment']}."]})
    if data["kind"] == DeploymentKind.TEARDOWN:
        return submit_teardown(
            application=application,
            environment=environment,
            workloads=data.get("workloads"),
            actor=actor,
            priority=data["priority"],
            timeout_seconds=data["timeout"],
        )
    return submit_deployment(
        application=application,
        environment=environment,
        files=form.score_files(),
        actor=actor,
        commit=data["commit"],
        upgrade=data["upgrade"],
        shrink=data["shrink"],
        priority=data["priority"],
        rollback=data["rollback"],
        timeout_seconds=data["timeout"],
    )


def _application(actor: User, name: str, organisation: str | None) -> Application:
    """Return the application if the actor may see it: to others it does not exist."""
    conditions: dict[str, Any] = {"name": name}
    if organisation:
        conditions["organisation__name"] = organisation
    found = Application.objects.visible_to(actor).filter(**conditions).select_related("team")[:2]
    if not found:
        raise NotFound(f"There is no application {name}.")
    if len(found) > 1:
        raise ValidationError(
            {"organisation": [f"Several organisations have an application {name}: name one."]}
        )
    return found[0]
