"""A small example of each dataset class, for the tests that run over all of them."""

import gzip
import io
import itertools
import pickle
import tarfile
import wave
import zipfile
from pathlib import Path

import h5py
import numpy as np

from returnn_lite.datasets.combined.map_wrapper import FromList
from tests.datasets.hdf_files import write

FRAMES = (3, 1, 4, 2)
TYPES = {"data": {"dim": 2, "shape": (None, 2)}, "classes": {"dim": 5, "sparse": True, "shape": (None,)}}


def static(frames=FRAMES, **options):
    """A dataset dict with sequences of so many frames."""
    seqs = [{"data": np.full((n, 2), n, "float32"), "classes": np.arange(n, dtype="int32")} for n in frames]
    return {"class": "StaticDataset", "data": seqs, "output_dim": {"classes": 5}, **options}


def double(tensor_dict, **_):
    """For PostprocessingDataset."""
    tensor_dict["data"].raw_tensor = tensor_dict["data"].raw_tensor * 2
    return tensor_dict


def of_epoch(epoch, **_):
    """For VariableDataset."""
    return static() if epoch % 2 else static(FRAMES[::-1])


def from_list():
    """For MapDatasetWrapper."""
    return FromList([dict(seq) for seq in static()["data"]], "data", TYPES)


def wrappers(folder: Path):
    """Datasets made of others."""
    (folder / "list.txt").write_text("seq-0;seq-1\nseq-2\nseq-3;seq-3\n")
    (folder / "lens.txt").write_text(repr({f"seq-{i}": n for i, n in enumerate(FRAMES)}))
    maps = {"data": ("a", "data"), "classes": ("b", "classes")}
    mixed = {("a", "data"): "data", ("a", "classes"): "classes", ("b", "data"): "data", ("b", "classes"): "other"}
    return {
        "MetaDataset": {"datasets": {"a": static(), "b": static()}, "data_map": maps, "seq_ordering": "random"},
        "CombinedDataset": {"datasets": {"a": static(), "b": static((2, 5))}, "data_map": mixed},
        "ConcatDataset": {"datasets": [static(), static((2, 5))]},
        "ConcatSeqsDataset": {
            "dataset": static(), "seq_list_file": str(folder / "list.txt"), "seq_len_file": str(folder / "lens.txt"),
        },
        "MultiEpochDataset": {"dataset": static(partition_epoch=2), "multi_epoch": 2},
        "VariableDataset": {"get_dataset": of_epoch},
        "MapDatasetWrapper": {"map_dataset": from_list},
        "FromListDataset": {"data_list": static()["data"], "data_types": TYPES},
        "PostprocessingDataset": {"dataset": static(), "map_seq": double},
    }  # fmt: skip


def made_up():
    """Datasets without files."""
    dims = {"input_dim": 3, "output_dim": 4, "num_seqs": 5}
    tasks = ("Task12AXDataset", "TaskEpisodicCopyDataset", "TaskXmlModelingDataset", "TaskNumberBaseConvertDataset")
    return {
        "StaticDataset": {key: value for key, value in static().items() if key != "class"},
        "AnythingDataset": {"data_keys": TYPES},
        "DummyDataset": dims,
        "DummyDatasetMultipleSequenceLength": dims,
        "DummyDatasetMultipleDataKeys": {"output_dim": {"data": (3, 2), "classes": (4, 1)}, "num_seqs": 5},
        "DummyGenericDataset": {"data_template": TYPES, "num_seqs": 5},
        "CopyTaskDataset": {"nsymbols": 8, "minlen": 1, "maxlen": 4, "num_seqs": 5},
        **{name: {"num_seqs": 5} for name in tasks},
    }


def files(folder: Path):
    """Datasets that read files."""
    for i, n in enumerate(FRAMES):
        for kind, array in (("data", np.full((n, 2), n)), ("targets", np.arange(n))):
            with gzip.open(folder / f"np.{i}.{kind}.txt.gz", "wt") as file:
                np.savetxt(file, array)
    return {
        "HDFDataset": {"files": [write(folder / "x.hdf", FRAMES)]},
        "NumpyDumpDataset": {"prefix": str(folder / "np."), "num_inputs": 2, "num_outputs": 5},
    }


