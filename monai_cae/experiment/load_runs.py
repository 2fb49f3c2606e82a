"""Load the predictions of a finished run from MLflow, a folder or a file, checked row by row."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.wording import readable
from monai_cae.files import unmarked
from monai_cae.tracking import Store, StoreAway, StoreRefuses, limits
from monai_cae.tracking.copying import ID

FILE = "predictions.csv"
SPLITS = ("repeat", "fold")
_NEEDED = ("subject", "label", "probability")
_OF_A_NUMBER = "predicted"  # in place of the probability
_ROUNDING = 1e-6  # tables from elsewhere may have six decimals


@dataclass(frozen=True)
class Predictions:
    """What one method said of the tested subjects.

    Attributes:
        name: what to call it.
        given: as the user gave it.
        origin: file or MLflow run, and method; equal for the same predictions given in two ways.
        table: see `monai_cae.evaluation.pooled` or, of numbers, `monai_cae.evaluation.numbers`.
        synthetic: they are of a phantom; False where nothing says so.
        leaks: between the sets that they come from; 0 where nothing says so.
    """

    name: str
    given: str
    origin: tuple[str, str]
    table: pd.DataFrame
    synthetic: bool = False
    leaks: int = 0

    @property
    def number(self) -> bool:
        """It says numbers, not probabilities."""
        return _OF_A_NUMBER in self.table


def read_predictions(given: str, *, tracking_uri: str = "", method: str = "") -> Predictions:
    """Find the predictions that the user means.

    Args:
        given: a predictions.csv, a folder that has one, or ID or name of an MLflow run that has one as an artifact;
            with `:METHOD` behind it one method of an experiment. A table from elsewhere needs `subject`, `label` and
            `probability`; without `repeat` and `fold` these are 1, and without `threshold` it is 0.5, or what
            `prediction` tells of it.
        tracking_uri: MLflow's store, for runs.
        method: of an experiment, where `given` names none; "" for the network, or the only one.

    Raises:
        MonaiCaeError: there is no such file or run, or it is no table of predictions.
    """
    place, chosen = _place(given)
    if place is not None:
        path = place / FILE if place.is_dir() else place
        if not path.is_file():
            raise MonaiCaeError(f"{place} has no {FILE}: give the folder of an experiment or an evaluated run")
        about = _told_beside(path)
        name = path.resolve().parent.name if path.name == FILE else path.stem
        return _predictions(path, given, name, str(path.resolve()), chosen, method, about)
    if ".csv" in given or "/" in given or "\\" in given:
        raise MonaiCaeError(f"no file or folder {given}: give a {FILE}, a folder that has one, or an MLflow run")
    return _of_run(given, tracking_uri, method)


def _place(given: str) -> tuple[Path | None, str]:
    """The file or folder that is meant, and the method behind it."""
    before, _, after = given.rpartition(":")
    for text, method in ((given, ""), (before, after)):
        if text and Path(text).exists():
            return Path(text), method
    return None, ""


def _told_beside(path: Path) -> Mapping[str, Any]:
    """What the run that wrote the table has said of its data, where it lies as it was written."""
    for name in ("summary.json", "results_evaluate.json"):
        beside = path.resolve().with_name(name)
        if path.name == FILE and beside.is_file():
            try:
                told = json.loads(beside.read_text(encoding="utf-8"))
                about = {"synthetic": bool(told["synthetic"]), "leaks": int(told["leaks"])}
            except (OSError, ValueError, KeyError, TypeError):
                continue
            unmarked(told, beside)
            return about
    return {}


def _of_run(given: str, tracking_uri: str, method: str) -> Predictions:
    if not tracking_uri:
        raise MonaiCaeError(
            f"{given} is neither a file nor a folder: for an MLflow run, give --tracking_uri sqlite:///OUTPUT/mlruns.db"
        )
    store = Store(tracking_uri, limits.SYNC_SECONDS)
    if store.database is not None and not store.database.is_file():
        raise MonaiCaeError(f"no MLflow database {store.database}: check --tracking_uri")
    with tempfile.TemporaryDirectory() as folder:
        try:
            run, chosen, path = store.ask(partial(_downloaded, given=given, where=store.shown, folder=folder))
        except (StoreAway, StoreRefuses) as error:
            raise MonaiCaeError(f"can't read {given} from {store.shown} ({error}): check --tracking_uri") from error
        about = {
            "synthetic": run.data.tags.get("data") == "synthetic",
            "leaks": int(run.data.tags.get("leaks", "0")),
        }
        return _predictions(path, given, run.info.run_name, run.info.run_id, chosen, method, about)


def _downloaded(client: Any, given: str, where: str, folder: str) -> tuple[Any, str, Path]:
    """The run, the method behind its name, and a copy of its predictions."""
    run, chosen = _find_run(client, given, where)
    if FILE not in (artifact.path for artifact in client.list_artifacts(run.info.run_id)):
        raise MonaiCaeError(f"run {given} has no {FILE}: give a run of an experiment or of the stage evaluate")
    return run, chosen, Path(client.download_artifacts(run.info.run_id, FILE, folder))


def _find_run(client: Any, given: str, tracking_uri: str) -> tuple[Any, str]:
    """The run of that ID or name, and the method behind it."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    before, _, after = given.rpartition(":")
    for text, method in ((given, ""), (before, after)):
        quote = '"' if "'" in text else "'"
        if not text or quote in text:
            continue
        for name in ("attributes.run_id", f"tags.`{ID}`", "attributes.run_name"):
            found = client.search_runs(experiments, f"{name} = {quote}{text}{quote}")
            if len(found) > 1:
                raise MonaiCaeError(
                    f"{len(found)} runs are called {text}: give the ID of one, such as {found[0].info.run_id}"
                )
            if found:
                return found[0], method
    raise MonaiCaeError(f"no run with ID or name {given} in {tracking_uri}: check it, or --tracking_uri")


