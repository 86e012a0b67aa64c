"""A consumer that is put out while a deployment is about to bring about what follows it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.models import Approval, ResourceConsumer
from provisioning.services.approvals import approve
from provisioning.services.deployments.submit import confirm_deployment
from provisioning.services.sharing import revoke
from tests.provisioning.place import Place
from tests.provisioning.services.owners import SHARED, USED, ask, owned

__all__ = ["owned"]

pytestmark = pytest.mark.django_db


def test_what_lost_the_use_under_way_fails_and_ends_its_deployment(
    owned: Place, bob: User, charlie: User
) -> None:
    owned.done(approve(approval=ask(owned, bob, USED), actor=charlie))
    deployment = owned.submit(SHARED + "    params: {size: 2}\n")
    consumer = ResourceConsumer.objects.get(
        state="active", workload__application__name="billing", alias="cache"
    )
    revoke(consumer=consumer, reason="Enough.", actor=charlie)

    assert owned.done(deployment).status == "failed"
    assert owned.resource("private/billing/web/db/database.default").state == "failed"


def test_an_approval_is_not_of_a_later_resource_of_the_same_name(
    owned: Place, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob)
    Approval.objects.filter(pk=approval.pk).update(status="approved")
    deployment = approval.deployment
    type(deployment).objects.filter(pk=deployment.pk).update(status="pending_confirmation")
    owned.teardown("shop")
    owned.deploy(SHARED, application="other")

    for _ in range(2):
        deployment.refresh_from_db()
        if deployment.status == "pending_confirmation":
            deployment = confirm_deployment(deployment=deployment, actor=bob)

    assert deployment.status == "pending_approval"
