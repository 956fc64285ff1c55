#!/usr/bin/env python3
"""Says that there are no ops to compile."""

import sys

sys.exit("compile_native_op.py: there is no native op to compile; the networks run on torch")
