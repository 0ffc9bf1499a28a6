"""What the files beside a tokenizer say about it: tokenizer_config.json, config.json, generation_config.json, others.

They are read the way transformers reads them, for a checkpoint must mean the same to both.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .loaders.files import read_json

SETTINGS = "tokenizer_config.json"

#: All that belongs to a tokenizer. A checkpoint that is saved gets every one of them that was there.
FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "original/tokenizer.model",
    "vocab.json",
    "merges.txt",
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
#: GPT-2's files under OpenAI's names, and under those that a saved checkpoint gives them: transformers knows no others.
OPENAI_FILES = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}

#: Vocabulary sizes that configs leave out because transformers knows them.
DEFAULT_SIZES = {"gemma3": 262_208, "gemma3_text": 262_208}


class TokenizerFolder:
    """A folder with a tokenizer in it. Files are read when they are asked for; CheckpointError says what is wrong."""

    def __init__(self, path: Path):
        self.path = path

    def find(self, *names: str) -> Path:
        """The first of some files that there is."""
        for name in names:
            if (self.path / name).is_file():
                return self.path / name
        raise CheckpointError(
            "a tokenizer file is missing",
            file=self.path / names[-1],
            expected="the tokenizer's own files beside config.json",
            found="no such file",
            cause="only the weights were copied",
            next_step="copy the tokenizer from where the weights came from; another one would give nonsense",
        )

    def files(self) -> dict[str, Path]:
        """The tokenizer's files that there are, by the names that they have in Hugging Face's layout."""
        places = {new: self.path / name for name, new in OPENAI_FILES.items() if (self.path / name).is_file()}
        return places | {name: self.path / name for name in FILES if (self.path / name).is_file()}

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file, or nothing where there is none."""
        return read_json(self.path / name) if (self.path / name).exists() else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, and what it says only about the language part of a multimodal model; params.json of Meta's; the
        size of the vocabulary of OpenAI's hparams.json."""
        config = self.read("config.json") or self.read("params.json")
        config = config or {"vocab_size": self.read("hparams.json").get("n_vocab")}
        language = config.get("text_config")
        stated = {key: value for key, value in config.items() if value is not None}
        return language | stated if isinstance(language, dict) else stated

    @cached_property
    def settings(self) -> dict[str, Any]:
        """tokenizer_config.json; the older special_tokens_map.json counts more, except beside a newer config."""
        settings = self.read(SETTINGS)
        return settings if "added_tokens_decoder" in settings else settings | self.read("special_tokens_map.json")

    @cached_property
    def size(self) -> int | None:
        """How many tokens the model has embeddings for, if that is known; Meta writes -1 where it is not."""
        size = self.config.get("vocab_size", DEFAULT_SIZES.get(str(self.config.get("model_type"))))
        if size is not None and type(size) is not int:
            raise self.wrong("config.json", "vocab_size", "a whole number", size)
        return size if size is not None and size > 0 else None

    @property
    def prefix_every_piece(self) -> bool:
        """SentencePiece: whether every piece of text between two special tokens begins with a space, as Meta's own
        programs have it, or only the first; transformers calls the one way legacy."""
        return bool(self.settings.get("legacy", not self.settings))

    def check_prefix(self, usual: bool) -> None:
        """Refuse a setting with which transformers changes what the tokenizer does with a text's first word."""
        if self.settings.get("add_prefix_space", usual) is (not usual):
            raise self.wrong(SETTINGS, "add_prefix_space", f"{usual}, as this kind of tokenizer has it", not usual)

    @cached_property
    def added(self) -> dict[str, int]:
        """Tokens that were added to the tokenizer's own: name -> id."""
        name, entries = "added_tokens.json", self.read("added_tokens.json")
        if "added_tokens_decoder" in self.settings:
            name, listed = SETTINGS, self.settings["added_tokens_decoder"]
            try:
                entries = {self.token(entry, name): int(id) for id, entry in listed.items()}
            except (AttributeError, ValueError) as error:
                raise self.wrong(name, "added_tokens_decoder", 'id -> {"content": name}', listed) from error
        for token, id in entries.items():
            if type(id) is not int or id < 0:
                raise self.wrong(name, str(token), "an id", id)
        return entries

    @cached_property
    def tokens(self) -> dict[str, str | None]:
        """Tokens by the part they play, bos_token and so on; None where it is said that there is none for a part."""
        parts = {
            key: value
            for key, value in self.settings.items()
            if key in ("bos_token", "eos_token")
            or (key.endswith("_token") and (value is None or isinstance(value, str | Mapping)))
        }
        return {key: None if value is None else self.token(value, SETTINGS) for key, value in parts.items()}

    def named(self) -> list[str]:
        """Tokens that play a part of any kind, whether or not the tokenizer itself has them for special."""
        names = [name for name in self.tokens.values() if name is not None]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            entries = self.settings.get(key) or []
            if not isinstance(entries, list | Mapping):
                raise self.wrong(SETTINGS, key, "a list of tokens", entries)
            listed = entries.values() if isinstance(entries, Mapping) else entries
            names += [self.token(entry, SETTINGS) for entry in listed]
        return names

    def token(self, value: object, file: str) -> str:
        """The name of a token, which is written plainly or together with how it is to be treated."""
        name = value.get("content") if isinstance(value, Mapping) else value
        if not isinstance(name, str):
            raise self.wrong(file, "a token", 'a name, or {"content": name, ...}', value)
        return name

    def ids(self, name: str, content: Mapping[str, Any], key: str) -> tuple[int, ...]:
        """One id or a list of them in a JSON file; none where the key is missing or null."""
        value = content.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(id) is int for id in ids):
            raise self.wrong(name, key, "an id, or a list of ids", value)
        return tuple(ids)

    def wrong(self, name: str, key: str, expected: str, found: object) -> CheckpointError:
        return CheckpointError(
            "a setting of the tokenizer has a value that is not understood",
            file=self.path / name,
            field=key,
            expected=expected,
            found=repr(found)[:200],
            cause="a file that was edited by hand, or one of another kind in its place",
            next_step="download the file again, from the same checkpoint as the weights",
        )


def damaged(path: Path, expected: str, found: object, place: str | None = None) -> CheckpointError:
    """The error for a tokenizer file that is not what its name says."""
    with path.open("rb") as file:
        pointer = file.read(40).startswith(b"version https://git-lfs")
    return CheckpointError(
        "the tokenizer file cannot be read",
        file=path,
        field=place,
        expected=expected,
        found=found,
        cause="git fetched a pointer to the file and not the file: git lfs was not installed"
        if pointer
        else "an interrupted download, or a file of another kind in its place",
        next_step="download the tokenizer again, from the same checkpoint as the weights",
    )


def read_text(path: Path) -> str:
    """A text file in UTF-8. Raises CheckpointError if it is anything else."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, "text in UTF-8", str(error)) from error
