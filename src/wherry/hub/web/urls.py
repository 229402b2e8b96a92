"""The addresses of pages. ``-`` is no component of a repository's name, so it ends one."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path, register_converter

from wherry.hub.web.views import accounts, admin, feeds, front, images, namespaces, repositories, settings

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"


class _Words:
    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class RepositoryName(_Words):
    regex = rf"{_COMPONENT}(?:/{_COMPONENT})*"


class NamespaceName(_Words):
    regex = rf"{_COMPONENT}"


class TagName(_Words):
    regex = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"


class DigestName(_Words):
    regex = r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})"


for converter, name in (
    (RepositoryName, "repo"), (NamespaceName, "space"), (TagName, "tag"), (DigestName, "digest"),
):  # fmt: skip
    register_converter(converter, name)

_REPOSITORY: list[URLPattern | URLResolver] = [
    path("tags", repositories.tags, name="tags"),
    path("tags/change", repositories.change_tags, name="change-tags"),
    path("tag/<tag:tag>", images.tag, name="tag"),
    path("image/<digest:digest>", images.image, name="image"),
    path("raw/<digest:digest>", images.raw, name="raw"),
    path("compare", images.compare, name="compare"),
    path("history/<tag:tag>", repositories.history, name="history"),
    path("activity", repositories.activity, name="activity"),
    path("feed.atom", feeds.repository, name="repository-feed"),
    path("badge/<slug:kind>.svg", feeds.badge, name="badge"),
    path("insights", repositories.insights, name="insights"),
    path("insights.csv", repositories.insights_csv, name="insights-csv"),
    path("star", repositories.star, name="star"),
    path("follow", repositories.follow, name="follow"),
    path("report", repositories.report, name="report"),
    path("settings", settings.general, name="settings"),
    path("settings/access", settings.access, name="settings-access"),
    path("settings/rules", settings.rules, name="settings-rules"),
    path("settings/webhooks", settings.webhooks, name="settings-webhooks"),
    path("settings/webhooks/<int:number>", settings.webhook, name="webhook"),
]

_NAMESPACE: list[URLPattern | URLResolver] = [
    path("follow", namespaces.follow, name="follow-namespace"),
    path("members", namespaces.members, name="members"),
    path("teams", namespaces.teams, name="teams"),
    path("robots", namespaces.robots, name="robots"),
    path("settings", namespaces.settings, name="namespace-settings"),
    path("audit", namespaces.audit, name="namespace-audit"),
    path("feed.atom", feeds.namespace, name="namespace-feed"),
]

_ADMIN: list[URLPattern | URLResolver] = [
    path("", admin.health, name="admin"),
    path("accounts", admin.accounts, name="admin-accounts"),
    path("reports", admin.reports, name="admin-reports"),
    path("invitations", admin.invitations, name="admin-invitations"),
    path("storage", admin.storage, name="admin-storage"),
    path("audit", admin.audit, name="admin-audit"),
    path("audit.csv", admin.audit_csv, name="admin-audit-csv"),
]

_ACCOUNT: list[URLPattern | URLResolver] = [
    path("", accounts.overview, name="account"),
    path("tokens/", accounts.tokens, name="tokens"),
    path("profile/", accounts.profile, name="profile"),
    path("export/", accounts.export, name="export"),
    path("delete/", accounts.delete, name="delete-account"),
    path("invitation/<str:secret>/", accounts.invitation, name="invitation"),
    path("invitation/", accounts.accept, name="accept-invitation"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", front.home, name="home"),
    path("robots.txt", front.robots, name="robots-txt"),
    path("search", front.search, name="search"),
    path("search.atom", feeds.search, name="search-feed"),
    path("new", front.new, name="new"),
    path("new/organisation", namespaces.new, name="new-organisation"),
    path("r/<repo:name>", repositories.overview, name="repository"),
    path("r/<repo:name>/-/", include(_REPOSITORY)),
    path("n/<space:name>", namespaces.overview, name="namespace"),
    path("n/<space:name>/-/", include(_NAMESPACE)),
    path("admin/", include(_ADMIN)),
    path("account/", include(_ACCOUNT)),
    path("account/", include("allauth.urls")),
]

handler400 = "wherry.hub.web.middleware.malformed"
handler403 = "wherry.hub.web.middleware.refused"
handler404 = "wherry.hub.web.middleware.missing"
handler500 = "wherry.hub.web.middleware.broken"
