"""Trainings that an agent drives: the engine's own epochs, from outside, without files."""
