"""Datasets of audio, their features, and damaged files."""

import math
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest

from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.audio import features
from returnn_lite.datasets.audio.augment import RandomPermute, shift_pitch, sinc_resample, stretch
from returnn_lite.datasets.audio.file import _read_wav, read_audio
from returnn_lite.datasets.audio.pipeline import AudioFeatures
from returnn_lite.datasets.zip_files import ZipFiles
from returnn_lite.errors import ConfigError
from tests.datasets.examples import FRAMES, audio, ogg_zip, sounds, wav

RATE = 8000
TONE = np.sin(np.arange(RATE) * 2 * np.pi * 1000 / RATE)  # 1 kHz, 1 s


def made(name, **options):
    return init_dataset({"class": name, **options}, name="toy")


def extract(samples=TONE, rng=None, **options):
    found = AudioFeatures.parse(options, "audio")
    return found(samples, RATE, seq_name="s", rng=rng or np.random.RandomState(1))


# --- features ---


@pytest.mark.parametrize("name", list(features.FEATURES))
def test_shapes(name):
    found = extract(features=name, num_feature_filters=100 if name == "linear_spectrogram" else 12)
    assert found.shape == (1 + RATE // 80, 100 if name == "linear_spectrogram" else 12) and found.dtype == np.float32
    assert extract(np.ones(1), features=name, num_feature_filters=100).shape == (1, 100)  # shorter than a window


@pytest.mark.parametrize("name, dim", [("mfcc", 12), ("db_mel_filterbank", 12), ("linear_spectrogram", 120)])
def test_frames_without_zeros_around(name, dim):
    size = 2 * dim if name == "linear_spectrogram" else RATE // 40  # samples of a frame
    plain = {"features": name, "num_feature_filters": dim, "feature_options": {"center": False}}
    assert len(extract(**plain)) == 1 + (len(TONE) - size) // 80
    assert np.allclose(extract(np.pad(TONE, size // 2), **plain), extract(features=name, num_feature_filters=dim))


def test_where_a_tone_is():
    mels = extract(features="log_mel_filterbank", num_feature_filters=40)[50]
    centres = features.mel_inverse(np.linspace(0, features.mel(np.array(4000.0)), 42))[1:-1]
    assert abs(centres[mels.argmax()] - 1000) < 60
    spectrum = extract(features="linear_spectrogram", num_feature_filters=100)[50]
    assert spectrum.argmax() + 1 == 25  # of 100 up to 4 kHz
    assert np.allclose(features.mel_inverse(features.mel(np.array([10.0, 999, 1001, 4000]))), [10, 999, 1001, 4000])


def test_transforms_by_their_definitions():
    matrix = features.cosines(16, 16)
    assert np.allclose(matrix.T @ matrix, np.eye(16))
    ramp = np.arange(20.0)[:, None] * 3
    assert np.allclose(features.deltas(ramp, 1), 3) and np.allclose(features.deltas(ramp**2, 2), 18)
    frames = features.frames_of(np.arange(1.0, 6), 4, 2)
    assert frames.tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 0]]


def test_normalisation():
    raw = extract(features="raw", peak_normalization=False, norm_mean=1.0, norm_std_dev=2.0)
    assert np.allclose(raw[:, 0], (TONE - 1) / 2, atol=1e-6)
    own = extract(num_feature_filters=3, norm_mean="per_seq", norm_std_dev="per_seq", with_delta=1)
    assert own.shape[1] == 6 and np.allclose(own.mean(0), 0, atol=1e-4)
    joined = extract(features="raw", join_frames=3)
    assert (
        joined.shape == (2667, 3)
        and joined[-1, 1] == joined[-1, 2]
        and joined[0].tolist() == extract(features="raw")[:3, 0].tolist()
    )
    assert np.abs(extract(TONE * 0.1, features="raw")).max() == pytest.approx(1)
    emphasised = extract(features="raw", peak_normalization=False, preemphasis=0.5)[:3, 0]
    assert np.allclose(emphasised, [TONE[0], TONE[1] - TONE[0] / 2, TONE[2] - TONE[1] / 2])


def _mean_of(audio, sample_rate, factor=1, **_):
    return np.full((2, 1), audio.mean() * factor + sample_rate)


def _halved(audio, **_):
    return audio[::2]


def _named(data, seq_name):
    return data + len(seq_name)


def test_functions_and_channels():
    found = extract(features=_mean_of, num_feature_filters=1, feature_options={"factor": 0})
    assert found.tolist() == [[RATE], [RATE]]
    assert len(extract(features="raw", pre_process=_halved)) == RATE // 2
    assert extract(np.zeros(3), features="raw", post_process=_named).tolist() == [[1], [1], [1]]
    assert extract(np.zeros((5, 2)), features="raw", num_channels=2).shape == (5, 2, 1)


@pytest.mark.parametrize("options, message", [
    ({"feature": "mfcc"}, "unknown option; did you mean .features"),
    ({"features": "mfc"}, "non-supported feature type 'mfc'; did you mean \"mfcc\""),
    ({"features": "f0"}, '"f0" is not supported'),
    ({"feature_options": {"n_mel": 3}}, "unknown option of mfcc"),
    ({"norm_mean": [1, 2]}, "norm_mean: must have 40 numbers"),
    ({"norm_mean": "none.txt"}, "none.txt cannot be read"),
    ({"sample_rate": 16000}, "sample_rate: must be that of the audio, 8000 Hz, but is 16000"),
    ({"num_channels": 2}, 'is possible with features "raw" only'),
    ({"num_channels": 2, "features": "raw"}, "num_channels: must be that of the audio, 1, but is 2"),
    ({"features": "linear_spectrogram", "num_feature_filters": 10}, "must be even and at least 100"),
    ({"random_permute": {"rnd_zoom": 1}}, "random_permute.*unknown option"),
    ({"random_permute": 3}, "must be True or a dict"),
    ({"with_delta": 1, "step_len": 1.0}, "with_delta: needs 9 frames"),
    ({"norm_mean": [0.5] * 40, "join_frames": 2}, "norm_mean: must have 80 numbers"),
])  # fmt: skip
def test_what_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        extract(**options)


def test_nan_and_empty_audio():
    with pytest.raises(ConfigError, match="the features hold NaN"):
        extract(np.array([0.0, np.nan]), features="raw", peak_normalization=False)
    with pytest.raises(ConfigError, match="the audio has no samples"):
        extract(np.zeros(0))


def test_random_changes():
    always = {f"rnd_{name}_switch": 1.0 for name in ("zoom", "stretch", "pitch")}
    pytest.importorskip("scipy")
    change = RandomPermute.parse(always, "x")
    assert change is not None and RandomPermute.parse({}, "x") is None and RandomPermute.parse(True, "x") is not None
    a, b = (change(TONE, np.random.RandomState(seed)) for seed in (1, 1))
    assert np.array_equal(a, b) and len(a) != len(TONE)
    faster = stretch(TONE, 1.25)
    assert len(faster) == RATE / 1.25 and abs(_pitch(faster) - 1000) < 5
    higher = shift_pitch(TONE, 12)
    assert len(higher) == RATE and abs(_pitch(higher) - 2000) < 20


def test_stretched_audio_is_that_of_the_reference():
    """Samples of what librosa 0.11 gives."""
    audio, at = np.sin(0.1 * np.arange(3000)) * np.linspace(0.2, 1, 3000), [0, 500, 1000, 2000]
    faster, slower, higher = stretch(audio, 1.13), stretch(audio, 0.9), shift_pitch(audio, 0.7)
    assert (len(faster), len(slower), len(higher)) == (2655, 3333, 3000)
    expected = [-1.7e-05, -0.0912512, -0.2531333, -0.632466, 0.2799716, 0.3831648]
    np.testing.assert_allclose(faster[[*at, 2600, 2654]], expected, atol=1e-6)
    expected = [-0.000379, -0.0898164, -0.2601026, -0.586501, -0.1479499, 0.0365195]
    np.testing.assert_allclose(slower[[*at, 3200, 3332]], expected, atol=1e-6)
    # Its resampling has another filter.
    np.testing.assert_allclose(higher[[500, 1000, 2000, 2600]], [0.353649, -0.2275337, 0.5550935, 0.2816938], atol=2e-3)


@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.06])
def test_resampled_sound_is_the_same_sound(ratio):
    found = sinc_resample(TONE, ratio)
    times = np.arange(len(found)) / ratio / RATE
    middle = slice(200, -200)
    np.testing.assert_allclose(found[middle], np.interp(times, np.arange(len(TONE)) / RATE, TONE)[middle], atol=0.1)
    assert len(found) == math.ceil(len(TONE) * ratio)