def _predictions(
    path: Path, given: str, name: str, origin: str, chosen: str, method: str, about: Mapping[str, Any]
) -> Predictions:
    table, used = _of_method(_read(path, given), given, chosen, method)
    shown = f"{name}, {readable(used)}" if chosen or (used and used != NETWORK) else name
    return Predictions(shown, given, (origin, used), _checked(table, given), **about)


def _read(path: Path, given: str) -> pd.DataFrame:
    try:
        # as texts: pandas would take a subject called NA for a blank, and 007 for 7
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise MonaiCaeError(f"{given} is not a readable csv file ({reason})") from error
    table.columns = [str(column).strip() for column in table.columns]
    number = _OF_A_NUMBER in table and "probability" not in table
    missing = [column for column in (_NEEDED[:2] if number else _NEEDED) if column not in table]
    if missing:
        raise MonaiCaeError(
            f"{given} has no column {' and '.join(missing)}: subject, label and probability (of a number, predicted) "
            "are needed, separated by commas"
        )
    if table.empty:
        raise MonaiCaeError(f"{given} has no rows: give one subject per row")
    return table.apply(lambda column: column.str.strip())


def _of_method(table: pd.DataFrame, given: str, chosen: str, method: str) -> tuple[pd.DataFrame, str]:
    if "method" not in table:
        if chosen:
            raise MonaiCaeError(f"{given} has no column method: leave out :{chosen}")
        return table, ""
    methods = list(dict.fromkeys(table["method"]))
    wanted = chosen or method or (methods[0] if len(methods) == 1 else NETWORK)
    if wanted not in methods:
        raise MonaiCaeError(f"{given} has no method {wanted}: it has {', '.join(methods)}")
    return table[table["method"] == wanted].reset_index(drop=True), wanted


