"""Datasets that are read from front to back, whose length need not be known."""
