"""What allauth asks of the hub, and what the hub does when allauth reports something. No other module knows
allauth, apart from its addresses and templates."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from allauth.account import signals as account_signals
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.account.decorators import reauthentication_required
from allauth.account.models import EmailAddress
from allauth.account.stages import EmailVerificationStage
from allauth.mfa import signals as factor_signals
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase

from wherry.errors import InvalidArgument
from wherry.hub.auth import secrets
from wherry.hub.core import names
from wherry.hub.store import accounts, events, invitations
from wherry.hub.store.invitations import Invitation
from wherry.hub.store.sql import Tx
from wherry.hub.web.models import Person
from wherry.hub.web.rows import read, write


def recently_logged_in(
    request: HttpRequest, view: Callable[[HttpRequest], HttpResponseBase]
) -> HttpResponseBase:
    """Answer by a view for which somebody must have logged in within the last minutes, or must give the
    password again. Who has none, because another service vouches, logs in there again."""
    records = get_authentication_records(request, cast(Person, request.user))
    if records and time.time() - records[-1]["at"] < settings.ACCOUNT_REAUTHENTICATION_TIMEOUT:
        return view(request)
    if not HubAccounts(request).get_reauthentication_methods(request.user):
        return redirect_to_login(request.path)
    answer: HttpResponseBase = reauthentication_required(view)(request)
    return answer


INVITATION = "invitation"
"""The key of a session that holds the secret of an invitation."""


def invitation_of(request: HttpRequest) -> Invitation | None:
    secret = request.session.get(INVITATION, "")
    return read(lambda tx: invitations.by_hash(tx, secrets.hashed(secret))) if secret else None


def _is_open(request: HttpRequest) -> bool:
    mode = settings.HUB.sign_up
    return mode == "open" or (mode == "invitation" and invitation_of(request) is not None)


class ConfirmedAddress(EmailVerificationStage):
    """Who signed up must confirm an address before the first log-in. An account that the operator made need
    not: it has no address, or one that the operator vouches for."""

    def handle(self) -> tuple[HttpResponseBase | None, bool]:
        user: Any = self.login.user
        # Without an account: the form of somebody whose address is in use already, who is not to notice.
        if user is not None and not EmailAddress.objects.filter(user=user).exists():
            if user.email:
                EmailAddress.objects.create(user=user, email=user.email.lower(), primary=True, verified=True)
            return None, True
        answer: tuple[HttpResponseBase | None, bool] = super().handle()  # type: ignore[no-untyped-call]
        return answer


class HubAccounts(DefaultAccountAdapter):
    """Signing up, and names."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return _is_open(request)

    def clean_username(self, username: str, shallow: bool = False) -> str:
        """The hub's rules for names: they are namespaces as well.

        :raises ValidationError:
        """
        name = username.strip().lower()
        try:
            names.check_account(name)
        except InvalidArgument as e:
            raise ValidationError(e.message) from e
        if not shallow and read(lambda tx: accounts.is_taken(tx, name)):
            raise ValidationError("This name, or one that looks like it, is already in use.")
        return name

    def clean_email(self, email: str) -> str:
        """:raises ValidationError: the invitation was sent to another address."""
        found = invitation_of(self.request) if self.request is not None else None
        if settings.HUB.sign_up == "invitation" and found and found.email and email.lower() != found.email:
            raise ValidationError("Use the address to which the invitation was sent.")
        return email.lower()

    def is_email_verified(self, request: HttpRequest, email: str) -> bool:
        """Whoever has the link of an invitation has read the mail with it."""
        found = invitation_of(request)
        if settings.HUB.mail and found is not None and found.email and found.email == email.lower():
            return True
        return bool(super().is_email_verified(request, email))

    def get_login_stages(self) -> list[str]:
        ours = f"{__name__}.{ConfirmedAddress.__name__}"
        return [ours if one.endswith("EmailVerificationStage") else one for one in super().get_login_stages()]

    def get_client_ip(self, request: HttpRequest) -> str:
        """The bridge has set it, from trusted proxies only."""
        return str(request.META.get("REMOTE_ADDR") or "0.0.0.0")


class HubIdentities(DefaultSocialAccountAdapter):
    """Signing in by another service."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return bool(settings.HUB.oidc.sign_up) or _is_open(request)


class HubFactors(DefaultMFAAdapter):
    """Second factors."""

    def get_totp_label(self, user: AbstractBaseUser) -> str:
        return user.get_username()

    def get_public_key_credential_user_entity(self, user: AbstractBaseUser) -> dict[str, Any]:
        name = user.get_username()
        return {"id": str(user.pk).encode(), "display_name": name, "name": name}


def _note(request: HttpRequest | None, user: Person, action: str, **detail: Any) -> None:
    address = str(request.META.get("REMOTE_ADDR", "")) if request is not None else ""
    write(lambda tx: events.note(tx, user.name, address, action, account=user.name, **detail))


def _password(sender: object, request: HttpRequest, user: Person, **more: Any) -> None:
    """A new password: what clients got with the old one becomes invalid."""
    write(lambda tx: accounts.end_logins(tx, user.pk))
    _note(request, user, "account.password")


def _factors(sender: object, request: HttpRequest, user: Person, authenticator: Any, **more: Any) -> None:
    kinds = [Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN]
    needed = Authenticator.objects.filter(user=user, type__in=kinds).exists()
    write(lambda tx: accounts.set_second_factor(tx, user.pk, needed))
    _note(request, user, "account.factors", kind=str(authenticator.type), needed=needed)


def _signed_up(sender: object, request: HttpRequest, user: Person, **more: Any) -> None:
    _note(request, user, "account.sign-up")
    secret = request.session.pop(INVITATION, "")
    if secret:

        def accept(tx: Tx) -> None:
            if invitations.by_hash(tx, secrets.hashed(secret)) is not None:
                invitations.accept(tx, secrets.hashed(secret), user.name)

        write(accept)


def _signed_in(sender: object, request: HttpRequest, user: Person, **more: Any) -> None:
    _note(request, user, "account.sign-in")


def connect() -> None:
    """Ask to be told. Called once, when the applications are loaded."""
    for signal in (
        account_signals.password_changed, account_signals.password_set, account_signals.password_reset,
    ):  # fmt: skip
        signal.connect(_password, weak=False)
    for signal in (factor_signals.authenticator_added, factor_signals.authenticator_removed):
        signal.connect(_factors, weak=False)
    account_signals.user_signed_up.connect(_signed_up, weak=False)
    account_signals.user_logged_in.connect(_signed_in, weak=False)


def verified_emails(user: Person) -> set[str]:
    found = EmailAddress.objects.filter(user=user, verified=True).values_list("email", flat=True)
    return {str(address).lower() for address in found}


def forget(user: Person) -> None:
    """Delete what allauth's tables know about an account: addresses, factors, sessions, other identities."""
    for session in UserSession.objects.filter(user=user):
        session.end()
    Authenticator.objects.filter(user=user).delete()
    EmailAddress.objects.filter(user=user).delete()
    SocialAccount.objects.filter(user=user).delete()


def send_mail(request: HttpRequest, template: str, email: str, context: dict[str, Any]) -> None:
    HubAccounts(request).send_mail(template, email, context)
