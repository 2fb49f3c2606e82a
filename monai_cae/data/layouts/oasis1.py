"""OASIS-1 as downloaded: disc1, disc2, ..., or the folders of sessions, at any depth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from monai_cae.data.layouts.base import Asked, Images, WithTable, add_image, subfolders, walk
from monai_cae.data.layouts.oasis2 import raw_scans
from monai_cae.data.scan import Note

# gain-field corrected, atlas-registered (T88), masked: the paper's input; n3 to n6 is the number of averaged
# acquisitions
T88 = re.compile(r"^(?P<name>OAS1_\d{4}_MR\d+)_mpr_n\d_anon_111_t88_masked_gfc\.hdr$")
_SESSION = re.compile(r"OAS1_\d{4}_MR\d+")
_RAW = re.compile(r"OAS1_\d{4}_MR\d+_mpr-(\d+)_anon\.hdr")


class Oasis1(WithTable):
    """`OAS1_*_t88_masked_gfc.hdr` at any depth, and oasis_cross-sectional.csv or .xlsx."""

    name = "OASIS-1 discs"

    def detect(self, root: Path) -> bool:
        """Whether there are folders of discs or sessions."""
        return any(re.match(r"disc\d+|OAS1_\d{4}", path.name) for path in subfolders(root))

    def images(self, root: Path, asked: Asked) -> Images:
        """The atlas-registered, masked volume of each session; where there is none at all, one of its raw scans."""
        images: dict[str, Path] = {}
        for path in walk(root):
            if found := T88.match(path.name):
                add_image(images, found["name"], path)
        if images or not (raw := raw_scans(root, asked, _SESSION, _RAW)).by_name:
            return Images(images)
        text = "no *_t88_masked_gfc.hdr here: the scans are as they left the scanner, see `monai-cae prepare`"
        return replace(raw, notes=[Note(text), *raw.notes])
