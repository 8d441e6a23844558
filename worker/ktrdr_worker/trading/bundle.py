"""A trained model as one file: safetensors with a JSON description in its header. Never pickled; read strictly.

The description says what the model is for and what it has seen; the tensors are on the CPU. The same model gives the same octets.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Final

import msgspec
import torch
from torch import nn

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading import tensors
from ktrdr_worker.trading.bars import DataError, moment
from ktrdr_worker.trading.features import Scaling
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.strategy import check_overrides, parse_strategy
from ktrdr_zmq.strategy.schema import Strategy

SCHEMA: Final = 1


def config_digest(strategy: Strategy) -> str:
    """The SHA-256 of everything that a strategy says, overrides and defaults included."""
    text = json.dumps(strategy.plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class BundleError(UsageError):
    """The model file cannot be used."""

    code = "MODEL"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Which bars a model has learned from (moments in ISO 8601, UTC).

    ``since`` is the open of the first bar used; at ``until`` the last bar that any label looks at is over. Both are of the training and
    the validation part of all symbols: the test part was never learned from. ``data`` names the symbols with the digests of their files.
    """

    data: dict[str, str]
    since: str
    until: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says of itself."""

    schema: int
    kind: str
    strategy: str
    strategy_name: str
    overrides: list[tuple[str, Any]]
    config_digest: str
    classes: list[str]
    feature_ids: list[str]
    scaling: list[tuple[float, float]]
    seen: Seen
    seed: int
    fingerprint: dict[str, str]


class Trained(msgspec.Struct, frozen=True):
    """A model ready for use."""

    network: Any
    strategy: Any
    description: Description

    @property
    def scalings(self) -> list[Scaling]:
        """How its features are scaled."""
        return [Scaling(*pair) for pair in self.description.scaling]


def dump(network: nn.Module, description: Description) -> bytes:
    """Write a model."""
    return tensors.dump(network.state_dict(), msgspec.to_builtins(description))


def load(octets: bytes, overrides: dict[str, Any] | None = None) -> Trained:
    """Read a model.

    Parameters
    ----------
    octets : bytes
    overrides : dict, optional
        Values by key path for this use of it, on top of those it was trained with.

    Raises
    ------
    NewerSchema
        When a newer release wrote it.
    BundleError
        When it is no model, is damaged, or does not fit its own strategy.
    StrategyInvalid
        When the overrides make no sense.
    """
    description, weights = _describe(octets)
    name = f"{description.strategy_name} (in the model)"
    if config_digest(parse_strategy(description.strategy, name, dict(description.overrides))) != description.config_digest:
        raise BundleError("The model's strategy is not the one that it was trained with: the file was changed.")
    check_overrides(overrides or {})
    strategy = parse_strategy(description.strategy, name, {**dict(description.overrides), **(overrides or {})})
    if description.feature_ids != strategy.feature_ids or description.classes != list(strategy.classes):
        raise BundleError("The model's features or classes are not those of its strategy; it was made by another release, or changed.")
    sound = all(math.isfinite(offset) and math.isfinite(divisor) and divisor > 0 for offset, divisor in description.scaling)
    if len(description.scaling) != len(description.feature_ids) or not sound:
        raise BundleError("The model's scaling does not fit its features.")
    _check_seen(description.seen)
    network = networks.build(len(description.feature_ids), strategy.model, len(strategy.classes) or 1)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise BundleError(f"The model's weights do not fit its network: {str(error).partition(chr(10))[0]}") from None
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise BundleError("The model has weights that are no numbers.")
    return Trained(network.eval(), strategy, description)


def _check_seen(seen: Seen) -> None:
    """What a model has learned from protects against IN-SAMPLE figures: it must make sense."""
    try:
        sound = bool(seen.data) and moment(seen.since) < moment(seen.until)
    except DataError:
        sound = False
    if not sound:
        raise BundleError("The model does not say which bars it has learned from.")


def _describe(octets: bytes) -> tuple[Description, dict[str, torch.Tensor]]:
    try:
        plain, weights = tensors.load(octets, "model", SCHEMA)
        return msgspec.convert(plain, Description), weights
    except tensors.FileError as error:
        raise BundleError(error.message) from None
    except msgspec.ValidationError as error:
        raise BundleError(f"The model's description is not complete: {error}") from None
