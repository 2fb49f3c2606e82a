"""What MONAI's and Ignite's engines need besides their own parts: handlers, metrics, tracking, stages."""

from monai_cae.tracking import TrackedRun, default_tracking_uri
from monai_cae.training.engines.augmentation import BatchAugmentation
from monai_cae.training.engines.batches import (
    Reconstructed,
    batch_for,
    learned_loss,
    reconstruction_batch,
    seen_by,
    with_pretrained,
)
from monai_cae.training.engines.feature_cache import EncodedDataset
from monai_cae.training.engines.freezing import EncoderFreezing, LayerwiseLearning
from monai_cae.training.engines.handlers import BestCheckpoint, BestWriting, EpochProgress, EpochTracking, StopWhenWorse
from monai_cae.training.engines.image_cache import ImageCache, cache_folder
from monai_cae.training.engines.inferers import PrecisionInferer
from monai_cae.training.engines.loaders import ResidentLoader
from monai_cae.training.engines.loss_guard import LossWatch
from monai_cae.training.engines.metrics import BrainPSNR, ImageMetric
from monai_cae.training.engines.normalisation import BatchNormWarmup
from monai_cae.training.engines.parallel import (
    ParallelInferer,
    become_replica,
    is_first,
    join_processes,
    leave_processes,
    local_device,
)
from monai_cae.training.engines.prefetch import ReadAheadLoader
from monai_cae.training.engines.schedules import LearningRateSchedule
from monai_cae.training.engines.step import TrainingStep
from monai_cae.training.models.baselines import (
    Baselines,
    InnerFolds,
    UnitNormScaler,
    check_models,
    fitting_items,
    report_baselines,
)
from monai_cae.training.models.calibration import Calibration
from monai_cae.training.models.features import DarkPixels, EncoderCodes, Histograms, Pixels, TableColumns
from monai_cae.training.models.linear_probe import LinearProbe, check_linear_probe
from monai_cae.training.models.strangers import Strangers
from monai_cae.training.results import figures
from monai_cae.training.results.caveats import checkpoint_caveats
from monai_cae.training.results.figures import Outcome
from monai_cae.training.results.pictures import KeptPictures
from monai_cae.training.results.predictions import PredictionProgress, PredictionTable, print_predictions
from monai_cae.training.results.reports import compare_codecs, report_autoencoder, report_classifier, report_test
from monai_cae.training.results.samples import SampleTable
from monai_cae.training.stages.checkpointing import ResumePoints, Resuming
from monai_cae.training.stages.earlier import refuse_predictions
from monai_cae.training.stages.learning import learning_steps
from monai_cae.training.stages.run import run_stage
from monai_cae.training.stages.runtime import use_machine
from monai_cae.training.stages.transfer import Transfer, dense_parameters, sources
from monai_cae.training.stages.workflow import bundle_root, prepare, unevaluated

__all__ = [
    "Baselines",
    "BatchAugmentation",
    "BatchNormWarmup",
    "BestCheckpoint",
    "BestWriting",
    "BrainPSNR",
    "Calibration",
    "DarkPixels",
    "EncodedDataset",
    "EncoderCodes",
    "EncoderFreezing",
    "EpochProgress",
    "EpochTracking",
    "Histograms",
    "ImageCache",
    "ImageMetric",
    "InnerFolds",
    "KeptPictures",
    "LayerwiseLearning",
    "LearningRateSchedule",
    "LinearProbe",
    "LossWatch",
    "Outcome",
    "ParallelInferer",
    "Pixels",
    "PrecisionInferer",
    "PredictionProgress",
    "PredictionTable",
    "ReadAheadLoader",
    "Reconstructed",
    "ResidentLoader",
    "ResumePoints",
    "Resuming",
    "SampleTable",
    "StopWhenWorse",
    "Strangers",
    "TableColumns",
    "TrackedRun",
    "TrainingStep",
    "Transfer",
    "UnitNormScaler",
    "batch_for",
    "become_replica",
    "bundle_root",
    "cache_folder",
    "check_linear_probe",
    "check_models",
    "checkpoint_caveats",
    "compare_codecs",
    "default_tracking_uri",
    "dense_parameters",
    "figures",
    "fitting_items",
    "is_first",
    "join_processes",
    "learned_loss",
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
    "sources",
    "unevaluated",
    "use_machine",
    "with_pretrained",
]
