"""The experiment as a whole: what is run, kept, resumed, compared and doubted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from drawing import drawing
from mlflow import MlflowClient
from sklearn.metrics import roc_auc_score
from tiny import CONFIGS, mistake

from monai_cae.evaluation.style import save_figure
from monai_cae.experiment.figures import drawings
from monai_cae.experiment.methods import descriptions
from monai_cae.experiment.plan import Part, Plan
from monai_cae.experiment.record import pool
from monai_cae.experiment.results import Results, compute
from monai_cae.targets import Diagnosis, Number

HEAD = {"network_def#pooling": 1, "network_def#hidden": []}
VARIANTS = {
    "pooled": {"classifier": {**HEAD, "covariates": {"age": [70, 8]}}, "train": {"learn": "frozen", "calibrate": True}},
    "half": {"train": {"training_share": 0.5}},
}
OPTIONS = {
    "repeats": 2,
    "seed": 7,
    "max_epochs": 1,
    "split#kind": "kfold",
    "split#folds": 2,
}


def all_options(run: Path, **changed: object) -> dict:
    """Each time the fixture runs, as it may twice in one worker, in an MLflow experiment of its own: what counts as
    seen before must not depend on the order of the tests."""
    methods = {"variants": VARIANTS, "baselines": ["majority", "dark_pixels"]}
    return {**OPTIONS, "experiment_name": run.name, **methods, **changed}


@pytest.fixture(scope="module")
def run(run_bundle, discs, tmp_path_factory):
    """Two repeats of two folds, with a variant, a smaller training set and two baselines."""
    output = tmp_path_factory.mktemp("methods")
    run_bundle("experiment.yaml", discs, output, **all_options(output))
    return output


def record(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "predictions.csv", dtype={"subject": str})


def test_record_has_every_method_on_everybody_in_every_repeat(run):
    table = record(run)
    assert list(table["method"].unique()) == ["network", "pooled", "half", "majority", "dark_pixels"]
    for (_, repeat), rows in table.groupby(["method", "repeat"]):
        assert rows["subject"].nunique() == len(rows) == 24, repeat
    sets = json.loads((run / "repeat_2" / "fold_1" / "datalist.json").read_text())
    ages = {item["subject"]: (item["age"], item["sex"], item["cdr"], item["label"]) for item in sets["test"]}
    rows = table[(table["method"] == "half") & (table["repeat"] == 2) & (table["fold"] == 1)].set_index("subject")
    assert {s: (r["age"], r["sex"], r["cdr"], r["label"]) for s, r in rows.iterrows()} == ages


def test_scores_are_means_over_repeats_of_the_pooled_folds(run):
    table, summary = record(run), json.loads((run / "summary.json").read_text())
    for method in ("network", "dark_pixels"):
        repeats = [rows for _, rows in table[table["method"] == method].groupby("repeat")]
        aucs = [roc_auc_score(rows["label"], rows["probability"]) for rows in repeats]
        right = [np.mean((rows["probability"] >= 0.5) == rows["label"]) for rows in repeats]
        assert summary["scores"][method]["auc"]["mean"] == pytest.approx(np.mean(aucs), abs=1e-6)
        assert summary["scores"][method]["accuracy"]["mean"] == pytest.approx(np.mean(right))
    against = summary["comparisons"]["dark_pixels"]["accuracy"]
    assert against["difference"] == pytest.approx(
        summary["scores"]["network"]["accuracy"]["mean"] - summary["scores"]["dark_pixels"]["accuracy"]["mean"]
    )
    assert against["trials"] == summary["parts"] == 4


def test_page_tables_and_figures_are_on_disk_and_in_mlflow(run, tracking_uri):
    client = MlflowClient(tracking_uri)
    parent = client.get_run(json.loads((run / "experiment.json").read_text())["run_id"])
    logged = {item.path for item in client.list_artifacts(parent.info.run_id)}
    tables = {f"{name}.csv" for name in ("predictions", "scores", "comparisons", "subgroups", "reconstruction")}
    assert tables | {"results.md", "summary.json", "figures"} <= logged
    figures = {Path(item.path).stem for item in client.list_artifacts(parent.info.run_id, "figures")}
    sure = {"selective", "calibration"}
    assert figures == {"roc", "methods", "auc_by_cdr", "repeats", "learning_curve", "code_sizes", *sure}
    assert {"certainty.csv", "selective.csv"} <= logged
    page = (run / "results.md").read_text()
    described = parent.data.tags["mlflow.note.content"]
    assert (
        "| dark pixels&ensp; |" in described
        and described.replace("&ensp;", "").partition("## All")[0][:500] == page[:500]
    )
    assert "| network | " in page.partition("## How sure")[2] and "| 10 % | " in page
    assert "FEW REPEATS" in page and "half size" in page and "CDR 0.5" in page
    scores = json.loads((run / "summary.json").read_text())["scores"]
    assert parent.data.metrics["test_auc_mean"] == pytest.approx(scores["network"]["auc"]["mean"])
    grouped = {name.partition("/")[2] for name in parent.data.metrics if name.startswith("auc/")}
    assert grouped == {"network", "pooled", "half", "majority", "dark_pixels"}
    assert parent.data.metrics["auc/dark_pixels"] == pytest.approx(scores["dark_pixels"]["auc"]["mean"])
    told = {"cohort.task": "paper", "split.kind": "kfold", "split.folds": "2", "seed": "7"}
    assert told.items() <= parent.data.params.items()
    assert not {"cohort", "split"} & parent.data.params.keys()


def test_page_says_what_the_methods_and_the_abbreviations_are(run):
    page = (run / "results.md").read_text()
    assert "- **network**: the classifier on the autoencoder's encoder, as in the configs\n" in page
    assert "- **half**: the network with `training_share` 0.5 (train)\n" in page
    pooled = "`network_def#pooling` 1, `network_def#hidden` none, `covariates` (age [70, 8]) (train, evaluate)"
    assert f"- **pooled**: the network with {pooled}; `learn` frozen, `calibrate` true (train)\n" in page
    models = json.loads((CONFIGS / "baselines.json").read_text())["models"]
    assert all(model["_desc_"] for model in models.values())
    assert f"- **dark pixels**: {models['dark_pixels']['_desc_']}\n" in page
    legend = page.partition("## Abbreviations")[2]
    assert all(
        f"**{short}**" in legend for short in ("AD", "HC", "CDR", "F1", "MCC", "AUC", "Brier", "ECE", "PSNR", "SSIM")
    )
    assert max(len(line.split("|")) for line in page.splitlines()) <= 12 + 3  # a column per score, not per method


def test_a_variant_of_volumes_is_not_given_the_plane_of_the_slices(tmp_path):
    shared = {"plane": "coronal", "slice_index": 12, "split": {}, "dataset_dir": "data"}
    seen = {"volume": "VolumeExtraction", "slab": "SlabExtraction"}
    extractions: dict = {name: {"_target_": f"monai_cae.data.{kind}"} for name, kind in seen.items()}
    extractions["slab"]["plane"] = "@plane"
    stages = ("pretrain", "classifier")
    variants = {name: {stage: {"extraction": one} for stage in stages} for name, one in extractions.items()}
    planes: dict[str, set[str]] = {}
    for step in Plan(str(CONFIGS), tmp_path, shared, {}, variants, [], {}).steps(Part("repeat_1", 1, 0)):
        planes.setdefault(step.method, set()).update(given["plane"] for given in step.stages.values())
    assert planes == {"network": {"coronal"}, "volume": {"axial"}, "slab": {"coronal"}}


def test_trainings_have_the_precision_that_is_given_and_tests_that_of_predictions(tmp_path):
    shared = {"split": {}, "dataset_dir": "data", "precision": "auto"}
    plan = Plan(str(CONFIGS), tmp_path, shared, {}, {}, ["majority"], {})
    given = {stage: one for step in plan.steps(Part("repeat_1", 1, 0)) for stage, one in step.stages.items()}
    told = {stage: settings.get("precision") for stage, settings in given.items()}
    # None is what evaluate.json and baselines.json have by themselves, as inference.json does
    assert told == {"pretrain": "auto", "train": "auto", "evaluate": None, "baselines": None}
    names = ("evaluate", "baselines", "inference")
    assert {json.loads((CONFIGS / f"{name}.json").read_text())["precision"] for name in names} == {"float32"}


def test_a_part_of_a_network_is_told_by_its_class(tmp_path):
    encoder = {"_target_": "monai_cae.networks.VGG16Encoder", "weights": ""}
    inner = {"_target_": "monai_cae.networks.ConvEncoder", "channels": "@channels"}  # what it has, the settings tell
    code = {"_target_": "monai_cae.networks.DenseEncoder", "network": inner, "size": "$@sizes(2)", "latent_size": 64}
    variants = {
        "vgg": {"classifier": {"network_def#encoder": encoder}, "train": {"learn": "finetune" * 200}},
        "dense": {"pretrain": {"network_def#encoder": code}},
    }
    described = descriptions(Plan(str(CONFIGS), tmp_path, {}, {}, variants, [], {}))
    told = described["vgg"]
    dense = "`network_def#encoder` DenseEncoder(network ConvEncoder, latent_size 64)"
    assert described["dense"] == f"the network with {dense} (pretrain)"
    assert told.startswith("the network with `network_def#encoder` VGG16Encoder(weights none) (train, evaluate); ")
    assert told.endswith(" ...") and len(told) < 450


def test_figures_show_the_numbers_of_the_tables(run, tmp_path):
    summary = json.loads((run / "summary.json").read_text())
    known = (record(run), pd.DataFrame(), summary["results"], run)
    drawn = drawings(summary, compute(*known, target=Diagnosis(), seed=7, seen_before=0))
    ours = record(run).query("method == 'network'")
    aucs = [roc_auc_score(rows["label"], rows["probability"]) for _, rows in ours.groupby("repeat")]
    dots = [line.get_ydata().tolist() for line in drawn["repeats"].axes[0].lines if line.get_marker() == "o"]
    assert dots[1] == pytest.approx(aucs)  # two, of the folds together, not four
    scores = summary["scores"]["network"]
    assert f"{scores['auc']['mean']:.3f}" in drawn["repeats"].axes[0].get_xticklabels()[1].get_text()
    assert f"ECE {scores['ece']['mean']:.3f}" in drawn["calibration"].axes[0].get_title()
    assert "paper, other subjects: 0.747" in [text.get_text() for text in drawn["methods"].axes[0].texts]
    with drawing():
        for name, figure in drawn.items():
            assert save_figure(figure, tmp_path / f"{name}.png").stat().st_size > 5000


def test_learning_curve_halves_the_labels_of_each_class(run):
    config = json.loads((run / "repeat_1" / "fold_1" / "variants" / "half" / "config_train.json").read_text())
    assert config["training_share"] == 0.5
    steps = json.loads((run / "repeat_1" / "fold_1" / "steps.json").read_text())
    assert steps["half"]["settings"]["train"]["training_share"] == 0.5


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """The finished experiment, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_resuming_does_only_what_is_left_and_gives_the_same_numbers(run, copy, run_bundle, discs, capsys):
    lost = copy / "repeat_2" / "fold_2"
    steps = json.loads((lost / "steps.json").read_text())
    (lost / "steps.json").write_text(json.dumps({name: steps[name] for name in ("pretrain", "network", "pooled")}))
    shutil.rmtree(lost / "variants" / "half")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("model.pt")}
    options = all_options(run, resume=True)
    respelled = Path(f"{discs}/../{discs.name}")
    run_bundle("experiment.yaml", respelled, copy, **options)
    printed = capsys.readouterr().out
    assert printed.count("done before") == 5 * 4 - 2
    for names in re.findall(r"^  (?:figures|checkpoints) +(.*)", printed, re.MULTILINE):
        assert all(list(copy.glob(str(Path(name).relative_to(copy)))) for name in names.split(", ")), names
    written = [path for path in copy.rglob("model.pt") if path.stat().st_mtime_ns != before.get(path)]
    assert written == [lost / "variants" / "half" / "models" / "model.pt"]
    pd.testing.assert_frame_equal(record(copy), record(run))
    ids = [json.loads((folder / "experiment.json").read_text())["run_id"] for folder in (copy, run)]
    assert ids[0] == ids[1]


