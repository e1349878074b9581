"""The training loop: one function, one process or many."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from leanconv.data.pictures import PictureData
from leanconv.data.splits import ImageData
from leanconv.errors import UserError
from leanconv.tensor_file import fill
from leanconv.training.checkpoint import BEST, LAST, Checkpoint, load_checkpoint, save_checkpoint
from leanconv.training.device import compute_device
from leanconv.training.ema import averaged
from leanconv.training.evaluation import evaluate_batches
from leanconv.training.folder import clear, make_folder, refuse_finished_work, refuse_other_run
from leanconv.training.logs import Logs
from leanconv.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from leanconv.training.progress import Reporter
from leanconv.training.recipe import Recipe
from leanconv.training.result import Row, TrainResult
from leanconv.training.schedule import learning_rate
from leanconv.training.superres import make_task
from leanconv.training.sync_batchnorm import synchronised_batch_norm
from leanconv.training.tasks import Task
from leanconv.training.weights import evaluated_weights, refuse_other_model

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(
    model: nn.Module,
    data: ImageData | PictureData,
    recipe: Recipe | None = None,
    output_dir: str | Path | None = None,
    *,
    task: Task | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: torch.device | str | None = None,
    log: Sequence[str] = ("jsonl", "tensorboard"),
    progress: bool = True,
    on_progress: Callable[[Row], None] | None = None,
) -> TrainResult:
    """Train a network.

    Started by ``torchrun``, every process calls this function with the same arguments and takes its part of
    each batch; the batch size, and with it the loss curve, stays that of one process.

    Args:
        model: The network, changed in place.
        data: The data set.
        recipe: How to train; the defaults of :class:`Recipe` if not given.
        output_dir: Folder for ``last.safetensors``, ``best.safetensors``, ``log.jsonl`` and ``tensorboard/``;
            None writes nothing.
        task: Loss and metrics; the recipe's by default.
        resume: Go on after the last finished epoch in ``output_dir``; on a CPU the final weights are those of a
            run that was never interrupted, bit for bit.  An empty folder starts at the beginning.
        overwrite: Start afresh even if ``output_dir`` holds a checkpoint.
        device: Where to train; the accelerator if there is one, by default.
        log: Any of ``"jsonl"`` and ``"tensorboard"``.
        progress: Whether to report on standard error: a bar on a terminal, else a line an epoch.
        on_progress: Called with the row of each finished epoch, in the first process.

    Returns:
        The trained network, the history, and its best and last row.

    Raises:
        UserError: The network does not fit the data, the folder holds another run, a checkpoint is damaged or
            cannot be written, or the loss stops being finite.
    """
    recipe = recipe or Recipe()
    folder = Path(output_dir) if output_dir is not None else None
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), ExitStack() as stack:
        run = _Run(model, data, recipe, folder, task or make_task(recipe), device, stack)
        run.restore(resume=resume, overwrite=overwrite)
        return run.train(log if run.main else (), progress and run.main, on_progress if run.main else None)


class _Run:
    """The state of a run in one process."""

    def __init__(
        self,
        model: nn.Module,
        data: ImageData | PictureData,
        recipe: Recipe,
        folder: Path | None,
        task: Task,
        device: torch.device | str | None,
        stack: ExitStack,
    ) -> None:
        self.recipe, self.folder, self.task, self.data = recipe, folder, task, data
        self.accelerator = _accelerator(device)
        many = self.accelerator.num_processes > 1
        # Only now does every process of many have an accelerator of its own to look at.
        wanted = compute_device(device) if device is not None else None
        self.device = self.accelerator.device if many or wanted is None else wanted
        self.main: bool = self.accelerator.is_main_process
        self.model = model.to(self.device)
        if recipe.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        task.check(self.model, data)
        shared = {
            "device": self.device,
            "seed": recipe.seed,
            "rank": self.accelerator.process_index,
            "world_size": self.accelerator.num_processes,
        }
        self.train_batches = task.train_batches(self.model, data, recipe, **shared)
        self.test_batches = task.test_batches(data, "test", recipe.batch_size, **shared)
        self.global_batch = self.train_batches.global_batch
        if many:
            stack.enter_context(synchronised_batch_norm(self.model, self.device))
        self.wrapped: nn.Module = self.accelerator.prepare_model(self.model, device_placement=False)
        self.forward: nn.Module = torch.compile(self.wrapped) if recipe.compile else self.wrapped  # type: ignore[assignment]
        self.ema: AveragedModel | None = averaged(self.model, recipe.ema) if recipe.ema else None
        self.optimizer = make_optimizer(self.model, recipe)
        self.history: list[Row] = []
        self.step = 0
        self.saved = 0

    @property
    def best(self) -> Row | None:
        """The row of the best evaluation so far."""
        entry = f"test_{self.task.monitor}"
        return max((row for row in self.history if entry in row), key=lambda row: row[entry], default=None)

    def train(self, log: Sequence[str], progress: bool, on_progress: Callable[[Row], None] | None) -> TrainResult:
        """Train the epochs that are left."""
        if self.folder and self.main:
            make_folder(self.folder)
        logs = Logs(self.folder, log, self.step) if self.folder else None
        reporter = Reporter(
            self.recipe.epochs, len(self.train_batches), self.global_batch, self.task.unit, enabled=progress
        )
        try:
            for epoch in range(len(self.history), self.recipe.epochs):
                row = self._train_epoch(epoch, reporter, logs)
                if (epoch + 1) % self.recipe.evaluate_every == 0 or epoch + 1 == self.recipe.epochs:
                    row |= self._evaluate()
                if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
                    raise self._diverged(f"A weight is not finite after step {self.step}")
                self.history.append(row)
                self._save()
                if logs:
                    logs.write("epoch", row)
                reporter.end_epoch(row, self.best, self.task.monitor)
                if on_progress:
                    on_progress(dict(row))
        except KeyboardInterrupt:
            reporter.close()
            reporter.say(self._farewell())
            raise
        finally:
            reporter.close()
            if logs:
                logs.close()
        if self.ema:
            self.model.load_state_dict(evaluated_weights({}, self.ema.state_dict()))
        if self.best is None:  # it was stopped before its first evaluation, and no epoch was left to train
            self.history[-1] |= self._evaluate()
        best = self.best or self.history[-1]
        return TrainResult(self.model.eval(), self.history, best, self.history[-1], self.recipe, self.folder)

    def _train_epoch(self, epoch: int, reporter: Reporter, logs: Logs | None) -> Row:
        """Train one epoch, counted from 0, and return its row."""
        _seed(self.recipe.seed, epoch, self.accelerator.process_index)
        self.forward.train()
        reporter.start_epoch(epoch + 1)
        losses: list[Tensor] = []
        total, lr = 0.0, 0.0
        started = time.perf_counter()
        steps = len(self.train_batches)
        for done, (inputs, targets) in enumerate(self.train_batches.epoch(epoch), start=1):
            lr = learning_rate(self.recipe, self.step, steps)
            losses.append(self._train_step(inputs, targets, lr))
            self.step += 1
            reporter.step(done)
            # Losses stay on the device in between, so that the host may run ahead of an accelerator.
            if len(losses) == self.recipe.log_every or done == steps:
                values = self._finite(losses)
                total += math.fsum(values)
                reporter.numbers(values[-1], lr)
                if logs:
                    logs.write("step", {"step": self.step, "loss": math.fsum(values) / len(values), "lr": lr})
                losses = []
        seconds = time.perf_counter() - started
        return {
            "epoch": epoch + 1,
            "step": self.step,
            "lr": lr,
            "train_loss": total / steps,
            f"{self.task.unit}_per_second": steps * self.global_batch / seconds,
            "seconds": seconds,
        }

    def _train_step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        """Take one optimizer step and return this process's share of the mean loss."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if recipe.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        parts = list(zip(inputs.chunk(recipe.accumulate), targets.chunk(recipe.accumulate), strict=True))
        loss = torch.zeros((), device=self.device)
        for index, (images, labels) in enumerate(parts):
            with ExitStack() as stack:
                if index + 1 < len(parts):
                    stack.enter_context(self.accelerator.no_sync(self.wrapped))
                with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    part = self.task.loss(self.forward, images, labels) * (len(images) / self.global_batch)
                # Gradients are averaged over the processes, whose shares of the loss have to be summed.
                self.accelerator.backward(part * self.accelerator.num_processes)
            loss = loss + part.detach()
        if recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        if recipe.clip_times_lr:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_times_lr / lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update_parameters(self.model)
        return loss

    def _finite(self, losses: list[Tensor]) -> list[float]:
        """Fetch the losses of the latest steps from the device, summed over the processes."""
        values: list[float] = self.accelerator.reduce(torch.stack(losses), "sum").tolist()
        for index, value in enumerate(values):
            if not math.isfinite(value):
                raise self._diverged(f"The loss is {value} at step {self.step - len(values) + index + 1}")
        return values

    def _diverged(self, sentence: str) -> UserError:
        kept = f"; {self.folder}/{LAST} holds the last good state, of epoch {self.saved}" if self.saved else ""
        return UserError(
            f"{sentence} (epoch {len(self.history) + 1}): training stopped, try a smaller lr than "
            f"{self.recipe.lr:g}, a longer warm-up or clip=1{kept}."
        )

    def _evaluate(self) -> Row:
        """Evaluate on every test image."""
        metrics = evaluate_batches(
            self.ema or self.model,
            self.test_batches,
            self.task,
            precision=self.recipe.precision,
            channels_last=self.recipe.channels_last,
            reduce=lambda sums: self.accelerator.reduce(sums, "sum"),
        )
        if not math.isfinite(metrics["loss"]):
            raise self._diverged(f"The test loss is {metrics['loss']} after step {self.step}")
        return {f"test_{name}": value for name, value in metrics.items() if not name.startswith("images")}

    def _save(self) -> None:
        """Write the checkpoint of the epoch just finished, from the first process."""
        if not (self.folder and self.main):
            return
        checkpoint = Checkpoint(
            epoch=len(self.history),
            step=self.step,
            recipe=self.recipe.to_dict(),
            config=getattr(self.model, "config", None),
            data=self.data.identity,
            history=self.history,
            model=self.model.state_dict(),
            ema=self.ema.state_dict() if self.ema else {},
            optimizer=optimizer_tensors(self.model, self.optimizer),
        )
        # The best one first: killed in between, the epoch is repeated and writes it again.
        if self.best is self.history[-1]:
            save_checkpoint(checkpoint, self.folder / BEST)
        save_checkpoint(checkpoint, self.folder / LAST)
        self.saved = checkpoint.epoch

    def restore(self, *, resume: bool, overwrite: bool) -> None:
        """Take up the run in the folder, or make sure that there is none to destroy."""
        if not self.folder:
            if resume:
                raise UserError("resume=True needs an output_dir that holds the run to resume.")
            return
        last = self.folder / LAST
        if not resume:
            if not overwrite:
                refuse_finished_work(self.folder)
            self.accelerator.wait_for_everyone()
            if overwrite and self.main:
                clear(self.folder)
            return
        if not last.exists():
            return
        checkpoint = load_checkpoint(last)
        refuse_other_model(self.model, checkpoint.config, last, whole=True)
        refuse_other_run(checkpoint, self.recipe, self.data, last)
        fill(self.model, checkpoint.model, last)
        if self.ema:
            self.ema.load_state_dict(checkpoint.ema)
        restore_optimizer(self.model, self.optimizer, checkpoint.optimizer)
        self.history, self.step, self.saved = checkpoint.history, checkpoint.step, checkpoint.epoch

    def _farewell(self) -> str:
        where = f"Interrupted in epoch {len(self.history) + 1}"
        if self.saved:
            return f"{where}; {self.folder}/{LAST} holds epoch {self.saved}: continue with resume=True."
        return f"{where}; no checkpoint was written yet."


def _accelerator(device: torch.device | str | None) -> "Accelerator":
    """Join the process group that ``torchrun`` prepared, if it did."""
    try:
        from accelerate import Accelerator
    except ImportError:
        raise UserError('Training needs the "train" extra: pip install "leanconv[train]"') from None
    on_cpu = str(device).startswith("cpu") or not torch.cuda.is_available()
    return Accelerator(cpu=on_cpu, mixed_precision="no")


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Make what the network draws (dropout) a function of the epoch, so that no generator needs saving."""
    state = np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
