"""Federated training of the bundle through MONAI's MonaiAlgo, simulated in one process.

Every site trains on a cohort folder of its own and sends how its weights changed; the server adds the mean change.

    python examples/federated.py pretrain --sites /data/site_a /data/site_b --output federated
    python examples/federated.py train --sites /data/site_a /data/site_b --output federated
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from monai_cae.networks import save_weights
from monai_cae.training.stages.workflow import find_mistake

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
FILES = {"pretrain": "autoencoder.pt", "train": "model.pt"}
Weights = dict[str, torch.Tensor]


def client(stage: str, cohort: Path, output: Path, local_epochs: int = 1, **settings: Any) -> MonaiAlgo:
    """A site, ready to train.

    Args:
        stage: "pretrain" for the autoencoder, "train" for the whole classifier, as in fine-tuning.
        cohort: the site's own subjects.
        output: the site's own datalist and checkpoints go there.
        local_epochs: epochs of a round.
        settings: of the stage's config.
    """
    settings = {"dataset_dir": str(cohort), "output_dir": str(output), "sets#write": True, **settings}
    algo = MonaiAlgo(
        bundle_root=str(BUNDLE),
        local_epochs=local_epochs,
        config_train_filename=f"configs/{stage}.json",
        train_kwargs=dict(settings),
        # the default adds evaluate.json, whose network is a checkpoint that there is not yet
        config_evaluate_filename=f"configs/{stage}.json",
        # the evaluation keeps the best averaged weights: not in the file of the site's own best
        eval_kwargs={**settings, "checkpoint": str(output / "models" / f"averaged_{FILES[stage]}")},
        best_model_filepath=str(output / "models" / FILES[stage]),
    )
    algo.initialize({ExtraItems.CLIENT_NAME: output.name})
    return algo


def initial_weights(site: MonaiAlgo) -> Weights:
    """What the server starts from: one site's, batch-norm statistics included."""
    return {name: tensor.detach().clone() for name, tensor in site.trainer.network.state_dict().items()}


def federated_round(sites: Sequence[MonaiAlgo], weights: Weights) -> tuple[Weights, list[Mapping[str, float]]]:
    """One round.

    Args:
        sites: initialised.
        weights: of the server.

    Returns:
        The averaged weights, and what each site measures with them on its validation subjects.
    """
    changes = []
    for site in sites:
        site.train(ExchangeObject(weights=weights))
        changes.append(site.get_weights().weights)
    averaged = {
        # batch norm counts its batches in whole numbers
        name: (tensor + torch.stack([change[name] for change in changes]).double().mean(0)).to(tensor.dtype)
        for name, tensor in weights.items()
    }
    return averaged, [dict(site.evaluate(ExchangeObject(weights=averaged)).metrics) for site in sites]


def main() -> None:
    """Run the rounds, and write the server's weights where a stage of the bundle finds them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=FILES)
    parser.add_argument("--sites", nargs="+", type=Path, required=True, help="cohort folders")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local_epochs", type=int, default=1)
    parser.add_argument("--settings", type=json.loads, default={}, help="of the stage's config: '{\"batch_size\": 8}'")
    given = parser.parse_args()
    averaged_autoencoder = given.output / "models" / FILES["pretrain"]
    settings = {"pretrained": str(averaged_autoencoder.resolve())} if given.stage == "train" else {}
    try:
        sites = [
            client(
                given.stage,
                cohort,
                given.output.resolve() / f"site_{n}",
                given.local_epochs,
                **settings,
                **given.settings,
            )
            for n, cohort in enumerate(given.sites, start=1)
        ]
    except RuntimeError as error:  # MONAI's wrapping of a mistake in settings or data
        sys.exit(f"error: {find_mistake(error) or error}")
    weights = initial_weights(sites[0])
    for number in range(1, given.rounds + 1):
        weights, metrics = federated_round(sites, weights)
        for cohort, measured in zip(given.sites, metrics, strict=True):
            print(f"round {number}, {cohort}: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.items()))
    seen = [subject for site in sites for subject in site.train_workflow.parser.get_parsed_content("best").trained_on]
    for site in sites:
        site.finalize()
    path = given.output / "models" / FILES[given.stage]
    save_weights(weights, path, seen)
    print(f"averaged weights: {path}")


if __name__ == "__main__":
    main()
