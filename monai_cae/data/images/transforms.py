"""Transforms of this project: the slice of a volume in memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_numpy
from numpy.typing import NDArray

from monai_cae.data.images.planes import View, check_axes, closest_view, plane_axis, position
from monai_cae.data.images.readers import SLICE_OF, UNORIENTED, check_slice
from monai_cae.errors import MonaiCaeError


class SelectSlice(Transform):
    """One slice of a channel-first volume: the same slice that `SliceReader` takes from a file.

    Args:
        plane: "axial", "coronal" or "sagittal".
        slice_index: 1-based; a volume with a single slice in the plane gives that one, if `SliceReader` took it.
        axes: see `SliceReader`. A MetaTensor is turned by its affine, unless its metadata are those of a header that
            records no orientation; an array without an affine is taken as stored.
        single_slice: take a single slice from elsewhere, too; which one of its volume it is can't be known.

    Raises:
        MonaiCaeError: an unknown plane or axes; in use: not a channel-first volume, an index outside it, a slice that
            is empty or has values that are not finite.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012  # MONAI declares it so

    def __init__(
        self, plane: str = "axial", slice_index: int = 106, axes: str = "anatomical", single_slice: bool = False
    ) -> None:
        check_axes(axes)
        self.axis = plane_axis(plane)
        self.plane = plane
        self.slice_index = slice_index
        self.axes = axes
        self.single_slice = single_slice

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Args:
            img: shape `(C, X, Y, Z)`.

        Returns:
            Shape `(C, X, Y)` for the axial plane, `(C, X, Z)` coronal, `(C, Y, Z)` sagittal. A MetaTensor's affine maps
            `(i, j, 0)` of the slice to the point that it had in the volume.
        """
        where = str(img.meta.get("filename_or_obj", "the volume")) if isinstance(img, MetaTensor) else "the volume"
        if img.ndim != 4:
            raise MonaiCaeError(f"{where} is not a channel-first volume (C, X, Y, Z): its shape is {tuple(img.shape)}")
        view = self._view(img)
        index = position(view.shape, self.plane, self.slice_index, where)
        if view.shape[self.axis] == 1 and not self.single_slice and not self._was_read(img):
            raise MonaiCaeError(
                f"{where} has a single {self.plane} slice (shape {tuple(img.shape[1:])}), and which one can't be "
                "known: give the whole volume, or set single_slice to true if it is the wanted one"
            )
        axis, first, _ = view.stored(self.axis, index, index + 1)
        wanted: list[Any] = [slice(None)] * 4
        wanted[1 + axis] = first
        out = img[tuple(wanted)]
        check_slice(convert_to_numpy(out), f"{self.plane} slice {index + 1} of {where}")
        if isinstance(out, MetaTensor):
            out = self._turned(out, view)
            out.affine = torch.as_tensor(self._affine(view.affine, index), dtype=out.affine.dtype)
        return out

    def _was_read(self, img: NdarrayOrTensor) -> bool:
        return isinstance(img, MetaTensor) and img.meta.get(SLICE_OF) == self.plane

    def _view(self, img: NdarrayOrTensor) -> View:
        shape = (int(img.shape[1]), int(img.shape[2]), int(img.shape[3]))
        if not isinstance(img, MetaTensor):
            return View(shape, np.eye(4))
        affine = img.affine.detach().cpu().numpy().astype(np.float64)
        closest = closest_view(shape, affine) if self.axes == "anatomical" and _is_oriented(img.meta) else None
        return closest or View(shape, affine)

    def _turned(self, out: Any, view: View) -> Any:
        kept = [axis for axis in range(3) if axis != self.axis]
        if view.order[kept[0]] > view.order[kept[1]]:
            out = out.transpose(1, 2)
        flipped = [place for place, axis in enumerate(kept, start=1) if view.flipped[axis]]
        return out.flip(flipped) if flipped else out

    def _affine(self, affine: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        kept = [axis for axis in range(3) if axis != self.axis]
        moved = affine.copy()
        moved[:3, :3] = affine[:3, [*kept, self.axis]]
        moved[:3, 3] += affine[:3, self.axis] * index
        return moved


def _is_oriented(meta: Mapping[Any, Any]) -> bool:
    """Whether the header that these metadata are of, if of any, records an orientation."""
    codes = [meta[name] for name in UNORIENTED if name in meta]  # ITK's are texts
    return any(int(code) > 0 for code in codes) if codes else "vols_added" not in meta  # a field of Analyze alone


class SelectSliced(MapTransform):
    """Dictionary version of `SelectSlice`.

    Args:
        keys: items to take the slice of.
        plane: see `SelectSlice`.
        slice_index: see `SelectSlice`.
        axes: see `SelectSlice`.
        single_slice: see `SelectSlice`.
        allow_missing_keys: as in every MONAI dictionary transform.
    """

    backend = SelectSlice.backend

    def __init__(
        self,
        keys: KeysCollection,
        plane: str = "axial",
        slice_index: int = 106,
        axes: str = "anatomical",
        allow_missing_keys: bool = False,
        single_slice: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.select = SelectSlice(plane, slice_index, axes, single_slice)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Replace each item by its slice."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.select(out[key])
        return out
