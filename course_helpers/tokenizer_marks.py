"""Where texts begin and end, and how conversations are written: what a tokenizer and the files beside it agree on."""

from typing import Any

from .chat import ChatTemplate
from .errors import CheckpointError
from .tokenizer_backends import Backend
from .tokenizer_folder import SETTINGS, TokenizerFolder, read_text

#: What transformers must be told about Meta's two kinds of tokenizer.model.
META_SETTINGS = {
    "tiktoken": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "sentencepiece": {"tokenizer_class": "LlamaTokenizer", "legacy": True},
}


def beginning(backend: Backend, folder: TokenizerFolder) -> tuple[int | None, bool]:
    """The id that begins a text, and whether texts begin with it. Raises CheckpointError where two files say two things
    about it and a prompt would begin with one of them."""
    in_config = next(iter(folder.ids("config.json", folder.config, "bos_token_id")), None)
    if "bos_token" in folder.tokens:  # null means that there is none, whatever config.json says: Qwen3
        bos_id = named_id(backend, folder, "bos_token")
    else:
        bos_id = in_config if backend.bos_id is None else backend.bos_id
    if backend.settled:
        adds_bos, other = backend.adds_bos, backend.bos_id
        bos_id = other if bos_id is None else bos_id
    else:
        adds_bos, other = bool(folder.settings.get("add_bos_token", backend.adds_bos)), in_config
    if adds_bos and (bos_id is None or other not in (None, bos_id)):
        raise CheckpointError(
            "two files disagree about the token that begins a text",
            file=folder.path / SETTINGS,
            field="bos_token",
            expected=f"id {other}, as {'tokenizer.json puts before texts' if backend.settled else 'config.json says'}",
            found="none, though add_bos_token asks for one" if bos_id is None else f"id {bos_id}",
            cause="files of two different checkpoints, or a tokenizer file that was cut off",
            next_step="take the tokenizer and config.json from the same place as the weights",
        )
    return bos_id, adds_bos


def stops(backend: Backend, folder: TokenizerFolder) -> tuple[int, ...]:
    """The ids that end an answer: those for generation count more than the one that the model was trained with."""
    generation = "generation_config.json"
    found = folder.ids(generation, folder.read(generation), "eos_token_id")
    found = found or folder.ids("config.json", folder.config, "eos_token_id")
    if not found and "eos_token" in folder.tokens:
        named = named_id(backend, folder, "eos_token")
        return () if named is None else (named,)
    return found or backend.eos_ids


def named_id(backend: Backend, folder: TokenizerFolder, key: str) -> int | None:
    """The id of the token that tokenizer_config.json names under a key."""
    name = folder.tokens.get(key)
    if name is not None and name not in backend.special:
        raise CheckpointError(
            "the tokenizer lacks a token that is to begin or end texts",
            file=folder.path / SETTINGS,
            field=key,
            expected="the name of one of the tokenizer's special tokens",
            found=repr(name),
            cause="files of two different tokenizers in one folder",
            next_step="take all of the tokenizer's files from the same checkpoint",
        )
    return None if name is None else backend.special[name]


def check_size(backend: Backend, folder: TokenizerFolder, bos_id: int | None) -> None:
    """Every token that text can become must have an embedding. Special tokens of other uses may lack one: Gemma 3's
    text models share their tokenizer with those that see pictures."""
    needed = max(backend.ordinary_size, -1 if bos_id is None else bos_id + 1)
    if folder.size is not None and needed > folder.size:
        raise CheckpointError(
            "the tokenizer knows more tokens than the model",
            file=folder.path,
            field="vocab_size",
            expected=f"at most {folder.size} tokens, as config.json says",
            found=needed,
            cause="the tokenizer of another model",
            next_step="take the tokenizer from the same place as the weights",
        )


def chat_template(backend: Backend, folder: TokenizerFolder) -> ChatTemplate | None:
    """The checkpoint's own template: from a file of its own if there is one, or from tokenizer_config.json."""
    path = folder.path / "chat_template.jinja"
    source: Any = read_text(path) if path.is_file() else folder.settings.get("chat_template")
    path = path if path.is_file() else folder.path / SETTINGS
    try:
        if isinstance(source, list):  # several, under names
            source = {entry["name"]: entry["template"] for entry in source}
        source = source.get("default") if isinstance(source, dict) else source
    except (TypeError, KeyError) as error:
        raise folder.wrong(
            SETTINGS, "chat_template", 'a template, or [{"name": ..., "template": ...}]', source
        ) from error
    if source is None:
        return None
    if not isinstance(source, str):
        raise folder.wrong(SETTINGS, "chat_template", "a template", source)
    own = {"bos_token": (backend.bos_id,), "eos_token": backend.eos_ids[:1]}
    names = {key: name for key, ids in own.items() for name, id in backend.special.items() if id in ids}
    names |= folder.tokens
    return ChatTemplate(source, backend.special, {key: name for key, name in names.items() if name is not None}, path)


def missing_settings(kind: str, backend: Backend, folder: TokenizerFolder) -> dict[str, Any] | None:
    """A tokenizer_config.json for a tokenizer of Meta's that has none."""
    if kind not in META_SETTINGS or SETTINGS in folder.files():
        return None
    names = {id: name for name, id in sorted(backend.special.items(), key=lambda item: item[1])}
    settings = META_SETTINGS[kind] | {"add_bos_token": backend.adds_bos, "extra_special_tokens": list(names.values())}
    ends = {"bos_token": names.get(backend.bos_id), "eos_token": names.get(next(iter(backend.eos_ids), None))}
    return settings | {key: name for key, name in ends.items() if name is not None}
