"""Transforms that extract from a volume in memory what the network sees."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type
from numpy.typing import NDArray

from monai_cae.data.images.averaging import averaged, grid_affine
from monai_cae.data.images.cuts import NAMES, Cut, moved, origin
from monai_cae.data.images.extraction import PAPER_SLICE, Extraction, SliceExtraction
from monai_cae.data.images.planes import View, closest_view
from monai_cae.data.images.readers import PART, UNORIENTED, check_slice, joined
from monai_cae.errors import MonaiCaeError


class Extract(Transform):
    """What an extraction makes of a channel-first volume, or of the part of it that `ExtractionReader` has read.

    Args:
        extraction: which slices, and what becomes of them; a volume with a single slice in the plane gives that one,
            if `ExtractionReader` took it. A MetaTensor is turned by its affine, unless its metadata are those of a
            header that records no orientation; an array without an affine is taken as stored.
        single_slice: take a single slice from elsewhere, too; which one of its volume it is can't be known.

    Raises:
        MonaiCaeError: in use: not a channel-first volume, an index outside it, a slice that is empty or has values
            that are not finite.
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012  # MONAI declares it so

    def __init__(self, extraction: Extraction = PAPER_SLICE, single_slice: bool = False) -> None:
        self.extraction = extraction
        self.single_slice = single_slice

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Args:
            img: shape `(C, X, Y, Z)`.

        Returns:
            The image of every channel, one behind the other: of one slice `(C, X, Y)` in the axial plane, `(C, X, Z)`
            coronal, `(C, Y, Z)` sagittal. A MetaTensor's affine maps `(i, j, 0)` of the first slice to the point that
            it had in the volume, and so `(i, j, k)` of a volume.
        """
        where = str(img.meta.get("filename_or_obj", "the volume")) if isinstance(img, MetaTensor) else "the volume"
        if img.ndim != 4:
            raise MonaiCaeError(f"{where} is not a channel-first volume (C, X, Y, Z): its shape is {tuple(img.shape)}")
        extraction = self.extraction
        # a view: MONAI's convert_to_numpy copies a volume of nibabel's, whose first axis is the fastest
        array = img if isinstance(img, np.ndarray) else img.as_subclass(torch.Tensor).detach().cpu().numpy()
        whole = array.dtype.kind in "iu"
        if isinstance(img, MetaTensor) and img.meta.get(PART) == extraction.name:
            affine = img.affine.numpy()
        elif extraction.grid is not None:
            view, grid = self._view(img), extraction.grid
            array = np.stack([averaged(_in_turn(channel), view, grid, where) for channel in array])
            check_slice(array, f"{extraction.name} of {where}")
            affine = grid_affine(view, grid)
        else:
            view = self._view(img)
            cuts = extraction.cuts(view.shape, where)
            self._refuse_single(view, cuts, where)
            parts = [[_cut(channel, view, *cut) for cut in cuts] for channel in array]
            array = np.stack([joined(extraction, part, cuts, where) for part in parts])
            affine = moved(view.affine, origin(cuts, view.shape, array.shape[1:]))
        images = [extraction.seen(np.moveaxis(channel, extraction.axis, 0)) for channel in array]
        image = images[0] if len(images) == 1 else np.concatenate(images)
        out, *_ = convert_to_dst_type(image, img, dtype=image.dtype if whole else None)  # a mean is no whole number
        if isinstance(out, MetaTensor):
            out.affine = torch.as_tensor(self._affine(affine), dtype=out.affine.dtype)
        return out

    def _refuse_single(self, view: View, cuts: Sequence[Cut], where: str) -> None:
        single = [NAMES[axis] for axis, _ in cuts if view.shape[axis] == 1]
        if not single or (self.single_slice and len(cuts) == 1):
            return
        or_else = ", or set single_slice to true if it is the wanted one" if len(cuts) == 1 else ""
        raise MonaiCaeError(
            f"{where} has a single {single[0]} slice (shape {view.shape}), and which one can't be known: give the "
            f"whole volume{or_else}"
        )

    def _view(self, img: NdarrayOrTensor) -> View:
        shape = (int(img.shape[1]), int(img.shape[2]), int(img.shape[3]))
        if not isinstance(img, MetaTensor):
            return View(shape, np.eye(4))
        affine = img.affine.detach().cpu().numpy().astype(np.float64)
        turned = self.extraction.axes == "anatomical" and _is_oriented(img.meta)
        return (closest_view(shape, affine) if turned else None) or View(shape, affine)

    def _affine(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        axis, out = self.extraction.axis, affine.copy()
        if self.extraction.spatial_dims == 2:
            out[:3, :3] = affine[:3, [*(other for other in range(3) if other != axis), axis]]
        return out


def _in_turn(volume: NDArray[Any]) -> Callable[[int, int], NDArray[Any]]:
    return lambda start, stop: np.moveaxis(volume[..., start:stop], 2, 0)


def _cut(volume: NDArray[Any], view: View, axis: int, positions: Sequence[int]) -> NDArray[Any]:
    """Slices of a volume with the stored axes, turned into the view's but for their order, which is as asked for."""
    stored = [view.stored(axis, one, one + 1)[1] for one in positions]
    flipped = tuple(flip and other != axis for other, flip in enumerate(view.flipped))
    turn = View(view.shape, view.affine, view.order, (flipped[0], flipped[1], flipped[2]))
    across = view.order[axis]
    return turn.turned(np.moveaxis(np.moveaxis(volume, across, 0)[stored], 0, across))  # `take` copies the volume first


def _is_oriented(meta: Mapping[Any, Any]) -> bool:
    """Whether the header that these metadata are of, if of any, records an orientation."""
    codes = [meta[name] for name in UNORIENTED if name in meta]  # ITK's are texts
    return any(int(code) > 0 for code in codes) if codes else "vols_added" not in meta  # a field of Analyze alone


class Extractd(MapTransform):
    """Dictionary version of `Extract`."""

    backend = Extract.backend

    def __init__(
        self,
        keys: KeysCollection,
        extraction: Extraction = PAPER_SLICE,
        allow_missing_keys: bool = False,
        single_slice: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.extract = Extract(extraction, single_slice)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Replace each item by what is seen of it."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.extract(out[key])
        return out


class SelectSlice(Extract):
    """`Extract` for one slice: the same slice that `SliceReader`, which explains the arguments, takes from a file."""

    def __init__(
        self, plane: str = "axial", slice_index: int = 106, axes: str = "anatomical", single_slice: bool = False
    ) -> None:
        super().__init__(SliceExtraction(plane, slice_index, axes), single_slice)


class SelectSliced(Extractd):
    """Dictionary version of `SelectSlice`."""

    def __init__(
        self,
        keys: KeysCollection,
        plane: str = "axial",
        slice_index: int = 106,
        axes: str = "anatomical",
        allow_missing_keys: bool = False,
        single_slice: bool = False,
    ) -> None:
        super().__init__(keys, SliceExtraction(plane, slice_index, axes), allow_missing_keys, single_slice)
