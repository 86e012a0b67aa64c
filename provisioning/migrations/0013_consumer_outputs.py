"""Let resources give outputs to one user alone."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("provisioning", "0012_scheduling"),
    ]

    operations = [
        migrations.CreateModel(
            name="ConsumerOutput",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(max_length=200)),
                ("sensitive", models.BooleanField(default=False)),
                ("value", models.JSONField(blank=True, null=True)),
                ("ciphertext", models.TextField(blank=True)),
                (
                    "consumer",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="own_outputs",
                        to="provisioning.resourceconsumer",
                    ),
                ),
                (
                    "dependent",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="own_outputs",
                        to="provisioning.resource",
                    ),
                ),
                (
                    "resource",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="consumer_outputs",
                        to="provisioning.resource",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("resource", "consumer", "dependent", "key"),
                        name="consumer_output_key_unique",
                        nulls_distinct=False,
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("consumer", None), ("dependent__isnull", False)),
                            models.Q(("consumer__isnull", False), ("dependent", None)),
                            _connector="OR",
                        ),
                        name="consumer_output_of_one",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("ciphertext", ""), ("sensitive", False)),
                            models.Q(
                                ("sensitive", True),
                                ("value__isnull", True),
                                models.Q(("ciphertext", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="consumer_output_sensitive_only_encrypted",
                    ),
                ],
            },
        ),
    ]