def test_stereo_can_be_mixed_down():
    both = np.stack([TONE, 0.5 * TONE], 1)
    with pytest.raises(ConfigError, match="must be that of the audio, 2, but is None; .*pre_process.* mixes"):
        extract(both)
    mixed = extract(both, pre_process=lambda audio, **_: audio.mean(1), peak_normalization=False)
    np.testing.assert_allclose(mixed, extract(0.75 * TONE, peak_normalization=False), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="sample_rate: must be that of the audio, .* convert the files"):
        extract(TONE, sample_rate=RATE + 1)


def _pitch(samples):
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle)


def test_files():
    samples, rate = read_audio(wav(TONE), "x")
    assert rate == RATE and np.allclose(samples, TONE, atol=1e-4)
    assert np.allclose(_read_wav(wav(TONE), "x")[0], samples)
    assert read_audio(wav(np.zeros((5, 2)), channels=2), "x")[0].shape == (5, 2)
    for read in (read_audio, _read_wav):
        with pytest.raises(ConfigError, match="x: cannot be read as"):
            read(b"no audio", "x")


# --- OggZipDataset ---


def ogg(tmp_path, **options):
    return made("OggZipDataset", **{"path": ogg_zip(tmp_path / "x.zip"), "audio": None, "targets": None, **options})


