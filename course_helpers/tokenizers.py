"""One contract over every family's tokenizer: text to ids and back, special ids, stop ids, and chat.

Text handed to `encode` is always plain text: a user who types `<|endoftext|>` gets the characters, not the special
token. `decode` gives back plain text, so special tokens do not show: `decode(encode(text)) == text`.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .loaders.files import read_json
from .loaders.sources import resolve
from .tokenizer_backends import Backend

Message = Mapping[str, str]  # {"role": "user", "content": "..."}


class Tokenizer:
    """The tokenizer of one checkpoint."""

    def __init__(
        self,
        backend: Backend,
        *,
        bos_id: int | None,
        stop_ids: tuple[int, ...],
        adds_bos: bool,
        chat_format: str | None = None,
        files: Mapping[str, Path] | None = None,
    ):
        self.backend = backend
        self.vocab_size = backend.vocab_size
        self.special_ids = frozenset(backend.special.values())
        self.bos_id = bos_id
        self.stop_ids = stop_ids
        self.adds_bos = adds_bos
        self.chat_format = chat_format
        self.files = dict(files or {})  # name within the checkpoint's folder -> where it was read from

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        """Token ids of plain text. The beginning-of-text id comes first where the family was trained with one
        (Llama: yes, GPT-2: no), unless `bos` says otherwise: a Llama prompted without it writes noticeably worse."""
        ids = self.backend.encode(text)
        wants_bos = self.adds_bos if bos is None else bos
        return [self.bos_id, *ids] if wants_bos and self.bos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special tokens leave no trace. Raises ValueError for an id beyond the vocabulary."""
        ids = [int(token) for token in ids]
        strange = [token for token in ids if not 0 <= token < self.vocab_size]
        if strange:
            raise ValueError(f"token id {strange[0]} is outside this tokenizer's vocabulary of {self.vocab_size}")
        return self.backend.decode([token for token in ids if token not in self.special_ids])

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, ready for the model's answer. Raises ValueError if the model knows no chat format."""
        if self.chat_format is None:
            raise ValueError("this checkpoint was not trained on conversations: encode a plain prompt instead")
        return CHAT_FORMATS[self.chat_format](self, messages)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a checkpoint folder, as they were read."""
        for name, origin in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, folder / name)


def llama3_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Llama 3: every message between headers, ended by <|eot_id|>, then the header of the answer to come."""
    special = tokenizer.backend.special
    ids = [special["<|begin_of_text|>"]]
    for role, content in [
        *((message["role"], message["content"].strip()) for message in messages),
        ("assistant", None),
    ]:
        ids += [special["<|start_header_id|>"], *tokenizer.backend.encode(role), special["<|end_header_id|>"]]
        ids += tokenizer.backend.encode("\n\n")
        if content is not None:
            ids += [*tokenizer.backend.encode(content), special["<|eot_id|>"]]
    return ids


CHAT_FORMATS = {"llama3": llama3_chat}

#: Files that our tokenizers do not need, but that other programs expect beside those that they do.
EXTRAS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def load_tokenizer(source: object, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint folder, a bundled checkpoint's name, or a hub id.

    Raises CheckpointError if its files are missing, damaged, contradict each other, or know more tokens than the
    model has embeddings for: another model's tokenizer would turn every prompt into noise.
    """
    from .families import family_of

    folder = resolve(source, revision, weights=False)
    folder = folder if folder.is_dir() else folder.parent
    config = read_json(folder / "config.json")
    family = family_of(config)
    try:
        backend, names = family.tokenizer(folder, config)
    except FileNotFoundError as error:
        raise CheckpointError(
            "a tokenizer file is missing",
            file=error.filename,
            expected="the tokenizer's own files beside config.json",
            found="no such file",
            cause="only the weights were copied",
            next_step="copy the tokenizer from where the weights came from; another one would give nonsense",
        ) from error
    check_size(backend, config, folder)
    generation = folder / "generation_config.json"
    stops = (read_json(generation) if generation.exists() else {}).get("eos_token_id", config.get("eos_token_id"))
    return Tokenizer(
        backend,
        bos_id=config.get("bos_token_id"),
        stop_ids=tuple(stops) if isinstance(stops, list) else () if stops is None else (stops,),
        adds_bos=family.adds_bos,
        chat_format=family.chat_format,
        files={name: folder / name for name in (*names, *EXTRAS) if (folder / name).exists()},
    )


def check_size(backend: Backend, config: Mapping[str, Any], folder: Path) -> None:
    if backend.vocab_size > config["vocab_size"]:
        raise CheckpointError(
            "the tokenizer knows more tokens than the model",
            file=folder,
            field="vocab_size",
            expected=f"at most {config['vocab_size']} tokens, as config.json says",
            found=backend.vocab_size,
            cause="the tokenizer of another model",
            next_step="take the tokenizer from the same place as the weights",
        )
