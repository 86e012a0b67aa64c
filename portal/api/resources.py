"""REST for what stands behind a resource: its states, and what may exist beside them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal.api.deployments import user_of
from portal.api.serializers import StrictSerializer
from provisioning.drivers.terraform.journal import import_block
from provisioning.models import Resource, StateVersion
from provisioning.services.state import events, versions


class StateVersionSerializer(serializers.ModelSerializer[StateVersion]):
    """A stored state, without what it holds."""

    deployment = serializers.IntegerField(source="step.deployment_id", default=None)

    class Meta:
        model = StateVersion
        fields = ("number", "serial", "lineage", "size", "created_at", "deployment", "stored_by")


class ReasonSerializer(StrictSerializer):
    """Why somebody does something."""

    reason = serializers.CharField(max_length=2000)


class ResourceView(APIView):
    """Be about one resource that the caller may see."""

    def resource(self, request: Request, pk: UUID) -> Resource:
        """Return the resource: to others it does not exist."""
        rows = Resource.objects.visible_to(user_of(request)).select_related("owner_team")
        found = rows.select_related("environment").filter(pk=pk).first()
        if found is None:
            raise NotFound(f"There is no resource {pk}.")
        return found

    def reason(self, request: Request) -> str:
        """Return the reason that the body gives."""
        form = ReasonSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        return str(form.validated_data["reason"])


class StateListView(ResourceView):
    """List the stored versions of a resource's state."""

    def get(self, request: Request, pk: UUID) -> Response:
        """Answer with where the state is kept, and its versions, newest first."""
        resource = self.resource(request, pk)
        rows = versions.list_versions(resource=resource, actor=user_of(request))
        return Response(
            {
                "backend": resource.state_backend,
                "location": resource.state_location,
                "versions": StateVersionSerializer(rows, many=True).data,
            }
        )


class StateDetailView(ResourceView):
    """Show the names of what a version holds."""

    def get(self, request: Request, pk: UUID, number: int) -> Response:
        """Answer without any value."""
        resource, actor = self.resource(request, pk), user_of(request)
        version, contents = versions.show_version(resource=resource, number=number, actor=actor)
        body: dict[str, Any] = dict(StateVersionSerializer(version).data)
        return Response(
            body
            | {
                "resources": contents.resources,
                "outputs": [
                    {"name": name, "sensitive": name in contents.sensitive}
                    for name in contents.outputs
                ],
            }
        )


class StateContentView(ResourceView):
    """Reveal a whole state."""

    def get(self, request: Request, pk: UUID, number: int) -> HttpResponse:
        """Answer with the state itself; this is audited."""
        resource, actor = self.resource(request, pk), user_of(request)
        state = versions.pull_state(resource=resource, number=number, actor=actor)
        headers = {"Cache-Control": "no-store"}
        return HttpResponse(state, content_type="application/json", headers=headers)


class StateRestoreView(ResourceView):
    """Restore an older state."""

    def post(self, request: Request, pk: UUID, number: int) -> Response:
        """Store it as a new version; answer 201 with that."""
        resource, actor = self.resource(request, pk), user_of(request)
        version = versions.restore_version(
            resource=resource, number=number, reason=self.reason(request), actor=actor
        )
        return Response(StateVersionSerializer(version).data, status=status.HTTP_201_CREATED)


class StateAcceptView(ResourceView):
    """Take the external state that is there for the right one."""

    def post(self, request: Request, pk: UUID) -> Response:
        """Answer 204."""
        resource, actor = self.resource(request, pk), user_of(request)
        versions.accept_state(resource=resource, reason=self.reason(request), actor=actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class OrphansView(ResourceView):
    """Tell what may exist beside a resource's state."""

    def get(self, request: Request, pk: UUID) -> Response:
        """Answer with each possible orphan and its import block."""
        return _orphans(events.list_orphans(resource=self.resource(request, pk)))

    def delete(self, request: Request, pk: UUID) -> Response:
        """Forget them, because somebody has looked; answer with what is forgotten."""
        resource, actor = self.resource(request, pk), user_of(request)
        return _orphans(
            events.dismiss_orphans(resource=resource, reason=self.reason(request), actor=actor)
        )


def _orphans(found: list[Any]) -> Response:
    return Response(
        [
            {
                "address": each.address,
                "type": each.type,
                "id_key": each.id_key,
                "id": each.id_value or None,
                "import": import_block(each),
            }
            for each in found
        ]
    )
