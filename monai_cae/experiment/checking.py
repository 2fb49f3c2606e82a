"""Check the settings of every stage and variant before the first training: the last may start days later."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.plan import BASELINES, Part, Plan, Step, read_json
from monai_cae.experiment.record import NETWORK
from monai_cae.training.stages.workflow import executed_config, find_mistake

Shapes = dict[str, tuple[int, ...]]  # of a network's weights, by their names
_TRAINED, _READ = "@network_def", "@autoencoder_def"  # the same autoencoder, as it is trained and as it is tested
# Per stage: items that are evaluated, and what is set so that none of them reads an image or needs a trained network.
_CHECKED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "pretrain": (["@resuming", "@loss", "@train#inferer", "@train#optimizer", "@figures", _TRAINED], {}),
    "train": (
        [
            "@resuming",
            "@figures",
            "@train#inferer",
            "@train#optimizer",
            "@train#dataset",
            "@validate#dataset",
            "$@target.require_scored(linear_probe=@learn == 'linear_probe')",
            "$@target.require_binary(calibrate=@calibrate)",
            "$@train#target.begin(@network_def)",
            "$monai_cae.training.check_linear_probe(@learn, @network, @penalty)",
            _READ,
        ],
        {"network": "$@network_def", "train#dataset#share": 0, "validate#dataset#share": 0},
    ),
    "evaluate": (
        [
            "@figures",
            "@network_def",
            _READ,
            "@inferer",
            "@dataset",
            "@validation#dataset",
            "@prediction_table",
            "$monai_cae.evaluation.similarity.require_windows(@extraction.sizes(@image_size))",
        ],
        {
            "network": "$@network_def",
            "autoencoder": "$@autoencoder_def",  # a figure may look into them
            "dataset#share": 0,
            "validation#dataset#share": 0,
        },
    ),
    BASELINES: (
        ["$monai_cae.training.check_models(@models, @only, @sets.training + @sets.validation, @target, @sets.rules)"],
        {"fitting#share": 0},
    ),
}


def check_steps(plan: Plan, part: Part, datalist: Path) -> None:
    """Evaluate what the settings of each step decide, as far as that needs no training: names of settings, words,
    numbers, columns of the table, weight files, whether the networks can be built.

    Args:
        plan: of the experiment.
        part: one of its parts; the settings of the others differ in seed, fold and folder alone.
        datalist: the part's, wherever it is.

    Raises:
        MonaiCaeError: naming the variant, the stage and what is wrong.
    """
    trained: dict[Path, Shapes] = {}
    outer = [step for step in plan.steps(part) if not step.inner]  # a candidate's own step has the same settings
    for step in [*outer, *plan.corners(part)]:
        what = "candidate" if plan.select and step.method in plan.select.candidates else "variant"
        for stage, settings in step.stages.items():
            where = f"{stage}: " if step.method in (NETWORK, BASELINES) else f"{what} {step.method}, {stage}: "
            where = f"select#space, {stage}: " if step.inner else where
            try:
                _check(plan, step, stage, {**settings, "datalist": str(datalist)}, trained)
            except (ValueError, RuntimeError, TypeError, KeyError) as error:
                raise MonaiCaeError(f"{where}{_reason(error)}") from error


def _check(plan: Plan, step: Step, stage: str, settings: Mapping[str, Any], trained: dict[Path, Shapes]) -> None:
    items, changed = _CHECKED[stage]
    if str(settings.get("transfer", "none")) != "none":  # it must fit
        changed = {name: value for name, value in changed.items() if name != "network"}
    elif plan.elsewhere(str(settings.get("pretrained", "none"))):
        changed = {name: value for name, value in changed.items() if name != "network"}
        items = [*items, "$monai_cae.networks.load_weights(@autoencoder_def, @pretrained)"]
    made = dict(
        zip(items, evaluate(plan, step, stage, {**settings, **changed, "_checked": items}, "_checked"), strict=True)
    )
    if stage == "pretrain":
        trained[Path(settings["output_dir"], "models", "autoencoder.pt")] = _shapes(made[_TRAINED])
    elif _READ in made:
        read = settings.get("pretrained") or Path(settings["output_dir"], "models", "autoencoder.pt")
        shapes, other = trained.get(Path(str(read))), _shapes(made[_READ])
        if shapes is not None and (differ := {name for name, _ in shapes.items() ^ other.items()}):
            raise MonaiCaeError(
                f"autoencoder_def is another network than pretrain trains ({len(differ)} weights differ, such as "
                f"{min(differ)}): give classifier network_def#encoder, and evaluate autoencoder_def#encoder, as "
                "pretrain has it"
            )


def _shapes(network: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _reason(error: BaseException) -> str:
    """In one line: of MONAI's "Failed to instantiate", what the part itself has said."""
    mistake = find_mistake(error)
    if mistake is not None:
        return str(mistake)
    while error.__cause__ is not None:
        error = error.__cause__
    return f"no item {error} in the config" if isinstance(error, KeyError) else str(error).strip().partition("\n")[0]


def evaluate(plan: Plan, step: Step, stage: str, settings: Mapping[str, Any], run_id: str = "run") -> list[Any]:
    """Evaluate an item of a stage's config; what a setting makes impossible comes out of MONAI's wrapping.

    Args:
        plan: of the experiment.
        step: the stage is run for it.
        stage: has the config.
        settings: override it; sets are compared with the cohort once, see `check_parts`, unless these say otherwise.
        run_id: the item, a list.

    Returns:
        What the members of the item give.

    Raises:
        MonaiCaeError: a user's mistake, told in the experiment's own options.
    """
    path = Path(plan.configs, f"{stage}.json")
    try:
        given = {"sets#compare": False, **deepcopy(settings)}  # MONAI changes lists in place
        workflow = ConfigWorkflow(str(path), run_id=run_id, **given)
        workflow.initialize()
        outcome = workflow.run()
        workflow.finalize()
    except (RuntimeError, MonaiCaeError) as error:
        mistake = find_mistake(error)
        if mistake is None:
            raise
        names = {*read_json(path), *settings} - set(executed_config())
        raise MonaiCaeError(_as_given(str(mistake), names, f"{_place(plan, step)}#{stage}")) from error
    finally:  # each run puts the bundle's folder there again, and every import looks into all of them
        sys.path[:] = dict.fromkeys(sys.path)
    return list(outcome)


def _place(plan: Plan, step: Step) -> str:
    """Where the settings of a step's method are given."""
    if plan.select and plan.select.space and step.inner:
        return "select#space"
    method = step.method.rpartition("/")[2] if step.inner else step.method
    if method in (NETWORK, BASELINES):
        return "stages"
    return f"select#candidates#{method}" if plan.select and method in plan.select.candidates else f"variants#{method}"


def _as_given(message: str, names: Collection[str], where: str) -> str:
    """A stage's message with its options named as those of the experiment."""

    def named(option: re.Match[str]) -> str:
        if option[1] == "only":
            return f"--{BASELINES}"
        return f"--{where}#{option[1]}" if option[1] in names else option[0]

    return re.sub(r"--(\w+)", named, message)
