"""The hub's accounts, as Django's users. The table is the hub's own (``store/migrations``); Django reads it
and changes e-mail address and password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models, transaction

from wherry.hub.store import accounts
from wherry.hub.web.rows import DjangoTx


class Accounts(BaseUserManager["Person"]):
    """Django's name for the table."""


class Person(AbstractBaseUser):
    """A row of ``account``."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    name: models.TextField[str, str] = models.TextField(unique=True)
    email: models.EmailField[str | None, str | None] = models.EmailField(
        unique=True, null=True, max_length=254
    )
    password: models.TextField[str, str] = models.TextField()
    is_active: models.BooleanField[bool, bool] = models.BooleanField(db_column="active", default=True)
    admin: models.BooleanField[bool, bool] = models.BooleanField(default=False, editable=False)
    second_factor: models.BooleanField[bool, bool] = models.BooleanField(default=False, editable=False)
    created: models.BigIntegerField[int, int] = models.BigIntegerField(default=0, editable=False)
    last_login = None

    objects = Accounts()
    USERNAME_FIELD = "name"
    EMAIL_FIELD = "email"

    class Meta:
        app_label = "hub"
        db_table = "account"
        managed = False

    def save(self, *args: Any, **options: Any) -> None:
        """A new account gets its namespace in the same transaction.

        :raises Conflict: the name or the address was taken meanwhile.
        """
        self.email = self.email or None
        if self.pk is not None:
            super().save(*args, **options)
            return
        with transaction.atomic():
            self.pk = accounts.add(DjangoTx(), self.name, self.password, admin=False, email=self.email)
        self._state.adding = False

    def get_full_name(self) -> str:
        return self.name

    get_short_name = get_full_name

    @property
    def is_staff(self) -> bool:
        return False

    @property
    def is_superuser(self) -> bool:
        return False

    def has_perm(self, permission: str, thing: object = None) -> bool:
        return False
