#!/usr/bin/env python3
"""Says that the export to ONNX is not supported."""

import sys

sys.exit("torch_export_to_onnx.py: the export to ONNX is not supported; model files are dicts of tensors (torch.load)")
