import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from monai_cae.data import SliceExtraction
from monai_cae.data.cohort.pseudonyms import KEY_VARIABLE, hash_subject, pseudonym
from monai_cae.data.splits import near_duplicates as finder
from monai_cae.data.splits.audit import audit_sets

SHAPE = (64, 72)
INSIDE = np.hypot(*np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")) < 1


def brain(seed):
    """Five slices of fine folds under the same mask and the same bright ring for everyone, as registered brains are."""
    folds = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((*SHAPE, 5)), (1, 1, 2))
    ring = ndimage.gaussian_filter(INSIDE.astype(float), 4)[..., None]
    return np.where(INSIDE[..., None], 1200 + 800 * ring + 200 * folds / folds.std(), 0).clip(0).astype(np.int16)


def save(path, pixels):
    nib.Nifti1Image(pixels.reshape(*pixels.shape[:2], -1), np.eye(4)).to_filename(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [save(folder / f"{n}.nii", brain(n)[..., 2]) for n in range(18)]


@pytest.fixture
def sets(images):
    """10, 4 and 4 subjects S00 ... S17, alike in class, age and sex."""
    items = [
        {"image": str(image), "label": n % 2, "subject": f"S{n:02}", "age": 70 + n % 4, "sex": "FM"[n // 2 % 2]}
        for n, image in enumerate(images)
    ]
    return items[:10], items[10:14], items[14:]


def found(report):
    return {(finding.check, finding.leak) for finding in report.findings}


def row(report, name):
    return next(check for check in report.checks if check["name"] == name)


def test_nothing_is_found_in_clean_sets(sets):
    report = audit_sets(*sets)
    assert report.findings == [] and report.leaks == []
    assert {check["name"]: check["passed"] for check in report.checks if not check["passed"]} == {
        "Test subject in pretraining": None
    }
    assert row(report, "Near-duplicate slice")["compared"] == 10 * 4 + 10 * 4 + 4 * 4
    assert report.sets["training"] == {
        "n": 10,
        "subjects": 10,
        "classes": {"0": 5, "1": 5},
        "age": {"n": 10, "mean": 71.3, "sd": pytest.approx(1.16, abs=0.01), "min": 70, "max": 73},
        "women": 6,
        "men": 4,
    }


@pytest.mark.parametrize("name", ["S03", "s03 ", "S03_MR2", "s03_ses-02"])
def test_a_subject_in_two_sets_is_a_leak_however_it_is_spelt(sets, name):
    training, validation, test = sets
    report = audit_sets(training, validation, [*test, {**test[0], "subject": name}], pixels=False)
    rescan = "_" in name
    assert ("Rescan in another set" if rescan else "Subject in two sets", True) in found(report)
    assert ("Subject in two sets" if rescan else "Rescan in another set", True) not in found(report)
    assert report.leaks[0].members == ("training: S03", f"test: {name}")


def test_another_session_in_another_set_is_a_leak(sets):
    training, validation, test = sets
    training[3]["session"] = "MR1"
    report = audit_sets(training, [*validation, {**validation[0], "subject": "S03", "session": "MR2"}], test)
    leak = report.leaks[0]
    assert leak.check == "Rescan in another set" and leak.members == ("training: S03/MR1", "validation: S03/MR2")
    assert "S03 in training and in validation" in leak.message


def test_two_sessions_in_one_set_are_no_leak(sets):
    training, validation, test = sets
    training[3]["subject"], training[2]["subject"] = "S02_MR1", "S02_MR2"
    training[3]["label"] = training[2]["label"]
    assert audit_sets(training, validation, test).findings == []


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_linked_file_is_one_file(sets, tmp_path, link):
    training, validation, test = sets
    link(training[4]["image"], tmp_path / "new.nii")
    test[1]["image"] = str(tmp_path / "new.nii")
    report = audit_sets(training, validation, test, pixels=False)
    assert found(report) == {("Same file", True)}
    assert report.leaks[0].members == (f"training: {training[4]['image']}", f"test: {tmp_path / 'new.nii'}")


def test_linked_voxels_of_analyze_pairs_are_one_file(sets, tmp_path, write_pair):
    training, validation, test = sets
    first = write_pair(tmp_path / "first.hdr")
    os.link(first.with_suffix(".img"), tmp_path / "second.img")
    shutil.copy(first, tmp_path / "second.hdr")
    training[0]["image"], test[0]["image"] = str(first), str(tmp_path / "second.hdr")
    assert found(audit_sets(training, validation, test, pixels=False)) == {("Same file", True)}


def test_within_a_set_the_same_file_or_the_same_pixels_are_a_warning(sets, tmp_path):
    training, validation, test = sets
    training[2]["image"] = training[4]["image"]
    shutil.copy(training[5]["image"], tmp_path / "copy.nii")
    training[6]["image"] = str(tmp_path / "copy.nii")
    report = audit_sets(training, validation, test)
    assert [(finding.check, finding.leak, finding.message[:24]) for finding in report.findings] == [
        ("Same file", False, "the file of subject S02 "),
        ("Same pixels", False, "subjects S02 and S04 hav"),
        ("Same pixels", False, "subjects S05 and S06 hav"),
    ]
    assert row(report, "Same pixels")["passed"] is False


EQUAL = {"copy": lambda a: a, "float": lambda a: a.astype(np.float32), "wider": lambda a: a.astype(np.int32)}
EDITED = {
    "scaled": lambda a: (a / 7).astype(np.float32),
    "brighter": lambda a: a + np.int16(100),
    "rounded to 8 bits": lambda a: (a * (255 / a.max())).astype(np.uint8),
    "square root": lambda a: np.sqrt(a, dtype=np.float32),
    "noisy": lambda a: a + np.random.default_rng(0).normal(0, 30, a.shape).astype(np.int16),
    "left to right": lambda a: a[::-1],
    "front to back": lambda a: a[:, ::-1],
    "turned by half": lambda a: a[::-1, ::-1],
    "twice the size": lambda a: a.repeat(2, 0).repeat(2, 1),
}


@pytest.mark.parametrize("copy", EQUAL)
def test_equal_pixels_under_another_name_are_a_leak(sets, tmp_path, copy):
    training, validation, test = sets
    pixels = np.asarray(nib.load(training[7]["image"]).dataobj)
    test[2]["image"] = str(save(tmp_path / "copy.nii", EQUAL[copy](pixels)))
    report = audit_sets(training, validation, test)
    assert found(report) == {("Same pixels", True)}
    assert report.leaks[0].members == ("training: S07", "test: S16")


@pytest.mark.parametrize("copy", EDITED)
def test_edited_pixels_under_another_name_are_a_leak(sets, tmp_path, copy):
    training, validation, test = sets
    pixels = np.asarray(nib.load(training[7]["image"]).dataobj)
    test[2]["image"] = str(save(tmp_path / "copy.nii", np.ascontiguousarray(EDITED[copy](pixels))))
    report = audit_sets(training, validation, test)
    assert found(report) == {("Near-duplicate slice", True)}
    assert report.leaks[0].members == ("test: S16", "training: S07")


def test_every_neighbouring_slice_is_found_and_no_other(images, tmp_path):
    def items(prefix, pixels):
        paths = [save(tmp_path / f"{prefix}{n}.nii", one) for n, one in enumerate(pixels)]
        return [{"image": str(path), "label": n % 2, "subject": f"{prefix}{n:02}"} for n, path in enumerate(paths)]

    volumes = [brain(n) for n in range(12)]
    training = items("A", [volume[..., 2] for volume in volumes])
    test = items("B", [volume[:: 1 if n % 3 else -1, :, 1 + n % 2 * 2] for n, volume in enumerate(volumes)])
    validation = [{"image": str(image), "label": n % 2, "subject": f"V{n}"} for n, image in enumerate(images[14:])]
    report = audit_sets(training, validation, test)
    assert {finding.members for finding in report.findings} == {
        (f"test: B{n:02}", f"training: A{n:02}") for n in range(12)
    }
    assert all("correlation 0.9" in finding.message or "0.8" in finding.message for finding in report.findings)


def test_slices_of_a_volume_are_compared_in_the_wanted_plane(sets, tmp_path):
    training, validation, test = sets
    for number, item in enumerate([*training, *validation, *test]):
        item["image"] = str(save(tmp_path / f"{number}.nii", np.roll(brain(number), number, axis=0)))
    volume = brain(99)
    volume[:, 20] = brain(2)[:, 19]  # coronal slice 21 of one is slice 20 of another
    test[0]["image"] = str(save(tmp_path / "test.nii", volume))
    training[0]["image"] = str(save(tmp_path / "training.nii", np.roll(brain(2), 1, axis=1)))
    assert found(audit_sets(training, validation, test, extraction=SliceExtraction("coronal", 21))) == {
        ("Same pixels", True)
    }
    assert found(audit_sets(training, validation, test, extraction=SliceExtraction("axial", 3))) == set()


def test_slices_too_small_for_detail_are_not_compared(sets, tmp_path):
    sets[2][0]["image"] = str(save(tmp_path / "small.nii", brain(3)[:40, :, 2]))
    report = audit_sets(*sets)
    assert row(report, "Near-duplicate slice")["passed"] is None and row(report, "Same pixels")["passed"]


def test_a_slice_without_detail_looks_like_no_other():
    flat = [finder.describe(np.full(SHAPE, value, np.float32)) for value in (3, 1000)]
    assert len(next(finder.near_duplicates(*[np.stack(flat)[:, None]] * 2))[0]) == 0


def test_one_subjects_own_scans_are_told_by_name_alone(sets, tmp_path):
    training, validation, test = sets
    shutil.copy(training[0]["image"], tmp_path / "copy.nii")
    neighbour = save(tmp_path / "neighbour.nii", brain(0)[..., 3])
    training = [*training, {**training[0], "image": str(tmp_path / "copy.nii"), "session": "MR2"}]
    test = [*test, {**training[0], "image": str(neighbour), "session": "MR3"}]
    assert found(audit_sets(training, validation, test)) == {("Rescan in another set", True)}


def random_slices(count, seed):
    values = np.random.default_rng(seed).standard_normal((count, 4, 576)).astype(np.float32)
    return values / np.linalg.norm(values, axis=(1, 2), keepdims=True)


def test_each_of_many_slices_is_found_in_its_place():
    a = random_slices(600, 0)[:, None]
    pairs = {(r, c) for row, column, _ in finder.near_duplicates(a, a[::-1]) for r, c in zip(row, column, strict=True)}
    assert pairs == {(n, 599 - n) for n in range(600)}


def test_a_test_subject_that_a_checkpoint_has_seen_is_a_leak(sets):
    report = audit_sets(*sets, pixels=False, pretrained_on=[hash_subject("s15_MR2"), hash_subject("S03")])
    assert [finding.members for finding in report.findings] == [("test: S15",)]
    assert found(report) == {("Test subject in pretraining", True)}
    assert row(audit_sets(*sets, pixels=False, pretrained_on=[hash_subject("X")]), "Test subject in pretraining")[
        "passed"
    ]


@pytest.mark.parametrize(
    ("seen", "now"),
    [
        ("OAS1_0001_MR1", "sub-OAS10001"),  # as monai-cae prepare writes it
        ("sub-OAS10001", "OAS1_0001_MR2"),
        ("OAS1_0001", "sub-OASIS10001"),  # as Clinica does
        ("OAS2_0007", "sub-OAS20007"),
        ("002_S_0295", "sub-002S0295"),
        ("sub-ADNI002S0295", "002_S_0295"),
        ("sub-ADNI002S0295", "sub-002S0295"),
    ],
)
def test_ids_of_studies_are_known_in_every_spelling(sets, seen, now):
    sets[2][0]["subject"] = now
    report = audit_sets(*sets, pixels=False, pretrained_on=[hash_subject(seen)])
    assert [finding.members for finding in report.leaks] == [(f"test: {now}",)]


@pytest.mark.parametrize(("seen", "now"), [("OAS1_0001", "sub-OAS20001"), ("OAS1_0001", "OAS30001"), ("S_1", "S1")])
def test_ids_that_are_somebody_elses_stay_so(sets, seen, now):
    sets[2][0]["subject"] = now
    assert not audit_sets(*sets, pixels=False, pretrained_on=[hash_subject(seen)]).leaks


def test_images_of_an_earlier_training_are_compared_with_the_sets(sets, images, tmp_path):
    earlier = [
        {"image": str(save(tmp_path / "same.nii", brain(15)[..., 2])), "subject": "P1"},
        {"image": str(save(tmp_path / "like.nii", brain(16)[::-1, :, 2] * 2)), "subject": "P2"},  # mirrored, brighter
        {"image": str(images[17]), "subject": "P3"},
        {"image": str(images[14]), "subject": "S14"},  # known by its name, see pretrained_on
        *({"image": str(save(tmp_path / f"{n}.nii", brain(40)[..., 2])), "subject": f"P{n}"} for n in (4, 5)),
    ]
    report = audit_sets(*sets, trained_on=earlier)
    assert {finding.check: finding.message for finding in report.leaks} == {
        "Same file": "the file of subject P3 in earlier training and in test",
        "Same pixels": "subjects P3 and S17 have the same pixels, in earlier training and in test",
        "Near-duplicate slice": report.leaks[-1].message,
    }
    messages = [finding.message for finding in report.leaks]
    assert "subjects P1 and S15 have the same pixels, in earlier training and in test" in messages
    assert "subject S16 of test shows almost the same slice as subject P2 of earlier training (corr" in messages[-1]
    assert report.sets == audit_sets(*sets).sets and not [f for f in report.findings if not f.leak]


def with_hashes(sets):
    return [[{**item, "subject": pseudonym(item["subject"])} for item in members] for members in sets]


def test_hashed_and_plain_runs_find_each_others_test_subjects_or_say_that_they_can_not(sets, monkeypatch, tmp_path):
    monkeypatch.setenv(KEY_VARIABLE, "a key of sixteen letters or more")
    name, keyed = "S15", [hash_subject(pseudonym("S15"))]
    told = "the pretrained checkpoint was made with another --hash_ids: which subjects it has seen is unknown"
    leak = {("Test subject in pretraining", True)}
    unsure = {("Test subject in pretraining", False)}
    assert found(audit_sets(*with_hashes(sets), pixels=False, pretrained_on=keyed)) == leak
    assert found(audit_sets(*sets, pixels=False, pretrained_on=keyed)) == leak | unsure
    report = audit_sets(*with_hashes(sets), pixels=False, pretrained_on=[hash_subject(name)])
    assert found(report) == unsure and report.findings[0].message == told
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert found(audit_sets(*sets, pixels=False, pretrained_on=keyed)) == unsure
    assert not any(tmp_path.iterdir())  # looking for somebody makes no key


def test_the_hash_of_a_name_never_changes():
    assert hash_subject("OAS1_0001") == hash_subject(" oas1_0001_MR1") == "697b6d928f7eaa56"
    assert hash_subject("OAS1_0002") != hash_subject("OAS1_0001")


def test_contradicting_labels_are_a_warning(sets):
    training, validation, test = sets
    training[3] = {**training[3], "subject": "S02", "session": "MR2"}
    report = audit_sets(training, validation, test)
    assert found(report) == {("Contradicting labels", False)} and report.leaks == []
    assert report.findings[0].members == ("training: S02 has label 0", "training: S02/MR2 has label 1")


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("Classes across the sets", lambda item, name: item.update(label=int(name != "training"))),
        ("Age across the sets", lambda item, name: item.update(age=item["age"] + 9 * (name == "test"))),
        ("Age across the classes", lambda item, name: item.update(age=item["age"] + 9 * item["label"])),
        ("Sex across the sets", lambda item, name: item.update(sex="F" if name == "training" else "M")),
        ("Sex across the classes", lambda item, name: item.update(sex="FM"[item["label"]])),
    ],
)
def test_sets_or_classes_that_differ_are_a_warning(sets, check, change):
    assert row(audit_sets(*sets, pixels=False), check)["passed"]
    for name, items in zip(("training", "validation", "test"), sets, strict=True):
        for item in items:
            change(item, name)
    report = audit_sets(*sets, pixels=False)
    assert (check, False) in found(report) and report.leaks == []
    assert row(report, check)["passed"] is False and "p = " in row(report, check)["threshold"]


def test_what_is_not_known_is_not_done(sets):
    for item in [item for items in sets for item in items]:
        del item["age"], item["sex"]
        item["label"] = 1
    report = audit_sets(*sets, pixels=False)
    not_done = {check["name"] for check in report.checks if check["passed"] is None}
    assert len(not_done) == 8 and {"Same pixels", "Near-duplicate slice"} <= not_done
    assert report.sets["test"]["age"] is None
    empty = audit_sets(sets[0], [], [])
    assert empty.findings == [] and empty.sets["test"]["n"] == 0


@pytest.mark.parametrize("years", [70, float("nan")])
def test_ages_without_spread_raise_no_warning(sets, years):
    for item in [item for items in sets for item in items]:
        item["age"] = years
    report = audit_sets(*sets, pixels=False)
    assert report.findings == [] and (report.sets["test"]["age"] is None) == (years != years)


def test_without_pixels_no_image_is_read(sets, tmp_path, refused):
    sets[0][0]["image"] = str(tmp_path / "broken.nii")
    with refused(r"no image at .*broken\.nii .*: check --dataset_dir"):
        audit_sets(*sets, pixels=False)
    (tmp_path / "broken.nii").write_bytes(b"no image")
    assert audit_sets(*sets, pixels=False).findings == []
    with refused(r"broken\.nii is not a readable image"):
        audit_sets(*sets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": None}, "item 1 of validation has no image or no subject"),
        ({"image": ["a", "b"]}, "item 1 of validation has no image or no subject"),
        ({"label": 2}, "the label of S10 in validation is 2"),
        ({"age": "old"}, "the age of S10 in validation is 'old'"),
    ],
)
def test_an_item_that_is_none_is_refused(sets, refused, change, message):
    sets[1][0].update(change)
    with refused(message):
        audit_sets(*sets)


def test_names_in_place_of_hashes_are_refused(sets, refused):
    with refused("pretrained_on must be hashes made by hash_subject, not 'S15'"):
        audit_sets(*sets, pixels=False, pretrained_on=["S15"])


def test_reading_shows_progress_and_the_result_is_json(sets):
    seen = []
    report = audit_sets(*sets, synthetic=True, progress=lambda items: seen.extend(items) or items)
    assert len(seen) == 18
    sets[2][0]["image"] = sets[0][0]["image"]
    content = audit_sets(*sets, synthetic=True).to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["synthetic"] and content["leaks"] == 2 and content["not_checked"] and report.to_dict()["leaks"] == 0
