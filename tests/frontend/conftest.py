"""Fixtures of the tests of the frontend."""

from tests.frontend.helpers import fresh_context, version  # noqa: F401
