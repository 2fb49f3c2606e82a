"""Files that are read back, in the format of this version, of one before 1.0 and of a later one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from tiny import mistake

from monai_cae import __version__
from monai_cae.data.splits.datalists import read_content, write_content
from monai_cae.experiment.load_runs import read_predictions
from monai_cae.experiment.plan import read_json
from monai_cae.experiment.status import read_status
from monai_cae.networks import load_weights, save_weights, trained_on
from monai_cae.prediction.listing import Listed
from monai_cae.prediction.record import Record
from monai_cae.prepare.derivative import Place
from monai_cae.sharing.runs import read_run
from monai_cae.training.models.reference import Measured, Reference
from monai_cae.training.stages.checkpointing import Resuming
from monai_cae.training.stages.run import write_record

KEY = "monai_cae_format"
MADE = {"software": "1", "given": "", "chunk": 2, "files": {}, "settings": {}, "columns": {"path": "str"}}
Kind = tuple[Path, Callable[[], Any]]  # the file, as this version has written it, and who reads it


def _datalist(folder: Path) -> Kind:
    path = folder / "datalist.json"
    write_content(path, {"training": [], "validation": [], "test": []})
    return path, lambda: read_content(path)


def _weights(folder: Path) -> Kind:
    path, network = folder / "model.pt", torch.nn.Linear(2, 1)
    save_weights(network, path, ["a"])
    return path, lambda: (load_weights(network, path).weight.tolist(), trained_on(path))


def _resume_point(folder: Path) -> Kind:
    path = folder / "resume_train.pt"
    torch.save({KEY: 1, "step": 0, "config": "{}", "run_id": "r"}, path)
    unused: Any = SimpleNamespace()
    return path, lambda: Resuming(path, torch.nn.Linear(1, 1), unused, unused, resume=True).open({})


def _reference(folder: Path) -> Kind:
    draw = torch.Generator().manual_seed(0)
    known, unseen = (
        Measured(*(torch.rand(shape, generator=draw) for shape in ((9,), (9, 3), (9, 2)))) for _ in range(2)
    )
    path = folder / "autoencoder_strangers.pt"
    Reference.fitted("0" * 64, [1, 8, 8], known, unseen).save(path)
    return path, lambda: Reference.load(path).usual.tolist()


def _results(name: str) -> Callable[[Path], Kind]:
    def made(folder: Path) -> Kind:
        write_record(folder / name, {"synthetic": True, "leaks": 3})
        (folder / "predictions.csv").write_text("subject,label,probability\na,0,0.2\nb,1,0.9\n")
        return folder / name, lambda: (read_predictions(str(folder)).synthetic, read_predictions(str(folder)).leaks)

    return made


def _experiment(name: str) -> Callable[[Path], Kind]:
    def made(folder: Path) -> Kind:
        write_record(folder / "experiment.json", {"run_id": "r", "steps": {"repeat_1": ["train"]}})
        write_record(folder / "repeat_1" / "steps.json", {"train": {"settings": {}, "results": {}, "seconds": 2.0}})
        return folder / name, lambda: (read_status(folder).done, read_json(folder / name))

    return made


def _manifest(folder: Path) -> Kind:
    Record(folder, MADE).begin([Listed("a", 1, 0.0)], resume=False, overwrite=False)
    return folder / "manifest.json", lambda: Record(folder, MADE).begin([], resume=True, overwrite=False)


def _sidecar(folder: Path) -> Kind:
    place = Place(folder, "sub-01")
    place.sidecar.parent.mkdir(parents=True)
    place.sidecar.write_text(json.dumps({KEY: 1, "Verdict": {"status": "pass"}, "Recipe": {"version": "1"}}))
    return place.sidecar, place.read


KINDS = {
    "datalist": _datalist,
    "weights": _weights,
    "resume point": _resume_point,
    "strangers": _reference,
    "results of a stage": _results("results_evaluate.json"),
    "summary": _results("summary.json"),
    "experiment": _experiment("experiment.json"),
    "steps": _experiment("repeat_1/steps.json"),
    "manifest": _manifest,
    "sidecar": _sidecar,
}


def _content(path: Path) -> tuple[Any, dict[str, Any]]:
    """All that is in the file, JSON or a checkpoint, and the part of it that holds the format."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        return content, content
    content = torch.load(path)
    return content, content._metadata["monai_cae"] if hasattr(content, "_metadata") else content


def _change(path: Path, number: object) -> None:
    """Give the file another format; None takes it away."""
    content, part = _content(path)
    part.pop(KEY, None)
    part |= {} if number is None else {KEY: number}
    if path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        torch.save(content, path)


@pytest.mark.parametrize("kind", KINDS)
def test_formats_before_1_0_are_read_and_later_ones_refused_in_one_line(kind, tmp_path):
    path, read = KINDS[kind](tmp_path)
    assert _content(path)[1][KEY] == 1
    now = read()
    for earlier in (None, 0):
        _change(path, earlier)
        assert read() == now
    for later in (2, "1.1", True):
        _change(path, later)
        assert mistake(read) == (
            f"{path} has {KEY} {later!r}, and monai-cae {__version__} reads up to 1: pip install --upgrade monai-cae, "
            "or make the file again with this version"
        )


def test_a_run_of_a_later_format_is_not_packaged(tmp_path):
    write_record(tmp_path / "results_evaluate.json", {"synthetic": True, "leaks": 0, KEY: 2})
    assert f"has {KEY} 2" in mistake(read_run, tmp_path)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            "$monai_cae.training.gone(1)",
            "there is no monai_cae.training.gone, which the config names: this is monai-cae",
        ),
        (
            {"_target_": "monai_cae.training.Gone"},
            "Python finds no monai_cae.training.Gone, which a _target_ names: this",
        ),
    ],
)
def test_a_config_of_another_version_is_told_in_one_line(item, said):
    config = ConfigParser({"imports": ["$import monai_cae"], "report": item})
    assert said in mistake(config.get_parsed_content, "report")
