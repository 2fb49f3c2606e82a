"""`monai-cae predict --parquet`: what is in the data set, whatever is given, broken, killed or resumed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from tiny import random_network, volume, write_pair

from monai_cae.cli import main
from monai_cae.cluster import address
from monai_cae.cluster.engine import Done, InProcess, WorkerLost
from monai_cae.networks import save_weights
from monai_cae.prediction.listing import list_scans

SETTINGS = ("--image-size", "16", "--slice-index", "11", "--device", "cpu", "--batch-size", "4", "--threads", "1")
ADDED = ["reason", "note"]


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_weights(random_network("classifier"), path)
    return path


@pytest.fixture(scope="module")
def usual(model, discs, tmp_path_factory) -> pd.DataFrame:
    """What a prediction without chunks gives."""
    out = tmp_path_factory.mktemp("usual")
    assert main(["predict", str(model), str(discs), str(out), *SETTINGS]) == 0
    return pd.read_csv(out / "predictions.csv")


def command(model: Path, scans: object, out: Path, *more: object) -> list[str]:
    return ["predict", str(model), str(scans), str(out), "--parquet", *SETTINGS, *map(str, more)]


@pytest.fixture
def mistake(capsys) -> Callable[[list[str]], str]:
    """The line that a refused command ends in."""

    def refused(command: list[str]) -> str:
        capsys.readouterr()
        assert main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refused


def predicted(model: Path, scans: object, out: Path, *more: object) -> pd.DataFrame:
    """The data set, by the names of the files."""
    assert main(command(model, scans, out, *more)) == 0
    read = pd.read_parquet(out / "predictions").drop(columns="group")
    return read.assign(name=[Path(file).name for file in read["file"]]).set_index("name").sort_index()


def scans_in(root: Path) -> list[Path]:
    return sorted(root.rglob("*.hdr"))


def as_address(root: Path) -> str:
    """A copy of the files in fsspec's memory, all in one folder."""
    memory = fsspec.filesystem("memory")
    for path in (*root.rglob("*.hdr"), *root.rglob("*.img")):
        memory.pipe_file(f"/{root.name}/{path.name}", path.read_bytes())
    return f"memory://{root.name}"


def as_table(root: Path, folder: Path, suffix: str) -> Path:
    paths = [os.path.relpath(path.with_suffix(".img"), folder) for path in scans_in(root)]
    frame, path = pd.DataFrame({"site": "x", "Path": paths}), folder / f"scans{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False, sep="\t")
    return path


@pytest.mark.parametrize("given", ["folder", "glob", ".tsv", ".parquet", "address", "glob of addresses"])
def test_whatever_is_given_the_values_are_those_of_a_prediction_without_chunks(given, model, discs, usual, tmp_path):
    scans = {
        "folder": lambda: discs,
        "glob": lambda: f"{discs}/disc*/**/*.img",  # the header is taken of each pair
        "address": lambda: as_address(discs),
        "glob of addresses": lambda: f"{as_address(discs)}/*_gfc.i*g",
    }.get(given, lambda: as_table(discs, tmp_path, given))()
    found = predicted(model, scans, tmp_path / "out", "--chunk", 8)
    assert list(found.columns) == [*usual.columns, *ADDED]
    expected = usual.assign(name=[Path(file).name for file in usual["file"]]).set_index("name").sort_index()
    assert found.index.equals(expected.index) and found["reason"].isna().all()
    for name in usual.columns.drop(["file", "probability"]):
        assert (found[name] == expected[name]).all(), name
    assert found["probability"].to_numpy() == pytest.approx(expected["probability"].to_numpy(), abs=1e-6)
    assert all(file.startswith("memory://" if "address" in given else "/") for file in found["file"])
    parts = sorted(path.relative_to(tmp_path) for path in (tmp_path / "out" / "predictions").rglob("part-*"))
    assert parts == [Path(f"out/predictions/group=000/part-{number:06d}.parquet") for number in range(3)]


def test_scans_of_one_name_in_two_folders_are_told_once_not_for_each_chunk(model, discs, tmp_path, capsys):
    for number, header in enumerate(scans_in(discs)[:2]):
        for folder in "ab":
            (tmp_path / "scans" / folder).mkdir(parents=True, exist_ok=True)
            for file in (header, header.with_suffix(".img")):
                shutil.copy(file, tmp_path / "scans" / folder / f"subject{number}{file.suffix}")
    table = tmp_path / "scans" / "list.csv"
    table.write_text("path\na/subject0.hdr\nb/subject0.hdr\na/subject1.hdr\nb/subject1.hdr\n")
    predicted(model, table, tmp_path / "out", "--chunk", 2, "--batch_size", 3)  # a predictor of its own
    assert capsys.readouterr().out.count("count as one subject's") == 1


