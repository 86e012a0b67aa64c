"""What REST takes and gives."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from portal.log_file import FORMATS
from provisioning.durations import DurationError, read_duration
from provisioning.models import Approval, Deployment, DeploymentKind, Step
from provisioning.services.deployments import wishes_not_met
from provisioning.services.deployments.priority import PriorityError, parse_priority

FILES_LIMIT = 200
TEXT_LIMIT = 2_000_000


class StrictSerializer(serializers.Serializer[Any]):
    """Refuse fields that nobody reads: most often they are misspelt."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            known = ", ".join(self.fields)
            raise serializers.ValidationError(
                {name: [f"There is no such field. There are {known}."] for name in unknown}
            )
        return super().to_internal_value(data)


class DurationField(serializers.Field[int, Any, int, Any]):
    """Take seconds, or text like `30m`."""

    def to_internal_value(self, data: Any) -> int:
        try:
            return read_duration(data)
        except DurationError as error:
            raise serializers.ValidationError(str(error)) from error

    def to_representation(self, value: int) -> int:
        return value


class ScoreFileSerializer(StrictSerializer):
    """One Score file."""

    name = serializers.CharField(max_length=300)
    text = serializers.CharField(max_length=TEXT_LIMIT, trim_whitespace=False)


class SubmitSerializer(StrictSerializer):
    """A request to deploy Score files, or to tear workloads down."""

    kind = serializers.ChoiceField(
        choices=[DeploymentKind.DEPLOY, DeploymentKind.TEARDOWN], default=DeploymentKind.DEPLOY
    )
    organisation = serializers.CharField(required=False)
    application = serializers.CharField()
    environment = serializers.CharField()
    score = serializers.CharField(required=False, max_length=TEXT_LIMIT, trim_whitespace=False)
    files = ScoreFileSerializer(many=True, required=False, allow_empty=False)
    workloads = serializers.ListField(
        child=serializers.CharField(), required=False, allow_empty=False
    )
    upgrade = serializers.BooleanField(default=False)
    shrink = serializers.BooleanField(default=False)
    rollback = serializers.BooleanField(default=False)
    timeout = DurationField(default=None, allow_null=True)
    commit = serializers.CharField(default="", allow_blank=True, max_length=100)
    priority = serializers.CharField(default="normal")

    def validate_priority(self, given: str) -> int:
        """Read a name or a number."""
        try:
            return parse_priority(given)
        except PriorityError as error:
            raise serializers.ValidationError(str(error)) from error

    def validate_files(self, files: list[dict[str, str]]) -> list[dict[str, str]]:
        """Refuse more files than one application can sensibly have."""
        if len(files) > FILES_LIMIT:
            raise serializers.ValidationError(f"No more than {FILES_LIMIT} files are taken.")
        return files

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse fields that contradict the kind."""
        given = {"score", "files"} & set(attrs)
        if attrs["kind"] == DeploymentKind.TEARDOWN:
            wrong = sorted(given) + [
                name for name in ("upgrade", "shrink", "rollback", "commit") if attrs[name]
            ]
            if wrong:
                raise serializers.ValidationError(
                    {name: ["A teardown takes none."] for name in wrong}
                )
            return attrs
        if len(given) != 1:
            raise serializers.ValidationError(
                {"score": ["Give either score (one text) or files (a list of name and text)."]}
            )
        if "workloads" in attrs:
            raise serializers.ValidationError(
                {"workloads": ["Only a teardown takes them; a deployment covers its files."]}
            )
        return attrs

    def score_files(self) -> list[tuple[str, str]]:
        """Return the files as (name, text)."""
        data = self.validated_data
        if "score" in data:
            return [("score.yaml", data["score"])]
        return [(file["name"], file["text"]) for file in data["files"]]


class LogQuerySerializer(StrictSerializer):
    """Which part of a log, and how."""

    step = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    format = serializers.ChoiceField(choices=sorted(FORMATS), default="text")


class CancelSerializer(StrictSerializer):
    """A request to cancel a deployment."""

    reason = serializers.CharField(default="", allow_blank=True, max_length=1000)


class RetrySerializer(StrictSerializer):
    """A request to retry a deployment."""

    timeout = DurationField(default=None, allow_null=True)


class StepSerializer(serializers.ModelSerializer[Step]):
    """One step of a deployment."""

    resource = serializers.CharField(source="resource.uid")
    resource_id = serializers.UUIDField()

    class Meta:
        model = Step
        fields = (
            "id",
            "action",
            "resource",
            "resource_id",
            "status",
            "attempt",
            "driver_ran",
            "blocked_by",
            "error",
            "started_at",
            "finished_at",
        )


class ApprovalSerializer(serializers.ModelSerializer[Approval]):
    """One question of a deployment to a team's owners, and their answer."""

    resource = serializers.CharField(source="key")
    team = serializers.CharField(source="team.name")

    class Meta:
        model = Approval
        fields = (
            "id",
            "kind",
            "resource",
            "team",
            "status",
            "asks",
            "asked_by",
            "decided_by",
            "comment",
            "created_at",
            "decided_at",
            "expires_at",
        )


class DeploymentSummarySerializer(serializers.ModelSerializer[Deployment]):
    """A deployment in a list."""

    url = serializers.HyperlinkedIdentityField(view_name="portal:api-deployment")
    application = serializers.CharField(source="application.name", default=None)
    environment = serializers.CharField(source="environment.name")
    reason = serializers.CharField(source="status_reason")
    workloads = serializers.ListField(source="workload_names", child=serializers.CharField())
    requested_by = serializers.CharField(source="requested_by.username", default=None)
    retry_of = serializers.IntegerField(source="retry_of_id")
    rollback_of = serializers.IntegerField(source="rollback_of_id")

    class Meta:
        model = Deployment
        fields: tuple[str, ...] = (
            "id",
            "url",
            "kind",
            "application",
            "environment",
            "workloads",
            "status",
            "reason",
            "requested_by",
            "commit",
            "upgrade",
            "priority",
            "rollback",
            "retry_of",
            "rollback_of",
            "created_at",
            "started_at",
            "deadline",
            "finished_at",
        )


class DeploymentSerializer(DeploymentSummarySerializer):
    """A deployment with its plan, its questions and its steps; none of them holds a secret."""

    approvals = serializers.SerializerMethodField()
    wishes_not_met = serializers.SerializerMethodField()
    steps = serializers.SerializerMethodField()

    class Meta(DeploymentSummarySerializer.Meta):
        fields = (
            *DeploymentSummarySerializer.Meta.fields,
            "plan",
            "plan_digest",
            "approvals",
            "wishes_not_met",
            "steps",
        )

    def get_approvals(self, deployment: Deployment) -> list[dict[str, Any]]:
        """Return what was asked of owners, oldest first."""
        approvals = deployment.approvals.select_related("team").order_by("pk")
        return list(ApprovalSerializer(approvals, many=True).data)

    def get_wishes_not_met(self, deployment: Deployment) -> list[str]:
        """Return what consumers were told of wishes that it has left unmet."""
        return wishes_not_met(deployment)

    def get_steps(self, deployment: Deployment) -> list[dict[str, Any]]:
        """Return the steps in the plan's order."""
        steps = deployment.steps.select_related("resource").order_by("position")
        return list(StepSerializer(steps, many=True).data)
