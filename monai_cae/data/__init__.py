"""Which subjects, which slice; knows nothing of networks or training."""

from monai_cae.data.cohort import PAPER_TABLE_1, Cohort, load_cohort, select_cohort, table_1
from monai_cae.data.layouts import find_images, read_scans
from monai_cae.data.phantom import is_synthetic, write_phantom
from monai_cae.data.readers import SliceReader, check_images
from monai_cae.data.scan import Scan
from monai_cae.data.splits import Sets, load_sets, read_datalist, split_cohort, write_datalist
from monai_cae.data.tables import read_table
from monai_cae.data.transforms import SelectSlice, SelectSliced

__all__ = [
    "PAPER_TABLE_1",
    "Cohort",
    "Scan",
    "SelectSlice",
    "SelectSliced",
    "Sets",
    "SliceReader",
    "check_images",
    "find_images",
    "is_synthetic",
    "load_cohort",
    "load_sets",
    "read_datalist",
    "read_scans",
    "read_table",
    "select_cohort",
    "split_cohort",
    "table_1",
    "write_datalist",
    "write_phantom",
]
