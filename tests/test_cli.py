"""The monai-cae command, as typed."""

from __future__ import annotations

import pytest
from tiny import write_discs

import monai_cae
from monai_cae.cli import main


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
    assert next(line for line in lines if line.startswith("Gender")).split()[2:] == ["6/6", "6/6", "59/41", "73/27"]


def test_cohort_of_a_table_alone_says_who_is_left_out(tmp_path, capsys):
    table = tmp_path / "oasis.csv"
    table.write_text("ID,M/F,Age,CDR\nA_MR1,F,70,1\nB_MR1,M,80,0\nC_MR1,F,60,0\nD_MR1,F,50,\nA_MR2,F,71,1\n")
    assert main(["cohort", str(table)]) == 0
    out = capsys.readouterr().out
    assert "1 blank CDR" in out and "1 rescans" in out and "1 controls younger than the oldest 1" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cohort", "/nowhere"], "dataset_dir /nowhere is not a folder"),
        (["phantom", "{tmp}/out", "--subjects", "1"], "subjects"),
    ],
)
def test_mistakes_are_one_line_on_stderr(tmp_path, capsys, arguments, message):
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert not (tmp_path / "out").exists()


def test_phantom_writes_a_cohort_that_cohort_reads_and_calls_synthetic(tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "out"), "--subjects", "4"]) == 0
    assert "synthetic subjects (not real MRI)" in capsys.readouterr().out
    assert main(["cohort", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "SYNTHETIC cohort, not real MRI" in out
    assert next(line for line in out.splitlines() if line.startswith("Number of subjects")).split()[3:5] == ["2", "2"]


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and monai_cae.__version__ in capsys.readouterr().out
