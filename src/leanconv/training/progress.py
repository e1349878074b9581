"""What a person sees of a run: a live bar on a terminal, else one line an epoch."""

import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_REFRESH = 0.25


class Reporter:
    """Reports progress on standard error.

    Args:
        epochs: Epochs of the whole run.
        steps: Steps in one epoch.
        images: Images (or whatever ``unit`` says) in one step.
        unit: What is counted, in the plural.
        enabled: Whether to report at all.
    """

    def __init__(self, epochs: int, steps: int, images: int, unit: str = "images", *, enabled: bool) -> None:
        self.epochs, self.steps, self.images, self.unit = epochs, steps, images, unit
        self.console = Console(stderr=True, quiet=not enabled)
        self._bar: Progress | None = None
        if enabled and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=steps, epoch=1, epochs=epochs, numbers="")
        self._epoch = 1
        self._numbers = ""
        self._next_refresh = 0.0
        self._epoch_started = time.monotonic()

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 1."""
        self._epoch, self._epoch_started = epoch, time.monotonic()
        if self._bar:
            self._bar.start()
            # Resetting a task forgets the fields that are not given again.
            self._bar.reset(self._task, total=self.steps, epoch=epoch, epochs=self.epochs, numbers=self._numbers)

    def step(self, done: int) -> None:
        """Note that ``done`` steps of the epoch are issued; cheap enough for every step."""
        if self._bar and time.monotonic() >= self._next_refresh:
            speed = done * self.images / (time.monotonic() - self._epoch_started)
            left = (self.epochs - self._epoch + 1) * self.steps - done
            eta = timedelta(seconds=round(left * self.images / speed))
            numbers = f"{self._numbers} {speed:.0f} {self.unit}/s ETA {eta}"
            self._bar.update(self._task, completed=done, numbers=numbers)
            self._next_refresh = time.monotonic() + _REFRESH

    def numbers(self, loss: float, lr: float) -> None:
        """Show the latest loss and learning rate."""
        self._numbers = f"loss {loss:.4f} lr {lr:.4g}"

    def end_epoch(self, row: dict[str, Any], best: dict[str, Any] | None, monitor: str) -> None:
        """Print the line of a finished epoch."""
        seconds = time.monotonic() - self._epoch_started
        parts = [f"epoch {row['epoch']}/{self.epochs}", f"loss {row['train_loss']:.4f}", f"lr {row['lr']:.4g}"]
        entry = f"test_{monitor}"
        if entry in row and best:
            parts.append(f"test loss {row['test_loss']:.4f}")
            parts.append(f"{monitor} {row[entry]:.4f} (best {best[entry]:.4f}, epoch {best['epoch']})")
        parts.append(f"{row[f'{self.unit}_per_second']:.0f} {self.unit}/s")
        left = timedelta(seconds=round(seconds * (self.epochs - row["epoch"])))
        parts.append(f"ETA {left}")
        self.say("  ".join(parts))

    def say(self, sentence: str) -> None:
        """Print a line."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
