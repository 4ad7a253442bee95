"""
Makes `recorded_runs.jsonl`, which notebook 04 audits: real agents over scripted models, recorded as they ran.

`python record_runs.py` writes the file anew. Nothing is random, so it comes out the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_openai_messages

from runrails.testing import ScriptedChatModel, Text, ToolCalls, ToolUse

FILE = Path(__file__).with_name("recorded_runs.jsonl")
MODEL = "gpt-4.1-mini"
RETRIES = 24


def recorded(run_id: str, messages: Sequence[BaseMessage]) -> str:
    """One line of a recording: the messages of a run in OpenAI's form, with what each answer used."""
    lines = []
    for message in messages:
        line = convert_to_openai_messages(message)
        if isinstance(message, AIMessage) and message.usage_metadata:
            used = message.usage_metadata
            tokens = {"prompt_tokens": used["input_tokens"], "completion_tokens": used["output_tokens"]}
            line |= {"model": message.response_metadata.get("model_name", MODEL), "usage": tokens}
        if isinstance(message, ToolMessage) and message.status == "error":
            line["status"] = "error"
        lines.append(line)
    return json.dumps({"id": run_id, "messages": lines}, ensure_ascii=False)


def play(run_id: str, task: str, answers: Sequence[Text | ToolCalls], *tools: Callable[..., str]) -> str:
    """An agent that does what the answers say, recorded."""
    model = ScriptedChatModel(list(answers), model_name=MODEL, provider="openai", max_tokens=500)
    agent = create_agent(model, list(tools))
    return recorded(run_id, agent.invoke({"messages": [("user", task)]})["messages"])


def calls(name: str, arguments: Sequence[dict[str, object]], thought: str) -> list[Text | ToolCalls]:
    """One tool call after the other, and a last word."""
    asked = [
        ToolCalls([ToolUse(name, given, id=f"{name}-{place}")], text=f"{thought} ({place})")
        for place, given in enumerate(arguments, start=1)
    ]
    return [*asked, Text("That is all.")]


def runs() -> Iterator[str]:
    """Every run of the file."""
    topics = {"R1": "delivery", "R2": "billing", "R4": "product"}

    def classify_review(review_id: str, reason: str = "") -> str:
        """Tell what a review is about."""
        return topics.get(review_id, "no result")

    def search_orders(page: int) -> str:
        """Search the orders, a page at a time."""
        return f'{{"page": {page}, "orders": ["A-{page * 3}", "A-{page * 3 + 1}"]}}'

    left = iter((7, 7, 3, 1, 0))

    def run_tests() -> str:
        """Run the tests."""
        return f"{next(left)} failing"

    states = iter(["running"] * 9 + ["done"])

    def get_export(export_id: str) -> str:
        """Tell how far an export is."""
        return f'{{"export": "{export_id}", "state": "{next(states)}"}}'

    def read_file(path: str) -> str:
        """Read a file."""
        return "FileNotFoundError: " + path

    def list_folder(path: str) -> str:
        """List a folder."""
        return "[]"

    ask = "Classify the reviews."
    yield play(
        "reviews", ask, calls("classify_review", [{"review_id": name} for name in topics], "Next"), classify_review
    )
    again: list[dict[str, object]] = [{"review_id": "R3"}] * RETRIES
    yield play("stuck", ask, calls("classify_review", again, "Once more"), classify_review)
    excuses = [
        {"review_id": "R3", "reason": f"{how} {why}"}
        for why in ("because it is needed", "since it is missing", "as the report is due")
        for how in ("again", "once more", "a last time", "with care", "from the start", "anew")
    ]
    yield play("excuses", ask, calls("classify_review", list(excuses), "Let me try"), classify_review)
    pages: list[dict[str, object]] = [{"page": page} for page in range(1, 13)]
    yield play("paging", "Find the order.", calls("search_orders", pages, "Next page"), search_orders)
    yield play("debugging", "Make the tests pass.", calls("run_tests", [{}] * 5, "I changed a line"), run_tests)
    waits: list[dict[str, object]] = [{"export_id": "E-1"}] * 10
    yield play("export", "Fetch the export.", calls("get_export", waits, "Is it ready?"), get_export)
    circle: list[Text | ToolCalls] = []
    for place in range(1, 13):
        path = {"path": "src/main.py"} if place % 2 else {"path": "src"}
        use = ToolUse("read_file" if place % 2 else "list_folder", path, id=f"step-{place}")
        circle.append(ToolCalls([use], text=f"Where is it? ({place})"))
    yield play("circle", "Fix the bug.", [*circle, Text("I could not find it.")], read_file, list_folder)


if __name__ == "__main__":
    FILE.write_text("".join(line + "\n" for line in runs()), encoding="utf-8")
