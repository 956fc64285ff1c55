"""Where the scalars of a training go besides its own files: TensorBoard, tables, services."""
