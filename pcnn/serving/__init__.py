"""Expressions over HTTP, and the page that reads them in the browser: see docs/server.md."""
