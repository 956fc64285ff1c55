"""HDF files: reading, writing, the datasets over them."""
