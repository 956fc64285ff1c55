"""Kind lr_control: a run's questions to the learning rate control."""

import tempfile
from pathlib import Path

from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.schedule import LearningRateControl


def learning_rate_control(config: dict, epochs: list[dict], file_text_before: str | None) -> dict:
    """Per epoch: ask, set the scores dataset by dataset, save. At last ask for the next epoch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "learning_rates"
        if file_text_before is not None:
            file.write_text(file_text_before)
        options = dict(config, learning_rate_file=str(file))
        control = LearningRateControl.from_config(Config(options), Log.silent())
        rates = []
        for entry in epochs:
            rates.append(control.get(entry["epoch"]))
            for dataset in dict.fromkeys(key.partition("_")[0] for key in entry["scores"]):
                own = {key: value for key, value in entry["scores"].items() if key.partition("_")[0] == dataset}
                control.set_scores(entry["epoch"], own)
            control.save()
        text = file.read_text()
        return {
            "learning_rates": rates,
            "next_learning_rate": control.get(epochs[-1]["epoch"] + 1),
            "file_text": text,
        }
