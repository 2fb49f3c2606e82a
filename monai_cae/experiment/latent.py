"""What the code of a trained autoencoder has to do with the columns of a cohort's table: `monai-cae latent`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.networks.layers.factories import Pool
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from monai_cae import DISCLAIMER
from monai_cae.data import Cohort, hashed_subjects
from monai_cae.data.cohort.numbers import number_columns
from monai_cae.data.cohort.tasks import read_codes, told_codes
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.correlations import FEWEST, FOLDS, correlations, regressors
from monai_cae.evaluation.image_figures import Pictures
from monai_cae.evaluation.latent_figure import influence_maps
from monai_cae.evaluation.style import save_figure
from monai_cae.experiment.short_page import short_page
from monai_cae.experiment.wording import p_value
from monai_cae.files import replacing, write_text
from monai_cae.templates import render
from monai_cae.terminal import progress_bar, say
from monai_cae.tracking import cohort_name
from monai_cae.training import Reconstructed
from monai_cae.training.results.figures import SYNTHETIC_NOTE, tell_undrawn
from monai_cae.training.stages.run import data_kind

DRAWN = 6  # components
LISTED = 20  # correlations on the page; latent.csv has all
LEVEL = 0.05  # of the corrected p
_FILES = ("latent.csv", "regressors.csv", "latent.md", "latent.html", "figures/latent_components.png")
Infer = Callable[[torch.Tensor, nn.Module], Any]


def items_of(cohort: Cohort) -> list[dict[str, Any]]:
    """The cohort's scans as items of a dataset."""
    return [{"image": str(scan.image), "subject": scan.subject, "label": 0} for scan in cohort.scans]


