"""Artificial data."""
