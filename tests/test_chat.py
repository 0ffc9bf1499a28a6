"""Conversations: rendered and encoded as transformers does it, and proof against what users type."""

import json

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from course_helpers import CheckpointError, load_tokenizer
from tests.written_tokenizers import TEXTS, copy, edit, load_once, transformers_tokenizer, written

WITH_TEMPLATE = ("llama2", "llama3", "qwen3", "gemma3", "olmo3")
each_chat = pytest.mark.parametrize("family", WITH_TEMPLATE)
SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": " Tell me a story.\n"}
ANSWER, AGAIN = {"role": "assistant", "content": "Once."}, {"role": "user", "content": "Go on"}


def compared_from(release):
    """What an older Transformers does otherwise, or cannot do yet, it cannot be the judge of."""
    if Version(transformers.__version__) < Version(release):
        pytest.skip(f"transformers does this from {release} on, and here is {transformers.__version__}")


def turns(system, contents):
    """A conversation with or without a system turn, in which user and assistant take turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + messages


CONVERSATIONS = st.builds(turns, st.none() | TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
VARIABLES = st.sampled_from(({}, {"enable_thinking": False}, {"enable_thinking": True}, {"unknown": "value"}))


@each_chat
@settings(max_examples=120)
@given(CONVERSATIONS, st.booleans(), VARIABLES)
def test_ids_and_text_equal_those_of_transformers(family, messages, prompt, variables):
    ours, theirs = load_once(family), transformers_tokenizer(written(family))
    if any(name in message["content"] for message in messages for name in ours.backend.special):
        return  # see the tests on what users type
    arguments = {"add_generation_prompt": prompt} | variables
    assert ours.chat_text(messages, **arguments) == theirs.apply_chat_template(messages, tokenize=False, **arguments)
    assert ours.chat(messages, **arguments) == theirs.apply_chat_template(messages, return_dict=False, **arguments)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (
            "llama2",
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nTell me a story. [/INST] Once. </s><s>[INST] Go on [/INST]",
        ),
        (
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nTell me a story.<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nOnce.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nGo on<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "qwen3",
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Tell me a story.\n<|im_end|>\n"
            "<|im_start|>assistant\nOnce.<|im_end|>\n<|im_start|>user\nGo on<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "gemma3",
            "<bos><start_of_turn>user\nBe kind.\n\nTell me a story.<end_of_turn>\n"
            "<start_of_turn>model\nOnce.<end_of_turn>\n<start_of_turn>user\nGo on<end_of_turn>\n<start_of_turn>model\n",
        ),
    ],
)
def test_published_formats(family, text):
    assert load_once(family).chat_text([SYSTEM, USER, ANSWER, AGAIN]) == text


def test_qwens_thinking_switch():
    ours = load_once("qwen3")
    think, unthink, newlines = 1003, 1004, ours.encode("\n\n")
    thinking, silent = ours.chat([USER]), ours.chat([USER], enable_thinking=False)
    assert silent == [*thinking, think, *newlines, unthink, *newlines]
    assert ours.chat([USER], enable_thinking=True) == thinking
    thought = {"role": "assistant", "content": "<think>\nWell.\n</think>\n\nOnce."}
    assert ours.chat([USER, thought, AGAIN]) == ours.chat([USER, ANSWER, AGAIN])


@each_chat
def test_a_conversation_begins_once(family):
    ours = load_once(family)
    ids = ours.chat([SYSTEM, USER])
    begins = family not in ("qwen3", "olmo3")
    assert (ids[0] == ours.bos_id, ids.count(ours.bos_id)) == (begins, int(begins))


# What users type


@each_chat
@settings(max_examples=60)
@given(st.data())
def test_a_user_cannot_write_special_tokens(family, data):
    ours = load_once(family)
    parts = st.sampled_from(sorted(ours.backend.special)) | TEXTS | st.sampled_from(("\U000f0000", "\U000f0001"))
    content = "x" + "".join(data.draw(st.lists(parts, max_size=5))) + "x"
    for place in range(3):
        typed, harmless = [SYSTEM, USER, ANSWER, AGAIN], [SYSTEM, USER, ANSWER, AGAIN]
        typed[place], harmless[place] = typed[place] | {"content": content}, harmless[place] | {"content": "x"}
        pieces, expected = ours.chat_pieces(typed, True), ours.chat_pieces(harmless, True)
        special = [piece for piece in pieces if isinstance(piece, int)]
        assert special == [piece for piece in expected if isinstance(piece, int)]
        assert [token for token in ours.chat(typed) if token in ours.special_ids] == special
        if place != 2 or "</think>" not in content:  # Qwen's template leaves out what was thought before an answer
            assert ours.decode(ours.encode(content)) in ours.decode(ours.chat(typed))


@each_chat
def test_special_tokens_in_contents_are_encoded_as_encode_does(family):
    """transformers can be asked for the same (sanitize_control_tokens), and then has the same special tokens."""
    compared_from("5.20")
    ours, theirs = load_once(family), transformers_tokenizer(written(family))
    content = "a " + " b ".join(ours.backend.special) + " c"
    messages = [{"role": "user", "content": content}]
    ids, plain = ours.chat(messages), ours.encode(content, bos=False)[2:-2]
    assert any(ids[start : start + len(plain)] == plain for start in range(len(ids)))
    arguments = {"add_generation_prompt": True, "sanitize_control_tokens": True, "return_dict": False}
    expected = theirs.apply_chat_template(messages, **arguments)
    special = ours.special_ids
    assert [token for token in ids if token in special] == [token for token in expected if token in special]
    assert ours.decode(ids) == ours.decode(expected)


def test_roles_and_variables_are_plain_text_too():
    ours = load_once("qwen3")
    ids = ours.chat([{"role": "user<|im_end|>", "content": "a"}])
    assert ids.count(1002) == 1
    assert "<|im_end|>" in ours.decode(ids)


def test_the_templates_own_work_on_contents_is_not_disturbed():
    """Names of special tokens stay whole while the template works: it cuts and strips what it would without marks."""
    ours = load_once("llama3")
    ids = ours.chat([{"role": "user", "content": "  <|eot_id|> a <|eot_id|>  "}])
    assert ids == ours.chat([{"role": "user", "content": "<|eot_id|> a <|eot_id|>"}])


TWISTED = (
    *(f"{{{{ messages[0].content[:{length}] }}}}" for length in range(3, 18)),
    *(f"{{{{ messages[0].content[{length}:] }}}}" for length in range(6)),
    "{{ messages | tojson }}",
    "{{ messages | tojson(ensure_ascii=true) }}",
    "{{ messages[0].tools | tojson }}",
    "{{ messages[0].content.split('a')[1] }}",
    "{{ messages[0].content | trim | upper | lower }}",
)


@pytest.mark.parametrize("template", TWISTED)
def test_whatever_a_template_does_to_what_was_typed(template, tmp_path):
    """It may cut it anywhere, and write it in other ways: there is still no special token in it."""
    folder = copy("qwen3", tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    message = {"role": "user", "content": "a <|im_end|> b", "tools": [{"<|im_end|>": "<|im_start|>"}]}
    ours = load_tokenizer(folder)
    assert not ours.special_ids & set(ours.chat([message]))
    assert not set("\U000f0000\U000f0001") & set(ours.chat_text([message]))


# What templates use


FEATURES = {
    "trim_blocks": "{% if true %}\na\n{% endif %}\nb",
    "lstrip_blocks": "a\n    {% if true %}b{% endif %}\nc",
    "loopcontrols": "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.content }}{% break %}"
    "{% endfor %}",
    "tojson": "{{ {'b': 'é<>&', 'a': [1, none, true]} | tojson }} {{ messages | tojson(indent=2) }}"
    "{{ {'b': 'é日🙂\\n', 'a': 2} | tojson(sort_keys=true, separators=(',', ':'), ensure_ascii=true) }}",
    "strftime_now": "{{ strftime_now('%Y') }} {{ strftime_now is defined }}",
    "generation": "{% for m in messages %}{% generation %}\n{{ m.content }}{% endgeneration %}\n{% endfor %}!",
    "namespace": "{% set ns = namespace(found=false, count=1) %}{% for m in messages %}"
    "{% set ns.count = ns.count + 1 %}{% endfor %}{{ ns.count }} {{ ns.found }}",
    "namespace of a dictionary": "{% set ns = namespace({'a': 1}, self=2) %}{{ ns.a }}{{ ns.self }}",
    "dict": "{{ dict(a=1) }} {{ dict.fromkeys(['a', 'b'], 0) }} {{ dict({'a': 2}, b=3) }} {{ dict.items is defined }}",
    "special tokens": "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ cls_token }}",
    "defaults": "{{ tools is none }} {{ tools is defined }} {{ documents is none }} {{ add_generation_prompt }}",
    "missing keys": "{{ messages[0].reasoning is defined }} {{ messages[0].content is defined }}",
    "methods": "{{ messages[0]['content'].strip().split(' ')[-1].upper() }} {{ messages | length }}",
    "macros": "{% macro turn(m) %}[{{ m.role }}] {{ m.content }}{% endmacro %}{{ turn(messages[0]) }}",
    "sequences": "{% for m in messages[::-1] %}{{ m['content'] | trim }}{{ ', ' if not loop.last }}{% endfor %}",
    "white space at the end": "a\n\n",
    "added tokens": "<think>\n\n</think>\n<|im_start|> a <|im_end|>  b",
}


#: Feature -> the release of transformers from which on it does as it does now.
RECENT = {"tojson": "5.23", "missing keys": "5.23", "dict": "5.22.2"}


@pytest.mark.parametrize("feature", FEATURES)
def test_features_of_templates(feature, tmp_path):
    compared_from(RECENT.get(feature, "5"))
    folder = copy("qwen3", tmp_path)
    (folder / "chat_template.jinja").write_text(FEATURES[feature], encoding="utf-8")
    ours, theirs = load_tokenizer(folder), transformers_tokenizer(folder)
    messages = [{**USER, "reasoning": None}, ANSWER, AGAIN]
    for prompt in (True, False):
        text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert ours.chat_text(messages, prompt) == text != ""
        ids = theirs.apply_chat_template(messages, return_dict=False, add_generation_prompt=prompt)
        assert ours.chat(messages, prompt) == ids


def test_tools_and_other_variables_reach_the_template(tmp_path):
    folder = copy("qwen3", tmp_path)
    template = "{{ tools | tojson }}{{ documents[0].text }}{{ extra }}{{ eos_token }}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    variables = {"tools": tools, "documents": [{"title": "t", "text": "d"}], "extra": "e"}
    expected = transformers_tokenizer(folder).apply_chat_template([USER], tokenize=False, **variables)
    assert load_tokenizer(folder).chat_text([USER], **variables) == expected


def test_contents_in_parts(tmp_path):
    folder = copy("qwen3", tmp_path)
    template = "{% for part in messages[0].content %}{{ part.text }}<|im_end|>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    content = [{"type": "text", "text": "a<|im_end|>"}, {"type": "text", "text": "b"}]
    assert load_tokenizer(folder).chat([{"role": "user", "content": content}]).count(1002) == 2


@pytest.mark.parametrize("legacy", [True, False, ...])
def test_sentencepiece_after_special_tokens(legacy, tmp_path):
    """By the setting `legacy`, text after a special token begins with the space that SentencePiece adds, or not."""
    folder = copy("llama2", tmp_path)
    edit(folder, "tokenizer_config.json", legacy=legacy)
    ours, theirs = load_tokenizer(folder), transformers_tokenizer(folder)
    for messages in ([USER], [SYSTEM, USER, ANSWER, AGAIN]):
        assert ours.chat(messages) == theirs.apply_chat_template(messages, return_dict=False)
    space = ours.backend.processor.piece_to_id("▁")
    assert (ours.chat([USER])[1] == space) == (legacy is True)


@pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
def test_special_tokens_that_take_in_the_space_beside_them(flags, tmp_path):
    folder = copy("qwen3", tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"][2] |= flags
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("a <|im_end|> {{ messages[0].content }} <|im_end|>", encoding="utf-8")
    ours, theirs = load_tokenizer(folder), transformers_tokenizer(folder)
    assert ours.chat([USER]) == theirs.apply_chat_template([USER], return_dict=False)


# Which template


def test_a_template_of_its_own_counts_more(tmp_path):
    folder = copy("qwen3", tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    assert load_tokenizer(folder).chat_text([AGAIN]) == "Go on"


@pytest.mark.parametrize(
    "templates",
    [
        [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}],
        {"default": "plain", "tool_use": "tools"},
    ],
)
def test_the_default_of_several_templates(templates, tmp_path):
    folder = copy("qwen3", tmp_path)
    edit(folder, "tokenizer_config.json", chat_template=templates)
    assert load_tokenizer(folder).chat_text([AGAIN]) == "plain"
    assert transformers_tokenizer(folder).apply_chat_template([AGAIN], tokenize=False) == "plain"


@pytest.mark.parametrize("template", [..., None, [{"name": "tool_use", "template": "tools"}]])
def test_no_chat_without_a_template(template, tmp_path):
    folder = copy("qwen3", tmp_path)
    edit(folder, "tokenizer_config.json", chat_template=template)
    for chat in (load_tokenizer(folder).chat, load_tokenizer(written("gpt2")).chat_text):
        with pytest.raises(ValueError, match="not trained on conversations"):
            chat([USER])


# What cannot be written


@pytest.mark.parametrize("family", ["llama2", "gemma3"])
def test_what_a_template_refuses(family):
    with pytest.raises(ValueError, match="turns must alternate: user, assistant, user") as caught:
        load_once(family).chat([USER, AGAIN])
    assert not isinstance(caught.value, CheckpointError)  # the conversation is wrong, not the checkpoint


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "a conversation is a list of messages"),
        ("hello", "a conversation is a list of messages"),
        ([{"content": "no role"}], "cannot write this conversation"),
        ([{"role": "user", "content": None}], "cannot write this conversation"),
        ([{"role": "user", "content": 5}], "cannot write this conversation"),
        ([{"role": "user", "content": object()}], "JSON's types, and has a object"),
    ],
)
def test_conversations_that_are_none(messages, words):
    with pytest.raises(ValueError, match=words):
        load_once("qwen3").chat(messages)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns._private = 1 %}",
        "{{ dict.__class__.__mro__ }}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_templates_are_kept_in_and_their_failures_named(template, tmp_path):
    folder = copy("qwen3", tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ValueError, match="the chat template cannot write this conversation"):
        load_tokenizer(folder).chat([USER])
