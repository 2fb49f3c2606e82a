"""What tests look at in the folder of a finished run, and in the package next to it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
from monai.bundle import ConfigParser

from monai_cae.cli import main


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_to_predictions(
    run_bundle: Callable[..., None], discs: Path, folder: Path, overlay: str | list[str], **settings: Any
) -> tuple[Path, list[dict[str, str]]]:
    """An experiment of one repeat with overlays, packaged and unpacked as `folder`/cae: the repeat's folder, and what
    the package predicts of the scans of disc1."""
    overlays = [overlay] if isinstance(overlay, str) else overlay
    run_bundle(["experiment.yaml", *overlays], discs, folder / "out", repeats=1, **settings)
    made, package = folder / "out" / "repeat_1", folder / "cae.zip"
    assert main(["package", str(package), "--output-dir", str(made)]) == 0
    assert main(["bundle", str(folder / "cae"), "--from", str(package)]) == 0  # nothing but what is shipped
    to = {"dataset_dir": str(discs / "disc1"), "output_dir": str(folder / "predicted"), "device": "cpu"}
    monai.bundle.run(run_id="run", config_file=str(folder / "cae" / "configs" / "inference.json"), **to)
    return made, rows_of(folder / "predicted" / "predictions.csv")


def assert_predicts_as_tested(made: Path, predicted: list[dict[str, str]]) -> None:
    assert len(predicted) == 12 and all(0 <= float(row["probability"]) <= 1 for row in predicted)
    tested = {row["subject"]: row for row in rows_of(made / "predictions.csv")}
    both = [(row, tested[row["subject"]]) for row in predicted if row["subject"] in tested]
    assert both and all(abs(float(a["probability"]) - float(b["probability"])) < 1e-5 for a, b in both)


def given_to_the_network(made: Path, subject: str) -> np.ndarray:
    """The preprocessed image of a subject, by the configs of the run."""
    config = ConfigParser(json.loads((made / "config_pretrain.json").read_text().replace("::", "#")))
    sets = config.get_parsed_content("sets")
    (item,) = [item for item in sets.training + sets.validation + sets.test if item["subject"] == subject]
    return config.get_parsed_content("train#preprocessing")(item)["image"].numpy()


def written(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def scaled(image: np.ndarray) -> np.ndarray:
    return (image - image.min()) / (image.max() - image.min())


def looked_for(made: Path) -> str:
    return " ".join(check["looks_for"] for check in written(made, "audit.json")["checks"])


def assert_tells_what_it_sees(made: Path, seen: str, channels: int, classifier: list[int], decoded: list[int]) -> None:
    metadata = written(made.parents[1] / "cae" / "configs", "metadata.json")
    assert f"Classify T1-weighted MRI, of which it sees {seen}, as Alzheimer" in metadata["task"]
    for network, shape in (("network", classifier), ("autoencoder", decoded)):
        image = metadata[f"{network}_data_format"]["inputs"]["image"]
        assert (image["num_channels"], image["spatial_shape"]) == (channels, shape)
        assert list(image["channel_def"]) == [str(channel) for channel in range(channels)]
    assert metadata["autoencoder_data_format"]["outputs"]["pred"]["spatial_shape"] == decoded
    assert f"| image | {seen} |" in (made.parents[1] / "cae" / "docs" / "README.md").read_text()
