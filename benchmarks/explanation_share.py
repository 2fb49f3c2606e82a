"""Claim: explanations, strangers and pages take at most a tenth of the processor's time of an experiment.

Run: python benchmarks/explanation_share.py [--subjects N] [--epochs N] [--fewest N] [--quick]

One repeat of experiment.yaml with its default settings but for the learning rate and the number of epochs, on a cohort
of `monai-cae phantom` (synthetic brains, not real MRI), in this process, on a CPU. Each of these is timed where it
is called: maps of test scans and their tests, what the decoder draws, how unlike the training's the scans are (of the
training and validation scans too), small pictures, the experiment's figures and page. Everything else is training,
testing, baselines and MLflow.

Few epochs make everything else small. So the share is also given for `--fewest` epochs in each of the three trainings
(autoencoder, classifier, fine-tuning): 41 are the fewest that the default `patience` allows. It is computed from the
time of an epoch here; the parts timed here do not depend on the number of epochs.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
from report import Row, finish

from monai_cae.data import write_phantom
from monai_cae.experiment import report as experiment_report
from monai_cae.explanations import Decoded, Explained
from monai_cae.training import KeptPictures, Strangers
from monai_cae.training.results import reports
from monai_cae.training.stages import run as stages

_BUNDLE = Path(__file__).parents[1] / "bundle" / "configs"
_PARTS: dict[str, list[tuple[Any, str]]] = {
    "maps and their tests": [(Explained, "__call__")],
    "what the decoder draws": [(Decoded, "__call__")],
    "strangers": [(Strangers, "__call__"), (reports, "write_reference")],
    "small pictures": [(KeptPictures, "__call__")],
    "figures and page": [(experiment_report, "drawings"), (experiment_report, "experiment_page")],
}


def main() -> None:
    """Print seconds by part and the shares, write results/explanation_share.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--fewest", type=int, default=41)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="32 subjects, 2 epochs")
    chosen = parser.parse_args()
    subjects, epochs = (32, 2) if chosen.quick else (chosen.subjects, chosen.epochs)
    spent: defaultdict[str, float] = defaultdict(float)
    for name, places in _PARTS.items():
        for owner, attribute in places:
            setattr(owner, attribute, _timed(getattr(owner, attribute), name, spent))
    stages._run_steps = _timed(stages._run_steps, "steps", spent, one_by_one := [])  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        write_phantom(Path(folder, "cohort"), subjects, chosen.seed)
        settings: dict[str, Any] = {"dataset_dir": f"{folder}/cohort", "output_dir": f"{folder}/output", "repeats": 1}
        settings |= {"max_epochs": epochs, "seed": chosen.seed, "device": "cpu"}
        settings |= {"stages#pretrain#learning_rate": 1e-3, "stages#train#learning_rate": 1e-4}
        started = time.process_time()
        monai.bundle.run(run_id="training", config_file=str(_BUNDLE / "experiment.yaml"), **settings)
        whole = time.process_time() - started
    told_apart = {name: spent[name] for name in _PARTS}
    extra, trained = sum(told_apart.values()), sum(one_by_one[:2])  # pretraining and training come first
    longer = whole + trained * (chosen.fewest / epochs - 1)
    for name, seconds in told_apart.items():
        print(f"{name:<24} {seconds:8.1f} s  {seconds / whole:6.1%}  {seconds / longer:6.1%}")
    print(f"{'whole':<24} {whole:8.1f} s with {epochs} epochs, {longer:.1f} s with {chosen.fewest}")
    rows = [
        Row(f"explanations, strangers, pages, {count} epochs", extra, of, "whole experiment", "s", extra / of, target)
        for count, of, target in ((epochs, whole, ""), (chosen.fewest, longer, "<= 0.1"))
    ]
    facts = {name.replace(" ", "_"): round(seconds, 2) for name, seconds in told_apart.items()}
    finish("explanation_share", rows, subjects=subjects, epochs=epochs, fewest=chosen.fewest, **facts)


def _timed(
    function: Callable[..., Any], name: str, spent: defaultdict[str, float], each: list[float] | None = None
) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds = time.process_time() - started
            spent[name] += seconds
            if each is not None:
                each.append(seconds)

    return timed


if __name__ == "__main__":
    main()
