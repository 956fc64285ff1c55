"""Training steps recorded once for each shape of a batch, and repeated as one launch: CUDA graphs."""
