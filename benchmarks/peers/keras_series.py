"""keras: the series' own pipeline, Keras 3 with its ImageDataGenerator and Atienza's ResNet v2.

Runs by itself, in an interpreter that has TensorFlow; nothing of resnetlab is imported here. What it is told, and what
it answers, is what the other peers are told and answer (spec.py and wire.py).
"""

import json
import os
import pickle
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["build", "main", "resident_peak"]

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


def images(root: str | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, 32, 32, 3) less the mean image, and one-hot (N, 10)."""
    if root is None:
        generator = np.random.default_rng(0)
        pixels = generator.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
        labels = generator.integers(10, size=count)
    else:
        parts = []
        for number in range(1, 6):
            with (Path(root) / "cifar-10-batches-py" / f"data_batch_{number}").open("rb") as file:
                parts.append(pickle.load(file, encoding="latin1"))
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)[:count]
        labels = np.concatenate([part["labels"] for part in parts])[:count]
    x = pixels.astype("float32") / 255
    return x - x.mean(axis=0), np.eye(10, dtype="float32")[labels]


def generator(shift: float) -> Any:
    """The series' ImageDataGenerator, where this Keras has it."""
    try:
        from keras.preprocessing.image import ImageDataGenerator
    except ImportError:
        from keras.src.legacy.preprocessing.image import ImageDataGenerator
    return ImageDataGenerator(width_shift_range=shift, height_shift_range=shift, horizontal_flip=True)


def waiting(answers: Any, batch_size: int, peak: Any) -> Any:
    """The callback that waits for orders; what it counts is what turns.py counts."""
    from keras import callbacks

    class Waiting(callbacks.Callback):
        paused = None

        def begin(self) -> None:
            line = sys.stdin.readline()
            if not line:
                raise SystemExit
            self.order, self.steps, self.banked = json.loads(line), 0, 0.0
            self.between: list[float] = []
            self.mark = time.perf_counter()

        def on_train_begin(self, logs: Any = None) -> None:
            self.begin()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if self.paused is not None:
                self.mark = time.perf_counter()
                self.between.append(self.mark - self.paused)
                self.paused = None

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            seconds = self.banked + time.perf_counter() - self.mark
            if self.steps >= self.order.get("steps", sys.maxsize) or seconds >= self.order.get("seconds", 1e9):
                loss = float(logs["loss"])  # waits for the device
                grains = {"keras": [[self.steps * batch_size, self.banked + time.perf_counter() - self.mark]]}
                told = {"losses": {"keras": loss}, "peak_mib": {"keras": peak()}, "between_epochs": self.between}
                print(json.dumps({"grains": grains, **told}), file=answers)
                self.begin()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.paused = time.perf_counter()
            self.banked += self.paused - self.mark

    return Waiting()


def resident_peak() -> float:
    """MiB that the process had resident at most, without children."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    # not on Linux: there a process begins with the ru_maxrss of the one that started it
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    told = json.loads(sys.argv[1])
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():  # TensorFlow's own pool does not look at it
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    gpus = tf.config.list_physical_devices("GPU")
    if told["device"] == "cuda" and not gpus:
        raise SystemExit("TensorFlow sees no GPU")
    if told["device"] == "cpu":
        tf.config.set_visible_devices([], "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)

    def peak() -> float:
        if told["device"] == "cuda":
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
        return resident_peak()

    keras.mixed_precision.set_dtype_policy(POLICIES[told["precision"]])
    x, y = images(told["root"], told["images"] // told["batch_size"] * told["batch_size"])
    model = build(told["depth"])
    optimizer = keras.optimizers.AdamW(told["lr"], weight_decay=told["wd"])
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    version = f"Keras {keras.__version__}, TensorFlow {tf.__version__}"
    parameters = int(sum(np.prod(w.shape) for w in model.trainable_weights))
    print(json.dumps({"ready": True, "parameters": parameters, "version": version}), file=answers)
    flow = generator(told["shift"]).flow(x, y, batch_size=told["batch_size"])
    model.fit(flow, epochs=10**6, verbose=0, callbacks=[waiting(answers, told["batch_size"], peak)])


if __name__ == "__main__":
    main()
