"""Writing HDF files that `HDFDataset` reads."""

from returnn_lite.compat.modules.client import SimpleHDFWriter

__all__ = ["SimpleHDFWriter"]