def texts(folder: Path):
    """Datasets of texts."""
    (folder / "lm.txt").write_text("a b\nb\n\nc a b\n")
    (folder / "symbols.txt").write_text("[END]\na\nb\nc\n")
    for side in ("source", "target"):
        (folder / f"{side}.train").write_text("a b\nb a\na\n")
        (folder / f"{side}.vocab.pkl").write_bytes(pickle.dumps({"</S>": 0, "a": 1, "b": 2}))
        (folder / f"{side}.factors").write_text("a|b b|a\n" if side == "source" else "a b\n")
    (folder / "factor.vocab.pkl").write_bytes(pickle.dumps({"a": 0, "b": 1, "</S>": 2}))
    (folder / "texts.py").write_text("{'s1': [(-inf, 'a b'), (-0.5, 'b')], 's2': [(nan, 'a')]}")
    (folder / "enwik8").write_bytes(bytes(97 + i % 5 for i in range(100)))
    pair = {"path": str(folder), "file_postfix": "train", "source_postfix": " </S>", "target_postfix": " </S>"}
    return {
        "LmDataset": {
            "corpus_file": str(folder / "lm.txt"), "orth_symbols_file": str(folder / "symbols.txt"), "word_based": True,
        },
        "TranslationDataset": pair,
        "TranslationFactorsDataset": {**pair, "file_postfix": "factors", "source_factors": "factor"},
        "TextDictDataset": {
            "filename": str(folder / "texts.py"), "vocab": {"labels": ["a", "b"], "unknown_label": None},
        },
        "Enwik8Corpus": {"path": str(folder), "subset": "test", "seq_len": 30},
    }  # fmt: skip


