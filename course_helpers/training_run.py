"""A whole training of any family: the loop of `training`, with a look at held-out text and at samples now and then, a
progress bar, and a state on disk to go on from. To train another family, give another model; nothing else changes.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from .architectures.base import LanguageModel
from .generation import generate
from .tokenizers import Tokenizer
from .training import Batch, StepResult, TrainingSettings, make_optimizer, next_token_loss, training_steps
from .training_data import TextBatches
from .training_history import History
from .training_state import as_json, check_settings, read_description, restore, write_state


class Trainer:
    """Trains a model in place, and keeps the `history`.

    Every `evaluate_every` steps, and at the first and the last, the loss on the held-out windows is measured: always
    the same ones, always in float32, so that families and precisions can be compared. Every `sample_every` steps the
    model continues `prompt`, greedily. Neither leaves a trace in the training. With a `folder`, the state is written
    there every `save_every` steps and at the end; `resume` goes on from it, to the bit as if there had been no break.
    """

    def __init__(
        self,
        model: LanguageModel,
        batches: TextBatches,
        settings: TrainingSettings,
        *,
        tokenizer: Tokenizer | None = None,
        evaluate_every: int = 0,
        sample_every: int = 0,
        prompt: str = "",
        new_tokens: int = 40,
        folder: str | Path | None = None,
        save_every: int = 0,
    ):
        """0 means never. Raises ValueError if the batches do not fit the model, or something that is asked for lacks
        what it needs."""
        batches.check_fits(model.config)
        if sample_every and tokenizer is None:
            raise ValueError("samples need a tokenizer: pass the one of this model, or sample_every=0")
        if save_every and folder is None:
            raise ValueError("save_every needs a folder to save in")
        self.model, self.batches, self.settings, self.tokenizer = model, batches, settings, tokenizer
        self.evaluate_every, self.sample_every, self.save_every = evaluate_every, sample_every, save_every
        self.prompt, self.new_tokens = prompt, new_tokens
        self.folder = None if folder is None else Path(folder)
        self.optimizer = make_optimizer(model, settings)
        self.history = History()

    def resume(self) -> int:
        """Go on from the state in the folder; return how many steps are done: 0, with nothing changed, if there is no
        state yet. Raises CheckpointError, with nothing changed, for a state of another model, other data or settings.
        """
        description = None if self.folder is None else read_description(self.folder)
        if description is None:
            return 0
        check_settings(self.folder, description, self.settings)
        self.batches.check_state(description["data"])
        history = History.from_json(description["history"])
        restore(self.folder, self.model, self.optimizer, history.step)
        self.batches.load_state_dict(description["data"])
        self.history = history
        return history.step

    def run(self, until: int | None = None, progress: bool = True) -> History:
        """Train to the end, or until so many steps are done; the model is then in eval mode. Raises RuntimeError if
        the loss is not finite."""
        from tqdm.auto import tqdm

        until = self.settings.steps if until is None else min(until, self.settings.steps)
        if self.evaluate_every and not self.history.evaluations:
            self.evaluate()
        steps = range(self.history.step, until)
        work = training_steps(self.model, self.batches, self.settings, self.optimizer, steps)
        with tqdm(total=self.settings.steps, initial=steps.start, unit="step", disable=not progress) as bar:
            started = time.perf_counter()
            for result in work:
                self.record(result, time.perf_counter() - started)
                self.look(bar)
                started = time.perf_counter()
        self.model.eval()
        return self.history

    def record(self, result: StepResult, seconds: float) -> None:
        history = self.history
        history.losses.append(result.loss)
        history.learning_rates.append(result.learning_rate)
        history.gradient_norms.append(result.gradient_norm)
        history.tokens_seen.append((history.tokens_seen or [0])[-1] + result.targets)
        history.seconds.append((history.seconds or [0.0])[-1] + seconds)

    def look(self, bar) -> None:
        """What is due after a step."""
        step, last = self.history.step, self.history.step == self.settings.steps
        if due(self.evaluate_every, step, last):
            self.evaluate()
        if due(self.sample_every, step, last):
            self.sample()
        if due(self.save_every, step, last):
            self.save()
        bar.set_postfix(loss=f"{self.history.losses[-1]:.3f}", refresh=False)
        bar.update()

    def evaluate(self) -> float:
        """The loss on the held-out windows, in nats per token; noted in the history."""
        with aside(self.model):
            loss = mean_loss(self.model, self.batches.held_out())
        self.history.evaluations.append({"step": self.history.step, "loss": loss})
        return loss

    def sample(self) -> str:
        """The prompt and what the model makes of it; noted in the history."""
        ids = self.tokenizer.encode(self.prompt) or list(self.tokenizer.stop_ids[:1])
        room = max(0, min(self.new_tokens, self.model.config.max_position_embeddings - len(ids)))
        with aside(self.model):
            row = generate(self.model, [ids], room, stop_ids=self.tokenizer.stop_ids)[0]
        text = self.tokenizer.decode(row)
        self.history.samples.append({"step": self.history.step, "text": text})
        return text

    def save(self) -> Path:
        """Write the state: a checkpoint that `load_model` loads, and what `resume` needs beside it."""
        if self.folder is None:
            raise ValueError("there is no folder to save in: give the Trainer one")
        description = {
            "settings": as_json(self.settings),
            "data": self.batches.state_dict(),
            "history": self.history.to_json(),
        }
        write_state(self.folder, self.model, self.optimizer, self.tokenizer, description)
        return self.folder


def due(every: int, step: int, last: bool) -> bool:
    return every > 0 and (step % every == 0 or last)


def mean_loss(model: LanguageModel, batches: Iterator[Batch] | Sequence[Batch]) -> float:
    """Nats per target over all batches."""
    total, count = 0.0, 0
    for inputs_BT, targets_BT in batches:
        inputs_BT, targets_BT = inputs_BT.to(model.device), targets_BT.to(model.device)
        total += next_token_loss(model, inputs_BT, targets_BT, reduction="sum").item()
        count += targets_BT.numel()
    if not count:
        raise ValueError("there is no held-out text: make the batches with held_out above 0, or do not evaluate")
    return total / count


@contextlib.contextmanager
def aside(model: LanguageModel) -> Iterator[None]:
    """Look at a model in training without a trace: in eval mode, without gradients, and with torch's random generators
    afterwards as they were before."""
    was_training = model.training
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)
