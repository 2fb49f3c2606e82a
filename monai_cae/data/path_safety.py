"""Image paths in a table or a datalist must stay in the user's folder."""

from __future__ import annotations

from pathlib import Path, PurePath

from monai_cae.errors import MonaiCaeError


def require_inside(image: str | PurePath, folder: Path, what: str, allow_outside: bool) -> None:
    """Refuse a path that leads out of a folder, with `..`, or absolute and elsewhere, unless the user allows it.

    Symbolic links in the folder are followed: whoever has made them wanted the images there, and neither a table nor a
    datalist can make one. Errors name the item as `what`.

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


def below(image: Path, folder: Path) -> str:
    """An image's path as a datalist names it: relative to a folder that it is in."""
    image, folder = image.absolute(), folder.absolute()
    return str(image.relative_to(folder) if image.is_relative_to(folder) else image)
