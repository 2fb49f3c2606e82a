"""The monai-cae command, as typed."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path

import fire
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import stats
from tiny import SHAPE, mistake, volume, write_discs, write_pair

import monai_cae
from monai_cae.cli import main
from monai_cae.data import hashed_subjects
from monai_cae.networks import ConvEncoder, save_weights


def test_cohort_prints_table_1_beside_the_papers(tmp_path, capsys):
    root = write_discs(tmp_path / "cohort")
    assert main(["cohort", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("Number of subjects")).split()[3:] == [
        "12",
        "12",
        "100",
        "100",
    ]
    assert next(line for line in lines if line.startswith("Age (range")).split()[3:] == [
        "61-83",
        "60-82",
        "62-96",
        "59-94",
    ]
    assert next(line for line in lines if line.startswith("Sex (")).split()[2:] == ["6/6", "6/6", "59/41", "73/27"]


@pytest.mark.parametrize("sessions", ["first", "all"])
def test_one_p_of_age_and_one_of_sex_in_cohort_datalist_and_audit(tmp_path, capsys, sessions):
    random = np.random.default_rng(0)
    rows, ages = [], {0: [], 1: []}
    for number in range(24):  # 8 of 12 controls are women, and 3 of 12 patients; every other subject comes twice
        label, visits = number // 12, 1 + number % 2
        sex = "F" if number % 12 < (8, 3)[label] else "M"
        for visit in range(1, visits + 1):
            name = f"P{number:02d}_MR{visit}"
            nib.save(nib.Nifti1Image(random.random((8, 8, 8)), np.eye(4)), tmp_path / f"{name}.nii.gz")
            rows.append(f"{name},{sex},{60 + 3 * (number % 12) - 4 * label + visit},{label}")
        ages[label].append(60 + 3 * (number % 12) - 4 * label + (1 if sessions == "first" else visits))
    (tmp_path / "table.csv").write_text("\n".join(["ID,M/F,Age,CDR", *rows]))
    options = ["--sessions", sessions, "--controls", "all"]
    assert main(["cohort", str(tmp_path), *options]) == 0
    main(["datalist", str(tmp_path), "--out", str(tmp_path / "out"), "--slice-index", "4", *options])
    printed = capsys.readouterr().out.splitlines()
    checks = {one["name"]: one for one in json.loads((tmp_path / "out" / "audit.json").read_text())["checks"]}
    sexes = stats.chi2_contingency([[8, 4], [3, 9]], correction=False)
    for what, p in (("Age", stats.ttest_ind(*ages.values()).pvalue), ("Sex", sexes.pvalue)):
        assert [line.split()[-2] for line in printed if line.startswith(f"{what}, p of ")] == 2 * [f"{p:.2g}"]
        assert checks[f"{what} across the classes"]["threshold"].endswith(f"found p = {p:.2g}")


def test_cohort_of_a_table_alone_says_who_is_left_out(tmp_path, capsys):
    table = tmp_path / "oasis.csv"
    table.write_text("ID,M/F,Age,CDR\nA_MR1,F,70,1\nB_MR1,M,80,0\nC_MR1,F,60,0\nD_MR1,F,50,\nA_MR2,F,71,1\n")
    assert main(["cohort", str(table)]) == 0
    out = capsys.readouterr().out
    assert "1 scans without a label" in out and "1 further scans" in out and "1 controls not chosen (oldest)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cohort", "/nowhere"], "/nowhere is not a folder: give the cohort's folder as the path"),
        (["phantom", "{tmp}/out", "--subjects", "1"], "subjects"),
    ],
)
def test_mistakes_are_one_line_on_stderr(tmp_path, capsys, arguments, message):
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not (tmp_path / "out").exists()


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and monai_cae.__version__ in capsys.readouterr().out


def test_a_datalist_is_audited(discs, tmp_path, capsys):
    assert main(["datalist", str(discs), "--out", str(tmp_path / "out"), "--slice-index", "11", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "12 training, 4 validation, 8 test" in out and "0 leaks" in out and "not a medical device" in out
    content = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert [len(content[name]) for name in ("training", "validation", "test")] == [12, 4, 8]
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert audit["leaks"] == 0 and {check["name"]: check["passed"] for check in audit["checks"]}["Subject in two sets"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"datalist.json", "audit.json", "audit.html"}


def test_datalist_of_any_recipe_trains_as_it_is(discs, run_bundle, tmp_path):
    command = ["datalist", str(discs), "--out", str(tmp_path / "out"), "--slice-index", "11"]
    assert main([*command, "--seed", "9", "--controls", "all", "--test-fraction", "0.5"]) == 0
    path = tmp_path / "out" / "datalist.json"
    run_bundle("pretrain.json", discs, tmp_path / "run", datalist=str(path), max_epochs=1)
    assert (tmp_path / "run" / "models" / "autoencoder.pt").is_file()
    assert main(command) == 1  # nothing is overwritten


def test_kfold_datalists_test_everybody_once(discs, tmp_path):
    command = ["datalist", str(discs), "--out", str(tmp_path / "out"), "--slice-index", "11", "--kind", "kfold"]
    assert main([*command, "--folds", "3"]) == 0
    tested = [
        item["subject"]
        for path in (tmp_path / "out").rglob("datalist.json")
        for item in json.loads(path.read_text())["test"]
    ]
    assert len(tested) == len(set(tested)) == 24


def test_audit_tells_a_leak_by_its_exit_status(discs, tmp_path, capsys):
    path = tmp_path / "out" / "datalist.json"
    main(["datalist", str(discs), "--out", str(path.parent), "--slice-index", "11"])
    assert main(["audit", str(path), "--slice-index", "11"]) == 0
    content = json.loads(path.read_text())
    content["test"].append(content["training"][0])
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["audit", str(path), "--slice-index", "11"]) == 1
    assert f"LEAK: subject {content['training'][0]['subject']}" in capsys.readouterr().out
    assert json.loads((path.parent / "audit.json").read_text())["leaks"] > 0


def test_audit_knows_what_a_checkpoint_has_seen(discs, tmp_path):
    path = tmp_path / "out" / "datalist.json"
    main(["datalist", str(discs), "--out", str(path.parent), "--slice-index", "11"])
    content = json.loads(path.read_text())
    network = ConvEncoder(channels=(2, 2))
    for name, expected in (("training", 0), ("test", 1)):
        save_weights(network, tmp_path / "model.pt", hashed_subjects(content[name]))
        command = ["audit", str(path), "--slice-index", "11", "--no-pixels", "--checkpoint", str(tmp_path / "model.pt")]
        assert main(command) == expected


@pytest.mark.usefixtures("drawn")
def test_check_names_the_suspicious_and_draws_a_contact_sheet(tmp_path, capsys, in_browser):
    root = write_discs(tmp_path / "cohort")
    assert main(["check", str(root), "--slice-index", "11", "--out", str(tmp_path / "good")]) == 0
    image = next(root.rglob("OAS1_0005*.img"))
    image.write_bytes(image.read_bytes()[:1000])
    assert main(["check", str(root), "--slice-index", "11", "--out", str(tmp_path / "bad")]) == 1
    out = capsys.readouterr().out
    assert "24 scans: 1 suspicious" in out and "OAS1_0005_MR1: " in out
    assert (tmp_path / "bad" / "slices_1.png").stat().st_size > 1000
    good, bad = ((tmp_path / name / "check.html").read_text() for name in ("good", "bad"))
    in_browser(tmp_path / "bad" / "check.html")
    assert "None looks unusual" in good and "1 of 24 look unusual" in bad and 'src="data:image/webp;base64,' in good
    assert bad.index("OAS1_0005_MR1") < bad.index("Every scan") and "OAS1_0005" not in good
    (suspicious,) = json.loads((tmp_path / "bad" / "check.json").read_text())["suspicious"]
    assert suspicious["name"] == "OAS1_0005_MR1"


def test_check_of_images_without_a_table_says_why_it_is_none(tmp_path, capsys):
    root = write_discs(tmp_path / "cohort")
    (root / "oasis_cross-sectional.csv").unlink()
    assert main(["check", str(root), "--slice-index", "11", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "note: not read as a cohort" in out and "no table in" in out and "24 scans: 0 suspicious" in out


def write_brains(root: Path, subjects: int, progress: object) -> None:
    """In place of the synthetic cohort, whose brains take a second each: brains that look the same in every slice."""
    for number, path in enumerate(sorted(write_discs(root, subjects).rglob("*.img"))):
        plane = np.random.default_rng(number).integers(300, 1000, (*SHAPE[:2], 1))
        write_pair(path, np.repeat(plane, SHAPE[2], axis=2))


@pytest.mark.usefixtures("drawn")
def test_leakage_demo_needs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("monai_cae.data.write_phantom", write_brains)
    assert main(["leakage-demo", "--slice-index", "11", "--out", str(tmp_path / "leak.png")]) == 0
    lines = {
        line.split()[2]: float(line.split()[3]) for line in capsys.readouterr().out.splitlines() if "split by" in line
    }
    assert lines["image"] > 0.95 > lines["subject"]
    assert (tmp_path / "leak.png").is_file()


def test_compare_says_whether_two_tables_differ(tmp_path, capsys):
    rows = {"good": [0.1, 0.2, 0.8, 0.9], "bad": [0.8, 0.2, 0.3, 0.9]}
    for name, probabilities in rows.items():
        lines = [f"s{place},{place // 2},{value}" for place, value in enumerate(probabilities)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["subject,label,probability", *lines]))
    assert main(["compare", *(str(tmp_path / f"{name}.csv") for name in rows)]) == 0
    out = capsys.readouterr().out
    assert "4 subjects (2 AD, 2 HC)" in out and "not a medical device" in out
    # right: 4 and 2 of 4; pairs in order: 4 and 3 of 4; of two disagreements both for the first: p = 1/2
    assert out.count("+0.500") == 1 and out.count("+0.250") == 1 and "0.500 (McNemar)" in out
    assert main(["compare", str(tmp_path / "good.csv")]) == 1
    assert capsys.readouterr().err == "error: give two or more runs, folders or files to compare\n"


def test_rules_and_columns_of_a_users_own_table(tmp_path, capsys):
    table = tmp_path / "mine.csv"
    table.write_text("RID;DX;years\n1;AD;70\n2;CN;71\n3;MCI;72\n4;;73\n")
    command = ["cohort", str(table), "--subject-column", "RID", "--age-column", "years"]
    assert main([*command, "--positive", "DX == 'AD'", "--negative", "DX == 'CN'"]) == 0
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if line.startswith("Number of subjects")).split()[3:5] == ["1", "1"]
    assert "2 scans without a label" in out
    assert main([*command, "--positive", "DXX == 'AD'"]) == 1
    assert "the table has no column DXX" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "{tmp}/nope"], "no image at {tmp}/nope: give a volume or a folder as the path"),
        (["cohort", "{tmp}/nope"], "{tmp}/nope is not a folder: give the cohort's folder as the path"),
        (["cohort", "{discs}", "--table", "{tmp}/no.csv"], "no table at {tmp}/no.csv: check --table"),
        (["audit", "{tmp}/no.json"], "no datalist at {tmp}/no.json: check the path"),
        (["audit", "{outside}", "--no-pixels"], "or allow it with --allow-outside if you trust"),
        (["cohort", "{outside}"], "or allow it with --allow-outside if you trust"),
        (["datalist", "{discs}", "--out", "{tmp}/file/x", "--slice-index", "11"], "choose another place"),
        (["datalist", "{broken}", "--out", "{tmp}/x", "--slice-index", "11"], "leave them out with --on-bad-scan skip"),
        (["audit", "{gone}", "--slice-index", "11"], "leave them out with --on_bad_scan skip (of a training)"),
    ],
)
def test_messages_name_options_that_the_command_has(discs, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    places = {"tmp": tmp_path, "discs": discs, "broken": write_discs(tmp_path / "broken")}
    next(places["broken"].rglob("OAS1_0004*.img")).write_bytes(b"x")
    item = {"image": "gone.nii", "label": 0, "subject": "s1"}
    for name, image in (("outside", "/etc/passwd"), ("gone", "gone.nii")):
        items = [{**item, "image": image, "subject": f"s{number}", "label": number % 2} for number in range(6)]
        places[name] = tmp_path / f"{name}.json"
        sets = {"training": items[:2], "validation": items[2:4], "test": items[4:]}
        places[name].write_text(json.dumps(sets))
    assert main([argument.format(**places) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert message.format(**places) in said and "Traceback" not in said
    assert not (tmp_path / "x").exists()


def next_commands(printed: str) -> list[list[str]]:
    lines = [line.partition(": ")[2] for line in printed.splitlines() if line.startswith(("next: ", "or one stage: "))]
    assert len(lines) == 2
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize(
    ("folds", "repeats"), [pytest.param(0, 2, id="hold-out", marks=pytest.mark.slow), pytest.param(2, 1, id="k-fold")]
)
def test_next_commands_run_as_they_are_printed(discs, tmp_path, monkeypatch, capsys, folds, repeats):
    monkeypatch.chdir(tmp_path)
    Path("my discs").symlink_to(discs)
    kind = ["--kind", "kfold", "--folds", str(folds)] if folds else []
    assert main(["datalist", "my discs", "--out", "my sets", "--slice-index", "11", "--seed", "3", *kind]) == 0
    commands = next_commands(capsys.readouterr().out)
    short = {"max_epochs": 1, "image_size": 16, "batch_size": 4, "channels": [2, 3, 4], "precision": "float32"}
    words = [part for name, value in short.items() for part in (f"--{name}", str(value))]
    for command in commands:
        assert command[:4] == ["python", "-m", "monai.bundle", "run"]
        more = ["--repeats", str(repeats)] if "experiment.yaml" in command[6] else []
        fire.Fire({"run": monai.bundle.run}, command=[*command[3:], *words, *more, "--threads", "1"])
    assert (Path(commands[1][commands[1].index("--output_dir") + 1]) / "models" / "autoencoder.pt").is_file()
    folders = [f"fold_{fold}" for fold in range(1, folds + 1)] or ["."]
    given = {folder: json.loads(Path("my sets", folder, "datalist.json").read_text()) for folder in folders}
    output = Path("my sets", "experiment")
    for repeat in range(1, repeats + 1):
        for folder in folders:
            used = json.loads((output / f"repeat_{repeat}" / folder / "datalist.json").read_text())
            assert all(used[name] == given[folder][name] for name in ("training", "validation", "test"))
            config = json.loads((output / f"repeat_{repeat}" / folder / "config_pretrain.json").read_text())
            assert config["seed"] == repeat - 1 and "recipe" in used
    if repeats == 2:
        one, two = (torch.load(output / f"repeat_{n}" / "models" / "autoencoder.pt") for n in (1, 2))
        assert not torch.equal(one["encoder.blocks.0.0.weight"], two["encoder.blocks.0.0.weight"])
    tested = [item["subject"] for folder in folders for item in given[folder]["test"]]
    with (output / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["subject"] for row in rows) == sorted(tested * repeats)
    assert ("GIVEN SETS" in (output / "results.md").read_text()) is (repeats > 1)


def test_a_leak_has_no_next_command(tmp_path, capsys):
    root = write_discs(tmp_path / "cohort")
    names = [path.with_suffix("") for path in sorted(root.rglob("*.img"))]
    for path in names[2::2]:
        for suffix in (".img", ".hdr"):
            path.with_suffix(suffix).write_bytes(names[0].with_suffix(suffix).read_bytes())
    assert main(["datalist", str(root), "--out", str(tmp_path / "out"), "--slice-index", "11"]) == 1
    assert "next: " not in capsys.readouterr().out


def test_kfold_writes_no_fold_where_one_is_there(discs, tmp_path, capsys):
    (tmp_path / "out" / "fold_3").mkdir(parents=True)
    (tmp_path / "out" / "fold_3" / "datalist.json").write_text("mine")
    command = ["datalist", str(discs), "--out", str(tmp_path / "out"), "--slice-index", "11", "--kind", "kfold"]
    assert main([*command, "--folds", "3"]) == 1
    assert "fold_3/datalist.json exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fold_3"]


def test_a_datalist_as_a_cohort_is_split_anew(discs, run_bundle, tmp_path):
    command = ["datalist", str(discs), "--out", str(tmp_path / "out"), "--slice-index", "11"]
    assert main(command) == 0
    path = tmp_path / "out" / "datalist.json"
    for out in ("one", "two"):
        run_bundle("pretrain.json", path, tmp_path / out, max_epochs=1, seed=4)
        made = json.loads((tmp_path / out / "datalist.json").read_text())
        assert (discs / made["training"][0]["image"]).is_file()
        assert made["made_from"]["dataset_dir"] == str(discs) and made["made_from"]["datalist"] == str(path)
        path = tmp_path / "one" / "datalist.json"  # the second time, the datalist of a run
    assert main(["audit", str(tmp_path / "two" / "datalist.json"), "--slice-index", "11"]) == 0


def folds_of(root: Path, count: int, discs: Path) -> Path:
    command = ["datalist", str(discs), "--out", str(root), "--slice-index", "11", "--kind", "kfold"]
    assert main([*command, "--folds", str(count)]) == 0
    return root


GIVEN = {
    "missing fold": (lambda f: shutil.rmtree(f / "fold_2"), "fold_2/datalist.json: check --datalist"),
    "tested twice": (
        lambda f: shutil.copy(f / "fold_1" / "datalist.json", f / "fold_3" / "datalist.json"),
        "is tested in fold_1 and in fold_3 of",
    ),
    "empty": (lambda f: [shutil.rmtree(path) for path in list(f.iterdir())], "no datalist at"),
    "broken": (lambda f: (f / "fold_3" / "datalist.json").write_text("[]"), "is not a usable datalist"),
    "no sets": (lambda f: (f / "fold_3" / "datalist.json").write_text("{}"), "it has no training, validation, test"),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_folds_that_do_not_go_together_are_refused(name, discs, run_bundle, tmp_path):
    spoil, message = GIVEN[name]
    folds = folds_of(tmp_path / "folds", 3, discs)
    spoil(folds)
    assert message in mistake(run_bundle, "experiment.yaml", discs, tmp_path / "out", datalist=str(folds))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_given_datalist_of_another_run_and_seed_is_taken_as_it_is(discs, run_bundle, tmp_path):
    short = {"max_epochs": 1, "channels": [2, 3, 4]}
    run_bundle("pretrain.json", discs, tmp_path / "one", seed=3, **short)
    given = tmp_path / "one" / "datalist.json"
    run_bundle("pretrain.json", discs, tmp_path / "two", seed=4, datalist=str(given), **short)
    assert not (tmp_path / "two" / "datalist.json").exists()
    run_bundle("experiment.yaml", discs, tmp_path / "all", repeats=1, seed=5, datalist=str(given), **short)
    other = write_discs(tmp_path / "others")
    said = mistake(run_bundle, "experiment.yaml", other, tmp_path / "no", repeats=1, datalist=str(given))
    assert f"was made with dataset_dir {discs}, not {other}: give that as --dataset_dir" in said
    again = {"repeats": 2, "seed": 5, **short, "resume": True}
    content = json.loads(given.read_text())
    content["training"], content["test"] = content["test"], content["training"]
    (tmp_path / "swapped.json").write_text(json.dumps(content))
    said = mistake(
        run_bundle, "experiment.yaml", discs, tmp_path / "all", datalist=str(tmp_path / "swapped.json"), **again
    )
    assert "repeat_1/datalist.json has other sets than" in said
    run_bundle("experiment.yaml", discs, tmp_path / "all", datalist=str(given), **again)
    assert json.loads((tmp_path / "all" / "summary.json").read_text())["repeats"] == 2


def test_what_cohort_prints_fits_80_columns(discs, capsys):
    assert main(["cohort", str(discs), "--slice-index", "11"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[2 : lines.index("", 2)]
    assert len(table) == 8
    assert all(len(line) <= 80 and line == line.rstrip() for line in table)


def test_check_reads_a_cohort_as_the_other_commands_do(tmp_path, capsys):
    names = [f"p{n}_{visit}" for n in range(4) for visit in ("bl", "m12")]
    for number, name in enumerate(names):
        nib.save(nib.Nifti1Image(volume(number, 0), np.eye(4)), tmp_path / f"{name}.nii")
    (tmp_path / "t.csv").write_text("\n".join(["ID", *names]))
    command = ["check", str(tmp_path), "--slice-index", "11", "--out", str(tmp_path / "out")]
    main(command)
    assert "every image there is checked" in capsys.readouterr().out
    assert main([*command, "--subject-pattern", "(.+)"]) == 0
    assert "every image there" not in capsys.readouterr().out
