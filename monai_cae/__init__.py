"""A convolutional autoencoder on single brain MRI slices, and an Alzheimer's classifier on its encoder, for MONAI.

The layers are `monai_cae.data`, `monai_cae.networks`, `monai_cae.training` and `monai_cae.evaluation`; the MONAI bundle
names what they export. Research software, not a medical device.
"""

__version__ = "0.1.0"
