"""What MONAI's and Ignite's engines need beyond their own parts: handlers, metrics, tracking, stages."""

from monai_cae.tracking import TrackedRun, default_tracking_uri
from monai_cae.training.augmentation import BatchAugmentation
from monai_cae.training.baselines import (
    Baselines,
    DarkPixels,
    EncoderCodes,
    Histograms,
    InnerFolds,
    Pixels,
    TableColumns,
    UnitNormScaler,
    check_models,
    fitting_items,
    report_baselines,
)
from monai_cae.training.batches import Reconstructed, reconstruction_batch, seen_by, with_pretrained
from monai_cae.training.calibration import Calibration
from monai_cae.training.caveats import checkpoint_caveats
from monai_cae.training.earlier import refuse_predictions
from monai_cae.training.encoding import EncodedDataset
from monai_cae.training.freezing import EncoderFreezing, learning_steps
from monai_cae.training.handlers import BestCheckpoint, BestWriting, EpochProgress, EpochTracking, StopWhenWorse
from monai_cae.training.inferers import PrecisionInferer
from monai_cae.training.loaders import ResidentLoader
from monai_cae.training.machine import use_machine
from monai_cae.training.metrics import BrainPSNR, ClassificationScore, ImageMetric
from monai_cae.training.normalisation import BatchNormWarmup
from monai_cae.training.parallel import (
    ParallelInferer,
    become_replica,
    is_first,
    join_processes,
    leave_processes,
    local_device,
)
from monai_cae.training.predictions import PredictionProgress, PredictionTable, print_predictions
from monai_cae.training.reading import ReadAheadLoader
from monai_cae.training.regression import PenalisedRegression, check_regression
from monai_cae.training.reports import compare_codecs, report_autoencoder, report_classifier, report_test
from monai_cae.training.resuming import ResumePoints, Resuming
from monai_cae.training.stages import run_stage
from monai_cae.training.watching import LossWatch
from monai_cae.training.workflow import bundle_root, prepare, unevaluated

__all__ = [
    "Baselines",
    "BatchAugmentation",
    "BatchNormWarmup",
    "BestCheckpoint",
    "BestWriting",
    "BrainPSNR",
    "Calibration",
    "ClassificationScore",
    "DarkPixels",
    "EncodedDataset",
    "EncoderCodes",
    "EncoderFreezing",
    "EpochProgress",
    "EpochTracking",
    "Histograms",
    "ImageMetric",
    "InnerFolds",
    "LossWatch",
    "ParallelInferer",
    "PenalisedRegression",
    "Pixels",
    "PrecisionInferer",
    "PredictionProgress",
    "PredictionTable",
    "ReadAheadLoader",
    "Reconstructed",
    "ResidentLoader",
    "ResumePoints",
    "Resuming",
    "StopWhenWorse",
    "TableColumns",
    "TrackedRun",
    "UnitNormScaler",
    "become_replica",
    "bundle_root",
    "check_models",
    "check_regression",
    "checkpoint_caveats",
    "compare_codecs",
    "default_tracking_uri",
    "fitting_items",
    "is_first",
    "join_processes",
    "learning_steps",
    "leave_processes",
    "local_device",
    "prepare",
    "print_predictions",
    "reconstruction_batch",
    "refuse_predictions",
    "report_autoencoder",
    "report_baselines",
    "report_classifier",
    "report_test",
    "run_stage",
    "seen_by",
    "unevaluated",
    "use_machine",
    "with_pretrained",
]
