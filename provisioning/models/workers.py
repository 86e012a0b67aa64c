"""The processes that take steps."""

from __future__ import annotations

import uuid

from django.db import models


class Worker(models.Model):
    """One worker command on one host, as it last said of itself."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=50, blank=True)
    queues = models.JSONField(default=list)
    tools = models.JSONField(default=dict, help_text="{tool: version} found on this host.")
    sandbox = models.CharField(
        max_length=30, blank=True, help_text="In what its tools are shut off from the host."
    )
    draining = models.BooleanField(
        default=False, help_text="It ends what it runs, and takes nothing."
    )
    started_at = models.DateTimeField(auto_now_add=True)
    last_seen_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["last_seen_at"], name="worker_last_seen_idx")]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid} ({self.id})"
