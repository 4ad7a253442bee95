"""Requests of both vendors' HTTP: plain ones, full ones, malformed ones, and ones whose cost nobody can bound."""

from __future__ import annotations

from typing import Any

HI: Any = [{"role": "user", "content": "hi"}]
CANARY = "canary-9b1d"
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "fake-model", "messages": HI},
    "responses": {"model": "fake-model", "input": "hi"},
    "embeddings": {"model": "fake-embedding", "input": "hi"},
    "messages": {"model": "fake-model", "messages": HI, "max_tokens": 100},
    "count_tokens": {"model": "fake-model", "messages": HI},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CLAUDE_TOOL = {"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
CALLED = [
    *HI,
    {"role": "assistant", "content": None,
     "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
]  # fmt: skip

BAD_NAMES: dict[str, object] = {
    "up": "../admin", "up_inside": "a/../../b", "up_at_the_end": "a/..", "here": "./a", "hidden": "a/.b",
    "rooted": "/etc/passwd", "two_slashes": "a//b", "slash_at_the_end": "a/", "backslash": "a\\..\\b",
    "escaped": "a%2f..%2fb", "escaped_dot": "%2e%2e/a", "query": "a?key=1", "fragment": "a#b", "space": "a b",
    "newline": "a\n", "carriage_return": "a\r\nHost: b", "nul": "a\0b", "tab": "\ta", "escape": "\x1b[31m",
    "delete": "a\x7f", "umlaut": "modèle", "full_width": "ｇpt-4o", "rtl": "a\u202eb", "emoji": "\U0001f600",
    "too_long": "a" * 257, "a_megabyte": "a" * 1_000_000, "quote": 'a"b', "brace": "a{b}", "star": "*", "dash": "-a",
    "empty": "", "missing": None, "a_number": 4, "a_list": ["gpt-4o"], "an_object": {"a": 1}, "true": True,
    "semicolon": "a;b", "ampersand": "a&b", "angle": "<a>", "dollar": "${a}", "at_dot": "a/./b",
}  # fmt: skip


_LISTS: list[object] = ["hi", 5, {"role": "user"}, True, None, []]
MALFORMED: dict[str, tuple[str, dict[str, object], str]] = {
    **{f"chat_messages_{i}": ("chat", {"messages": value}, "messages") for i, value in enumerate(_LISTS)},
    **{f"messages_messages_{i}": ("messages", {"messages": value}, "messages") for i, value in enumerate(_LISTS)},
    **{f"count_messages_{i}": ("count_tokens", {"messages": value}, "messages") for i, value in enumerate(_LISTS)},
    **{f"input_{i}": ("responses", {"input": value}, "input") for i, value in enumerate(_LISTS[1:])},
    **{f"embedded_{i}": ("embeddings", {"input": value}, "input") for i, value in enumerate(_LISTS[1:])},
    **{
        f"{dialect}_stream_{i}": (dialect, {"stream": value}, "stream")
        for dialect in ("chat", "responses", "messages", "embeddings")
        for i, value in enumerate((1, "true", "yes", [True]))
    },
    **{
        f"{dialect}_{name}_{i}": (dialect, {name: value}, name)
        for dialect, name in (
            ("chat", "max_tokens"), ("chat", "max_completion_tokens"), ("responses", "max_output_tokens"),
            ("messages", "max_tokens"),
        )
        for i, value in enumerate((0, -1, 1.5, 100.0, "100", True, [5], 2**31, 10**39))
    },
    **{f"n_{i}": ("chat", {"n": value}, "n") for i, value in enumerate((0, -1, 129, 1.0, "2", True, 10**30))},
    "no_cap_for_anthropic": ("messages", {"max_tokens": None}, "max_tokens"),
    "two_caps": ("chat", {"max_tokens": 1, "max_completion_tokens": 9_999}, "max_completion_tokens"),
    "tools_no_list": ("chat", {"tools": {"type": "web_search"}}, "tools"),
    "functions_no_list": ("chat", {"functions": "f"}, "functions"),
    "tools_no_list_in_responses": ("responses", {"tools": {"type": "web_search"}}, "tools"),
    "tools_no_list_in_messages": ("messages", {"tools": "web_search"}, "tools"),
    "stream_options_no_object": ("chat", {"stream": True, "stream_options": [True]}, "stream_options"),
    "instructions_no_text": ("responses", {"instructions": [{"type": "input_text"}]}, "instructions"),
    "system_no_text": ("messages", {"system": 5}, "system"),
    "background": ("responses", {"background": True}, "background"),
    "background_like": ("responses", {"background": "yes"}, "background"),
    "conversation": ("responses", {"conversation": "conv_1"}, "conversation"),
    "conversation_object": ("responses", {"conversation": {"id": "conv_1"}}, "conversation"),
    "prompt": ("responses", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    "thread": ("messages", {"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
    "streamed_embeddings": ("embeddings", {"stream": True}, "stream"),
    **{
        f"previous_{i}": ("responses", {"previous_response_id": value}, "previous_response_id")
        for i, value in enumerate((5, "", "a b", "../x", "resp\n", "é", "x" * 257, ["resp_1"], True))
    },
}  # fmt: skip


UNBOUNDED: dict[str, tuple[str, dict[str, object]]] = {
    "chat_search": ("chat", {"web_search_options": {}}),
    "chat_xai_search": ("chat", {"search_parameters": {"mode": "on"}}),
    "chat_qwen_search": ("chat", {"enable_search": True}),
    "chat_openrouter_plugins": ("chat", {"plugins": [{"id": "web"}]}),
    "chat_openrouter_fallbacks": ("chat", {"models": ["fake-model", "dear-model"]}),
    "chat_audio": ("chat", {"audio": {"voice": "a", "format": "mp3"}, "modalities": ["text", "audio"]}),
    "chat_prediction": ("chat", {"prediction": {"type": "content", "content": "x"}}),
    "chat_hosted_tool": ("chat", {"tools": [{"type": "web_search"}]}),
    "chat_unknown_block": ("chat", {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}),
    "chat_untyped_block": ("chat", {"messages": [{"role": "user", "content": [{"kind": CANARY}]}]}),
    "chat_file": ("chat", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
    "chat_audio_in": ("chat", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
    "chat_message_no_object": ("chat", {"messages": ["hi"]}),
    "chat_content_a_number": ("chat", {"messages": [{"role": "user", "content": [5]}]}),
    "chat_type_with_a_secret": ("chat", {"messages": [{"role": "user", "content": [{"type": f"X {CANARY}"}]}]}),
    "chat_tool_with_a_secret": ("chat", {"tools": [{"type": f"X {CANARY}"}]}),
    **{
        f"responses_{kind}": ("responses", {"tools": [{"type": kind}]})
        for kind in ("web_search", "web_search_preview", "file_search", "code_interpreter", "image_generation", "mcp",
                     "computer_use_preview", "local_shell", "shell", "tool_search", "new_in_2027")
    },
    "responses_file": ("responses", {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
    "responses_unknown_item": ("responses", {"input": [{"type": "compaction_trigger"}]}),
    "responses_tools_in_the_input": ("responses", {"input": [{"type": "additional_tools", "role": "developer"}]}),
    "responses_compaction": ("responses", {"context_management": [{"type": "compaction"}]}),
    "messages_mcp": ("messages", {"mcp_servers": [{"type": "url"}]}),
    "messages_container": ("messages", {"container": "c"}),
    "messages_fallbacks": ("messages", {"fallbacks": [{"model": "dear-model"}]}),
    "messages_compaction": ("messages", {"compaction": {"type": "x"}}),
    "messages_compacting_edit": ("messages", {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
    "messages_search": ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    "messages_fetch": ("messages", {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    "messages_code": ("messages", {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}),
    "messages_pdf": ("messages", {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}),
    "messages_unknown_block": ("messages", {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}),
    "messages_fast": ("messages", {"speed": "fast"}),
    "messages_place": ("messages", {"inference_geo": "us"}),
    "embedded_object": ("embeddings", {"input": [{"type": "image_url"}]}),
    "deep_blocks": ("messages", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [
        {"type": "tool_result", "content": [{"type": "tool_result", "content": [{"type": "tool_result", "content": [
            {"type": "tool_result", "content": [{"type": "tool_result", "content": [{"type": "tool_result", "content": [
                {"type": "tool_result", "content": [{"type": "tool_result", "content": [
                    {"type": "tool_result", "content": []}]}]}]}]}]}]}]}]}]}]}]}),
}  # fmt: skip


ODD: list[object] = [
    None,
    True,
    False,
    0,
    -5,
    1.5,
    10**30,
    "",
    "x",
    [],
    [1],
    ["x"],
    [[]],
    {},
    {"a": 1},
    [{}],
    {"type": []},
]
_CLAUDE_TURNS = [
    {"role": "user", "content": [
        {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
    ]},
    {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "x", "signature": "y"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    ]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "42"}], "is_error": False},
    ]},
]  # fmt: skip
FULL: dict[str, dict[str, Any]] = {
    "chat": {
        **BODIES["chat"], "messages": [
            *CALLED, {"role": "user", "name": "a", "content": [
                {"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
            ]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None, "audio": None},
        ],
        "tools": [TOOL, {"type": "custom", "custom": {"name": "c"}}], "tool_choice": {"type": "function"},
        "stream": True, "functions": [{"name": "g"}], "response_format": {"type": "json_object"}, "n": 2,
        "max_tokens": 50, "stream_options": {"include_usage": False}, "service_tier": "auto", "reasoning_effort": "low",
    },
    "responses": {
        **BODIES["responses"], "instructions": "brief", "stream": True, "max_output_tokens": 50, "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "data:,"},
            ]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": "z"},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "42"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
            {"type": "item_reference", "id": "msg_1"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}], "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low"}, "previous_response_id": "resp_1", "service_tier": "auto", "background": False,
    },
    "embeddings": {**BODIES["embeddings"], "input": ["a", "b"], "dimensions": 4},
    "messages": {
        **BODIES["messages"], "messages": _CLAUDE_TURNS, "system": [{"type": "text", "text": "brief"}], "stream": True,
        "tools": [CLAUDE_TOOL, {"type": "bash_20250124", "name": "bash"}], "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 1_024}, "output_config": {"effort": "low"},
        "speed": "standard", "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "service_tier": "auto",
    },
    "count_tokens": {**BODIES["count_tokens"], "messages": _CLAUDE_TURNS, "system": "brief", "tools": [CLAUDE_TOOL]},
}  # fmt: skip


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where every part of it is."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, part in parts:
        found += places(part, (*path, key))
    return found


def with_part(value: Any, path: tuple[str | int, ...], part: object) -> Any:
    """A copy with another part at that place."""
    if not path:
        return part
    copied = value.copy()
    copied[path[0]] = with_part(value[path[0]], path[1:], part)
    return copied
