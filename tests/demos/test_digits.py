"""The data of the demo with written numbers."""

import subprocess
import sys

import numpy as np

from tests.demos.demo import DEMOS, module, sequences

AMOUNTS = {"train": 6, "dev": 3, "test": 4}


def test_lines(tmp_path):
    digits = module("digits")
    digits.make_data(tmp_path, num_lines=AMOUNTS)
    for name, key in (("train", "train"), ("dev", "dev"), ("test", "eval")):
        found = sequences("digits/ctc.config", tmp_path, key)
        assert len(found) == AMOUNTS[name]
        for tag, seq in found.items():
            written = [int(digit) + 1 for digit in tag.rsplit("-", 1)[1]]
            assert seq["classes"].tolist() == written
            assert seq["classes_eos"].tolist() == [*written, 0]
            assert seq["data"].shape[1] == 10 and len(seq["data"]) >= 8 * len(written)


def test_the_same_seed_gives_the_same_lines(tmp_path):
    digits = module("digits")
    data = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        digits.make_data(tmp_path / folder, num_lines=AMOUNTS, seed=seed)
        data.append(sequences("digits/attention.config", tmp_path / folder, "train"))
    assert data[0].keys() == data[1].keys() != data[2].keys()
    assert all(np.array_equal(data[0][tag]["data"], data[1][tag]["data"]) for tag in data[0])


def test_two_runs_at_once(tmp_path):
    """Of two demos that begin together, both make the data."""
    words = [sys.executable, str(DEMOS / "digits/make_data.py"), str(tmp_path / "both"), "--lines", "2000", "30", "30"]
    assert [run.wait() for run in [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]] == [0, 0]
    module("digits").make_data(tmp_path / "one", num_lines={"train": 2000, "dev": 30, "test": 30})
    both, one = (sequences("digits/attention.config", tmp_path / folder, "train") for folder in ("both", "one"))
    assert both.keys() == one.keys() and all(np.array_equal(both[tag]["data"], one[tag]["data"]) for tag in one)
    assert len(list((tmp_path / "both").iterdir())) == 3


def test_no_image_is_in_two_sets():
    sets = module("digits").split_images(np.random.RandomState(1)).values()
    images = [{image.tobytes() for image in images} for images, _ in sets]
    assert sum(map(len, images)) == len(set.union(*images))
