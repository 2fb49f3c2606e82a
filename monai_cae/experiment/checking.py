"""Settings of every stage and variant checked before the first training: the last variant may start days later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.steps import BASELINES, Part, Plan
from monai_cae.training.workflow import find_mistake

# Per stage: items that are evaluated, and what is set so that none of them reads an image or needs a trained network.
_CHECKED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "pretrain": (["@best", "@train#inferer", "@train#optimizer"], {}),
    "train": (
        [
            "@best",
            "@train#inferer",
            "@train#optimizer",
            "@train#dataset",
            "@validate#dataset",
            "$monai_cae.training.check_regression(@learn, @network, @penalty)",
        ],
        {"network": "$@network_def", "train#dataset#cache_num": 0, "validate#dataset#cache_num": 0},
    ),
    "evaluate": (
        ["@network_def", "@autoencoder_def", "@inferer", "@dataset", "@validation#dataset", "@prediction_table"],
        {"dataset#cache_num": 0, "validation#dataset#cache_num": 0},
    ),
    BASELINES: (
        ["$monai_cae.training.check_models(@models, @only, @sets.training + @sets.validation)"],
        {"fitting#cache_num": 0},
    ),
}


def check_steps(plan: Plan, part: Part) -> None:
    """Evaluate what the settings of each step decide, as far as that needs no training: names of settings, words,
    numbers, columns of the table, weight files, whether the networks can be built.

    Args:
        plan: of the experiment.
        part: one whose datalist is there; the settings of the others differ in seed, fold and folder alone.

    Raises:
        MonaiCaeError: naming the variant, the stage and what is wrong.
    """
    for step in plan.steps(part):
        for stage, settings in step.stages.items():
            where = f"{stage}: " if step.method in (NETWORK, BASELINES) else f"variant {step.method}, {stage}: "
            try:
                _check(plan.configs, stage, settings, plan.output)
            except (ValueError, RuntimeError, TypeError, KeyError) as error:
                raise MonaiCaeError(f"{where}{_reason(error)}") from error


def _check(configs: str, stage: str, settings: Mapping[str, Any], output: Path) -> None:
    items, changed = _CHECKED[stage]
    given = str(settings.get("pretrained", "none"))
    if given != "none" and not Path(given).resolve().is_relative_to(output):  # a checkpoint from elsewhere: it must fit
        changed = {name: value for name, value in changed.items() if name != "network"}
        items = [*items, "$monai_cae.networks.load_weights(@autoencoder_def, @pretrained)"]
    evaluate(configs, stage, {**settings, **changed, "_checked": items}, "_checked")


def _reason(error: BaseException) -> str:
    """In one line: of MONAI's "Failed to instantiate", what the part itself has said."""
    mistake = find_mistake(error)
    if mistake is not None:
        return str(mistake)
    while error.__cause__ is not None:
        error = error.__cause__
    return f"no item {error} in the config" if isinstance(error, KeyError) else str(error).strip().partition("\n")[0]


def evaluate(configs: str, stage: str, settings: Mapping[str, Any], item: str = "run") -> Any:
    """Evaluate an item of a stage's config; what a setting makes impossible comes out of MONAI's wrapping.

    Raises:
        MonaiCaeError: a user's mistake.
    """
    try:
        workflow = ConfigWorkflow(str(Path(configs, f"{stage}.json")), run_id=item, **settings)
        workflow.initialize()
        outcome = workflow.run()
        workflow.finalize()
    except RuntimeError as error:
        mistake = find_mistake(error)
        if mistake is None:
            raise
        raise MonaiCaeError(str(mistake)) from error  # itself, it would be its own cause
    return outcome[0]
