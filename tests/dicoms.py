"""Small DICOM series, with everything in the header that must not get out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

SECRETS = ("Featherstone", "Wilhelmina", "HOSP4711", "19400102", "ACC998877", "Secret Clinic", "Dr Who", "PRIVATE-NOTE")
SPACING = (2.0, 2.0, 4.0)  # mm; columns, rows, slices
MPRAGE = {
    "SeriesDescription": "t1_mprage_sag", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "ScanningSequence": ["GR", "IR"], "SequenceVariant": ["SP", "MP"], "MRAcquisitionType": "3D",
    "RepetitionTime": 2300, "EchoTime": 2.98, "InversionTime": 900, "FlipAngle": 9,
}  # fmt: skip


def head(seed: int = 0, slices: int = 34) -> np.ndarray:
    """An unsymmetrical bright block in noise, shape (slices, rows, columns), 12 bits."""
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 40, (slices, 100, 96), dtype=np.uint16)
    volume[5:25, 20:80, 15:60] += 800
    volume[8:12, 30:40, 20:30] += 1200
    return volume


def write_series(
    folder: Path,
    volume: np.ndarray | None = None,
    *,
    study: str = "",
    series: str = "",
    patient: dict[str, str] | None = None,
    multi_frame: bool = False,
    syntax: str = ExplicitVRLittleEndian,
    leave_out: tuple[int, ...] = (),
    **tags: Any,
) -> Path:
    """Write sagittal slices, the first on the right; by default those of an MPRAGE.

    Args:
        folder: made if missing; the files are named IM0000 and so on.
        volume: shape (slices, rows, columns).
        study, series: UIDs; new ones if "".
        patient: of the tags that name the patient, what is otherwise.
        multi_frame: one enhanced file.
        syntax: transfer syntax; JPEG 2000 and RLE are compressed.
        leave_out: slices that are not written.
        **tags: by keyword; None leaves one out.
    """
    volume = head() if volume is None else volume
    folder.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "PatientName": "Featherstone^Wilhelmina", "PatientID": "HOSP4711", "PatientBirthDate": "19400102",
        "AccessionNumber": "ACC998877", "InstitutionName": "Secret Clinic", "ReferringPhysicianName": "Dr Who",
        "StudyDate": "20200102", "StudyTime": "101010", "AcquisitionTime": "101010", "Modality": "MR",
        "Manufacturer": "SIEMENS", "SeriesNumber": 3, "StudyInstanceUID": study or generate_uid(),
        "SeriesInstanceUID": series or generate_uid(), "FrameOfReferenceUID": generate_uid(),
        "PatientPosition": "HFS", **MPRAGE, **(patient or {}), **tags,
    }  # fmt: skip
    kept = [k for k in range(len(volume)) if k not in leave_out]
    if multi_frame:
        _save(_enhanced(common, volume, kept), folder / "IM0000", volume[kept], syntax)
        return folder
    for k in kept:
        one = _dataset(common, MRImageStorage)
        one.InstanceNumber = k + 1
        one.SliceThickness, one.PixelSpacing = SPACING[2], list(SPACING[:2])
        one.ImageOrientationPatient, one.ImagePositionPatient = _DIRECTIONS, position(k)
        _save(one, folder / f"IM{k:04d}", volume[k : k + 1], syntax)
    return folder


_DIRECTIONS = [0, 1, 0, 0, 0, -1]  # columns run backwards, rows downwards


def position(k: int) -> list[float]:
    """The first voxel of a slice, mm, LPS+."""
    return [-60.0 + SPACING[2] * k, -90.0, 95.0]


def world(k: int, row: int, column: int) -> np.ndarray:
    """Where a voxel lies, mm, RAS+."""
    x, y, z = position(k)
    return np.array([-x, -(y + SPACING[0] * column), z - SPACING[1] * row])


def _dataset(common: dict[str, Any], kind: str) -> Dataset:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.SOPClassUID, one.SOPInstanceUID = kind, generate_uid()
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = kind, one.SOPInstanceUID
    for name, value in common.items():
        if value is not None:
            setattr(one, name, value)
    one.add_new(0x00090010, "LO", "MAKER")
    one.add_new(0x00091001, "LO", "PRIVATE-NOTE")
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    return one


def _item(**values: Any) -> Dataset:
    one = Dataset()
    for name, value in values.items():
        setattr(one, name, Sequence([value]) if isinstance(value, Dataset) else value)
    return one


def _enhanced(common: dict[str, Any], volume: np.ndarray, kept: list[int]) -> Dataset:
    classic = ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "ScanningSequence", "SequenceVariant")
    times = {name: common[name] for name in classic}
    one = _dataset({name: value for name, value in common.items() if name not in classic}, EnhancedMRImageStorage)
    one.NumberOfFrames, one.EchoPulseSequence, one.PulseSequenceName = len(kept), "GRADIENT", "tfl3d"
    timing = _item(RepetitionTime=times["RepetitionTime"], FlipAngle=times["FlipAngle"])
    measures = _item(PixelSpacing=list(SPACING[:2]), SliceThickness=SPACING[2], SpacingBetweenSlices=SPACING[2])
    shared = _item(
        MRTimingAndRelatedParametersSequence=timing,
        MREchoSequence=_item(EffectiveEchoTime=times["EchoTime"]),
        MRModifierSequence=_item(InversionRecovery="YES", InversionTimes=[times["InversionTime"]]),
        PixelMeasuresSequence=measures,
        PlaneOrientationSequence=_item(ImageOrientationPatient=_DIRECTIONS),
    )
    one.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number, k in enumerate(kept, start=1):
        content = _item(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number])
        place = _item(ImagePositionPatient=position(k))
        frames.append(_item(FrameContentSequence=content, PlanePositionSequence=place))
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return one


def _save(one: Dataset, path: Path, pixels: np.ndarray, syntax: str) -> None:
    one.Rows, one.Columns = pixels.shape[1:]
    one.file_meta.TransferSyntaxUID = syntax if syntax != RLELossless else ExplicitVRLittleEndian
    if syntax == JPEG2000Lossless:
        one.PixelData = encapsulate([_jpeg2000(frame) for frame in pixels])
        one["PixelData"].is_undefined_length = True
    else:
        one.PixelData = pixels.astype("<u2").tobytes()
    if syntax == RLELossless:
        one.compress(RLELossless, generate_instance_uid=False)
    one.save_as(path, enforce_file_format=True)


def _jpeg2000(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame.astype(np.uint16)).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue()
