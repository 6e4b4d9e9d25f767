"""``kat adapt train --config F``: what is trained, and how; every default is said here alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from kat_otel.errors import ConfigError

__all__ = ["SHIPPED", "Base", "Lora", "Training", "TrainingConfig", "load_training_config"]

_FOLDER: Final = Path(__file__).with_name("configs")
SHIPPED: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""Names of the files that come along."""

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Base(_Section, frozen=True, kw_only=True):
    """The model that is adapted.

    Attributes:
        model: name at a model hub, or a folder in the format of ``transformers``.
        package: instead of it: an installed Python package that holds the weights.
        gguf: of a folder or a package: the GGUF file in it to read.
        revision: of a hub: the commit, so that the same name is the same weights.
        license: SPDX name; it stands beside everything that is exported.
    """

    license: Annotated[str, Meta(min_length=1)]
    model: str = ""
    package: str = ""
    gguf: str = ""
    revision: str | None = None


class Lora(_Section, frozen=True, kw_only=True):
    """Low-rank matrices beside the frozen weights (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        rank: of the matrices; a server must allow it (vLLM's ``--max-lora-rank``).
        alpha: their product is added times alpha / rank.
        dropout: share of what goes into them that is left out in training.
        targets: ``all-linear``, or the layers' names.
    """

    rank: Count = 16
    alpha: Count = 32
    dropout: Share = 0.0
    targets: str | list[str] = "all-linear"


class Training(_Section, frozen=True, kw_only=True):
    """How it is trained.

    Attributes:
        seed: of the adapter's first weights, the order of examples and dropout.
        examples: how many of the training split are used, spread over all of it; null for all.
        validation: examples of the validation split whose loss is told at each checkpoint.
        epochs: how often each example is seen.
        learning_rate: at its highest; it falls to zero along a cosine.
        warmup: share of the steps in which it rises to that.
        batch: examples at once on each device.
        accumulate: batches before the weights change: a step.
        max_tokens: of question and answer together; nothing is cut, a longer example is an error.
        precision: of the base's weights; the adapter's are always 32 bit.
        recompute: activations twice rather than keeping them: less memory, a third more time.
        checkpoint_every: steps between checkpoints; keep: how many of them stay.
    """

    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 1
    examples: Count | None = None
    validation: Annotated[int, Meta(ge=0)] = 0
    epochs: Positive = 2.0
    learning_rate: Positive = 2e-4
    warmup: Share = 0.05
    batch: Count = 1
    accumulate: Count = 8
    max_tokens: Count = 2_048
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    recompute: bool = False
    checkpoint_every: Count = 20
    keep: Count = 2


class TrainingConfig(_Section, frozen=True, kw_only=True):
    """The whole file."""

    base: Base
    lora: Lora = Lora()
    training: Training = Training()


def load_training_config(name: str) -> TrainingConfig:
    """Reads and checks a file of settings.

    Args:
        name: path of the file, or the name of one of :data:`SHIPPED`.

    Raises:
        ConfigError: unreadable, no YAML, an unknown key or a bad value; the message names file
            and key.
    """
    path = _FOLDER / f"{name}.yaml" if name in SHIPPED else Path(name)
    try:
        config = msgspec.yaml.decode(path.read_bytes(), type=TrainingConfig)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}) — name another, or "
            f"one of {', '.join(SHIPPED)}"
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error} — correct this place of the file") from error
    if problems := list(_problems(config)):
        raise ConfigError(f"{path}: {'; '.join(problems)}")
    return config


def _problems(config: TrainingConfig) -> Iterable[str]:
    base = config.base
    if bool(base.model) == bool(base.package):
        yield "base names its weights by model or by package — give one of the two"
    if base.package and not base.gguf:
        yield f"base.package {base.package!r} without base.gguf — name the file in it"
    if base.revision and base.package:
        yield "base.revision is of a hub, and base.package has none — leave it out"
