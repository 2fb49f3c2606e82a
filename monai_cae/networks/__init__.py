"""The paper's networks as plain modules, 2D and 3D, other autoencoders and more encoders; no data, no training."""

from monai_cae.networks.autoencoder import ConvAutoencoder, ConvDecoder, ConvEncoder, for_images
from monai_cae.networks.classifier import EncoderClassifier
from monai_cae.networks.dense import DenseDecoder, DenseEncoder
from monai_cae.networks.densenet import DenseNetEncoder
from monai_cae.networks.ensemble import Ensemble
from monai_cae.networks.foreign import ForeignEncoder
from monai_cae.networks.hiding import DenoisingAutoencoder, MaskedAutoencoder
from monai_cae.networks.histogram import IntensityHistogram
from monai_cae.networks.imagenet import ResNet50Encoder, VGG16Encoder
from monai_cae.networks.joint import JointAutoencoder
from monai_cae.networks.pairs import ErrorClassifier, PairedAutoencoder, PairedEncoder
from monai_cae.networks.recomputation import recomputing
from monai_cae.networks.reconstruction import reconstruction_of
from monai_cae.networks.resnet import ResNetEncoder
from monai_cae.networks.samples import EachSample, each_sample
from monai_cae.networks.sparse import SparseEncoder
from monai_cae.networks.stacked import StackedAutoencoder
from monai_cae.networks.variational import GaussianEncoder, VariationalAutoencoder
from monai_cae.networks.weights import (
    labels_learned,
    load_weights,
    on_device,
    read_checkpoint,
    save_weights,
    trained_on,
    trained_with,
    write_checkpoint,
)

__all__ = [
    "ConvAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenoisingAutoencoder",
    "DenseDecoder",
    "DenseEncoder",
    "DenseNetEncoder",
    "EachSample",
    "EncoderClassifier",
    "Ensemble",
    "ErrorClassifier",
    "ForeignEncoder",
    "GaussianEncoder",
    "IntensityHistogram",
    "JointAutoencoder",
    "MaskedAutoencoder",
    "PairedAutoencoder",
    "PairedEncoder",
    "ResNet50Encoder",
    "ResNetEncoder",
    "SparseEncoder",
    "StackedAutoencoder",
    "VGG16Encoder",
    "VariationalAutoencoder",
    "each_sample",
    "for_images",
    "labels_learned",
    "load_weights",
    "on_device",
    "read_checkpoint",
    "recomputing",
    "reconstruction_of",
    "save_weights",
    "trained_on",
    "trained_with",
    "write_checkpoint",
]
