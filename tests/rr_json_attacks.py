"""JSON that must be refused and why, and JSON that looks odd and must be read."""

from __future__ import annotations

import json
from typing import Any

from runrails_gateway.jsonin import DEPTH_MAX, DIGITS_MAX

CANARY = "rr_live_canary5f0c"
"""Stands in every attack; it must stand in no error."""
C = CANARY.encode()


def chat(n: int, chars: int) -> bytes:
    """A conversation as clients send it."""
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": ('é "x"\n' + "word " * chars)[:chars]} for i in range(n)
    ]
    body = {"model": "gpt-4o", "messages": messages, "max_tokens": 100, "temperature": 0.2, "stream": True}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An object with something nested in it: `depth` levels in all."""
    return b'{"' + C + b'":' + opening * (depth - 1) + closing * (depth - 1) + b"}"


DENSE = b",".join([b"17"] * 3_000)
"""Enough numbers that a body is read as one of numbers."""

ATTACKS: dict[str, tuple[bytes, str]] = {
    # A member twice, anywhere and however it is written.
    "twice_at_the_top": (b'{"model":"a","model":"%b"}' % C, "duplicate_member"),
    "twice_the_same": (b'{"k":"%b","k":"%b"}' % (C, C), "duplicate_member"),
    "twice_inside": (b'{"a":{"%b":1,"%b":2}}' % (C, C), "duplicate_member"),
    "twice_in_a_list": (b'{"a":[1,{"b":1,"c":"%b","b":2}]}' % C, "duplicate_member"),
    "twice_deep_down": (b'{"a":[[[{"b":[{"x":1,"x":"%b"}]}]]]}' % C, "duplicate_member"),
    "twice_once_escaped": (b'{"max_tokens":1,"max_tok\\u0065ns":99999,"c":"%b"}' % C, "duplicate_member"),
    "twice_both_escaped": (b'{"\\u0061":1,"\\u0061":2,"c":"%b"}' % C, "duplicate_member"),
    "twice_escaped_slash": (b'{"a/b":1,"a\\/b":"%b"}' % C, "duplicate_member"),
    "twice_the_empty_name": (b'{"":1,"":"%b"}' % C, "duplicate_member"),
    "twice_with_space_between": (b'{"a" :1, "a"\n:"%b"}' % C, "duplicate_member"),
    "twice_null_wins": (b'{"max_tokens":5,"c":"%b","max_tokens":null}' % C, "duplicate_member"),
    "twice_after_a_nest": (b'{"a":{"b":1},"a":{"%b":2}}' % C, "duplicate_member"),
    "thrice": (b'{"a":1,"a":2,"a":"%b"}' % C, "duplicate_member"),
    "twice_with_surrogates": (b'{"\xf0\x9f\x98\x80":1,"\\ud83d\\ude00":"%b"}' % C, "duplicate_member"),
    "twice_proto": (b'{"__proto__":1,"__proto__":"%b"}' % C, "duplicate_member"),
    "twice_in_a_list_of_numbers": (b'{"input":[%b],"model":"a","model":"%b"}' % (DENSE, C), "duplicate_member"),
    # What JSON does not know.
    "nan": (b'{"a":NaN,"c":"%b"}' % C, "not_a_number"),
    "infinity": (b'{"a":Infinity,"c":"%b"}' % C, "not_a_number"),
    "minus_infinity": (b'{"a":[-Infinity],"c":"%b"}' % C, "not_a_number"),
    "nan_among_numbers": (b'{"a":[%b,NaN],"c":"%b"}' % (DENSE, C), "not_a_number"),
    "lower_case_nan": (b'{"a":nan,"c":"%b"}' % C, "invalid_json"),
    "upper_case_true": (b'{"a":True,"c":"%b"}' % C, "invalid_json"),
    "none": (b'{"a":None,"c":"%b"}' % C, "invalid_json"),
    "undefined": (b'{"a":undefined,"c":"%b"}' % C, "invalid_json"),
    "single_quotes": (b"{'a':'%b'}" % C, "invalid_json"),
    "no_quotes": (b"{%b:1}" % C, "invalid_json"),
    "a_number_as_a_name": (b'{1:"%b"}' % C, "invalid_json"),
    "comma_at_the_end": (b'{"a":"%b",}' % C, "invalid_json"),
    "comma_at_a_lists_end": (b'{"a":[1,],"c":"%b"}' % C, "invalid_json"),
    "comma_at_the_start": (b'{,"a":"%b"}' % C, "invalid_json"),
    "two_commas": (b'{"a":1,,"b":"%b"}' % C, "invalid_json"),
    "no_comma": (b'{"a":1 "b":"%b"}' % C, "invalid_json"),
    "no_colon": (b'{"a" "%b"}' % C, "invalid_json"),
    "line_comment": (b'{"a":"%b"} // c' % C, "invalid_json"),
    "block_comment": (b'{/* %b */"a":1}' % C, "invalid_json"),
    "hash_comment": (b'{"a":"%b"}\n# c' % C, "invalid_json"),
    "plus_sign": (b'{"a":+1,"c":"%b"}' % C, "invalid_json"),
    "leading_zero": (b'{"a":01,"c":"%b"}' % C, "invalid_json"),
    "hexadecimal": (b'{"a":0x10,"c":"%b"}' % C, "invalid_json"),
    "no_digit_before_the_point": (b'{"a":.5,"c":"%b"}' % C, "invalid_json"),
    "no_digit_after_the_point": (b'{"a":5.,"c":"%b"}' % C, "invalid_json"),
    "half_an_exponent": (b'{"a":5e,"c":"%b"}' % C, "invalid_json"),
    "underscore_in_a_number": (b'{"a":1_0,"c":"%b"}' % C, "invalid_json"),
    "raw_newline_in_a_string": (b'{"a":"\n%b"}' % C, "invalid_json"),
    "raw_tab_in_a_string": (b'{"a":"\t%b"}' % C, "invalid_json"),
    "raw_nul_in_a_string": (b'{"a":"\x00%b"}' % C, "invalid_json"),
    "nul_after_it": (b'{"a":"%b"}\x00' % C, "invalid_json"),
    "unknown_escape": (b'{"a":"\\x41%b"}' % C, "invalid_json"),
    "half_an_escape": (b'{"a":"\\u12","c":"%b"}' % C, "invalid_json"),
    "escape_with_other_letters": (b'{"a":"\\u00zz%b"}' % C, "invalid_json"),
    "string_without_an_end": (b'{"a":"%b' % C, "invalid_json"),
    "object_without_an_end": (b'{"a":"%b"' % C, "invalid_json"),
    "list_without_an_end": (b'{"a":["%b"' % C, "invalid_json"),
    "wrong_bracket": (b'{"a":["%b"}]' % C, "invalid_json"),
    "another_object_after_it": (b'{"a":1}{"%b":2}' % C, "invalid_json"),
    "a_line_after_it": (b'{"a":1}\n{"%b":2}' % C, "invalid_json"),
    "a_brace_after_it": (b'{"a":"%b"}}' % C, "invalid_json"),
    "text_before_it": (b'%b{"a":1}' % C, "invalid_json"),
    "form_feed_as_space": (b'{"a":\x0c"%b"}' % C, "invalid_json"),
    "no_break_space": (b'{"a":\xc2\xa0"%b"}' % C, "invalid_json"),
    "nothing": (b"", "invalid_json"),
    "space": (b" \r\n\t", "invalid_json"),
    "a_form": (b"model=a&key=%b" % C, "invalid_json"),
    "xml": (b"<a>%b</a>" % C, "invalid_json"),
    # Not UTF-8, or not only.
    "byte_order_mark": (b'\xef\xbb\xbf{"a":"%b"}' % C, "byte_order_mark"),
    "utf16": (f'{{"a":"{CANARY}"}}'.encode("utf-16"), "not_utf8"),
    "utf16_without_a_mark": (f'{{"a":"{CANARY}"}}'.encode("utf-16-le"), "invalid_json"),
    "utf32": (f'{{"a":"{CANARY}"}}'.encode("utf-32-be"), "invalid_json"),
    "latin1": (b'{"a":"caf\xe9 %b"}' % C, "not_utf8"),
    "overlong_slash": (b'{"a":"\xc0\xaf%b"}' % C, "not_utf8"),
    "overlong_quote": (b'{"a":"\xc0\xa2%b"}' % C, "not_utf8"),
    "above_unicode": (b'{"a":"\xf4\x90\x80\x80%b"}' % C, "not_utf8"),
    "half_a_character": (b'{"a":"%b\xe2\x82"}' % C, "not_utf8"),
    "a_lone_continuation": (b'{"a":"\x80%b"}' % C, "not_utf8"),
    # Half of a pair.
    "raw_high_surrogate": (b'{"a":"\xed\xa0\xbd%b"}' % C, "not_utf8"),
    "raw_low_surrogate": (b'{"a":"\xed\xb8\x80%b"}' % C, "not_utf8"),
    "raw_pair_cesu8": (b'{"a":"\xed\xa0\xbd\xed\xb8\x80%b"}' % C, "not_utf8"),
    "high_surrogate": (b'{"a":"\\ud83d%b"}' % C, "lone_surrogate"),
    "low_surrogate": (b'{"a":"\\ude00%b"}' % C, "lone_surrogate"),
    "upper_case_surrogate": (b'{"a":"\\uD83D%b"}' % C, "lone_surrogate"),
    "two_high_surrogates": (b'{"a":"\\ud83d\\ud83d%b"}' % C, "lone_surrogate"),
    "wrong_way_round": (b'{"a":"\\ude00\\ud83d%b"}' % C, "lone_surrogate"),
    "high_then_text": (b'{"a":"\\ud83d\\u0041%b"}' % C, "lone_surrogate"),
    "high_then_backslash": (b'{"a":"\\ud83d\\\\ude00%b"}' % C, "lone_surrogate"),
    "after_a_whole_pair": (b'{"a":"\\ud83d\\ude00\\ud83d%b"}' % C, "lone_surrogate"),
    "after_a_backslash": (b'{"a":"\\\\\\ud83d%b"}' % C, "lone_surrogate"),
    "in_a_name": (b'{"\\ud83d":"%b"}' % C, "lone_surrogate"),
    "at_the_end": (b'{"c":"%b","a":"\\ud83d"}' % C, "lone_surrogate"),
    "deep_down": (b'{"a":[{"b":["\\udfff%b"]}]}' % C, "lone_surrogate"),
    # Depth.
    "one_level_too_many": (nested(DEPTH_MAX + 1), "too_deep"),
    "objects_too_deep": (b'{"a":' * DEPTH_MAX + b'{"%b":1}' % C + b"}" * DEPTH_MAX, "too_deep"),
    "a_thousand_lists": (nested(1_000), "too_deep"),
    "a_hundred_thousand_lists": (nested(100_000), "too_deep"),
    "a_hundred_thousand_objects": (b'{"%b":' % C + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "too_deep"),
    "lists_without_an_end": (b'{"%b":' % C + b"[" * 1_000_000, "too_deep"),
    "deep_among_numbers": (b'{"a":[%b],"%b":' % (DENSE, C) + b"[" * 70 + b"]" * 70 + b"}", "too_deep"),
    "deep_behind_many_messages": (chat(200, 10)[:-1] + b',"%b":' % C + b"[" * 64 + b"]" * 64 + b"}", "too_deep"),
    # Numbers.
    "a_digit_too_many": (b'{"a":1%b,"c":"%b"}' % (b"0" * DIGITS_MAX, C), "number_too_large"),
    "negative_with_too_many": (b'{"a":-1%b,"c":"%b"}' % (b"0" * DIGITS_MAX, C), "number_too_large"),
    "five_thousand_digits": (b'{"a":%b,"c":"%b"}' % (b"7" * 5_000, C), "number_too_large"),
    "a_million_digits": (b'{"a":%b,"c":"%b"}' % (b"7" * 1_000_000, C), "number_too_large"),
    "a_million_decimals": (b'{"a":0.%b,"c":"%b"}' % (b"7" * 1_000_000, C), "number_too_large"),
    "a_great_exponent": (b'{"a":1e999,"c":"%b"}' % C, "number_too_large"),
    "a_great_negative": (b'{"a":-1e999,"c":"%b"}' % C, "number_too_large"),
    "a_long_exponent": (b'{"a":1e%b,"c":"%b"}' % (b"9" * 1_000, C), "number_too_large"),
    "many_digits_among_numbers": (b'{"a":[%b,%b],"c":"%b"}' % (DENSE, b"7" * 50, C), "number_too_large"),
    "a_great_exponent_among_numbers": (b'{"a":[%b,1e999],"c":"%b"}' % (DENSE, C), "number_too_large"),
    # Something else than an object.
    "a_list": (b'["%b"]' % C, "not_an_object"),
    "a_string": (b'"%b"' % C, "not_an_object"),
    "a_number": (b"17", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "true": (b"true", "not_an_object"),
    "a_list_of_one_object": (b'[{"a":"%b"}]' % C, "not_an_object"),
}

TAKEN: dict[str, tuple[bytes, Any]] = {
    "empty": (b"{}", {}),
    "space_around": (b' \r\n\t{ "a" : [ 1 , 2 ] }\n', {"a": [1, 2]}),
    "a_pair": (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    "an_upper_case_pair": (b'{"a":"\\uD83D\\uDE00"}', {"a": "\U0001f600"}),
    "pairs_in_a_row": (b'{"a":"\\ud83d\\ude00\\ud83d\\ude01"}', {"a": "\U0001f600\U0001f601"}),
    "an_escaped_backslash_before_a_u": (b'{"a":"\\\\ud83d"}', {"a": "\\ud83d"}),
    "two_of_them": (b'{"a":"\\\\\\\\ud83d"}', {"a": "\\\\ud83d"}),
    "a_word_with_ud": (b'{"a":"\\u0041 \\\\ude00"}', {"a": "A \\ude00"}),
    "an_escaped_nul": (b'{"a":"\\u0000"}', {"a": "\0"}),
    "raw_unicode": ('{"ä":"\U0001f600"}'.encode(), {"ä": "\U0001f600"}),
    "forty_digits": (b'{"a":%b}' % (b"9" * DIGITS_MAX), {"a": int("9" * DIGITS_MAX)}),
    "sixty_four_bits": (b'{"a":18446744073709551615,"b":-9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
    "floats": (b'{"a":0.10,"b":1E5,"c":-2.5e-3,"d":1e-999}', {"a": 0.1, "b": 1e5, "c": -0.0025, "d": 0.0}),
    "minus_zero": (b'{"a":-0}', {"a": 0}),
    "the_deepest": (nested(DEPTH_MAX), None),
    "the_same_name_in_two_objects": (b'[{"a":1},{"a":2}]'.join([b'{"a":', b"}"]), {"a": [{"a": 1}, {"a": 2}]}),
    "names_that_differ_in_case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "digits_in_a_string": (b'{"a":"%b"}' % (b"7" * 100_000), None),
    "digits_in_a_string_among_numbers": (b'{"a":[%b],"b":"%b"}' % (DENSE, b"7" * 100), None),
    "numbers": (b'{"input":[%b]}' % DENSE, {"input": [17] * 3_000}),
    "a_conversation": (chat(100, 200), None),
    "words_that_are_no_constants": (b'{"a":"NaN","b":"Infinity"}', {"a": "NaN", "b": "Infinity"}),
}