def test_a_scan_that_cant_be_used_has_a_row_that_says_why(model, discs, tmp_path, capsys, mistake):
    root = tmp_path / "scans"
    for number in range(3):
        write_pair(root / f"good_{number}.img", volume(number, 0))
    for name in ("short", "gone"):
        write_pair(root / f"{name}.img", volume(9, 0))
    (root / "short.img").write_bytes(b"short")
    (root / "text.nii").write_text("no scan")
    table = tmp_path / "scans.csv"
    names = [*sorted(path.name for path in (*root.glob("*.hdr"), root / "text.nii")), "absent.nii.gz"]
    table.write_text("\n".join(["file", *(f"scans/{name}" for name in names)]))
    (root / "gone.img").unlink()
    found = predicted(model, table, tmp_path / "out", "--chunk", 2)
    assert len(found) == 7 and list(found.index[found["reason"].isna()]) == [f"good_{n}.hdr" for n in range(3)]
    for name, why in {
        "short.hdr": "truncated",
        "gone.hdr": "gone.img",
        "text.nii": "is not",
        "absent.nii.gz": "no",
    }.items():
        assert why in found.loc[name, "reason"] and str(tmp_path) not in found.loc[name, "reason"]
        assert pd.isna(found.loc[name, "probability"]) and found.loc[name, "subject"] == name.partition(".")[0]
    printed = capsys.readouterr().out
    assert "\n3 scans in " in printed and "LEFT OUT     4 of 7 scans" in printed and "/gone.hdr: " in printed
    with (tmp_path / "out" / "left_out.csv").open(encoding="utf-8") as file:
        assert {Path(row["file"]).name for row in csv.DictReader(file)} == set(found.index[found["reason"].notna()])
    (tmp_path / "bad.csv").write_text("file\nscans/text.nii\n")
    assert "none of 1 scans can be used, the first: text.nii" in mistake(
        command(model, tmp_path / "bad.csv", tmp_path / "none")
    )


class Interrupted(InProcess):
    """Somebody presses Ctrl-C when a chunk is done."""

    def run(self, tasks) -> Iterator[Done]:
        yield next(super().run(tasks))
        raise KeyboardInterrupt


class Deadly(InProcess):
    """Workers die of a scan called deadly, as the system kills what takes too much memory."""

    def run(self, tasks) -> Iterator[Done]:
        for task in tasks:
            if any("deadly" in scan.path for scan in task.args[1]):
                yield Done(task.key, error=WorkerLost())
            else:
                yield from super().run([task])


