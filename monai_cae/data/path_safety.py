"""Image paths in a table or a datalist must stay in the user's folder."""

from __future__ import annotations

from pathlib import Path, PurePath

from monai_cae.errors import MonaiCaeError


def require_inside(image: str | PurePath, folder: Path, what: str, allow_outside: bool) -> None:
    """Refuse a path that leads out of a folder: with `..`, or absolute and elsewhere.

    Symbolic links in the folder are followed: whoever has made them wanted the images there, and neither a table nor a
    datalist can make one.

    Args:
        image: as it is named, relative to `folder` or absolute.
        folder: of the images.
        what: which item of which file names it, for the error.
        allow_outside: the user wants it all the same.

    Raises:
        MonaiCaeError: it leads out.
    """
    named = PurePath(image)
    roots = (folder.absolute(), folder.resolve())
    inside = not named.is_absolute() or any(named.is_relative_to(root) for root in roots)
    if ".." in named.parts:  # of a link to elsewhere, `link/..` is elsewhere too
        inside = inside and (folder / named).resolve().is_relative_to(folder.resolve())
    if not allow_outside and not inside:
        raise MonaiCaeError(
            f"{what} names {str(image)!a}, outside {folder}: correct it, or allow it with --allow_outside true if you "
            "trust the author of the file"
        )
