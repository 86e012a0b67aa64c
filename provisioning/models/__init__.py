"""Conductor's models, one file per noun."""

from __future__ import annotations

from provisioning.models.approvals import Approval, ApprovalKind, ApprovalStatus, Grant
from provisioning.models.audit import AuditEvent
from provisioning.models.catalog import (
    ResourceTemplate,
    ResourceTemplateVersion,
    ShrinkPolicy,
    TemplateRule,
    VersionState,
)
from provisioning.models.credentials import Credential
from provisioning.models.dependencies import DependencyKind, ResourceDependency
from provisioning.models.deployments import (
    Deployment,
    DeploymentKind,
    DeploymentStatus,
    Scope,
)
from provisioning.models.figures import Figure
from provisioning.models.maintenance import MaintenanceMode
from provisioning.models.organisation import (
    Application,
    Environment,
    EnvironmentKind,
    Membership,
    Organisation,
    Role,
    Team,
    Workload,
)
from provisioning.models.outputs import ConsumerOutput, ResourceOutput
from provisioning.models.pools import ResourcePool
from provisioning.models.resources import (
    ConsumerMode,
    ConsumerState,
    DeletionPolicy,
    Resource,
    ResourceConsumer,
    ResourceState,
    SharingPolicy,
)
from provisioning.models.state import PossibleOrphan, StateLock, StateVersion, ToolEvent
from provisioning.models.steps import LogChunk, Step, StepAction, StepStatus
from provisioning.models.workers import Worker

__all__ = [
    "Application",
    "Approval",
    "ApprovalKind",
    "ApprovalStatus",
    "AuditEvent",
    "ConsumerMode",
    "ConsumerOutput",
    "ConsumerState",
    "Credential",
    "DeletionPolicy",
    "DependencyKind",
    "Deployment",
    "DeploymentKind",
    "DeploymentStatus",
    "Environment",
    "EnvironmentKind",
    "Figure",
    "Grant",
    "LogChunk",
    "MaintenanceMode",
    "Membership",
    "Organisation",
    "PossibleOrphan",
    "Resource",
    "ResourceConsumer",
    "ResourceDependency",
    "ResourceOutput",
    "ResourcePool",
    "ResourceState",
    "ResourceTemplate",
    "ResourceTemplateVersion",
    "Role",
    "Scope",
    "SharingPolicy",
    "ShrinkPolicy",
    "StateLock",
    "StateVersion",
    "Step",
    "StepAction",
    "StepStatus",
    "Team",
    "TemplateRule",
    "ToolEvent",
    "VersionState",
    "Worker",
    "Workload",
]
