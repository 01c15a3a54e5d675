"""The service: the recipe over HTTP, live over a WebSocket, and the page. Needs the ``serve`` extra."""
