"""Networks as programs for other runtimes: `torch.export` (.pt2) and ONNX, with any number of sequences and frames.

What is exported is the plain torch module that `to_torch` writes (`part`), of a layer's output (`net_part`) or of a
decoder's start and step (`step_parts`). Some of its calls are replaced by forms that
depend on no size (`portable`); `program` makes the exported program, `onnx_file` translates it. A JSON file says what
goes in and out (`ports`). All of it is compared with the network before it is written (`task`).
"""
