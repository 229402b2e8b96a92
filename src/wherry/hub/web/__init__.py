"""The pages for people: Django and django-allauth, called from a few threads of the hub's own process.

Only a process with the role ``web`` imports this room. ``bridge`` leads requests to it, ``configuring`` sets
Django up, ``adapters`` is the one module that knows allauth. Pages read and change rows by the same functions
as everything else (``service``, ``store``), on Django's connection (``rows``); Django's own tables are those
of sessions, e-mail addresses and second factors."""
