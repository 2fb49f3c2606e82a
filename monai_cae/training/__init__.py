"""What MONAI's and Ignite's engines need beyond their own parts: handlers, metrics, tracking, stages."""

from monai_cae.training.augmentation import BatchAugmentation
from monai_cae.training.batches import reconstruction_batch, with_pretrained
from monai_cae.training.encoding import EncodedDataset
from monai_cae.training.freezing import EncoderFreezing
from monai_cae.training.handlers import BestCheckpoint, EpochProgress, PredictionTable, StopWhenWorse
from monai_cae.training.inferers import PrecisionInferer
from monai_cae.training.loaders import ResidentLoader
from monai_cae.training.machine import use_machine
from monai_cae.training.metrics import BrainPSNR, ClassificationScore
from monai_cae.training.reports import report_autoencoder, report_classifier, report_test
from monai_cae.training.stages import print_predictions, run_stage
from monai_cae.training.tracking import EpochTracking, TrackedRun, default_tracking_uri
from monai_cae.training.workflow import bundle_root, prepare

__all__ = [
    "BatchAugmentation",
    "BestCheckpoint",
    "BrainPSNR",
    "ClassificationScore",
    "EncodedDataset",
    "EncoderFreezing",
    "EpochProgress",
    "EpochTracking",
    "PrecisionInferer",
    "PredictionTable",
    "ResidentLoader",
    "StopWhenWorse",
    "TrackedRun",
    "bundle_root",
    "default_tracking_uri",
    "prepare",
    "print_predictions",
    "reconstruction_batch",
    "report_autoencoder",
    "report_classifier",
    "report_test",
    "run_stage",
    "use_machine",
    "with_pretrained",
]
