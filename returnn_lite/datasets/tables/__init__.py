"""Sequences from tables and arrays."""
