"""The pages as an application of Django's."""

from __future__ import annotations

from django.apps import AppConfig


class HubPages(AppConfig):
    name = "wherry.hub.web"
    label = "hub"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from wherry.hub.web import adapters

        adapters.connect()