def test_resuming_with_other_settings_is_refused(run, copy, run_bundle, discs, tracking_uri):
    options = all_options(run, resume=True)
    said = mistake(run_bundle, "experiment.yaml", discs, copy, **(options | {"max_epochs": 2}))
    assert "has pretrain finished with max_epochs 1, not 2: choose another --output_dir" in said
    before = MlflowClient(tracking_uri).get_run(json.loads((copy / "experiment.json").read_text())["run_id"])
    assert before.info.status == "FINISHED"


def test_runs_say_whose_they_are(run, tracking_uri):
    client = MlflowClient(tracking_uri)
    parent = client.get_run(json.loads((run / "experiment.json").read_text())["run_id"])
    nested = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    cohort = parent.data.tags["cohort"]
    assert parent.info.run_name.startswith(f"{cohort} experiment, 2 repeats")
    one = {each.info.run_name: each.data.tags for each in nested}[f"{cohort} repeat_2/fold_1 half evaluate"]
    assert {key: one[key] for key in ("method", "repeat", "fold", "stage", "cohort")} == {
        "method": "half", "repeat": "2", "fold": "1", "stage": "evaluate", "cohort": cohort
    }  # fmt: skip


def test_a_truncated_record_is_named(run, copy, run_bundle, discs):
    path = copy / "repeat_1" / "fold_1" / "steps.json"
    path.write_text(path.read_text()[:100])
    options = all_options(run, resume=True)
    said = mistake(run_bundle, "experiment.yaml", discs, copy, **options)
    assert f"{path} is not what an experiment writes: delete it" in said


