"""What client scripts import as `returnn`: the same objects that configs find under these names.

It is no part of the installed package: a script puts the folder above, which also has `rnn.py` and `tools/`, on its
path.
"""

import sys
from pathlib import Path

# The library of this very checkout, whatever else is installed; nothing beside it gets importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import returnn_lite  # noqa: E402, F401
from returnn_lite.compat.config_imports import offer_modules  # noqa: E402

del sys.path[0]
offer_modules()
