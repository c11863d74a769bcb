"""keras: the series' own pipeline, Keras 3 with its ImageDataGenerator and Atienza's ResNet v2.

Runs in an interpreter that has TensorFlow, so nothing of resnetlab is imported here.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.protocol import JsonLines, PeerSpec, TurnCounter, resident_peak

POLICIES = {"32-true": "float32", "16-mixed": "mixed_float16", "bf16-mixed": "mixed_bfloat16"}


def build(depth: int) -> Any:
    """Atienza's resnet_v2 of depth 9n + 2 for 32x32x3 images and ten classes."""
    from keras import Input, Model, layers

    def conv(x: Any, filters: int, size: int, stride: int = 1) -> Any:
        return layers.Conv2D(filters, size, stride, "same", kernel_initializer="he_normal")(x)

    def norm_relu(x: Any) -> Any:
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    inputs = Input((32, 32, 3))
    x = norm_relu(conv(inputs, 16, 3))
    for stage, mid, out in ((0, 16, 64), (1, 64, 128), (2, 128, 256)):
        for unit in range((depth - 2) // 9):
            stride = 2 if stage > 0 and unit == 0 else 1
            y = conv(x if stage == unit == 0 else norm_relu(x), mid, 1, stride)
            y = conv(norm_relu(y), mid, 3)
            y = conv(norm_relu(y), out, 1)
            x = layers.add([conv(x, out, 1, stride) if unit == 0 else x, y])
    x = layers.Flatten()(layers.AveragePooling2D(8)(norm_relu(x)))
    outputs = layers.Dense(10, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)
    return Model(inputs, outputs)


def images(spec: PeerSpec) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, 32, 32, 3) less the mean image, and one-hot (N, 10)."""
    pixels, labels = spec.training_images()
    x = pixels.astype("float32") / 255
    return x - x.mean(axis=0), np.eye(10, dtype="float32")[labels]


def generator(shift: float) -> Any:
    """The series' ImageDataGenerator, where this Keras has it."""
    try:
        from keras.preprocessing.image import ImageDataGenerator
    except ImportError:
        from keras.src.legacy.preprocessing.image import ImageDataGenerator
    return ImageDataGenerator(width_shift_range=shift, height_shift_range=shift, horizontal_flip=True)


def turn_callback(lines: JsonLines, spec: PeerSpec, peak: Callable[[], float]) -> Any:
    from keras import callbacks

    class TurnCallback(callbacks.Callback):
        loss: Any = float("nan")

        def on_train_begin(self, logs: Any = None) -> None:
            def wait() -> float:
                return float(self.loss)  # waits for the device

            def facts() -> dict[str, dict[str, float]]:
                return {"losses": {"keras": wait()}, "peak_mib": {"keras": peak()}}

            self.turns = TurnCounter(lines, "keras", spec.batch_size, wait, facts, lead=spec.lead)
            self.turns.begin()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.turns.resume()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.loss = logs["loss"]
            self.turns.stepped()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.turns.pause()

    return TurnCallback()


def use_device(device: str) -> Callable[[], float]:
    """Set TensorFlow up; a function that returns the peak memory in MiB."""
    import tensorflow as tf

    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():  # TensorFlow's own pool does not look at it
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    gpus = tf.config.list_physical_devices("GPU")
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return resident_peak
    if not gpus:
        raise SystemExit("TensorFlow sees no GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


def main() -> None:
    lines, spec = JsonLines(), PeerSpec.from_command_line()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    peak = use_device(spec.device)
    keras.mixed_precision.set_dtype_policy(POLICIES[spec.precision])
    assert spec.depth is not None
    model = build(spec.depth)
    adamw = keras.optimizers.AdamW(spec.lr, weight_decay=spec.wd)
    model.compile(loss="categorical_crossentropy", optimizer=adamw, metrics=["accuracy"])
    parameters = int(sum(np.prod(w.shape) for w in model.trainable_weights))
    lines.write(ready=True, parameters=parameters, version=f"Keras {keras.__version__}, TensorFlow {tf.__version__}")
    flow = generator(spec.shift).flow(*images(spec), batch_size=spec.batch_size)
    model.fit(flow, epochs=10**6, verbose=0, callbacks=[turn_callback(lines, spec, peak)])


if __name__ == "__main__":
    main()
