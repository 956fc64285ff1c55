"""Agents that learn to choose learning rates: their environment is a training of the engine, an epoch a step."""