@pytest.mark.slow
def test_a_method_added_later_is_all_that_runs(run, copy, run_bundle, discs, capsys):
    later = {**VARIANTS, "scratch": {"train": {"pretrained": "none"}}}
    options = all_options(run, variants=later, resume=True)
    run_bundle("experiment.yaml", discs, copy, **options)
    assert capsys.readouterr().out.count("done before") == 5 * 4
    assert "scratch" in set(record(copy)["method"])


def test_the_shipped_candidates_and_further_overlays(run_bundle, discs, tmp_path, capsys):
    overlays = ["with_selection.yaml", "with_paper.yaml", "with_baselines.yaml", "with_learning_curve.yaml"]
    shorter = {f"variants#papers_classifier#train#{name}": 1 for name in ("max_epochs", "patience")}
    shipped = yaml.safe_load((CONFIGS / "with_selection.yaml").read_text())["select"]
    few = {name: shipped["candidates"][name] for name in ("code_places_table", "image_only")}
    select = {**shipped, "candidates": few, "inner_folds": 2}
    out = tmp_path / "out"
    undrawn = {f"stages#{stage}#figures": {} for stage in ("pretrain", "train", "evaluate")}
    run_bundle(["experiment.yaml", *overlays], discs, out, repeats=1, max_epochs=1, select=select, **undrawn, **shorter)
    assert "experiment finished" in capsys.readouterr().out
    others = ["papers_classifier", "random_weights", "permuted_labels", "quarter", "half", "three_quarters"]
    methods = list(record(out)["method"].unique())
    assert methods[:9] == ["network", *few, *others]
    assert len(methods) == 9 + 11
    table = pd.read_csv(out / "selection.csv")
    chosen = few[table["candidate"][table["chosen"] == 1].item()]["classifier"]
    config = json.loads((out / "repeat_1" / "config_evaluate.json").read_text())
    assert config["network_def"]["pooling"] == chosen.get("network_def#pooling", 1)
    assert config["network_def"]["hidden"] == []
    results = json.loads((out / "repeat_1" / "results_train.json").read_text())
    assert "fitted_loss" in results and results["epochs"] == 1  # a regression has no epochs to count


