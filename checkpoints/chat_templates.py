"""How each tiny checkpoint writes a conversation: Jinja templates, in the form its family is known for.

A template gets `messages` (each with a role and a content), `add_generation_prompt`, and the names of the special
tokens. A hyphen beside a tag (`{%-`, `-}}`) takes away the white space on that side, so that the templates can be
laid out to be read.
"""

#: Llama 2: a user's turn and its answer between the marks of one text; the system's words inside the first turn.
LLAMA2 = """\
{%- set instructions = '' -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set instructions = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] != ('user' if loop.index0 is even else 'assistant') -%}
        {{- raise_exception('turns must alternate: user, assistant, user, ...') -}}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
        {{- bos_token + '[INST] ' + (instructions if loop.first else '') + message['content'] | trim + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'] | trim + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}
"""

#: Llama 3: every message under a header with its role, ended by <|eot_id|>.
LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
    {{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

#: OLMo 3: ChatML, every message between <|im_start|> with its role and <|im_end|>.
OLMO3 = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

#: Qwen3: ChatML, too. What the model thought before an earlier answer is left out, and `enable_thinking=False` puts
#: an empty thought into its mouth, so that the answer comes at once.
QWEN3 = """\
{%- for message in messages -%}
    {%- set content = message['content'] -%}
    {%- if message['role'] == 'assistant' and '</think>' in content -%}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\\n\\n</think>\\n\\n' -}}
    {%- endif -%}
{%- endif -%}
"""

#: Gemma 3: turns of "user" and "model"; there is no system turn, its words open the first user's turn.
GEMMA3 = """\
{{- bos_token -}}
{%- set instructions = '' -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set instructions = messages[0]['content'] | trim + '\\n\\n' -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] != ('user' if loop.index0 is even else 'assistant') -%}
        {{- raise_exception('turns must alternate: user, assistant, user, ...') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('user' if message['role'] == 'user' else 'model') + '\\n' -}}
    {{- (instructions if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""
