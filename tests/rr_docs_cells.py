"""
Runs the IPython blocks of a page as cells of one session, in a process of its own: the extension guards every client
that there is in a process, those of other tests too.

    python tests/rr_docs_cells.py docs/start/notebook.md
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from langchain.agents import create_agent
from traitlets.config import Config

from rr_docs import blocks
from runrails import Guard
from runrails.testing import PRICES, ScriptedChatModel


def given(folder: Path) -> dict[str, object]:
    """What the examples take for given: an agent, its model and tools, and a guard. The model is a fake one."""
    prices = folder / "prices.toml"
    card = PRICES["fake-model"]
    prices.write_text(f'[prices."fake-model"]\ninput = "{card.input}"\noutput = "{card.output}"\n', encoding="utf-8")
    os.environ |= {"RUNRAILS_PRICES": str(prices), "OPENAI_API_KEY": "sk-never-sent"}
    os.chdir(folder)
    model = ScriptedChatModel("Hello.", max_tokens=64)
    return {
        "agent": create_agent(model, tools=[]), "model": model, "tools": [], "inputs": {"messages": [("user", "hi")]},
        "guard": Guard(user="alice"),
    }  # fmt: skip


def main(page: str) -> None:
    """Every block, or an error."""
    shell = InteractiveShell(user_ns=given(Path.cwd()), config=Config({"HistoryManager": {"enabled": False}}))
    for block in blocks(page):
        if block.language == "ipython":
            shell.run_cell(block.text, store_history=False).raise_error()


if __name__ == "__main__":
    main(sys.argv[1])
