"""Texts and translations."""
