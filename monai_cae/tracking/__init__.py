"""MLflow: runs in a local database, copied to a server whenever it answers; independent of PyTorch and MONAI."""

from monai_cae.tracking.copying import sync
from monai_cae.tracking.entities import cohort_name
from monai_cae.tracking.run import TrackedRun, default_tracking_uri, program, ui_command, where_to_see
from monai_cae.tracking.store import Store, StoreAway, StoreRefuses, without_credentials

__all__ = [
    "Store",
    "StoreAway",
    "StoreRefuses",
    "TrackedRun",
    "cohort_name",
    "default_tracking_uri",
    "program",
    "sync",
    "ui_command",
    "where_to_see",
    "without_credentials",
]