def _checked(table: pd.DataFrame, given: str) -> pd.DataFrame:
    """The columns that are compared, as numbers and texts; or one line that says what is wrong with which row."""
    said = "probability" if "probability" in table else _OF_A_NUMBER
    label, predicted = _numbers(table, "label", given), _numbers(table, said, given)
    texts = {
        name: table[name].str.replace(r"\.0$", "", regex=True) if name in table else "1" for name in ("repeat", "fold")
    }
    made = pd.DataFrame({"subject": table["subject"], "label": label, said: predicted}).assign(**texts)
    for name in ("subject", *SPLITS):
        _refuse(made[name] == "", made, given, f"{name} is blank")
    if said != _OF_A_NUMBER:
        _refuse(~label.isin((0, 1)), made, given, "the label must be 0 (HC) or 1 (AD)", label)
        outside = (predicted < 0) | (predicted > 1)
        _refuse(outside, made, given, "the probability must be between 0 and 1", predicted)
    twice = made.duplicated(["subject", "repeat"])
    if twice.any():
        subject, repeat = made.loc[twice.idxmax(), ["subject", "repeat"]]
        raise MonaiCaeError(
            f"{given} has subject {subject} twice in repeat {repeat}: give one row per subject, such as the mean of "
            f"its scans ({twice.sum()} rows too many)"
        )
    mixed = made.groupby("subject", sort=False)["label"].nunique() > 1
    if mixed.any():
        raise MonaiCaeError(f"{given} gives {mixed.sum()} subjects both labels, the first is {mixed.idxmax()}")
    if said == _OF_A_NUMBER:
        return made
    for repeat, rows in made.groupby("repeat", sort=False):
        if rows["label"].nunique() == 1:
            which = f" in repeat {repeat}" if made["label"].nunique() > 1 else ""
            only = "AD (label 1)" if rows["label"].iloc[0] == 1 else "HC (label 0)"
            raise MonaiCaeError(f"{given} has only one class{which}, {only}: both are needed")
    made["label"] = made["label"].astype(int)
    return made.assign(threshold=_thresholds(table, made, given))


def _numbers(table: pd.DataFrame, name: str, given: str) -> pd.Series:
    values = pd.to_numeric(table[name], errors="coerce").astype(float)
    _refuse(values.isna() | np.isinf(values), table, given, f"the {name} must be a number", table[name])
    return values


def _refuse(wrong: pd.Series, table: pd.DataFrame, given: str, rule: str, values: pd.Series | None = None) -> None:
    if wrong.any():
        row = wrong.idxmax()
        value = "" if values is None else f", not {str(values[row]) or 'blank'}"
        who = f" (subject {table['subject'][row]})" if table["subject"][row] else ""
        raise MonaiCaeError(f"{given}, row {int(row) + 1}{who}: {rule}{value}; {wrong.sum()} rows are wrong")


def _thresholds(table: pd.DataFrame, made: pd.DataFrame, given: str) -> pd.Series:
    """From which probability on each row says AD: as it is given, or as the decisions of its test set tell."""
    if "threshold" in table:
        values = _numbers(table, "threshold", given)
        _refuse((values < 0) | (values > 1), made, given, "the threshold must be between 0 and 1", values)
        return values
    thresholds = pd.Series(DEFAULT_THRESHOLD, index=made.index)
    if "prediction" not in table:
        return thresholds
    taken = _numbers(table, "prediction", given)
    _refuse(~taken.isin((0, 1)), made, given, "the prediction must be 0 or 1", taken)
    for _, rows in made.assign(taken=taken == 1).groupby(list(SPLITS)):
        if ((rows["probability"] >= DEFAULT_THRESHOLD) == rows["taken"]).all():
            continue
        below = rows.loc[~rows["taken"], "probability"].max() if not rows["taken"].all() else 0.0
        above = rows.loc[rows["taken"], "probability"].min() if rows["taken"].any() else 1.0
        if above < below - _ROUNDING or (above <= below and not rows["taken"].any()):
            raise MonaiCaeError(f"{given} has predictions that no threshold on the probability gives: check the column")
        thresholds[rows.index] = min(above, (above + below) / 2)
    return thresholds