def tags(dataset, epoch=1, **given):
    dataset.init_seq_order(epoch, **given)
    return [dataset.get_tag(i) for i in range(dataset.num_seqs)]


def test_zip(tmp_path):
    dataset = made("OggZipDataset", **audio(tmp_path)["OggZipDataset"], seq_ordering="sorted")
    assert tags(dataset) == ["s1", "s3", "s0", "s2"] and dataset.num_seqs == 4
    assert dataset.get_seq_length(0) == {"data": 11, "classes": 2, "orth": 2, "raw": 1}
    assert dataset.get_data(0, "raw").item() == "ab" and dataset.get_data(0, "classes").tolist() == [0, 1]
    assert dataset.get_data_keys() == ["data", "classes", "orth", "raw"] and dataset.get_data_dtype("raw") == "string"
    dataset.finish_epoch(free_resources=True)
    assert tags(pickle.loads(pickle.dumps(dataset))) == ["s1", "s3", "s0", "s2"]


def test_zip_options(tmp_path):
    (tmp_path / "some.txt").write_text("s2\ns0\nunknown\n")
    assert tags(ogg(tmp_path, segment_file=str(tmp_path / "some.txt"))) == ["s0", "s2"]
    assert len(tags(ogg(tmp_path, fixed_random_subset=0.5))) == 2
    assert tags(ogg(tmp_path, epoch_wise_filter={(1, 1): {"max_mean_len": 12}})) == ["s1", "s3"]
    twice = [ogg_zip(tmp_path / "x.zip"), ogg_zip(tmp_path / "y.ogg.zip")]
    assert len(tags(ogg(tmp_path, path=twice))) == 8
    plain = {f"{i}.wav": sound for i, sound in enumerate(sounds())}
    path = ogg_zip(tmp_path / "z.zip", files=plain)
    dataset = ogg(tmp_path, path=path, audio={"features": "raw"}, zip_audio_files_have_name_as_prefix=False)
    tags(dataset)
    assert len(dataset.get_data(0, "data")) == 800 * FRAMES[0]
    post = ogg(tmp_path, targets={"class": "Utf8ByteTargets"}, targets_post_process="get_replace('a', 'X')")
    tags(post)
    assert bytes(post.get_data(1, "classes").tolist()) == b"Xb" and post.get_data(1, "raw").item() == "ab"


