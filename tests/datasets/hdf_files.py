"""Small HDF files for the tests."""

import h5py
import numpy as np


def write(path, lens=(3, 2, 4), dim=2, tags=None, classes=None, attrs=None, **arrays):
    """A file of inputs 0, 1, 2, … with targets "classes" if their number is given; arrays replace content."""
    total = int(sum(lens))
    content = {
        "inputs": np.arange(total * dim, dtype="float32").reshape(total, dim),
        "seqLengths": np.stack([lens, lens if classes else np.zeros(len(lens))], 1).astype("int32"),
        "seqTags": np.array(tags or [f"t{i}" for i in range(len(lens))], object),
    }
    if classes:
        content["targets/data/classes"] = np.arange(total, dtype="int32") % classes
        content["targets/labels/classes"] = np.array([f"l{i}".encode() for i in range(classes)])
    with h5py.File(path, "w") as file:
        for name, array in {**content, **arrays}.items():
            if array is not None:
                file[name] = array
        if classes:
            file.require_group("targets/size").attrs["classes"] = [classes, 1]
        file.attrs.update(attrs or {"inputPattSize": dim})
    return str(path)
