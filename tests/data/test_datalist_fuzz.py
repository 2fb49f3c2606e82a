"""Whatever lies in a datalist's JSON, reading it gives sets or our error in one line."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_cae.cli import main
from monai_cae.data import SliceExtraction, audit_sets, read_datalist, read_scans, select_cohort, with_covariates
from monai_cae.data.cohort.pseudonyms import KEY_VARIABLE
from monai_cae.data.splits.datalists import SETS
from monai_cae.data.splits.sets import shareable, usable_sets
from monai_cae.errors import MonaiCaeError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KNOWN = {"cdr": 0.5, "age": 70, "sex": "F"}
GOOD = {
    "name": "cohort",
    "synthetic": False,
    "made_from": {"dataset_dir": "/data", "task": "paper", "seed": 0},
    "recipe": {
        "layout": "plain folder",
        "left_out": {"rows without an image": 2},
        "bad_scans": [{"subject": "x", "image": "x.nii", "reason": "x.nii is truncated: 1 of 9 bytes"}],
    },
    **{
        name: [
            {"image": f"{name}{n}.nii", "label": n, "subject": f"{name}{n}", "session": "MR1", **KNOWN}
            for n in (0, 1)
        ]
        for name in SETS
    },
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2, 0.5, 1e308, float("nan"), float("inf"), 10**400, "", " ", "a", "a\nb", "\0", "a\x1b[2J",
    "\ud800", "../../x", "/etc/passwd", "x/../training0.nii", "a\u2028b", "\u202e", "a" * 5000, [], [1], [[]], {},
    {"a": 1},
)  # fmt: skip
values = st.one_of(
    st.sampled_from(ODD), st.recursive(st.text(max_size=4), lambda v: st.lists(v, max_size=3), max_leaves=4)
)


def places(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything that a value could take the place of."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [above, *(place for key, value in inside for place in places(value, (*above, key)))][(not above) :]


PLACES = places(GOOD)
FIRST = [("training", 0, name) for name in ("image", "label", "subject", "session", "cdr", "age", "sex", "nWBV")]
RECORD = [("made_from", "dataset_dir"), ("made_from",), ("recipe",), ("training",), ("test", 0)]


@st.composite
def changed(draw) -> bytes:
    """A good datalist with some of its values replaced, removed or twice there, or with other bytes."""
    content: Any = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from([*PLACES, *FIRST * 3, *RECORD * 3]))
        owner = content
        try:
            for part in way:
                owner = owner[part]
            if draw(st.integers(0, 4)):
                owner[last] = copy.deepcopy(draw(values))
            else:
                del owner[last]
        except (TypeError, KeyError, IndexError):
            continue  # what was above it has been replaced before
    text = json.dumps(content)
    kind = draw(st.sampled_from(("good", "good", "good", "good", "twice", "bytes", "cut", "number", "encoding", "any")))
    if kind == "twice":
        text = text.replace('"training":', '"training": 3, "test":', 1)
    elif kind == "number":
        text = text.replace("70", draw(st.sampled_from(("1e999", "-0", "9" * 5000, "NaN", "7" * 400, "0x46"))))
    elif kind == "encoding":
        return text.encode(draw(st.sampled_from(("utf-16", "utf-8-sig", "utf-32"))))
    elif kind == "any":
        return draw(st.binary(max_size=40))
    raw = bytearray(text.encode())
    start = draw(st.integers(0, len(raw)))
    if kind == "cut":
        del raw[start:]
    elif kind == "bytes":
        raw[start : start + 2] = draw(st.binary(max_size=3))
    return bytes(raw)


def attempt(function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What it returns, or None where our error was raised, in one line."""
    try:
        return function(*given, **options)
    except MonaiCaeError as error:
        message = str(error)
    assert len(message.splitlines()) == 1 and len(message) < 25_000
    message.encode()
    return None


@pytest.mark.fault(
    f"datalist: {EXAMPLES} with texts, numbers, lists, objects, null, NaN, 10^400, control characters or halves of "
    "pairs in place of anything, duplicate names, truncated, in other encodings, random bytes",
    "sets, or one line that names the file; as a cohort, hashed, audited and shared too",
)
@fuzz
@given(content=changed())
def test_any_datalist_gives_sets_or_our_error(tmp_path, monkeypatch, content):
    monkeypatch.setenv(KEY_VARIABLE, "a key of sixteen letters or more")
    path = tmp_path / "datalist.json"
    path.write_bytes(content)
    found = attempt(read_scans, path)
    if found is not None:
        attempt(select_cohort, found.scans)
    for hash_ids in (False, True):
        sets = attempt(
            read_datalist, path, tmp_path, hash_ids=hash_ids, made_from={"task": "ad", "seed": 0} if hash_ids else {}
        )
        if sets is None:
            continue
        assert {item["label"] for name in SETS for item in getattr(sets, name)} <= {0, 1}
        audit = attempt(audit_sets, *(getattr(sets, name) for name in SETS), pixels=False, bad_scans=sets.bad_scans)
        assert audit is None or json.dumps(audit.to_dict()).encode()
        json.dumps(shareable(sets), ensure_ascii=False).encode()
        attempt(with_covariates, sets.training, {"age": [70, 8], "sex": [0.5, 1]})
        attempt(usable_sets, sets, path, SliceExtraction("axial", 1), on_bad_scan="skip")


def test_the_good_datalist_is_read(tmp_path):
    (tmp_path / "datalist.json").write_text(json.dumps(GOOD))
    sets = read_datalist(tmp_path / "datalist.json", tmp_path)
    assert [len(getattr(sets, name)) for name in SETS] == [2, 2, 2] and sets.bad_scans[0].subject == "x"
    assert len(read_scans(tmp_path / "datalist.json", allow_outside=True).scans) == 6


@pytest.mark.parametrize("name", ["made_from", "recipe"])
@pytest.mark.parametrize("value", [[1], 3, "x", True])
def test_the_audit_command_ends_in_one_line_too(tmp_path, capsys, name, value):
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({**GOOD, name: value}))
    assert main(["audit", str(path), "--no-pixels"]) == 1
    printed = capsys.readouterr().err
    assert printed == f"error: {path} is not a usable datalist (its {name} is {value!r}): give a MONAI datalist JSON\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["datalist.json"]


def test_what_is_no_file_or_too_large_is_not_read(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(65 << 20)
    for name, message in (("pipe.json", "no datalist at .*pipe.json"), ("large.json", "68157440 bytes, the limit is")):
        with refused(message):
            read_datalist(tmp_path / name, tmp_path)
        if name != "pipe.json":
            with refused(message):
                read_scans(tmp_path / name)