@pytest.mark.slow
def test_test_sets_scored_twice_are_told(run_bundle, discs, tmp_path, capsys):
    options = {"repeats": 1, "seed": 7, "max_epochs": 1, "channels": [2, 4], "experiment_name": str(tmp_path)}
    told = []
    for batch_size in (4, 6):
        out = tmp_path / str(batch_size)
        run_bundle("experiment.yaml", discs, out, **options, batch_size=batch_size)
        told.append(
            [
                text.count("TEST SETS SEEN BEFORE")
                for text in (capsys.readouterr().out, (out / "results.md").read_text())
            ]
        )
    assert told[0] == [0, 0] and all(told[1])


MISTAKES = {
    "stage": ({"stages": {"trian": {}}}, "unknown stage 'trian' under stages"),
    "variant's stage": ({"variants": {"a": {"tain": {}}}}, "unknown stage 'tain' under variants a"),
    "taken name": ({"variants": {"network": {}}}, "'network' names two methods"),
    "baseline's name": ({"variants": {"majority": {}}, "baselines": ["majority"]}, "'majority' names two methods"),
    "folder": ({"variants": {"a/b": {}}}, "variant 'a/b' names a folder"),
    "variants' type": ({"variants": "half"}, "variants must be settings by name"),
    "split's type": ({"split": "kfold"}, "split must be settings, such as --split#kind kfold"),
    "baselines' type": ({"baselines": "majority"}, "baselines must be a list of names"),
    "stage's settings": ({"variants": {"a": {"train": 3}}}, "train under variants a must be settings"),
    "stage's name": ({"variants": {"pretrain": {}}}, "variant 'pretrain' has the name of a stage"),
    "setting": (
        {"variants": {"a": {"train": {"learnrate": 1}}}},
        "variant a, train: unknown setting --variants#a#train#learnrate: did you mean --variants#a#train#learning_",
    ),
    "baseline": ({"baselines": ["magic"]}, "baselines: --baselines names the unknown model magic"),
}

