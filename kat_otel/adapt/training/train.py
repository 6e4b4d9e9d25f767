"""Supervised training of a low-rank adapter on the examples: TRL's trainer, PEFT's LoRA.

What is learnt is the answer's form and choices: names and ids. Sentences with numbers are none of
a model's business here, the code composes them from the facts cited.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kat_otel.adapt.training import runs
from kat_otel.adapt.training.base import base_name, load_model, load_tokenizer
from kat_otel.adapt.training.chats import chats, spread
from kat_otel.adapt.training.config import TrainingConfig
from kat_otel.adapt.training.libraries import Libraries, libraries

__all__ = ["train"]


def train(
    config: TrainingConfig, data: Path, out: Path, *, stop_at: int | None = None
) -> runs.Trained:
    """Trains an adapter, or goes on with the run that the folder holds; one that is done stays.

    Args:
        config: what and how.
        data: folder that ``kat adapt data`` wrote.
        out: folder of the run.
        stop_at: step after which a checkpoint is written and it ends; the same call with a later
            one, or without, goes on as if it had never stopped.

    Raises:
        ConfigError: the examples, the base or the folder cannot be used.
        MissingDependencyError: PyTorch or what trains with it is not installed.
    """
    how = config.training
    examples = spread(data, "train", how.examples)
    validation = spread(data, "validation", how.validation)
    have = libraries()
    digest = runs.data_digest(data / "train.jsonl")
    checkpoint = runs.begin(out, runs.Begun(config=config, data=digest, versions=have.versions))
    done = runs.trained(out)
    if done is not None and done.steps >= done.planned:
        return done
    have.transformers.set_seed(how.seed)
    tokenizer = load_tokenizer(have, config.base)
    asked = chats(have, examples, tokenizer, how.max_tokens)
    held_back = chats(have, validation, tokenizer, how.max_tokens) if validation else None
    trainer = have.trl.SFTTrainer(
        model=load_model(have, config.base, how.precision),
        args=_arguments(have, config, out),
        train_dataset=asked,
        eval_dataset=held_back,
        processing_class=tokenizer,
        peft_config=_adapter(have, config),
        callbacks=[_stop_after(have, stop_at)] if stop_at else [],
    )
    begin = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    found = _how_it_went(trainer.state, len(examples), time.monotonic() - begin)
    _save(trainer, tokenizer, config, out / runs.ADAPTER)
    runs.finish(out, found)
    return found


def _adapter(have: Libraries, config: TrainingConfig) -> Any:
    lora = config.lora
    return have.peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
    )


def _arguments(have: Libraries, config: TrainingConfig, out: Path) -> Any:
    how = config.training
    return have.trl.SFTConfig(
        output_dir=str(out),
        seed=how.seed,
        data_seed=how.seed,
        num_train_epochs=how.epochs,
        learning_rate=how.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=how.warmup,  # below 1 it is a share
        per_device_train_batch_size=how.batch,
        per_device_eval_batch_size=how.batch,
        gradient_accumulation_steps=how.accumulate,
        max_length=how.max_tokens,
        completion_only_loss=True,
        bf16=how.precision == "bfloat16",
        gradient_checkpointing=how.recompute,
        logging_steps=1,
        save_strategy="steps",
        save_steps=how.checkpoint_every,
        save_total_limit=how.keep,
        eval_strategy="steps" if how.validation else "no",
        eval_steps=how.checkpoint_every,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=have.torch.cuda.is_available(),
    )


def _stop_after(have: Libraries, last: int) -> Any:
    def on_step_end(_: Any, state: Any, control: Any, **__: Any) -> Any:
        if state.global_step >= last:
            control.should_save = control.should_training_stop = True
        return control

    kind = type(
        "StopAfter",
        (have.transformers.TrainerCallback,),
        {"on_step_end": staticmethod(on_step_end)},
    )
    return kind()


def _how_it_went(state: Any, examples: int, seconds: float) -> runs.Trained:
    losses = {int(row["step"]): float(row["loss"]) for row in state.log_history if "loss" in row}
    return runs.Trained(
        steps=int(state.global_step),
        planned=int(state.max_steps),
        examples=examples,
        loss=losses[max(losses)] if losses else None,
        seconds=seconds,
        losses=losses,
    )


def _save(trainer: Any, tokenizer: Any, config: TrainingConfig, folder: Path) -> None:
    """Writes adapter and tokenizer, as servers load them."""
    adapter = trainer.model.peft_config["default"]
    # A server is told the base by its own option; this name is for people, and no machine's path.
    adapter.base_model_name_or_path = config.base.model or base_name(config.base)
    adapter.revision = config.base.revision
    trainer.model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