def wav(samples, rate=8000, channels=1):
    """A WAV file's content, from numbers in [-1, 1]."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return content.getvalue()


def sounds(frames=FRAMES):
    """Tones of so many tenths of seconds."""
    return [wav(np.sin(np.arange(800 * n) * 0.1 * n)) for n in frames]


def ogg_zip(path: Path, entries=None, name=None, files=None):
    """A zip file of sounds; `entries` and `files` replace its list and its audio files."""
    name = name or path.name.removesuffix(".zip")
    listed = [
        {"text": "ab" * n, "duration": n / 10, "file": f"{i}.wav", "seq_name": f"s{i}"} for i, n in enumerate(FRAMES)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.txt", repr(listed) if entries is None else entries)
        audio = {f"{name}/{i}.wav": sound for i, sound in enumerate(sounds())}
        for file, content in (audio if files is None else files).items():
            archive.writestr(file, content)
    return str(path)


def librispeech(folder: Path):
    """A corpus of two parts, as zip files."""
    for part, speakers in (("train-clean-100", (9, 10)), ("dev-clean", (1,))):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for speaker in speakers:
                base = f"LibriSpeech/{part}/{speaker}/1/{speaker}-1"
                archive.writestr(f"{base}.trans.txt", f"{speaker}-1-0001 AB\n{speaker}-1-0000 A\n")
                for i, sound in enumerate(sounds((1, 2))):
                    archive.writestr(f"{base}-{i:04}.flac", sound)
    return str(folder)


def audio(folder: Path):
    """Datasets of audio."""
    features = {"features": "log_mel_filterbank", "num_feature_filters": 5}
    chars = {"labels": ["a", "b", "A", "B", "@"]}
    return {
        "OggZipDataset": {
            "path": ogg_zip(folder / "x.zip"), "audio": features, "targets": {"class": "CharacterTargets", **chars},
        },
        "LibriSpeechCorpus": {
            "path": librispeech(folder), "prefix": "train", "use_zip": True, "audio": features, "chars": chars,
        },
    }  # fmt: skip


def next_gen(path: Path, classes=(0, 1, 0, 1)):
    """A file of streams: frames, words, an alignment."""
    with h5py.File(path, "w") as file:
        file["seq_names"] = np.array([f"c/{i}" for i in range(len(FRAMES))], object)
        streams = {"frames": "feature_sequence", "words": "sparse", "align": "segment_alignment"}
        for stream, parser in streams.items():
            group = file.create_group(f"streams/{stream}")
            group.attrs["parser"] = parser
            if stream != "frames":
                group["feature_names"] = np.array(["x", "y", "z"], object)
        for i, n in enumerate(FRAMES):
            name = f"c\\{i}"
            file[f"streams/frames/data/{name}"] = np.full((n, 2), i, "float32")
            file[f"streams/words/data/{name}"] = np.array([classes[i]])
            file[f"streams/align/data/{name}"] = np.array([[1, 1], [2, n]])
    return str(path)


def stereo(path: Path):
    """A file of inputs and outputs."""
    with h5py.File(path, "w") as file:
        for i, n in enumerate(FRAMES):
            file[f"inputs/{i}"] = np.full((n, 2), i + 1, "float32")
            file[f"outputs/{i}"] = np.full((n, 3), i, "float32")
        for group, width in (("inputs", 2), ("outputs", 3)):
            file[f"norm/{group}/mean"], file[f"norm/{group}/variance"] = np.ones(width), np.full(width, 4.0)
    return str(path)


def hdf_of(files):
    """For DistributeFilesDataset."""
    return {"class": "HDFDataset", "files": files, "seq_ordering": "default"}


def streams(folder: Path):
    """HDF files of other layouts, many files, many processes."""
    grouped = {"input_stream_name": "frames", "files": [next_gen(folder / "next.hdf")]}
    parts = [write(folder / f"part{i}.hdf", (i + 1, 2), tags=[f"{i}a", f"{i}b"]) for i in range(3)]
    return {
        "NextGenHDFDataset": grouped,
        "SiameseHDFDataset": grouped,
        "StereoHdfDataset": {"hdfFile": stereo(folder / "stereo.hdf")},
        "DatasetWithTimeContext": {"hdfFile": stereo(folder / "stereo.hdf"), "tau": 2},
        "DistributeFilesDataset": {"files": parts, "get_sub_epoch_dataset": hdf_of, "partition_epoch": 2},
        "MultiProcDataset": {"dataset": hdf_of(parts), "num_workers": 2, "buffer_size": 2},
    }


def rows():
    """For IterableDataset."""
    for number, seq in enumerate(static()["data"]):
        yield {"id": f"row-{number}", **seq}


def tar(path: Path, count=4, mode="w"):
    """A tar file of sounds and texts, as webdataset writes them."""
    with tarfile.open(path, mode) as file:
        for i, sound in zip(range(count), itertools.cycle(sounds())):
            for extension, content in (("wav", sound), ("txt", b"ab" * FRAMES[i % len(FRAMES)])):
                info = tarfile.TarInfo(f"part/s{i}.{extension}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return str(path)


def forwards(folder: Path):
    """Datasets that are read from front to back."""
    labels = {"class": "Utf8ByteTargets"}
    return {
        "IterableDataset": {"source": rows, "data_format": TYPES, "seq_tag_key": "id"},
        "TarDataset": {"files": tar(folder / "a.tar"), "audio": {"features": "raw"}, "targets": labels},
    }


def recordings(folder: Path):
    """Lists of audio files."""
    names = [f"{i}.wav" for i in range(len(FRAMES))]
    (folder / "train").mkdir(exist_ok=True)
    for name, sound in zip(names, sounds(), strict=True):
        (folder / "train" / name).write_bytes(sound)
        (folder / "train" / name.replace("wav", "phn")).write_text("0 100 h#\n100 200 ax-h\n200 300 q\n")
    (folder / "train" / "filelist.phn").write_text("".join(name.replace("wav", "phn\n") for name in names))
    (folder / "wavs.txt").write_text("".join(f"{folder}/train/{name}\n" for name in names))
    segment = '<segment name="{}" start="0.05" end="0.1"><orth>a b</orth></segment>'
    parts = [f'<recording name="r{i}" audio="train/{n}">{segment.format(i)}</recording>' for i, n in enumerate(names)]
    (folder / "bliss.xml").write_text(f'<corpus name="c">{"".join(parts)}</corpus>')
    (folder / "words.txt").write_text("a\nb\n")
    return {
        "RawWavDataset": {
            "listFile": str(folder / "wavs.txt"),
            "frameLength": 300,
            "frameShift": 200,
            "num_outputs": 1,
        },
        "TimitDataset": {"timit_dir": str(folder), "num_phones": 39, "random_permute_audio": False},
        "BlissDataset": {"path": str(folder / "bliss.xml"), "vocab_file": str(folder / "words.txt")},
    }


def tables():
    """A table in memory, if its package is there."""
    rows = {"id": ["x", "y"], "data": [[1, 2, 0], [1]], "text": ["a b", "b"]}
    formats = {"data": {"dim": 3, "sparse": True}, "text": {"vocab": {"labels": ["a", "b"], "unknown_label": None}}}
    try:
        import datasets
    except ImportError:
        return {}
    return {"HuggingFaceDataset": {"dataset_opts": datasets.Dataset.from_dict(rows), "data_format": formats}}


def examples(folder: Path):
    """Options by the name of the class."""
    of_files = (wrappers, files, texts, audio, streams, forwards, recordings)
    return {**made_up(), **tables(), **{name: options for group in of_files for name, options in group(folder).items()}}