LATE = {  # each would be met only after a training
    "word": (
        {"train": {"learn": "body"}},
        "train: learn must be one of two_stage, frozen, last_layer, finetune, linear_probe",
    ),
    "true or false": ({"train": {"calibrate": "yes"}}, "train: calibrate must be true or false, not 'yes'"),
    "threshold": ({"evaluate": {"threshold": "youdin"}}, "evaluate: threshold must be from 0 to 1, or one of youden"),
    "pooling": ({"classifier": {"network_def#pooling": 99}}, "train: pooling must be from 0 to the code's size"),
    "argument": ({"classifier": {"network_def#poling": 1}}, "unexpected keyword argument 'poling'"),
    "covariate": ({"classifier": {"covariates": {"weight": [70, 9]}}}, "no scan has 'weight' in its table row"),
    "covariate without a scale": (
        {"classifier": {"covariates": {"age": 75}}},
        "train: covariates: age needs [centre, s",
    ),
    "covariates in a list": (
        {"classifier": {"covariates": ["age"]}},
        "train: covariates must be name: [centre, scale]",
    ),
    "share": ({"train": {"training_share": 7}}, "train: training_share must be above 0"),
    "hidden layers": ({"train": {"learn": "linear_probe"}}, "train: learn linear_probe takes a network without hidden"),
    "penalty": (
        {"classifier": {"network_def#hidden": []}, "train": {"learn": "linear_probe", "penalty": {"code": 0}}},
        "train: penalty#code must be a number above 0, not 0",
    ),
    "hidden": ({"classifier": {"network_def#hidden": "abc"}}, "train: hidden must be a list of whole numbers above 0"),
    "another autoencoder": (
        {"pretrain": {"channels": [2, 3]}},
        "train: autoencoder_def is another network than pre",
    ),
    "no weights": ({"train": {"pretrained": "/nowhere.pt"}}, "train: no pretrained autoencoder at /nowhere.pt"),
    "encoder's weights": (
        {"classifier": {"network_def#encoder": {"_target_": "monai_cae.networks.VGG16Encoder", "weights": "no.pth"}}},
        "no.pth",
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_a_variants_mistake_is_told_before_the_first_training(name, run_bundle, discs, tmp_path):
    variant, message = LATE[name]
    as_written = (
        "$monai_cae.training.stages.workflow.executed_config()['variants']"  # as with_networks.yaml hands them over
    )
    options = {"repeats": 1, "variants": {"a": variant}, "run#0#variants": as_written, "_variants_": "@variants"}
    said = mistake(run_bundle, "experiment.yaml", discs, tmp_path / "out", **options)
    assert said.startswith("variant a, ") and message in said
    assert not (tmp_path / "out" / "experiment.json").exists()
    assert not list((tmp_path / "out").rglob("*.pt"))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, run_bundle, discs, tmp_path):
    options, message = MISTAKES[name]
    assert message in mistake(
        run_bundle, "experiment.yaml", discs, tmp_path / "out", repeats=1, max_epochs=1, **options
    )


def test_leak_and_dead_classifier_are_doubts(tmp_path):
    from monai_cae.evaluation.summary import summarise
    from monai_cae.experiment.results import _caveats

    rows = [
        {"method": "network", "subject": f"S{n}", "repeat": r, "fold": 1, "label": n % 2, "probability": 0.6,
         "threshold": 0.5}
        for r in range(5) for n in range(40)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    evaluated = {"steps": {"network": {"results": {"evaluate": {"leaks": 2, "scans_left_out": 3}}}}}
    scores = pd.concat({"network": summarise(table, np.random.default_rng(0), resamples=50)}, names=["method"])
    coded = pd.DataFrame({"psnr": [8.69, 15.46]}, index=["autoencoder", "mean image"])
    said = " ".join(_caveats(table, [evaluated], scores, coded, seen_before=3, target=Diagnosis()))
    assert "DEAD CLASSIFIER: all subjects are classified as AD. This holds in 5 of 5 test sets." in said
    assert "NOTHING LEARNED" in said and "NOT CALIBRATED: no finite slope" in said
    assert "reconstructions have 8.69 dB, and the mean of the training images in their place has 15.46 dB" in said
    assert "About the accuracy: Wilson's interval" in said
    assert "About the AUC: no interval, as resampling changes nothing." in said
    assert "SCANS LEFT OUT: 3, as they can't be used" in said
    assert "LEAKY: 2 leaks" in said and "DEAD CLASSIFIER" in said and "3 times" in said
    assert "FEW REPEATS" not in said
    others = pd.concat([table, table.assign(method="image_only"), table.assign(method="linear_svm", probability=0.2)])
    assert "in at least one test set: image only, linear SVM." in " ".join(
        _caveats(others, [evaluated], scores, coded, 0, Diagnosis())
    )
    said = " ".join(_caveats(table, [evaluated], scores, coded, seen_before=None, target=Diagnosis()))
    assert "it is not known whether earlier experiments scored the same test subjects" in said
    said = " ".join(
        _caveats(table, [evaluated], scores, coded.iloc[::-1].set_axis(coded.index), seen_before=0, target=Diagnosis())
    )
    assert "SEEN BEFORE" not in said and "MEAN IMAGE" not in said


def test_the_doubt_about_numbers_has_the_r2_of_the_table():
    """The mean of several repeats' predictions is nearer than each of them is: it has an R2 above 0 here."""
    from monai_cae.evaluation.numbers import number_scores, summarise_numbers
    from monai_cae.experiment.results import _caveats

    rng, labels = np.random.default_rng(0), np.arange(40.0)
    rows = [
        pd.DataFrame({"method": "network", "subject": [f"S{n}" for n in range(40)], "repeat": repeat, "fold": 1,
                      "label": labels, "predicted": labels + rng.normal(0, 14, 40)})
        for repeat in range(5)
    ]  # fmt: skip
    rows[4]["predicted"] = 3.5
    table = pd.concat(rows, ignore_index=True)
    mean = table.groupby("subject")[["label", "predicted"]].mean()
    each = [number_scores(one["label"], one["predicted"])["r2"] for one in rows]
    assert number_scores(mean["label"], mean["predicted"])["r2"] > 0 > np.mean(each)
    evaluated = {"steps": {"network": {"results": {"evaluate": {"leaks": 0, "scans_left_out": 0}}}}}
    summary = summarise_numbers(table, np.random.default_rng(0), resamples=50, permutations=50)
    scores = pd.concat({"network": summary}, names=["method"])
    coded = pd.DataFrame({"psnr": [18.0, 15.0]}, index=["autoencoder", "mean image"])
    assert _caveats(table, [evaluated], scores, coded, 0, Number("MMSE")) == [
        "NOTHING LEARNED: all subjects have the same predicted MMSE. This holds in 1 of 5 test sets.",
        f"NO BETTER THAN THE MEAN: R2 is {np.mean(each):.3g}; the mean of these subjects for all has 0.",
    ]
    nothing, coded = pd.DataFrame(), coded.assign(code_size=1, per_pixel=0.1)
    results = Results(Number("MMSE"), table, scores, nothing, nothing, coded, nothing, None, 28, {}, [], {})
    drawn = drawings({"synthetic": False, "leaks": 0, "repeats": 5}, results)
    titles = [text.get_text() for name in ("target_scatter", "target_bland_altman") for text in drawn[name].texts]
    assert [line for title in titles for line in title.splitlines() if "subjects" in line] == [
        "40 test subjects, mean of 5 repeats' predictions"
    ] * 2


def test_subjects_called_na_007_and_null_stay_in_the_record(tmp_path):
    names = ["NA", "007", "7", "NULL", "nan"]
    items = [{"subject": name, "label": index % 2, "age": 70.0} for index, name in enumerate(names)]
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "datalist.json").write_text(json.dumps({"training": [], "validation": [], "test": items}))
    rows = [f"{name},{index % 2},0.{index}00000,0" for index, name in enumerate(names)]
    (tmp_path / "part" / "predictions.csv").write_text("\n".join(["subject,label,probability,prediction", *rows]))
    steps = {"network": {"results": {"evaluate": {"threshold": 0.5}}}}
    part = {"folder": "part", "repeat": 1, "fold": 1, "variants": [], "baselines": [], "steps": steps}
    found = pool([part], tmp_path, Diagnosis())
    assert list(found["subject"]) == names and list(found["age"]) == [70.0] * 5
    lines = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == names
