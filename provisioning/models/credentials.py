"""What the tools of one environment may sign in with."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from provisioning.models.organisation import Environment

VARIABLE_VALIDATOR = RegexValidator(
    r"\A[A-Za-z_][A-Za-z0-9_]*\Z", "Use the name of an environment variable, such as AWS_PROFILE."
)


class Credential(models.Model):
    """A variable that the tools of an environment's steps get, and no others."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="credentials")
    name = models.CharField(max_length=100, validators=[VARIABLE_VALIDATOR])
    ciphertext = models.TextField(blank=True, help_text="The value, encrypted.")
    reference = models.CharField(
        max_length=300,
        blank=True,
        help_text="Instead of a value: where the worker finds it, as env:NAME or file:PATH.",
    )
    as_file = models.BooleanField(
        default=False, help_text="The variable holds the path of a file with the value."
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "name"], name="credential_name_unique"),
            models.CheckConstraint(
                condition=Q(ciphertext="") ^ Q(reference=""), name="credential_value_or_reference"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.environment_id}"
