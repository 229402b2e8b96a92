"""Tell Django of the accounts' table, which the hub's own scripts make; other tables refer to it."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Person",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.TextField(unique=True)),
                ("email", models.EmailField(max_length=254, null=True, unique=True)),
                ("password", models.TextField()),
                ("is_active", models.BooleanField(db_column="active", default=True)),
                ("admin", models.BooleanField(default=False, editable=False)),
                ("second_factor", models.BooleanField(default=False, editable=False)),
                ("created", models.BigIntegerField(default=0, editable=False)),
            ],
            options={"db_table": "account", "managed": False},
        )
    ]
