"""Django's settings, from the hub's configuration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_MIDDLEWARE = [
    "wherry.hub.web.middleware.protect",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
    "wherry.hub.web.middleware.explain",
]


@dataclass(frozen=True)
class Oidc:
    """Another service that people can sign in with; empty: none."""

    issuer: str = ""
    client: str = ""
    secret: str = ""
    name: str = "single sign-on"
    sign_up: bool = True

    @property
    def origin(self) -> str:
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}" if self.issuer else ""


@dataclass(frozen=True)
class WebConfig:
    """:ivar database: ``postgresql://…`` or the path of the SQLite file.
    :ivar url: the hub's address for people, without a slash at the end; empty: as in the request.
    :ivar mail: ``smtp://…``, ``smtps://…``, ``file:///DIR``; empty: no mail can be sent.
    :ivar admin_factor: whether administrators need a second factor for what only they can do.
    """

    database: str
    secret: str
    url: str = ""
    secure: bool = False
    sign_up: str = "closed"
    mail: str = ""
    mail_from: str = ""
    admin_factor: bool = True
    title: str = "wherry hub"
    oidc: Oidc = field(default_factory=Oidc)


def _mail(config: WebConfig) -> dict[str, Any]:
    if not config.mail:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    parts = urlsplit(config.mail)
    sender = config.mail_from or f"hub@{urlsplit(config.url).hostname or 'localhost'}"
    if parts.scheme == "file":
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "EMAIL_FILE_PATH": parts.path,
            "DEFAULT_FROM_EMAIL": sender,
        }
    return {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": parts.port or (465 if parts.scheme == "smtps" else 587),
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": parts.scheme == "smtps",
        "EMAIL_USE_TLS": parts.scheme == "smtp" and parts.hostname not in ("localhost", "127.0.0.1"),
        "EMAIL_TIMEOUT": 15,
        "DEFAULT_FROM_EMAIL": sender,
    }


def _database(config: WebConfig) -> dict[str, Any]:
    common = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    if config.database.startswith(("postgresql://", "postgres://")):
        from psycopg import conninfo

        parts: dict[str, Any] = dict(conninfo.conninfo_to_dict(config.database))
        names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
        found = {name: str(parts.pop(key)) for key, name in names.items() if key in parts}
        parts.setdefault("connect_timeout", 10)
        return {"ENGINE": "django.db.backends.postgresql", **found, "OPTIONS": parts, **common}
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(config.database)),
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
        },
        **common,
    }


def _allauth(config: WebConfig) -> dict[str, Any]:
    fields = ["username*", "password1*", "password2*"]
    if config.mail:
        fields.insert(1, "email*")
    oidc = config.oidc
    applications = [
        {
            "provider_id": "sso", "name": oidc.name, "client_id": oidc.client, "secret": oidc.secret,
            "settings": {"server_url": oidc.issuer, "oauth_pkce_enabled": True},
        }
    ]  # fmt: skip
    return {
        "ACCOUNT_ADAPTER": "wherry.hub.web.adapters.HubAccounts",
        "SOCIALACCOUNT_ADAPTER": "wherry.hub.web.adapters.HubIdentities",
        "MFA_ADAPTER": "wherry.hub.web.adapters.HubFactors",
        "ACCOUNT_USER_MODEL_USERNAME_FIELD": "name",
        "ACCOUNT_LOGIN_METHODS": {"username", "email"} if config.mail else {"username"},
        "ACCOUNT_SIGNUP_FIELDS": fields,
        "ACCOUNT_EMAIL_VERIFICATION": "mandatory" if config.mail else "none",
        "ACCOUNT_EMAIL_NOTIFICATIONS": bool(config.mail),
        "ACCOUNT_EMAIL_SUBJECT_PREFIX": f"[{config.title}] ",
        "ACCOUNT_EMAIL_CONFIRMATION_EXPIRE_DAYS": 1,
        "ACCOUNT_MAX_EMAIL_ADDRESSES": 5,
        "ACCOUNT_PREVENT_ENUMERATION": True,
        "ACCOUNT_PRESERVE_USERNAME_CASING": False,
        "ACCOUNT_USERNAME_MIN_LENGTH": 2,
        "ACCOUNT_REAUTHENTICATION_REQUIRED": True,
        "ACCOUNT_REAUTHENTICATION_TIMEOUT": 900,
        "ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE": False,
        "ACCOUNT_SESSION_REMEMBER": None,
        "ACCOUNT_DEFAULT_HTTP_PROTOCOL": "https" if config.secure else "http",
        "SOCIALACCOUNT_AUTO_SIGNUP": False,
        "SOCIALACCOUNT_STORE_TOKENS": False,
        "SOCIALACCOUNT_EMAIL_AUTHENTICATION": False,
        "SOCIALACCOUNT_LOGIN_ON_GET": False,
        "SOCIALACCOUNT_PROVIDERS": {"openid_connect": {"APPS": applications}} if oidc.issuer else {},
        "MFA_SUPPORTED_TYPES": ["totp", "webauthn", "recovery_codes"],
        "MFA_PASSKEY_LOGIN_ENABLED": True,
        "MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN": not config.secure,
        "MFA_TOTP_ISSUER": config.title,
        "MFA_RECOVERY_CODES_SHOW_ONCE": True,
    }


def _cookies(config: WebConfig) -> dict[str, Any]:
    """With TLS, a name that browsers accept from this very host only."""
    cookie = "__Host-" if config.secure else ""
    return {
        "SESSION_COOKIE_NAME": f"{cookie}hub-session",
        "SESSION_COOKIE_SECURE": config.secure,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_AGE": 14 * 86400,
        "CSRF_COOKIE_NAME": f"{cookie}hub-csrf",
        "CSRF_COOKIE_SECURE": config.secure,
        "CSRF_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_SAMESITE": "Lax",
        "CSRF_FAILURE_VIEW": "wherry.hub.web.middleware.forged",
    }


def _people() -> dict[str, Any]:
    return {
        "AUTH_USER_MODEL": "hub.Person",
        "AUTHENTICATION_BACKENDS": ["allauth.account.auth_backends.AuthenticationBackend"],
        "PASSWORD_HASHERS": ["wherry.hub.web.hashing.HubHasher"],
        "AUTH_PASSWORD_VALIDATORS": [
            {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
            for name, options in (
                ("MinimumLengthValidator", {"min_length": 8}),
                ("UserAttributeSimilarityValidator", {"user_attributes": ("name", "email")}),
                ("CommonPasswordValidator", {}),
            )
        ],
    }


def _templates() -> list[dict[str, Any]]:
    return [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [Path(__file__).parent / "templates"],
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                    "wherry.hub.web.asking.context",
                ],
                "builtins": ["wherry.hub.web.templatetags.hub"],
            },
        }
    ]


def configure(config: WebConfig) -> None:
    """Set Django up, once for a process."""
    import django
    from django.conf import settings

    host = urlsplit(config.url).hostname
    settings.configure(
        DEBUG=False,
        SECRET_KEY=config.secret,
        # Without a configured address, nothing that is sent by mail has a link.
        ALLOWED_HOSTS=[host] if host else ["*"],
        CSRF_TRUSTED_ORIGINS=[config.url] if config.url else [],
        ROOT_URLCONF="wherry.hub.web.urls",
        APPEND_SLASH=False,
        INSTALLED_APPS=[
            "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
            "django.contrib.messages", "django.contrib.staticfiles", "django.contrib.humanize",
            "wherry.hub.web.apps.HubPages", "allauth", "allauth.account", "allauth.mfa",
            "allauth.usersessions", "allauth.socialaccount",
            "allauth.socialaccount.providers.openid_connect",
        ],
        MIDDLEWARE=_MIDDLEWARE,
        TEMPLATES=_templates(),
        DATABASES={"default": _database(config)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGIN_URL="/account/login/",
        LOGIN_REDIRECT_URL="/",
        LOGOUT_REDIRECT_URL="/",
        STATIC_URL="/static/",
        STORAGES={
            "staticfiles": {"BACKEND": "wherry.hub.web.files.HubAssets"},
            "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        },
        FILE_UPLOAD_HANDLERS=["django.core.files.uploadhandler.MemoryFileUploadHandler"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=1 << 20,
        DATA_UPLOAD_MAX_NUMBER_FIELDS=500,
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        USE_TZ=True,
        TIME_ZONE="UTC",
        LANGUAGE_CODE="en",
        USE_I18N=False,
        LANGUAGES=[("en", "English")],
        LOGGING_CONFIG=None,
        HUB=config,
        **_cookies(config),
        **_people(),
        **_allauth(config),
        **_mail(config),
    )  # fmt: skip
    django.setup()
    # What clients do wrong is in their answers; it is no matter for the operator's log.
    logging.getLogger("django.security").setLevel(logging.CRITICAL)
    logging.getLogger("django.request").setLevel(logging.ERROR)
