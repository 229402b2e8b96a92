"""The JSON API, for programs and for the client: what the pages do, by the same functions (``service``).

It takes only an ``Authorization`` header and never a browser's cookie, so that no other site can use it
through a browser."""
