from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from provisioning.services.approvals import approve
from provisioning.services.resources.shared import inspect_shared
from tests.provisioning.place import Place
from tests.provisioning.services.owners import ask, owned

__all__ = ["owned"]

pytestmark = pytest.mark.django_db


def test_who_had_to_ask_uses_it_since_that_was_allowed(
    owned: Place, bob: User, charlie: User
) -> None:
    approval = ask(owned, bob)
    assert len(inspect_shared(organisation=owned.organisation, name="cache").uses) == 1

    allowed = owned.done(approve(approval=approval, actor=charlie))

    first, second = inspect_shared(organisation=owned.organisation, name="cache").uses
    assert (second.consumer, second.since) == ("billing/web", allowed.started_at)
    assert first.since < approval.created_at < second.since
