"""Where subjects, images and rows of a cohort are: one file per layout, and `read_scans`, which recognises them."""

from monai_cae.data.layouts.base import Asked, Images, Layout
from monai_cae.data.layouts.reading import Found, find_images, read_scans

__all__ = ["Asked", "Found", "Images", "Layout", "find_images", "read_scans"]
