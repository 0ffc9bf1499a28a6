"""One contract over every kind of tokenizer: text to ids and back, special ids, stop ids, and chat.

Text handed to `encode` is always plain text: a user who types `<|endoftext|>` gets the characters, not the special
token. `decode` gives back plain text, so special tokens do not show: `decode(encode(text)) == text`.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .chat import ChatTemplate, Message
from .labs.records import write_json
from .loaders.sources import resolve
from .tokenizer_backends import Backend
from .tokenizer_folder import SETTINGS, TokenizerFolder
from .tokenizer_kinds import KINDS, recognise
from .tokenizer_marks import beginning, chat_template, check_size, missing_settings, stops


class Tokenizer:
    """The tokenizer of one checkpoint."""

    def __init__(
        self,
        backend: Backend,
        *,
        kind: str,
        bos_id: int | None,
        stop_ids: tuple[int, ...],
        adds_bos: bool,
        template: ChatTemplate | None = None,
        files: Mapping[str, Path] | None = None,
        settings: Mapping[str, Any] | None = None,
        model_size: int | None = None,
    ):
        self.backend = backend
        self.kind = kind  # which of `tokenizer_kinds.KINDS` it was read from
        self.vocab_size = backend.vocab_size
        self.id_limit = max(backend.vocab_size, model_size or 0)  # a model may have embeddings to spare, as Qwen3 does
        self.special_ids = frozenset(backend.special.values())
        self.bos_id = bos_id
        self.stop_ids = stop_ids
        self.adds_bos = adds_bos
        self.template = template
        self.files = dict(files or {})  # name within the checkpoint's folder -> where it was read from
        self.settings = settings  # a tokenizer_config.json to write where there was none

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        """Token ids of plain text. The beginning-of-text id comes first where the model was trained with one
        (Llama: yes, GPT-2: no), unless `bos` says otherwise: a Llama prompted without it writes noticeably worse."""
        ids = self.backend.encode(text)
        wants_bos = self.adds_bos if bos is None else bos
        return [self.bos_id, *ids] if wants_bos and self.bos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special tokens leave no trace, and neither do ids that the model has an embedding for
        and the tokenizer no token. Raises ValueError for an id beyond both."""
        ids = [int(token) for token in ids]
        strange = [token for token in ids if not 0 <= token < self.id_limit]
        if strange:
            raise ValueError(f"token id {strange[0]} is outside this tokenizer's vocabulary of {self.vocab_size}")
        return self.backend.decode([id for id in ids if id < self.vocab_size and id not in self.special_ids])

    def chat(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """Ids of a conversation, by the checkpoint's own template, ready for the model's answer.

        `variables` go to the template: `enable_thinking=False` has Qwen3 answer without thinking first. What the
        messages say is plain text, special tokens in it included. Raises ValueError if the model was not trained on
        conversations, or if its template refuses this one.
        """
        return self.backend.encode_pieces(self.chat_pieces(messages, add_generation_prompt, **variables))

    def chat_text(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The same conversation as text, to look at: special tokens appear as their names."""
        names = {id: name for name, id in self.backend.special.items()}
        pieces = self.chat_pieces(messages, add_generation_prompt, **variables)
        return "".join(names[piece] if isinstance(piece, int) else piece for piece in pieces)

    def chat_pieces(
        self, messages: Sequence[Message], add_generation_prompt: bool, **variables: Any
    ) -> list[str | int]:
        if self.template is None:
            raise ValueError("this checkpoint was not trained on conversations: encode a plain prompt instead")
        return self.template.pieces(messages, add_generation_prompt=add_generation_prompt, **variables)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a checkpoint folder, as they were read.

        Meta's folders have no tokenizer_config.json. They are given one, or transformers would not know what to make of
        the rest.
        """
        for name, origin in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, folder / name)
        if self.settings is not None:
            write_json(folder / SETTINGS, self.settings)


def load_tokenizer(source: object, revision: str | None = None, kind: str | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint folder, a bundled checkpoint's name, or a hub id.

    The files say what kind it is, not the model's family; `kind`, one of `tokenizer_kinds.KINDS`, picks one where there
    are several. Raises CheckpointError if files are missing, damaged, contradict each other, or know more tokens than
    the model has embeddings for: another model's tokenizer would turn every prompt into noise.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"there is no kind of tokenizer called {kind!r}: choose one of {', '.join(KINDS)}")
    path = resolve(source, revision, weights=False)
    folder = TokenizerFolder(path if path.is_dir() else path.parent)
    kind = kind or recognise(folder)
    backend = KINDS[kind](folder)
    bos_id, adds_bos = beginning(backend, folder)
    check_size(backend, folder, bos_id)
    return Tokenizer(
        backend,
        kind=kind,
        bos_id=bos_id,
        stop_ids=stops(backend, folder),
        adds_bos=adds_bos,
        template=chat_template(backend, folder),
        files=folder.files(),
        settings=missing_settings(kind, backend, folder),
        model_size=folder.size,
    )
