from __future__ import annotations

from django.urls import URLPattern, URLResolver, path
from django.views.generic import RedirectView

from portal.api import resources, state
from portal.api.deployments import (
    DeploymentCancelView,
    DeploymentDetailView,
    DeploymentListView,
    DeploymentLogView,
    DeploymentRetryView,
)
from portal.views import (
    approvals,
    deployments,
    events,
    health,
    logs,
    metrics,
    probes,
    workers,
)

app_name = "portal"
RESOURCE = "api/v1/resources/<uuid:pk>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="portal:deployments"), name="home"),
    path("deployments/", deployments.index, name="deployments"),
    path("deployments/<int:pk>/", deployments.detail, name="deployment"),
    path("deployments/<int:pk>/status/", deployments.status, name="deployment-status"),
    path("deployments/<int:pk>/confirm/", deployments.confirm, name="deployment-confirm"),
    path("deployments/<int:pk>/cancel/", deployments.cancel, name="deployment-cancel"),
    path("deployments/<int:pk>/retry/", deployments.retry, name="deployment-retry"),
    path("deployments/<int:pk>/log/", logs.download, name="deployment-log"),
    path("deployments/<int:pk>/log/pane/", logs.pane, name="deployment-log-pane"),
    path("deployments/<int:pk>/log/events/", events.events, name="deployment-log-events"),
    path("deployments/<int:pk>/steps/<int:step_pk>/log/", logs.step, name="step-log"),
    path("approvals/", approvals.index, name="approvals"),
    path("approvals/<int:pk>/", approvals.decide, name="approval-decide"),
    path("workers/", workers.index, name="workers"),
    path("workers/<uuid:pk>/draining/", workers.drain, name="worker-drain"),
    path("health/", health.index, name="health"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("api/v1/deployments/", DeploymentListView.as_view(), name="api-deployments"),
    path("api/v1/deployments/<int:pk>/", DeploymentDetailView.as_view(), name="api-deployment"),
    path(
        "api/v1/deployments/<int:pk>/log/", DeploymentLogView.as_view(), name="api-deployment-log"
    ),
    path("api/v1/deployments/<int:pk>/cancel/", DeploymentCancelView.as_view(), name="api-cancel"),
    path("api/v1/deployments/<int:pk>/retry/", DeploymentRetryView.as_view(), name="api-retry"),
    path(f"{RESOURCE}/state/", resources.StateListView.as_view()),
    path(f"{RESOURCE}/state/<int:number>/", resources.StateDetailView.as_view()),
    path(f"{RESOURCE}/state/<int:number>/content/", resources.StateContentView.as_view()),
    path(f"{RESOURCE}/state/<int:number>/restore/", resources.StateRestoreView.as_view()),
    path(f"{RESOURCE}/state/accept/", resources.StateAcceptView.as_view()),
    path(f"{RESOURCE}/orphans/", resources.OrphansView.as_view()),
    path("api/state/<uuid:pk>", state.StateView.as_view(), name="state"),
]
