"""A trained network as one readable Python file that imports torch alone.

The network is run on a few batches of different sizes while every call of torch is recorded (`recorder`). Calls on
parameters alone are computed once (`folding`), calls of one function of `ops` become a function (`regions`), what
repeats becomes a loop (`loops`), what nothing needs goes (`pruning`). What the recordings have in common is written as
Python (`writer`, `module`), with sizes as expressions of shapes (`sizes`).
"""
