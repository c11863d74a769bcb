"""One training step on batches gathered on the device, and the plain way to run it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resnetlab.data import ImageData
from resnetlab.optim.optimizers.base import make_eager, set_lr_momentum
from resnetlab.optim.regularization import flattened
from resnetlab.training.metrics import EpochMetrics


class DeviceBatches:
    """Gathers and augments batch after batch.

    All that it reads and writes are tensors that stay where they are: a captured graph finds the next batch, and the
    next epoch's plan, by itself. shard: (rank, devices), for every devices-th image of each batch.
    """

    def __init__(self, data: ImageData, device: torch.device, shard: tuple[int, int] = (0, 1)) -> None:
        self.data, self.shard = data, shard
        data.normalizer.to(device)  # before a step is compiled or captured
        self.images = data.resident(data.train, device)
        plan = data.plan(1)
        self.plan = plan.each(lambda part: part.to(device))
        self.host_order, self.shown = plan.order, 0  # shown: images of the epoch so far
        self.offsets = torch.arange(shard[0], data.batch_size, shard[1], device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)  # in the plan, of the batch's first image

    def start_epoch(self, epoch: int) -> None:
        """Goes to the first batch of `epoch` (from 1)."""
        plan = self.data.plan(epoch)
        for old, new in zip(self.plan.tensors(), plan.tensors(), strict=True):
            old.copy_(new)
        self.host_order, self.shown = plan.order, 0
        self.position.zero_()

    def batch(self, images: int) -> tuple[Tensor, Tensor]:
        """This device's share of the next batch, of `images` in all: float32 (N, C, H, W) and int64 (N,)."""
        rows = self.position + self.offsets[: self.share_of(images)]
        order: Tensor | None = None
        if self.data.config.device == "cpu":  # the host runs ahead of a GPU, and gathers while that computes
            order = self.host_order[self.shown : self.shown + images][self.shard[0] :: self.shard[1]]
            self.shown += images  # not elsewhere: a compiled step would be compiled anew for each number
        return self.data.planned(self.images, self.plan, rows, order)

    def share_of(self, images: int) -> int:
        """This device's number of images in a batch of `images` over all devices."""
        rank, devices = self.shard
        return len(range(rank, images, devices))


class TrainStep:
    """gather -> augment -> forward -> loss -> backward -> optimizer -> statistics, all on the device.

    batch_loss: batch -> (loss, ce, correct answers), scalars. backward: Lightning's or torch's, of the loss. optimizer:
    has step and zero_grad. micro_batches: of a batch, whose gradients are added up. clip: called before the optimizer's
    step. sam: or none. mark: a context with a name around each part, for a profiler. No step reads anything back.
    """

    NO_STEP = 2**62  # the number of a step that there is not

    def __init__(
        self,
        batches: DeviceBatches,
        batch_loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
        backward: Callable[[Tensor], None],
        optimizer: Any,
        micro_batches: int = 1,
        clip: Callable[[], None] | None = None,
        sam: "SAM | None" = None,
    ) -> None:
        self.micro_batches, self.clip, self.sam = micro_batches, clip, sam
        self.on_ascent: Callable[[], None] = lambda: None  # called where sam has moved the weights
        self.batches, self.batch_loss, self.backward, self.optimizer = batches, batch_loss, backward, optimizer
        self.mark: Callable[[str], AbstractContextManager[Any]] = nullcontext
        self.metrics = EpochMetrics(batches.position.device)
        self.global_step = torch.zeros_like(batches.position)  # over the whole run, from 0
        self.first_nonfinite_step = torch.full_like(batches.position, self.NO_STEP)  # of this epoch

    def compile(self) -> None:
        """Gather, augmentation, forward and backward by torch.compile; the optimizer has fused kernels already.

        Without inductor's own CUDA graphs: CudaGraphRunner records all of the step, the optimizer too.
        """
        compiled = torch.compile(self.forward, dynamic=False, options={"triton.cudagraphs": False})
        self.forward = compiled  # type: ignore[method-assign]

    def start_epoch(self, epoch: int, step: int) -> None:
        """Goes to the first batch of `epoch` (from 1), which is step `step` of the run."""
        self.batches.start_epoch(epoch)
        self.global_step.fill_(step)
        self.first_nonfinite_step.fill_(self.NO_STEP)

    def forward(self, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, ce, correct answers) of this device's share of the next batch, of `images` in all."""
        return self.batch_loss(*self.batches.batch(images))

    def __call__(self, images: int) -> None:
        """Trains on the next batch, of `images` over all devices."""
        self.compute_gradient(images)
        if self.sam is not None:
            with self.sam.ascended():
                self.batches.position.sub_(images)
                self.batches.shown -= images
                self.on_ascent()
                self.compute_gradient(images, measured=False)
        if self.clip is not None:
            self.clip()
        self.optimizer.step()
        self.global_step.add_(1)

    def compute_gradient(self, images: int, measured: bool = True) -> None:
        """The gradient of the next batch, and, if it is measured, its metrics."""
        self.optimizer.zero_grad()
        for part in (len(range(first, images, self.micro_batches)) for first in range(self.micro_batches)):
            self.add_gradient(part, images, measured)

    def add_gradient(self, part: int, images: int, measured: bool) -> None:
        """Adds the gradient of the next `part` images of a batch of `images`."""
        mine, devices = self.batches.share_of(part), self.batches.shard[1]
        with self.mark("resnetlab.forward"):
            loss, ce, correct = self.forward(part)
        with self.mark("resnetlab.backward"):
            # the mean over the devices, or the sum over the parts, is the whole batch's
            self.backward(loss * (mine * devices / images) if devices > 1 or part < images else loss)
        self.batches.position.add_(part)
        if measured:
            self.metrics.add(loss.detach(), ce.detach(), mine, correct)
            first, finite = self.first_nonfinite_step, loss.detach() * 0 == 0  # isfinite in two kernels, not four
            torch.where(finite, first, torch.minimum(first, self.global_step), out=first)