def report_latent(
    *,
    network: nn.Module,
    cohort: Cohort,
    dataset: Dataset,
    inferer: Infer,
    extraction: Pictures,
    places: int,
    missing_codes: Any,
    trained_on: Sequence[str],
    dataset_dir: str,
    output_dir: str,
    device: str | torch.device,
    batch_size: int,
    seed: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Correlate every component of the pooled code, and ridge regressors on all of them, with every column of numbers.

    Args:
        network: the autoencoder with its weights.
        cohort: its scans, with the rows of the table.
        dataset: their images, in the same order.
        inferer: calls the network.
        extraction: makes the pictures to draw.
        places: along each axis, that every channel of the code is averaged to; a component is the mean of a channel at
            one of them. A code without places is taken as it is.
        missing_codes: numbers of the table that mean "not given".
        trained_on: hashed IDs of the subjects that the autoencoder has seen.
        dataset_dir: names the cohort.
        output_dir: latent.csv, regressors.csv, latent.html with the same as latent.md, and
            figures/latent_components.png are written there.
        device, batch_size: for the network.
        seed: of the regressors' folds.
        overwrite: replace what is there.

    Returns:
        The numbers of `subjects`, `components` and `columns`.

    Raises:
        MonaiCaeError: earlier results, fewer than 20 subjects, a table without a column of numbers, or an encoder whose
            output is no code.
    """
    output, scans = Path(output_dir), cohort.scans
    there = [name for name in _FILES if (output / name).is_file()]
    if there and not overwrite:
        raise MonaiCaeError(f"{output} has {there[0]}: choose another --output_dir, or give --overwrite true")
    people = {scan.subject for scan in scans}
    if len(people) < FEWEST:
        raise MonaiCaeError(f"only {len(people)} subjects: {FEWEST} are the fewest for correlations; add some")
    missing = read_codes(missing_codes)
    columns, left_out = number_columns(scans, missing, FEWEST)
    if columns.empty:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise MonaiCaeError(f"the table has no column of numbers to correlate with ({why or 'it has none'})")
    pooled, mean = _codes(network, dataset, inferer, places, device, batch_size)
    codes = pd.DataFrame(pooled).groupby([scan.subject for scan in scans]).mean()
    codes.columns = [f"c{number}" for number in range(1, codes.shape[1] + 1)]
    sex = pd.Series({scan.subject: {"F": 0.0, "M": 1.0}.get(scan.sex, np.nan) for scan in scans}, dtype=float)
    nuisance = pd.DataFrame({"age": columns.get("age"), "sex": sex[columns.index]}, index=columns.index)
    nuisance = nuisance.dropna(axis=1, how="all")
    table, predicted = correlations(codes, columns, nuisance), regressors(codes, columns, nuisance, seed)
    for name, frame in (("latent", table), ("regressors", predicted)):
        with replacing(output / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.5g")
    ordered = table.dropna(subset="pearson_p").sort_values(["pearson_p", "component"], kind="stable")
    seen = sum(digest in set(trained_on) for digest in hashed_subjects(items_of(cohort)))
    notes = [line for name in columns for line in told_codes(name, [scan.row.get(name, "") for scan in scans], missing)]
    facts = {
        "subjects": len(codes),
        "scans": len(scans),
        "components": codes.shape[1],
        "columns": columns.shape[1],
    }
    drawn = _draw(network, ordered, codes, mean, places, extraction, cohort.synthetic, output / "figures", device)
    page = render(
        "latent.md",
        **facts,
        data=data_kind(cohort.synthetic),
        disclaimer=DISCLAIMER,
        cohort=cohort_name(dataset_dir),
        places=places if mean.ndim > 2 else 0,
        seen=seen if trained_on else None,
        folds=FOLDS,
        nuisance=" and ".join(nuisance.columns),
        regressors=predicted.to_dict("records"),
        strongest=ordered.head(LISTED).to_dict("records"),
        significant={kind: int((table[f"{kind}_q"] < LEVEL).sum()) for kind in ("pearson", "spearman", "partial")},
        tests=len(table),
        level=LEVEL,
        left_out=left_out,
        notes=notes,
        drawn=drawn,
        p_value=p_value,
    )
    write_text(output / "latent.md", page)
    write_text(output / "latent.html", short_page(page, output, "latent", cohort.synthetic))
    for line in notes:
        say(f"note: {line}")
    _tell(facts, predicted, table, output, data_kind(cohort.synthetic))
    return facts


def _codes(
    network: nn.Module, dataset: Dataset, inferer: Infer, places: int, device: str | torch.device, batch_size: int
) -> tuple[np.ndarray, torch.Tensor]:
    """The pooled codes of all images, shape `(n, components)`, and the mean code, shape `(1, channels, ...)`."""
    network = network.to(device).eval()
    pooled: list[torch.Tensor] = []
    total: torch.Tensor | None = None
    number = len(dataset)  # type: ignore[arg-type]  # map-style datasets have a length
    progress = progress_bar("codes", number, "scan")
    with torch.no_grad():
        for first in range(0, number, batch_size):
            items = [dataset[index] for index in range(first, min(first + batch_size, number))]
            images = torch.stack([torch.as_tensor(item["image"]) for item in items]).to(device)
            code = inferer(images, network.get_submodule("encoder"))
            if not isinstance(code, torch.Tensor) or code.ndim < 2:
                raise MonaiCaeError(f"the encoder of {type(network).__name__} gives no code, which is one tensor")
            total = code.sum(dim=0, keepdim=True) if total is None else total + code.sum(dim=0, keepdim=True)
            small = Pool["adaptiveavg", code.ndim - 2](places)(code) if code.ndim > 2 else code
            pooled.append(small.flatten(1).cpu())
            progress.update(len(items))
    progress.close()
    assert total is not None
    return torch.cat(pooled).double().numpy(), total / number


def _draw(
    network: nn.Module,
    ordered: pd.DataFrame,
    codes: pd.DataFrame,
    mean: torch.Tensor,
    places: int,
    extraction: Pictures,
    synthetic: bool,
    folder: Path,
    device: str | torch.device,
) -> bool:
    """The components that correlate most, each by its strongest column; False where nothing can be decoded."""
    decoder = getattr(network, "decoder", None)
    if not isinstance(decoder, nn.Module) or ordered.empty:
        return False
    best, image_of = ordered.drop_duplicates("component").head(DRAWN), Reconstructed(network)
    decoded = {}
    try:
        with torch.no_grad():
            for row in best.to_dict("records"):
                number = list(codes.columns).index(row["component"])
                step = float(codes[row["component"]].std()) * _direction(mean, number, places).to(device)
                images = [image_of({"pred": decoder(mean + sign * step)})["pred"] for sign in (-1, 0, 1)]
                name = f"{row['component']}\n{row['column']}\nr = {row['pearson']:+.2f}"
                decoded[name] = [extraction.picture(image[0].float().cpu().numpy()) for image in images]
        about = f"{len(best)} of {codes.shape[1]} components, those that correlate most, each with its strongest column"
        figure = influence_maps(decoded, SYNTHETIC_NOTE if synthetic else "", about)
        save_figure(figure, folder / "latent_components.png")
    except Exception as error:  # a user's decoder may take something else
        tell_undrawn("latent_components", error)
        return False
    return True


def _direction(mean: torch.Tensor, component: int, places: int) -> torch.Tensor:
    """1 where the code has the component, 0 elsewhere; the shape of the mean code."""
    if mean.ndim == 2:
        return functional.one_hot(torch.tensor(component), mean.shape[1])[None].float()
    dims = mean.ndim - 2
    one = torch.zeros(1, mean.shape[1] * places**dims)
    one[0, component] = 1
    return functional.interpolate(one.reshape(1, mean.shape[1], *[places] * dims), size=mean.shape[2:], mode="nearest")


def _tell(facts: Mapping[str, int], predicted: pd.DataFrame, table: pd.DataFrame, output: Path, data: str) -> None:
    found = int((table["pearson_q"] < LEVEL).sum())
    print(f"\ncode and table of {facts['subjects']} subjects, {data}")
    print(f"  {facts['components']} components, {facts['columns']} columns of numbers")
    say(f"  {found} of {len(table)} correlations have a corrected p under {LEVEL:g}")
    for row in predicted.to_dict("records"):
        say(
            f"  {row['column']:<12} r {row['pearson']:.2f} by ridge regression, corrected p {p_value(row['pearson_q'])}"
        )
    print(f"  page   {output / 'latent.html'}\n  table  {output / 'latent.csv'}\n  {DISCLAIMER}", flush=True)