def test_folder(tmp_path):
    (tmp_path / "x").mkdir()
    for i, sound in enumerate(sounds()):
        (tmp_path / "x" / f"{i}.wav").write_bytes(sound)
    lines = [f"{{'text': 'a', 'duration': 0.1, 'file': '{i}.wav'}},\n" for i in range(4)]
    (tmp_path / "x.txt").write_text("[\n" + "".join(lines) + "]\n")
    dataset = ogg(tmp_path, path=str(tmp_path / "x"), audio={"features": "raw"})
    assert tags(dataset) == ["0.wav", "1.wav", "2.wav", "3.wav"] and len(dataset.get_data(1, "data")) == 800


@pytest.mark.parametrize("entries, message", [
    ("[", "x.txt: must be a Python list of dicts"),
    ("[]", "must be a non-empty list of dicts"),
    ("[3]", "entry 0: must be a dict, but is 3"),
    ("[{'text': 'a', 'duration': 1, 'seq_name': 's'}]", '"duration" must be of type float, but is 1'),
    ("[{'duration': 1.0, 'seq_name': 's'}]", 'must have "text"'),
    ("[{'text': 'a', 'duration': 1.0}]", 'must have "seq_name"'),
    ("[{'text': 'a', 'duration': 1.0, 'file': '../x.wav'}]", 'unsafe file name "../x.wav"'),
    ("[{'text': 'a', 'duration': 1.0, 'file': '/etc/x.wav'}]", 'unsafe file name "/etc/x.wav"'),
])  # fmt: skip
def test_bad_lists(tmp_path, entries, message):
    with pytest.raises(ConfigError, match=message):
        ogg_read(tmp_path, {"path": ogg_zip(tmp_path / "x.zip", entries)})


def test_whole_seconds_after_the_first_entry(tmp_path):
    entries = "[{'text': 'a', 'duration': 2.5, 'seq_name': 's'}, {'text': 'b', 'duration': 2, 'seq_name': 't'}]"
    dataset = ogg(tmp_path, path=ogg_zip(tmp_path / "y.zip", entries), audio=None, seq_ordering="sorted")
    assert tags(dataset) == ["t", "s"] and dataset.get_estimated_seq_length(0) == 200


def test_bad_zips(tmp_path):
    loud = {"audio": {"features": "raw"}}
    for files, options, message in [
        ({"x/0.wav": b"no audio"}, loud, 'toy: sequence "s0": .*x.zip: x/0.wav: cannot be read as'),
        ({}, loud, 'sequence "s0": .*no entry "x/0.wav"'),
        ({"../0.wav": b""}, {}, 'has an entry with the unsafe name "../0.wav"'),
        ({"/0.wav": b""}, {}, 'has an entry with the unsafe name "/0.wav"'),
        ({}, {"content_name": "y"}, 'no entry "y.txt"'),
        ({}, {"targets": {"labels": ["a"], "unknown_label": None}}, 'sequence "s0": .*"ababab" is not in the vocab'),
        ({}, {"path": "none.zip"}, "file none.zip does not exist"),
        ({}, {"path": "x.tar"}, "must be files .*, but there is 'x.tar'"),
        ({}, {"seq_ordering": "x"}, "invalid seq_ordering"),
    ]:
        path = ogg_zip(tmp_path / "x.zip", files=files)
        dataset_options = {"path": path, **options}
        with pytest.raises(ConfigError, match=message):
            dataset = ogg_read(tmp_path, dataset_options)
            dataset.get_data(0, "raw")
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    with pytest.raises(ConfigError, match="x.zip: cannot be read as a zip file"):
        ogg_read(tmp_path, {"path": str(tmp_path / "x.zip")})