class SAM:
    """Sharpness-aware minimization (Foret et al. 2021, arXiv 2010.01412): a step by the gradient at w + rho*g/|g|.

    A gradient scaler's factor cancels. If it has made the gradient infinite the second one is not finite either, and
    the scaler skips the step as ever.
    """

    def __init__(self, module: nn.Module, rho: float) -> None:
        self.rho, self.weights = rho, [weight for weight in module.parameters() if weight.requires_grad]
        tensors: list[Tensor] = [*self.weights, *module.buffers()]
        kinds = {tensor.dtype: [t for t in tensors if t.dtype == tensor.dtype] for tensor in tensors}
        self.kept = [(part, [torch.empty_like(tensor) for tensor in part]) for part in kinds.values()]

    @contextmanager
    @torch.no_grad()  # but not what is done inside
    def ascended(self) -> Iterator[None]:
        """Inside, the weights are w + rho*g/|g|; afterwards they and the running statistics are what they were."""
        for tensors, copies in self.kept:
            torch._foreach_copy_(copies, tensors)
        pairs = [(weight.detach(), weight.grad) for weight in self.weights if weight.grad is not None]
        weights, grads = map(list, zip(*pairs, strict=True))
        torch._foreach_add_(weights, torch._foreach_mul(grads, self.rho / (gradient_norm(grads) + 1e-12)))
        try:
            yield
        finally:
            for tensors, copies in self.kept:
                torch._foreach_copy_(tensors, copies)


def gradient_norm(grads: list[Tensor]) -> Tensor:
    """The norm of all of them together, without a copy from the host."""
    return flattened(grads).norm() if grads[0].is_cuda else get_total_norm(grads)


def clip_gradients(weights: list[Tensor], most: float, scaler: Any = None) -> None:
    """Scales all gradients together down to the norm `most`, as torch's clip_grad_norm_.

    scaler: the gradient scaler, where the gradients still have its factor. An infinite gradient becomes nan, and the
    scaler skips the step as ever.
    """
    grads = [weight.grad for weight in weights if weight.grad is not None]
    norm = gradient_norm(grads)
    clip_grads_with_norm_(weights, most, norm if scaler is None else norm / scaler._get_scale_async())


class ScaledOptimizer:
    """torch's own backward and optimizer step, with a gradient scaler or (None) without: what a graph can capture."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
        self.optimizer, self.scaler, self.zero_grad = optimizer, scaler, optimizer.zero_grad

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


class EagerRunner:
    """Runs the step as it stands, lr and momentum set from the host before each."""

    def __init__(self, step: TrainStep, optimizer: torch.optim.Optimizer) -> None:
        self.step, self.optimizer = step, optimizer
        make_eager(optimizer)

    def __call__(self, images: int, lr: float, momentum: float) -> None:
        set_lr_momentum(self.optimizer, lr, momentum)
        self.step(images)
