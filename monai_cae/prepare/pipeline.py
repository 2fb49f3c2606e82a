"""From one raw T1w scan to the paper's kind of image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.planes import View, closest_view
from monai_cae.data.template import load_icbm152
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing
from monai_cae.prepare.bias import bias_field
from monai_cae.prepare.brain import find_brain, require_weights
from monai_cae.prepare.grids import load_sitk, one_thread, resampled, turned_back
from monai_cae.prepare.intensity import from_zero, scaled, without_spikes
from monai_cae.prepare.quality import Verdict, judge, measure
from monai_cae.prepare.raw import RawScan
from monai_cae.prepare.recognition import in_place, stripped_brain
from monai_cae.prepare.registration import register
from monai_cae.prepare.settings import PrepareSettings
from monai_cae.prepare.template import load_template

if TYPE_CHECKING:
    import SimpleITK

MOST_SPACING_MM = 5.0  # thicker slices hide what is registered: docs/how-to/prepare.md has what was tried
LEAST_EXTENT_MM = 100.0  # along each axis; the smallest adult brain is wider
LEAST_BRAIN_ML, MOST_BRAIN_ML = 400.0, 2600.0  # of a mask that somebody gives or that the voxels show


@dataclass(frozen=True)
class Prepared:
    """A scan in the template's frame (`monai_cae.data.template`: 176 x 208 x 176 voxels of 1 mm, axes RAS+).

    Attributes:
        image: float32, 0 outside the mask, above 0 to 1 inside.
        mask: the brain, bool, of the same shape.
        affine: of both, shape (4, 4).
        native_mask: the brain on the voxels of the raw scan, bool, in their order.
        transform: affine; it maps a point of the template to the scan, in mm, LPS+, as ITK resamples images with:
            BIDS's `from-T1w_to-..._mode-image_xfm`. `write_transform` writes it.
        qc: the quality numbers by name; `monai_cae.prepare.quality.QUALITY` says what each is.
        notes: what was recognised and not done twice, what was guessed; a sentence each.
        verdict: whether to use it. What is marked "fail" must not be passed on.
        seconds: of each step, CPU time.
    """

    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    affine: NDArray[np.float64] = field(repr=False)
    native_mask: NDArray[np.bool_] = field(repr=False)
    transform: SimpleITK.Transform = field(repr=False)
    qc: Mapping[str, float]
    notes: tuple[str, ...]
    verdict: Verdict
    seconds: Mapping[str, float]


def require(settings: PrepareSettings, *, masked: bool = False) -> None:
    """See to it that what `prepare_scan` needs is installed, before the first of many scans.

    Args:
        settings: of all scans.
        masked: every scan has a mask of another tool.

    Raises:
        MonaiCaeError: SimpleITK, the template or deepbet's weights are missing; says how to install them.
    """
    load_sitk()
    load_icbm152("t1", "prepare", (slice(0, 1),) * 3)
    if settings.mask == "auto" and not masked:
        require_weights()


def prepare_scan(scan: RawScan, settings: PrepareSettings | None = None, mask: RawScan | None = None) -> Prepared:
    """Mask, correct, register and scale one scan.

    The same scan and settings give the same bytes: every step runs in one thread. Voxels are interpolated once, from
    the scan as it was read.

    Args:
        scan: the whole head, or a brain that another tool has stripped, in any orientation.
        settings: defaults if None.
        mask: the brain on the same head, by another tool; voxels above 0, of probabilities above 0.5. It need not have
            the scan's grid: where it differs, it is carried over by the two affines.

    Returns:
        The image with its verdict. A doubtful or failed one is returned too, so that a page can show it.

    Raises:
        MonaiCaeError: what can't be prepared at all: one slice, slices thicker than the limit, an orientation that the
            file does not record, no brain in it, a mask that is empty or of another head, a registration that fails,
            software or weights that are not installed.
    """
    with one_thread():
        try:
            return _prepared(scan, settings or PrepareSettings(), mask)
        except RuntimeError as error:  # what ITK raises, whatever it stumbles over
            reason = str(error).strip().splitlines()[-1]
            raise MonaiCaeError(f"{scan.name} can't be prepared ({reason}): is it a T1w scan of a head?") from error


def _prepared(scan: RawScan, settings: PrepareSettings, mask: RawScan | None) -> Prepared:
    clock = _Clock()
    with clock("read"):
        view = _checked(scan)
        voxels = view.turned(scan.voxels)
        affine = view.affine
    notes = list(scan.notes)
    with clock("mask"):
        if mask is not None:
            brain = given_brain(mask, scan, view)
            how = "" if mask.oriented else ", taken voxel by voxel as it records no orientation"
            notes.append(f"the brain's mask was given: {mask.name}{how}")
        else:
            brain, note = _found_brain(voxels, affine, settings, scan.name)
            notes += note
        voxels, shifted = from_zero(voxels, brain, scan.name)
        voxels, cut = without_spikes(voxels, brain)
        notes += shifted + cut
    with clock("bias"):
        field_of_bias = bias_field(voxels, brain, affine, settings) if settings.bias else np.float32(1)
        corrected: NDArray[np.float32] = np.divide(voxels, field_of_bias, dtype=np.float32)
    with clock("registration"):
        template = load_template()  # not while the mask is made, which takes most memory
        inside = np.where(brain, corrected, np.float32(0))
        transform = register(inside, affine, template, settings)
        kept = in_place(transform, affine, template) if settings.recognise else None
        if kept is not None:
            transform = kept
            notes.append("already registered: it lies where the template does and was not moved again")
    with clock("resampling"):
        frame = (template.mask.shape, template.affine)
        image = resampled(corrected, affine, *frame, transform, spline=True)
        moved = resampled(brain.astype(np.float32), affine, *frame, transform) > 0.5
        if not moved.any():
            raise MonaiCaeError(f"the brain of {scan.name} is not where the template is: its registration failed")
        image = scaled(image, moved, settings.percentile)
    with clock("quality"):
        qc = measure(corrected, brain, affine, image, moved, transform, template)
    return Prepared(
        image=image,
        mask=moved,
        affine=template.affine.copy(),
        native_mask=turned_back(brain, view),
        transform=transform,
        qc=qc,
        notes=tuple(notes),
        verdict=judge(qc),
        seconds=clock.seconds,
    )


def given_brain(mask: RawScan, scan: RawScan, view: View) -> NDArray[np.bool_]:
    """Another tool's mask on a scan's voxels, turned as `view` turns them.

    Raises:
        MonaiCaeError: the mask is empty, or it is not one of a brain on this head.
    """
    values = mask.voxels > (0.5 if mask.voxels.max() <= 1 else 0)
    if not values.any():
        raise MonaiCaeError(f"the mask {mask.name} is empty: give the brain of {scan.name}")
    same = mask.voxels.shape == scan.voxels.shape and (
        not mask.oriented or np.allclose(mask.affine, scan.affine, atol=1e-3)
    )
    if same:
        brain = view.turned(values)
    elif mask.oriented:
        brain = resampled(values.astype(np.float32), mask.affine, view.shape, view.affine) > 0.5
    else:
        raise MonaiCaeError(f"the mask {mask.name} has another shape than {scan.name} and records no orientation")
    volume_ml = float(values.sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1000)
    if not LEAST_BRAIN_ML <= volume_ml <= MOST_BRAIN_ML:
        raise MonaiCaeError(f"the mask {mask.name} has {volume_ml:.0f} ml: it is not one of a brain")
    if brain.sum() * abs(np.linalg.det(view.affine[:3, :3])) / 1000 < 0.5 * volume_ml:
        raise MonaiCaeError(f"less than half of the mask {mask.name} lies on {scan.name}: it is one of another head")
    return brain


def write_transform(transform: Any, path: str | Path) -> None:
    """Write an affine as ITK's .tfm, which ANTs, SimpleITK and 3D Slicer read.

    Raises:
        MonaiCaeError: the file can't be written.
    """
    with replacing(path, "choose another folder") as temporary:
        load_sitk().WriteTransform(transform, str(temporary))


def _checked(scan: RawScan) -> View:
    """How the scan is turned to RAS+, once it is clear that it is one volume of a head."""
    if scan.voxels.ndim != 3:
        raise MonaiCaeError(f"{scan.name} is a series of shape {scan.voxels.shape}: give one T1w volume")
    if not scan.oriented:
        raise MonaiCaeError(
            f"{scan.name} does not record its orientation: say with --orientation where its axes run, such as ASL"
        )
    x, y, z = scan.voxels.shape
    view = closest_view((x, y, z), scan.affine)
    if view is None:
        raise MonaiCaeError(f"{scan.name} has an affine that gives no orientation: give --orientation")
    spacing = np.linalg.norm(view.affine[:3, :3], axis=0)
    for size, mm, plane in zip(view.shape, spacing, ("sagittal", "coronal", "axial"), strict=True):
        if size == 1:
            raise MonaiCaeError(f"{scan.name} is one {plane} slice: give the whole T1w volume")
        if round(float(mm), 3) > MOST_SPACING_MM:  # the sines of an oblique affine are rounded
            raise MonaiCaeError(
                f"{scan.name} has {plane} slices of {mm:.3g} mm: at most {MOST_SPACING_MM:g} mm can be registered"
            )
        if size * mm < LEAST_EXTENT_MM:
            raise MonaiCaeError(
                f"{scan.name} is {size * mm:.0f} mm deep across {plane} slices: that holds no whole brain"
            )
    return view


def _found_brain(
    voxels: NDArray[np.float32], affine: NDArray[np.float64], settings: PrepareSettings, name: str
) -> tuple[NDArray[np.bool_], list[str]]:
    stripped = stripped_brain(voxels, affine)
    if stripped is not None:
        return stripped, ["already stripped: what is not background was taken as the brain"]
    if settings.mask == "none":
        raise MonaiCaeError(f"{name} is not stripped: leave --mask none out, or give a mask")
    return find_brain(voxels, name), []


class _Clock:
    """CPU seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[step] = round(time.process_time() - start, 2)
