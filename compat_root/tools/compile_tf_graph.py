#!/usr/bin/env python3
"""Says that there are no TensorFlow graphs."""

import sys

sys.exit("compile_tf_graph.py: there is no TensorFlow graph to compile; the networks run on torch")
