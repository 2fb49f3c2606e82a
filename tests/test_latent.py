"""`monai-cae latent`: the code of an autoencoder beside the numbers of a table."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawing
from monai.bundle import ConfigParser
from scipy import stats
from tiny import CONFIGS, TINY, mistake, random_network, write_discs

from monai_cae.cli import main
from monai_cae.data import hash_subject
from monai_cae.data.cohort.numbers import number_columns
from monai_cae.data.layouts import read_scans
from monai_cae.networks import save_weights

SETTINGS = [
    part for name in ("image_size", "slice_index", "device", "precision") for part in (f"--{name}", str(TINY[name]))
]


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """24 subjects, of whom the first has two scans, with columns of all kinds."""
    root = write_discs(tmp_path_factory.mktemp("cohort"))
    path = root / "oasis_cross-sectional.csv"
    with path.open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        row |= {"MMSE": 30 - index % 9, "ward": "east", "same": 1, "rare": index if index < 5 else "", "score": -9}
        row["score"] = -9 if index == 7 else 100 - index + index % 4
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "autoencoder.pt"
    seen = [hash_subject("OAS1_0001"), hash_subject("OAS1_0002"), hash_subject("elsewhere")]
    save_weights(random_network("autoencoder"), path, trained_on=seen)
    return path


@pytest.fixture(scope="module")
def told(cohort, autoencoder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("told") / "out"
    with pytest.MonkeyPatch.context() as patch, drawing():
        patch.setattr(sys, "argv", sys.argv)
        patch.setattr(sys, "excepthook", sys.excepthook)
        assert main(["latent", str(autoencoder), str(cohort), str(output), *SETTINGS]) in (0, None)
    return output


def test_columns_of_numbers_are_found_and_others_left_out_with_the_reason(cohort):
    scans = read_scans(cohort).scans
    found, left_out = number_columns(scans, frozenset([-9.0]), 20)
    assert list(found) == ["age", "Educ", "CDR", "MMSE", "nWBV", "score"]
    assert left_out == {"ward": "text", "same": "the same for all", "rare": "given for 5 subjects"}
    assert found.loc["OAS1_0003"].tolist() == pytest.approx([62, 3, 0, 28, 0.72, 100])
    twice = [*scans, scans[0].__class__(**{**vars(scans[0]), "session": "MR2", "age": 70, "row": {"MMSE": "20"}})]
    assert number_columns(twice, frozenset(), 20)[0].loc["OAS1_0001", ["age", "MMSE"]].tolist() == [65, 25]


def test_every_component_is_correlated_with_every_column(told, cohort, autoencoder):
    """The code is computed here by the encoder itself, on the slices that the configs give."""
    table = pd.read_csv(told / "latent.csv")
    assert len(table) == 128 * 6 and set(table["column"]) == {"age", "Educ", "CDR", "MMSE", "nWBV", "score"}
    config = ConfigParser(
        ConfigParser.load_config_files([str(CONFIGS / "evaluate.json"), str(CONFIGS / "latent.yaml")])
    )
    config.update({**TINY, "dataset_dir": str(cohort), "pretrained": str(autoencoder)} | {"bundle_root": "."})
    images = torch.stack([config.get_parsed_content("dataset")[i]["image"] for i in range(24)])
    with torch.no_grad():
        code = random_network("autoencoder").encoder(images.as_tensor() if hasattr(images, "as_tensor") else images)
    components = code.mean(dim=(2, 3)).double().numpy()
    scores = np.array([np.nan if i == 7 else 100 - i + i % 4 for i in range(24)])
    known = ~np.isnan(scores)
    for component in (0, 17, 127):
        row = table[(table["component"] == f"c{component + 1}") & (table["column"] == "score")].iloc[0]
        expected = stats.pearsonr(components[known, component], scores[known])
        assert row["n"] == 23 and row["pearson"] == pytest.approx(expected.statistic, abs=2e-3)
    q = stats.false_discovery_control(table["pearson_p"].dropna())
    assert table["pearson_q"].dropna().to_numpy() == pytest.approx(q, rel=1e-3)


def test_the_page_says_who_it_is_about_and_what_was_left_out(told, in_browser):
    in_browser(told / "latent.html")
    html = (told / "latent.html").read_text()
    assert "24 subjects (24 scans" in html and html.count("<img ") == 1 and "OAS1" not in html
    page = (told / "latent.md").read_text()
    assert "24 subjects (24 scans" in page and "128 components" in page and "6 columns" in page
    assert "was trained on 2 of these subjects" in page
    assert "- ward: text" in page and "- rare: given for 5 subjects" in page
    assert '- score -9 (1) count as "not given"' in page
    assert "| score | 23 |" in page and "r without age and sex" in page
    assert len(pd.read_csv(told / "regressors.csv")) == 6
    assert (told / "figures" / "latent_components.png").stat().st_size > 10_000
    assert "OAS1" not in page


def test_earlier_results_and_too_few_subjects_are_refused(told, cohort, autoencoder, tmp_path):
    given = ["latent", str(autoencoder), str(cohort), str(told), *SETTINGS]
    assert f"{told} has latent.csv: choose another" in mistake(main, given)
    few = write_discs(tmp_path / "few", 12)
    said = mistake(main, ["latent", str(autoencoder), str(few), str(tmp_path / "out"), *SETTINGS])
    assert said.startswith("only 12 subjects: 20 are the fewest for correlations")
    assert not (tmp_path / "out").exists()