def test_a_resumed_prediction_goes_on_with_its_list_and_refuses_what_would_differ(
    model, discs, usual, tmp_path, monkeypatch, capsys, mistake
):
    root, out = tmp_path / "scans", tmp_path / "out"
    shutil.copytree(discs, root)
    monkeypatch.setattr(address, "InProcess", Interrupted)
    assert main(command(model, root, out, "--chunk", 10)) == 130
    monkeypatch.undo()
    (part,) = (out / "predictions").rglob("part-*")
    before = part.stat().st_mtime_ns
    listed = pd.read_parquet(out / "scans.parquet")
    assert len(listed) == 24 and list(listed["chunk"]) == [number // 10 for number in range(24)]
    assert (listed["size"] == 2 * 20 * 24 * 20).all() and listed["time"].notna().all()
    copy = shutil.copy(model, tmp_path / "other.pt")
    save_weights(random_network("classifier", seed=1), copy)
    for line, again in {
        "already has manifest.json": command(model, root, out),
        "is of another --chunk (10)": command(model, root, out, "--resume", "true", "--chunk", 9),
        "is of other weights or another table (checkpoint)": command(
            copy, root, out, "--resume", "true", "--chunk", 10
        ),
        "is of other settings (threshold)": command(
            model, root, out, "--resume", "true", "--chunk", 10, "--threshold", 0.4
        ),
        "is of other scans": command(model, discs, out, "--resume", "true", "--chunk", 10),
        "give one": command(model, root, out, "--resume", "true", "--overwrite", "true"),
    }.items():
        assert line in mistake(again)
    late = root / "disc1" / "OAS1_0099_MR1_mpr_n4_anon_111_t88_masked_gfc.img"
    write_pair(late, volume(99, 0))
    os.utime(Path(listed["path"].iloc[-1]).with_suffix(".img"), (0, 0))
    capsys.readouterr()
    found = predicted(model, root, out, "--resume", "true", "--chunk", 10)
    assert part.stat().st_mtime_ns == before
    changed = "has changed since the list of scans was made"
    assert [reason.partition(" ")[2] for reason in found["reason"].dropna()] == [changed]
    assert sorted(found["subject"]) == sorted(usual["subject"])
    printed = capsys.readouterr().out
    assert "10 of 24 scans are done\n" in printed and "\n23 scans, 14 of them now in " in printed
    assert f"pandas.read_parquet('{out}/predictions')" in printed
    assert main(command(model, root, out, "--overwrite", "true")) == 0
    assert len(pd.read_parquet(out / "predictions")) == 25
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["scans"] == 25 and manifest["chunk"] == 128


def test_a_scan_that_ends_every_process_is_left_out_and_no_other(model, discs, tmp_path, monkeypatch):
    root = tmp_path / "scans"
    for number in range(5):
        write_pair(root / f"{'deadly' if number == 2 else 'good'}_{number}.img", volume(number, 0))
    monkeypatch.setattr(address, "InProcess", Deadly)
    found = predicted(model, root, tmp_path / "out", "--chunk", 3)
    assert found["reason"].dropna().to_dict() == {"deadly_2.hdr": "ended the process that read it"}
    assert len(found) == 5 and found["probability"].notna().sum() == 4


@pytest.mark.parametrize(
    ("scans", "more", "line"),
    [
        ("nowhere", [], "no scan at nowhere: give a folder, a glob, a table of paths or an address"),
        ("s3:/", [], "no scan at s3:/"),
        ("nothing://here", [], "can't open nothing://here (Protocol not known: nothing): correct the address"),
        ("memory://nobody", [], "can't list memory://nobody (nothing is there, or it can't be reached)"),
        ("https://me:secret@host/scans", [], "https://... has a password in it"),
        ("nowhere/*.nii", [], "no .nii, .nii.gz or .hdr/.img image in nowhere/*.nii"),
        ("nowhere.csv", [], "nowhere.csv is not a readable table (nothing is there, or it can't be reached)"),
        ("two.csv", [], "two.csv has several columns that may hold the paths (a, b): name it with --image-column"),
        ("two.csv", ["--image-column", "c"], "two.csv has no column c (a, b): name it with --image-column"),
        ("two.csv", ["--image-column", "a"], "two.csv names 1.nii twice: leave one out"),
        ("two.csv", ["--image-column", "b"], "row 1 of two.csv has '2.txt' in b, not a .nii, .nii.gz or .hdr/.img"),
        ("spelt.csv", [], "spelt.csv names ./3.nii twice: leave one out"),
        ("pair.csv", [], "pair.csv names 4.hdr twice: leave one out"),
        ("nul.csv", [], "is no UTF-8, or has a NUL in it: rename it"),
        (".", ["--chunk", "-1"], "--chunk must be 1 to 1000000, not -1"),
        (".", ["--chunk", "0"], "--chunk must be 1 to 1000000, not 0"),
        (".", ["--chunk", 10**30], "--chunk must be 1 to 1000000, not 1"),
        (".", ["--prepare"], "--prepare writes no Parquet"),
        (".", ["--threshold", "2"], "threshold must be from 0 to 1"),
        (".", ["--image-size", "30"], "image_size"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_writes_nothing(scans, more, line, model, tmp_path, monkeypatch, mistake):
    (tmp_path / "two.csv").write_text("a,b\n1.nii,2.txt\n1.nii,3.nii\n")
    (tmp_path / "spelt.csv").write_text("path\n3.nii\n./3.nii\n")
    (tmp_path / "pair.csv").write_text("path\n4.img\n4.hdr\n")
    (tmp_path / "nul.csv").write_text("path\n4\0.img\n")
    monkeypatch.chdir(tmp_path)
    assert line in mistake(command(model, scans, Path("out"), *more))
    assert not Path("out").exists()


def test_what_a_link_shows_again_is_one_scan_and_a_folder_may_be_called_like_a_table(tmp_path):
    """`**` goes around in a circle."""
    root = tmp_path / "deep.csv"
    (root / "z").mkdir(parents=True)
    for name in ("a.nii", "z/a.nii", "z/b.nii"):
        (root / name).touch()
    (root / "again").symlink_to(".")
    (root / "b.nii").symlink_to("z/b.nii")  # another name for a file is another scan
    expected = [str(root / name) for name in ("a.nii", "b.nii", "z/a.nii", "z/b.nii")]
    assert [scan.path for scan in list_scans(f"{root}/**/*.nii")] == expected
    assert sorted(scan.path for scan in list_scans(str(root))) == expected


def test_a_part_that_is_broken_is_named(model, discs, tmp_path, mistake):
    begun = command(model, discs, tmp_path / "out", "--chunk", 12, "--resume", "true")
    assert main(begun) == 0
    whole = pd.read_parquet(tmp_path / "out" / "predictions")
    part = tmp_path / "out" / "predictions" / "group=000" / "part-000001.parquet"
    part.write_bytes(b"")
    line = mistake(begun)
    assert str(part) in line and "remove that file" in line and "--resume true" in line
    part.unlink()
    assert main(begun) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "predictions"), whole)


@pytest.mark.parametrize(
    ("scans", "more", "line"),
    [
        ("memory://scans", [], "memory://scans can be predicted in chunks only: give --parquet, too"),
        ("a.csv", [], "a.csv can be predicted in chunks only"),
        (".", ["--chunk", "4"], "--chunk is for a prediction in chunks: give --parquet, too, or leave it out"),
        (".", ["--resume"], "--resume is for a prediction in chunks"),
    ],
)
def test_without_parquet_what_needs_it_is_refused(scans, more, line, model, tmp_path, mistake):
    assert line in mistake(["predict", str(model), scans, str(tmp_path), *more])
