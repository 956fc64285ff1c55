"""Computations as plain functions on torch tensors; they know no axes by name, no layers and no config.

Lengths are int tensors (B,), masks are bool with True = valid. The layers and the losses are thin faces over them.
"""
