"""The paper's autoencoder in Keras 3 on TensorFlow; training_epoch.py runs this in an environment of its own.

Arguments: slices, batch size, image size. Prints the versions, then, for every line read, the seconds of one epoch.
"""

import sys
import time

import keras
import numpy as np
import tensorflow
from keras import layers


def block(x, filters):
    """Two times convolution, ReLU, batch norm."""
    for _ in range(2):
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.BatchNormalization()(x)
    return x


def autoencoder(size):
    """The layers of the paper's Table II: 723,905 parameters."""
    image = keras.Input((size, size, 1))
    x = layers.MaxPooling2D()(block(image, 32))
    x = layers.MaxPooling2D()(block(x, 64))
    x = block(block(x, 128), 128)
    x = block(layers.UpSampling2D()(x), 64)
    x = block(layers.UpSampling2D()(x), 32)
    return keras.Model(image, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x))


def main():
    """One epoch for every line."""
    slices, batch_size, size = (int(argument) for argument in sys.argv[1:])
    images = np.random.default_rng(0).random((slices, size, size, 1), dtype=np.float32)
    model = autoencoder(size)
    assert model.count_params() == 723_905
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    print(f"{keras.__version__}, TensorFlow {tensorflow.__version__}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        model.fit(images, images, batch_size=batch_size, epochs=1, verbose=0)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
