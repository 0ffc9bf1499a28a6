"""Three ways to run a tokenizer: tiktoken, SentencePiece, and Hugging Face's tokenizers for tokenizer.json.

A backend knows text, ids and special tokens. Which files it is made from is `tokenizer_kinds`' business; what is done
with it (which id begins a text, which ends one, how a conversation is written) is `tokenizers`' and `chat`'s.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

#: A text with special tokens in it: plain text as strings, special tokens as ids.
Pieces = Sequence[str | int]


class Backend(Protocol):
    """What a tokenizer library must be able to do. Plain text never becomes a special token.

    `bos_id`, `eos_ids` and `adds_bos` are what the tokenizer's own file says; files beside it may know better, unless
    the beginning is `settled`.
    """

    vocab_size: int  # one more than the largest id
    ordinary_size: int  # one more than the largest id that plain text can have
    special: Mapping[str, int]  # names of the special tokens -> their ids
    bos_id: int | None
    eos_ids: tuple[int, ...]
    adds_bos: bool  # whether texts begin with bos_id
    settled: bool

    def encode(self, text: str) -> list[int]: ...
    def encode_pieces(self, pieces: Pieces) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


def encode_each(encode: Callable[[str], list[int]], pieces: Pieces) -> list[int]:
    """Ids of pieces where what stands beside a piece makes no difference."""
    return [token for piece in pieces for token in ([piece] if isinstance(piece, int) else encode(piece))]


def special_pattern(special: Mapping[str, int]) -> str:
    """A pattern for the names of special tokens, the longest first: one name may begin another."""
    return "|".join(re.escape(name) for name in sorted(special, key=len, reverse=True)) or "(?!)"


def cut(text: str, special: Mapping[str, int]) -> list[str | int]:
    """The pieces of a text in which the names of special tokens mean these tokens."""
    parts = re.split(f"({special_pattern(special)})", text)
    return [special.get(part, part) for part in parts if part]


class TiktokenBackend:
    """Byte-level BPE run by tiktoken: a token's id is also its merge rank."""

    settled = False

    def __init__(
        self,
        name: str,
        pattern: str,
        ranks: dict[bytes, int],
        special: dict[str, int],
        *,
        bos: str,
        eos: Sequence[str],
        adds_bos: bool,
    ):
        import tiktoken

        self.special = special
        self.ordinary_size = len(ranks)
        self.vocab_size = max([*ranks.values(), *special.values()]) + 1
        self.bos_id, self.eos_ids, self.adds_bos = special.get(bos), ids_of(eos, special), adds_bos
        self.encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)

    def encode(self, text: str) -> list[int]:
        return self.encoding.encode_ordinary(text)

    def encode_pieces(self, pieces: Pieces) -> list[int]:
        return encode_each(self.encode, pieces)

    def decode(self, ids: Sequence[int]) -> str:
        return self.encoding.decode(list(ids))


class SentencePieceBackend:
    """A SentencePiece model. It puts a space before a text, and takes it away again in decoding."""

    adds_bos, settled = True, False

    #: Appended to a serialized model, this switches the space before a text off: protobuf reads messages that follow
    #: each other as one, whose later values count. (Field 3, two bytes: in it field 3, add_dummy_prefix, is false.)
    WITHOUT_PREFIX = b"\x1a\x02\x18\x00"

    def __init__(self, model: bytes, added: Mapping[str, int], prefix_every_piece: bool):
        from sentencepiece import SentencePieceProcessor

        self.processor = SentencePieceProcessor(model_proto=model)
        self.within = self.processor
        if not prefix_every_piece:  # the second piece and all others go on where one before them ended
            self.within = SentencePieceProcessor(model_proto=model + self.WITHOUT_PREFIX)
        processor, self.ordinary_size = self.processor, self.processor.vocab_size()
        marks = [id for id in range(self.ordinary_size) if processor.is_control(id) or processor.is_unknown(id)]
        self.special = {processor.id_to_piece(id): id for id in marks} | dict(added)
        self.vocab_size = max([self.ordinary_size - 1, *self.special.values()]) + 1
        self.bos_id = processor.bos_id() if processor.bos_id() >= 0 else None  # -1: the model has none
        self.eos_ids = (processor.eos_id(),) if processor.eos_id() >= 0 else ()

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def encode_pieces(self, pieces: Pieces) -> list[int]:
        return encode_each(self.encode, pieces[:1]) + encode_each(self.within.encode, pieces[1:])

    def decode(self, ids: Sequence[int]) -> str:
        return self.processor.decode(list(ids))


class JsonBackend:
    """A tokenizer.json, run by Hugging Face's tokenizers library. `named`: tokens that files beside it call special."""

    settled = True  # what it puts before a text is part of it; transformers heeds nothing else

    def __init__(self, content: str, named: Iterable[str] = ()):
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as JsonTokenizer

        self.tokenizer = JsonTokenizer.from_str(content)
        self.tokenizer.no_truncation()  # both may have been left switched on by whoever saved the file
        self.tokenizer.no_padding()
        known = {token.content: token for token in self.tokenizer.get_added_tokens_decoder().values()}
        for name in named:
            token, id = known.get(name, AddedToken(name, normalized=False)), self.tokenizer.token_to_id(name)
            # What plain text can become is no special token, whatever its part: it would vanish in decoding.
            if not token.special and id is not None and (name in known or self.encode(name) != [id]):
                token.special = True
                self.tokenizer.add_special_tokens([token])
        added = self.tokenizer.get_added_tokens_decoder()
        self.special = {token.content: id for id, token in added.items() if token.special}
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.ordinary_size = max((id for name, id in vocabulary.items() if name not in self.special), default=-1) + 1
        example = self.tokenizer.encode("a")  # what stands before its token is what stands before every text
        first = example.ids[: [*example.special_tokens_mask, 0].index(0)]
        if len(first) > 1:
            raise ValueError(f"it puts {len(first)} tokens before a text, where one or none is understood")
        self.bos_id, self.eos_ids, self.adds_bos = (first[0] if first else None), (), bool(first)

    def encode(self, text: str) -> list[int]:
        return self.run(text, special_tokens=False)

    def encode_pieces(self, pieces: Pieces) -> list[int]:
        """The library cuts at special tokens itself, and knows what becomes of the text around each: some take in the
        space beside them, some tokenizers put one before a text but not within. Only where plain text looks like a
        special token it would cut wrongly."""
        names = {id: name for name, id in self.special.items()}
        text = "".join(names[piece] if isinstance(piece, int) else piece for piece in pieces)
        if cut(text, self.special) == list(pieces):
            return self.run(text, special_tokens=True)
        return encode_each(self.encode, pieces)

    def run(self, text: str, *, special_tokens: bool) -> list[int]:
        """Ids of a text in which the names of special tokens mean these tokens, or are ordinary characters."""
        self.tokenizer.encode_special_tokens = not special_tokens
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)


def ids_of(names: Iterable[str], special: Mapping[str, int]) -> tuple[int, ...]:
    """Ids of those names that there are."""
    return tuple(special[name] for name in names if name in special)