def ogg_read(tmp_path, options):
    dataset = made("OggZipDataset", **{"audio": None, "targets": None, **options})
    tags(dataset)
    return dataset


def test_a_damaged_entry(tmp_path):
    path = ogg_zip(tmp_path / "x.zip")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    at = content.index(b"RIFF") + 100
    content[at : at + 50] = bytes(50)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ConfigError, match='sequence "s0": .*the entry "x/0.wav" is damaged: Bad CRC'):
        ogg_read(tmp_path, {"path": path, "audio": {"features": "raw"}}).get_data(0, "data")


def test_zip_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr("returnn_lite.datasets.zip_files.MIN_SUSPECT", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.txt", bytes(1 << 21))
    with pytest.raises(ConfigError, match='the entry "x.txt" would have 2097152 bytes, .* times its size'):
        ogg_read(tmp_path, {"path": str(tmp_path / "x.zip")})
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("y.txt", bytes(1000))
        archive.filelist *= 1000  # all entries are the same bytes
    with pytest.raises(ConfigError, match="its 1000 entries cannot fit in .* bytes: the file is damaged or a zip bomb"):
        ZipFiles().read(str(tmp_path / "y.zip"), "y.txt")


def test_a_million_entries_that_are_one(tmp_path):
    path, count = tmp_path / "x.zip", 1_000_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", "[]")
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    directory = content[start:end] * count
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[:start] + directory + record + locator + tail)
    began = time.process_time()
    with pytest.raises(ConfigError, match="x.zip: its 1000000 entries cannot fit in"):
        ogg_read(tmp_path, {"path": str(path)})
    assert time.process_time() - began < 2


def test_entries_that_overlap(tmp_path):
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        for name, size in (("y.txt", 10_000), ("small", 1)):
            archive.writestr(name, bytes(size))
        archive.filelist.append(archive.filelist[0])
    with pytest.raises(ConfigError, match="3 entries overlap: this is a zip bomb"):
        ZipFiles().read(str(tmp_path / "y.zip"), "y.txt")


# --- LibriSpeechCorpus ---


def test_librispeech(tmp_path):
    options = audio(tmp_path)["LibriSpeechCorpus"]
    dataset = made("LibriSpeechCorpus", **options)
    names = [f"train-clean-100-{speaker}-1-{i:04}" for speaker in (9, 10) for i in (0, 1)]
    assert tags(dataset) == names and dataset.get_data(1, "raw").item() == "AB"
    assert dataset.get_seq_length(1) == {"classes": 2, "data": 21, "raw": 1}
    assert dataset.extern_data()["raw"]["dtype"] == "string"
    some = made("LibriSpeechCorpus", **{**options, "audio": None}, epoch_wise_filter={(1, 1): {"max_mean_len": 1}})
    assert tags(some)[0] == names[0] and some.get_data(0, "data").shape == ()
    with zipfile.ZipFile(tmp_path / "train-clean-100.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "LibriSpeech" / "train-clean-100").rename(tmp_path / "train-clean-100")
    folders = made("LibriSpeechCorpus", **{**options, "use_zip": False})
    assert tags(folders) == names and len(folders.get_data(1, "data")) == 21


@pytest.mark.parametrize("changes, message", [
    ({"prefix": "trian"}, "prefix: must begin with one of"),
    ({"path": "none"}, "none/train-clean-100.zip does not exist"),
    ({"bpe": {}}, "chars and bpe must not both be set"),
    ({"targets": "bpe"}, "invalid targets 'bpe'"),
    ({"epoch_wise_filter": {(1, None): {"subdirs": ["x"]}}}, "no sequences are left with subdirs"),
    ({"epoch_wise_filter": {(1, None): {"subdir": ["x"]}}}, "unknown option .subdir.; did you mean .subdirs"),
    ({"prefix": "test"}, "no sequences of test"),
])  # fmt: skip
def test_what_librispeech_refuses(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        tags(made("LibriSpeechCorpus", **{**audio(tmp_path)["LibriSpeechCorpus"], **changes}))
