"""Datalists of strangers, hashed subject IDs, names in headers and tables, open ports."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
from pathlib import Path

import monai.bundle
import nibabel as nib
import pytest
import torch
from tiny import CONFIGS, TINY, write_discs

from monai_cae.cli import main
from monai_cae.data import SliceExtraction, hash_subject, load_sets, read_datalist
from monai_cae.data.cohort.pseudonyms import KEY_VARIABLE, key_file, pseudonym
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.compare import compare_predictions
from monai_cae.experiment.load_runs import read_predictions
from monai_cae.tracking import ui_command
from monai_cae.training.stages.workflow import find_mistake

KEY = "a key of sixteen letters or more"
SETTINGS = {"extraction": SliceExtraction(slice_index=11), "cohort": {"controls": "all"}}
NAME = "Zebedee"


@pytest.fixture
def datalist(discs, tmp_path):
    load_sets(discs, tmp_path / "datalist.json", **SETTINGS)
    return tmp_path / "datalist.json"


def changed(datalist: Path, image: str) -> Path:
    content = json.loads(datalist.read_text())
    content["test"][0]["image"] = image
    datalist.write_text(json.dumps(content))
    return datalist


@pytest.mark.fault(
    "datalist: images /etc/passwd, `../secret.nii`, `disc1/../../secret.nii`",
    "refused in one line with item and file",
)
@pytest.mark.parametrize("image", ["/etc/passwd", "../secret.nii", "disc1/../../secret.nii", "disc1/../disc1/../../x"])
def test_datalist_may_not_leave_the_folder(discs, datalist, image, capsys):
    changed(datalist, image)
    with pytest.raises(MonaiCaeError, match="outside") as error:
        read_datalist(datalist, discs)
    subject = json.loads(datalist.read_text())["test"][0]["subject"]
    assert f"{datalist}: the item of {subject} in test names {image!r}" in str(error.value)
    assert main(["audit", str(datalist), "--no-pixels"]) == 1
    printed = capsys.readouterr().err
    assert "outside" in printed and printed.count("\n") == 1


def test_images_outside_are_read_when_allowed(discs, datalist, tmp_path):
    first = discs / json.loads(datalist.read_text())["test"][0]["image"]
    for suffix in (".hdr", ".img"):
        shutil.copyfile(first.with_suffix(suffix), tmp_path / f"elsewhere{suffix}")
    changed(datalist, str(tmp_path / "elsewhere.hdr"))
    assert read_datalist(datalist, discs, allow_outside=True).test[0]["image"] == str(tmp_path / "elsewhere.hdr")
    assert main(["audit", str(datalist), "--no-pixels", "--allow-outside"]) == 0


@pytest.mark.fault(
    "datalist: `disc1/../x.hdr` where disc1 is a link to elsewhere",
    "refused; images below the link itself are read",
)
def test_links_that_the_user_has_put_into_the_folder_are_followed(discs, tmp_path):
    root = tmp_path / "linked"
    root.mkdir()
    for entry in discs.iterdir():
        (root / entry.name).symlink_to(entry)
    assert len(load_sets(root, tmp_path / "datalist.json", **SETTINGS).test) > 0
    changed(tmp_path / "datalist.json", "disc1/../x.hdr")  # of the link's target it is a neighbour
    with pytest.raises(MonaiCaeError, match="outside"):
        read_datalist(tmp_path / "datalist.json", root)


@pytest.mark.fault("datalist: /etc/passwd as an image, given to pretrain.json", "one line, no output_dir")
def test_training_refuses_a_datalist_that_leaves_the_folder(run_bundle, discs, datalist, tmp_path):
    content = json.loads(changed(datalist, "/etc/passwd").read_text())
    datalist.write_text(json.dumps({**content, "made_from": {}}))  # as a stranger's
    with pytest.raises(RuntimeError) as error:
        run_bundle("pretrain.json", discs, tmp_path / "out", datalist=str(datalist))
    assert "'/etc/passwd', outside" in str(find_mistake(error.value)) and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def named_discs(tmp_path_factory):
    """A cohort with a person's name in every text field of its headers and in columns of its table."""
    root = write_discs(tmp_path_factory.mktemp("named"), subjects=20)
    for path in root.rglob("*.hdr"):
        header = bytearray(path.read_bytes())
        for start, length in ((14, 18), (148, 80), (228, 24)):  # Analyze 7.5: db_name, descrip, aux_file
            header[start : start + length] = NAME.encode().ljust(length, b"\0")
        path.write_bytes(header)
        assert NAME.encode() in bytes(nib.load(path).header["descrip"])
    table = root / "oasis_cross-sectional.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [{**row, "Name": NAME, "Patient Name": NAME, "Comment": NAME} for row in csv.DictReader(file)]
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def hashed(named_discs, tmp_path_factory):
    """The folder of an experiment with `hash_ids` and a baseline; not to be changed but by going on with it."""
    folder = tmp_path_factory.mktemp("hashed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, KEY)
        monai.bundle.run(
            run_id="training",
            config_file=str(CONFIGS / "experiment.yaml"),
            **settings_of(folder, named_discs),
        )
    return folder


def settings_of(folder: Path, dataset_dir: Path) -> dict:
    places = {"dataset_dir": str(dataset_dir), "output_dir": str(folder)}
    small = {**TINY, "max_epochs": 1, "repeats": 1, "baselines": ["majority"], "hash_ids": "true"}
    return {**small, **places, "tracking_uri": f"sqlite:///{folder}/mlruns.db"}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.fault(
    "names: a subject's in db_name, descrip and aux_file of every header and in three columns of the table, "
    "`--hash_ids true`",
    "in no file of output_dir, nor in MLflow's database; IDs only in the private datalist",
)
def test_ids_are_in_the_private_datalists_only_and_names_nowhere(hashed, named_discs):
    with sqlite3.connect(hashed / "mlruns.db") as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        assert "params" in tables
    files = everything(hashed)
    assert {Path(name).suffix for name in files} >= {".db", ".csv", ".json", ".html", ".md", ".png", ".pt"}
    private = {name for name in files if not name.startswith("mlruns/") and name.endswith("/datalist.json")}
    assert len(private) == 1
    assert {name for name, content in files.items() if re.search(rb"OAS1_\d{4}", content)} == private
    assert not [name for name, content in files.items() if NAME.encode() in content]
    copies = [json.loads(content) for name, content in files.items() if re.search(r"mlruns/.*datalist\.json", name)]
    assert copies and all("image" not in item for copy in copies for item in copy["test"])


def test_all_stages_agree_on_the_hashes(hashed, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with (hashed / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"network", "majority"}
    tested = {
        (pseudonym(item["subject"]), str(item["age"]))
        for item in json.loads((hashed / "repeat_1" / "datalist.json").read_text())["test"]
    }
    assert {(row["subject"], row["age"]) for row in rows} == tested
    weights = torch.load(hashed / "repeat_1" / "models" / "model.pt", weights_only=True)
    training = json.loads((hashed / "repeat_1" / "datalist.json").read_text())["training"]
    expected = sorted(hash_subject(pseudonym(item["subject"])) for item in training)
    assert set(expected) <= set(weights._metadata["monai_cae"]["subjects"])


def test_hashed_runs_are_compared_and_resumed(hashed, named_discs, monkeypatch, capsys):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    read = [read_predictions(f"{hashed}:{method}", tracking_uri="", method="") for method in ("network", "majority")]
    assert compare_predictions(read) is not None
    settings = {**settings_of(hashed, named_discs), "resume": True}
    monai.bundle.run(run_id="training", config_file=str(CONFIGS / "experiment.yaml"), **settings)
    printed = capsys.readouterr().out
    assert "the experiment is finished" in printed and "OAS1_" not in printed and NAME not in printed


def test_commands_hash_what_they_print_and_draw(datalist, discs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    named_discs = write_discs(tmp_path / "discs", subjects=6)
    content = json.loads(datalist.read_text())
    content["test"].append(content["training"][0])
    datalist.write_text(json.dumps(content))
    assert main(["audit", str(datalist), "--slice-index", "11", "--hash-ids", "--out", str(tmp_path / "audit")]) == 1
    next(named_discs.rglob("*.img")).write_bytes(b"broken")  # whose line names the file
    command = ["check", str(named_discs), "--slice-index", "11", "--hash-ids", "--out", str(tmp_path / "check")]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert pseudonym(content["training"][0]["subject"]) in printed and not re.search(r"OAS1_\d{4}", printed)
    written = {**everything(tmp_path / "audit"), **everything(tmp_path / "check")}
    assert len(written) >= 3 and not [name for name, text in written.items() if re.search(rb"OAS1_\d{4}", text)]


def test_pseudonyms_need_the_key(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # printf oas1_0001 | openssl dgst -sha256 -hmac 'a key of sixteen letters or more'
    first = pseudonym("OAS1_0001")
    assert first == pseudonym(" oas1_0001_MR2 ") == "s3624cb5777c4ec54" != pseudonym("OAS1_0002")
    monkeypatch.setenv(KEY_VARIABLE, KEY + "!")
    assert pseudonym("OAS1_0001") != first
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(MonaiCaeError, match="16 characters or more"):
        pseudonym("OAS1_0001")
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = pseudonym("OAS1_0001")
    assert pseudonym("OAS1_0001") == made != first and key_file().stat().st_mode & 0o077 == 0
    assert capsys.readouterr().out.count("made the pseudonym key") == 1


def test_nothing_that_users_are_told_to_run_listens_beyond_this_machine():
    root = CONFIGS.parents[1]
    files = [root / "README.md", root / "Makefile", *root.glob("docs/**/*.md"), *root.glob("bundle/**/*.*"),
             *root.glob("monai_cae/**/*.py"), *root.glob("examples/*.py")]  # fmt: skip
    opening = re.compile(r"0\.0\.0\.0|--host|--rdzv|--master|\.bind\(|serve_forever|http\.server|init_method")
    found = [
        f"{path.name}: {match[0]}" for path in files for match in opening.finditer(path.read_text(errors="replace"))
    ]
    assert len(files) > 100 and found == []
    assert ui_command("sqlite:////data/out/mlruns.db").endswith(" ui --backend-store-uri sqlite:////data/out/mlruns.db")
