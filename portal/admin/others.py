"""Takes back what other packages put into the admin."""

from __future__ import annotations

# Imported before the admin's own discovery comes to them, so that they are registered by now.
import django_q.admin
import rest_framework.authtoken.admin
from django.contrib import admin
from django_q.models import Failure, OrmQ, Schedule, Success
from rest_framework.authtoken.models import TokenProxy

__all__ = ["django_q", "rest_framework"]

# A task names a function to call: whoever edits one runs code. What there is to see of the work
# stands in deployments, steps and workers.
admin.site.unregister([Failure, OrmQ, Schedule, Success])
# Its pages show tokens, and whoever reads one acts as its owner. `drf_create_token -r USER` makes a
# new one in place of one that should no longer be good.
admin.site.unregister(TokenProxy)
