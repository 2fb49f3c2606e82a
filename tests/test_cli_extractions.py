"""`check`, `datalist`, `audit` and `cohort` look at what a network with the same overlays and settings will see."""

from __future__ import annotations

import json
import shlex

import fire
import monai.bundle
import pytest
from tiny import volume, write_discs, write_pair

from monai_cae.cli import main

EACH = {
    "slab": (["--with", "slab", "--slice-index", "11"], "axial slices 9 to 13"),
    "slab of three": (["--with", "slab", "--slice-index=11", "--extraction#slices", "3"], "axial slices 10 to 12"),
    "coronal": (["--with=slab", "--plane", "coronal", "--slice-index", "11"], "coronal slices 9 to 13"),
    "slices": (
        ["--with", "slices", "--slice-index", "11", "--extraction#step=2"],
        "axial slices 7 to 15 in steps of 2",
    ),
    "planes": (
        ["--with", "planes", "--slice-index", "11", "--extraction#coronal", "12", "--extraction#sagittal", "10"],
        "axial slice 11, coronal slice 12 and sagittal slice 10",
    ),
    "volume": (["--with", "volume", "--image_size", "[12,16,12]"], "the volume at 2 mm"),
    "at 1 mm": (["--with", "volume", "--image-size", "20", "--extraction#spacing_mm", "1"], "the volume at 1 mm"),
    "patches": (
        ["--with", "patches", "--image_size", "12", "--extraction#size", "[12,24,12]"],
        "2 patches of the volume at 2 mm",
    ),
}


@pytest.mark.parametrize("given", EACH)
def test_an_audit_tells_what_it_has_looked_at(discs, tmp_path, given):
    options, seen = EACH[given]
    assert main(["datalist", str(discs), "--out", str(tmp_path), *options]) == 0
    (tmp_path / "audit.json").unlink()
    assert main(["audit", str(tmp_path / "datalist.json"), *options]) == 0
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert f"the same values in {seen} of two subjects" in " ".join(check["looks_for"] for check in audit["checks"])
    recipe = json.loads((tmp_path / "datalist.json").read_text())["recipe"]
    assert recipe["extraction"].endswith("Extraction") and recipe["axes"] == "anatomical"


def test_check_reads_what_the_network_will_see(tmp_path, capsys):
    root = write_discs(tmp_path / "cohort")
    (path,) = root.rglob("OAS1_0005*.img")
    brain = volume(4, 0)
    brain[:, :, 12] = 0  # the fifth of five slices
    write_pair(path, brain)
    (broken,) = root.rglob("OAS1_0007*.img")
    broken.write_bytes(broken.read_bytes()[:-1000])
    command = ["check", str(root), "--slice-index", "11"]
    for number, (options, problems) in enumerate(
        [
            ([], {"OAS1_0007_MR1": "is truncated"}),
            (
                ["--with", "slab"],
                {"OAS1_0005_MR1": "no usable slab: axial slice 13 of", "OAS1_0007_MR1": "is truncated"},
            ),
            (["--with", "slab", "--extraction#slices", "3"], {"OAS1_0007_MR1": "is truncated"}),
            (["--with", "volume", "--image_size", "[12,16,12]"], {"OAS1_0007_MR1": "is truncated"}),
        ]
    ):
        assert main([*command, "--out", str(tmp_path / str(number)), *options]) == 1
        found = json.loads((tmp_path / str(number) / "check.json").read_text())["suspicious"]
        assert {one["name"]: one["problems"] for one in found}.keys() == problems.keys()
        assert all(problems[one["name"]] in one["problems"][0] for one in found)
        assert (tmp_path / str(number) / "slices_1.png").is_file()
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "outside"), "--with", "slab", "--slice-index", "19"]) == 1
    assert "no usable slab: slice 21 of axial slices 17 to 21 is outside" in capsys.readouterr().out


def test_an_overlay_of_ones_own_and_its_plane_are_taken(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(
        "plane: sagittal\nslice_index: 9\n"
        "extraction: {_target_: two_slices.TwoSlices, plane: '@plane', slice_index: '@slice_index', apart: 2}\n"
    )
    assert main(["datalist", str(discs), "--out", str(tmp_path / "out"), "--with", "mine.yaml"]) == 0
    recipe = json.loads((tmp_path / "out" / "datalist.json").read_text())["recipe"]
    assert {name: recipe[name] for name in ("extraction", "plane", "slice_index", "apart")} == {
        "extraction": "TwoSlices", "plane": "sagittal", "slice_index": 9, "apart": 2
    }  # fmt: skip


def test_the_next_command_has_the_same_overlay_and_settings(discs, tmp_path, capsys):
    options, _ = EACH["slab of three"]
    assert main(["datalist", str(discs), "--out", str(tmp_path / "my sets"), *options]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "python -m" in line]
    command = shlex.split(lines[1].partition(": ")[2])
    assert "pretrain.json" in command[6] and "with_slab.yaml" in command[6]
    short = ["--max_epochs", "1", "--image_size", "16", "--batch_size", "4", "--channels", "[2,3]", "--threads", "1"]
    fire.Fire({"run": monai.bundle.run}, command=[*command[3:], *short])
    weights = tmp_path / "my sets" / "stages" / "models" / "autoencoder.pt"
    from monai_cae.networks import trained_with

    record = trained_with(weights)[str(weights)]
    assert (record["extraction"], record["slices"], record["slice_index"]) == ("SlabExtraction", 3, 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--with", "slap"],
            "no overlay slap: give --with a file or one of the bundle's overlays: baselines, code_sizes, ",
        ),
        (["--with", "slab", "--extraction#slices", "4"], "slices of a slab must be an odd number, such as 5, not 4"),
        (["--with", "volume", "--image_size", "[8,8]"], "a list of 3 for a volume, not [8, 8]"),
        (["--with", "volume", "--extraction#spacing", "3"], "spacing"),
        (["--extraction#slices", "3"], "slices"),
    ],
)
@pytest.mark.parametrize("command", ["check", "audit", "datalist", "cohort"])
def test_what_makes_no_sense_is_one_line(discs, tmp_path, capsys, monkeypatch, command, options, message):
    monkeypatch.chdir(tmp_path)
    if command == "audit":
        assert main(["datalist", str(discs), "--out", str(tmp_path / "made"), "--slice-index", "11"]) == 0
        capsys.readouterr()
    before = set(tmp_path.rglob("*"))
    place = tmp_path / "made" / "datalist.json" if command == "audit" else discs
    assert main([command, str(place), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("further", [["--batch_size", "4"], ["--plan", "coronal"], ["elsewhere"]])
def test_other_settings_are_no_options(discs, capsys, further):
    with pytest.raises(SystemExit):
        main(["check", str(discs), "--with", "slab", *further])
    assert "unrecognized arguments" in capsys.readouterr().err
