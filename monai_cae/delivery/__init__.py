"""What runs tell MLflow, delivered whether or not MLflow is there; nothing of PyTorch or MONAI."""

from monai_cae.delivery.delivery import Delivery, milliseconds
from monai_cae.delivery.operations import MOST_METRICS
from monai_cae.delivery.sending import batch, send_below, sync, sync_hint
from monai_cae.delivery.store import Store, StoreAway, StoreRefuses, without_credentials

__all__ = [
    "MOST_METRICS",
    "Delivery",
    "Store",
    "StoreAway",
    "StoreRefuses",
    "batch",
    "milliseconds",
    "send_below",
    "sync",
    "sync_hint",
    "without_credentials",
]
