"""How long one model takes to train: a plain loop with PyTorch's DataLoader, and the loop of the job ``training``. Both in one run.

    python benchmarks/training.py                        # on the CPU, two threads
    python benchmarks/training.py --device cuda:0 --json

Both do the same work on the same samples: the same network from the same seed, batches in the same order, the same loss, optimizer and
clipping, and after each epoch the loss and accuracy of the training and the validation part. That they end alike is checked. They take
turns, and the median of the ratios of neighbours is shown, so that a busy machine disturbs both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.learning import Learned, Part, learn, prepare
from ktrdr_worker.trading.losses import Loss
from ktrdr_worker.trading.steps import steps
from ktrdr_zmq.strategy.schema import Architecture, Model, Training

FEATURES = 16
SCORED_AT_A_TIME = 1024
MODELS = {
    "mlp 32-16": Model(architecture=Architecture(hidden_layers=[32, 16])),
    "gru 32, 24 bars": Model(type="gru", architecture=Architecture(hidden_size=32, sequence_length=24)),
    "lstm 32, 24 bars": Model(type="lstm", architecture=Architecture(hidden_size=32, sequence_length=24)),
}


def samples(count: int, window: int, seed: int) -> Part:
    """Features with a weak edge, as markets have them."""
    chance = np.random.default_rng(seed)
    matrix = chance.normal(size=(count + window - 1, FEATURES)).astype(np.float32)
    drift = matrix[window - 1 :, 0] + chance.normal(size=count) * 2
    return Part(matrix, np.arange(window - 1, count + window - 1), np.digitize(drift, [-1.0, 1.0]).astype(np.int64))


class Windows(Dataset):  # type: ignore[type-arg]
    """Samples that read several rows, as a loader wants them."""

    def __init__(self, part: Part, window: int) -> None:
        self.matrix, self.targets = torch.from_numpy(part.matrix), torch.from_numpy(part.targets)
        self.positions, self.window = part.positions.tolist(), window

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        position = self.positions[index]
        return self.matrix[position - self.window + 1 : position + 1], self.targets[index]


def dataset(part: Part, window: int) -> Dataset:  # type: ignore[type-arg]
    if window == 1:
        return TensorDataset(torch.from_numpy(part.matrix)[part.positions], torch.from_numpy(part.targets))
    return Windows(part, window)


class Shuffled(Sampler[int]):
    """Another order each epoch, from the training's own seed: what ``shuffle=True`` does, with the order of our loop."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.count, generator=self.generator).tolist())


def loader_loop(train: Part, validation: Part, model: Model, settings: Training, device: str) -> float:
    """The loop that every tutorial has; returns the last epoch's training loss."""
    torch.manual_seed(settings.seed)
    network = networks.build(FEATURES, model, 3).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    criterion = nn.CrossEntropyLoss()
    parts = [dataset(part, model.window) for part in (train, validation)]
    batches = DataLoader(parts[0], batch_size=settings.batch_size, sampler=Shuffled(len(train.targets), settings.seed))
    scored = [DataLoader(part, batch_size=SCORED_AT_A_TIME) for part in parts]
    losses = [0.0, 0.0]
    for _ in range(settings.epochs):
        network.train()
        for rows, targets in batches:
            optimizer.zero_grad()
            criterion(network(rows.to(device)), targets.to(device)).backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for index, loader in enumerate(scored):
                total = right = 0.0
                for rows, targets in loader:
                    outputs, aims = network(rows.to(device)), targets.to(device)
                    total += criterion(outputs, aims).item() * len(aims)
                    right += (outputs.argmax(1) == aims).sum().item()
                losses[index] = total / len(parts[index])  # type: ignore[arg-type]
    return losses[0]


def our_loop(train: Part, validation: Part, model: Model, settings: Training, device: str) -> float:
    """The loop of the job."""
    learned: Learned = learn(train, validation, model, settings, device, lambda *_: None)
    return learned.history.train_loss[-1]


def timed(loop: Callable[..., float], arguments: tuple[Any, ...] = ()) -> tuple[float, float]:
    """Seconds, and what the loop returned; a figure that was fetched from a device waits for the device."""
    begun = time.perf_counter()
    found = loop(*arguments)
    return time.perf_counter() - begun, found


def limit(model: Model, settings: Training, train: Part, device: str) -> dict[str, float]:
    """What our loop's time goes into: steps alone, on one batch again and again, and the gathering of one epoch."""
    network = networks.build(FEATURES, model, 3).to(device)
    matrix, positions = torch.from_numpy(train.matrix).to(device), torch.from_numpy(train.positions).to(device)
    order = torch.randperm(len(positions)).to(device)
    gather, _ = timed(lambda: float(networks.gather(matrix, positions[order], model.window)[0].sum()))
    rows, targets = (
        networks.gather(matrix, positions[: settings.batch_size], model.window),
        torch.from_numpy(train.targets)[: settings.batch_size].to(device),
    )
    learner = steps(network, Loss(settings, train.targets, device), settings)

    def hundred() -> float:
        for _ in range(100):
            learner.step(rows, targets)
        return float(next(network.parameters()).detach().flatten()[0])

    hundred()
    return {"gather_epoch_ms": gather * 1e3, "step_us": min(timed(hundred)[0] for _ in range(3)) * 1e4}


def conditions(threads: int, device: str) -> dict[str, object]:
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else platform.processor() or platform.machine()
    return {
        "device": device, "name": name, "cpus": os.cpu_count(), "threads": threads, "torch": torch.__version__,
        "python": platform.python_version(), "kernels": torch.backends.cpu.get_cpu_capability(), "load": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0 or mps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=6500)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prepare(options.threads)
    settings = Training(epochs=options.epochs, batch_size=options.batch_size, gradient_clip=1.0)
    rows = []
    for name, model in MODELS.items():
        parts = samples(options.samples, model.window, 1), samples(options.samples // 5, model.window, 2)
        job = (*parts, model, settings, options.device)
        for loop in (loader_loop, our_loop):
            loop(*job)  # what is compiled and allocated once is no part of the time
        pairs = [(timed(loader_loop, job), timed(our_loop, job)) for _ in range(options.repeats)]
        for (_, one), (_, other) in pairs:
            assert abs(one - other) < 1e-3, f"the loops do not do the same: losses {one} and {other}"
        rows.append({
            "model": name,
            "loader_ms": statistics.median(theirs for (theirs, _), _ in pairs) * 1e3,
            "ours_ms": statistics.median(ours for _, (ours, _) in pairs) * 1e3,
            "ratio": statistics.median(theirs / ours for (theirs, _), (ours, _) in pairs),
            "loss": pairs[0][1][1],
            **limit(model, settings, parts[0], options.device),
        })  # fmt: skip
    document = {"conditions": {**conditions(options.threads, options.device), **vars(options)}, "models": rows}
    if options.json:
        json.dump(document, sys.stdout, indent=2)
        print()
        return 0
    print("  ".join(f"{key} {value}" for key, value in document["conditions"].items() if key != "json"))  # type: ignore[attr-defined]
    print(f"{'model':18} {'DataLoader':>11} {'ours':>9} {'ratio':>6}   one step; gathering of an epoch")
    for row in rows:
        print(
            f"{row['model']:18} {row['loader_ms']:8.0f} ms {row['ours_ms']:6.0f} ms {row['ratio']:6.2f}   "
            f"{row['step_us']:5.0f} us; {row['gather_epoch_ms']:.1f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
