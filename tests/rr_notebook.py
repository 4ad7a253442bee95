"""What the notebook tests share: a kernel in a process of its own, a provider for it, and a shell in this process."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from rr_autoguard import PRICES
from runrails.ledger import UsageRecord
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import FakeProvider
from runrails.testing.provider.script import ScriptFunction
from runrails.testing.provider.stories import echo

CENT = 10**10
STARTS_MAX = 3
"""Jupyter gives a kernel ports that were free a moment ago. Where somebody has taken one meanwhile, it dies."""
ASK = """
from openai import OpenAI
client = OpenAI(max_retries=0)
def ask(client=client):
    said = [{"role": "user", "content": "hi"}]
    return client.chat.completions.create(model="fake-flat", messages=said, max_tokens=16).choices[0].message.content
"""
"""How a notebook asks a model whose every call costs a cent."""
AGENT = '''
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
@tool
def search(q: str) -> str:
    """Search."""
    return "no result"
agent = create_agent(ChatOpenAI(model="fake-model", max_retries=0, max_tokens=50), [search])
question = {"messages": [("user", "find x")]}
'''
"""An agent that never gives up, if the provider's script is `never_gives_up`."""


class Ran(NamedTuple):
    """What came of a cell."""

    status: str
    """`ok`, `error` or `aborted`, as nbclient and `Run all` see it."""
    ename: str
    evalue: str
    messages: list[dict[str, Any]]
    """On the cell's own channel, in order; updates of displays as well."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The contents of messages of one kind."""
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    @property
    def out(self) -> str:
        """What was printed, on either stream."""
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def displays(self) -> list[str]:
        """What was displayed, as text: first, and after each update."""
        kinds = ("display_data", "update_display_data")
        return [m["content"]["data"]["text/plain"] for m in self.messages if m["msg_type"] in kinds]

    @property
    def result(self) -> str:
        """The value of the last line."""
        return "".join(content["data"]["text/plain"] for content in self.of("execute_result"))


class Kernel:
    """A real ipykernel with a ledger, prices and a fake provider. `with` starts and ends it."""

    def __init__(self, folder: Path, script: ScriptFunction = echo, **environment: str) -> None:
        self.script = script
        self.provider = FakeProvider(lambda request: self.script(request))  # noqa: PLW0108 -- whatever it is by then
        self.ledger = folder / "ledger.db"
        (folder / "runrails.toml").write_text(PRICES, encoding="utf-8")
        self._folder, self._environment = folder, environment
        self.manager = KernelManager(kernel_name="python3")
        self.client: BlockingKernelClient

    def __enter__(self) -> Self:
        self.provider.start()
        self._start(self.manager.start_kernel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.stop_channels()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.manager.shutdown_kernel(now=True)
            self.manager.cleanup_resources()
        self.provider.close()

    def restart_killed(self) -> None:
        """Another kernel in the place of this one, which is killed at once: Jupyter itself would interrupt it first."""
        self.client.stop_channels()
        self.manager.signal_kernel(signal.SIGKILL)
        self._start(lambda **settings: self.manager.restart_kernel(now=True, **settings))

    def run(self, code: str, *, timeout_s: float = 100) -> Ran:
        """Execute a cell to its end. Older kernels take nothing just after an error: what they drop is sent again."""
        while (ran := self.finish(self.begin(code), timeout_s=timeout_s)).status == "aborted":
            time.sleep(0.01)
        return ran

    def begin(self, code: str) -> str:
        """Start to execute a cell."""
        return self.client.execute(code, store_history=True)

    def finish(self, message: str, *, timeout_s: float = 100) -> Ran:
        """Wait for the end of a cell."""
        deadline, messages = time.monotonic() + timeout_s, list[dict[str, Any]]()
        while True:
            heard = self.client.get_iopub_msg(timeout=deadline - time.monotonic())
            if heard["parent_header"].get("msg_id") == message:
                messages.append(heard)
                if heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle":
                    break
        while True:
            reply = self.client.get_shell_msg(timeout=deadline - time.monotonic())
            if reply["parent_header"].get("msg_id") == message:
                break
        content = reply["content"]
        return Ran(content["status"], content.get("ename", ""), content.get("evalue", ""), messages)

    def records(self) -> list[UsageRecord]:
        """Every call in the ledger."""
        store = SQLiteStore(self.ledger)
        try:
            return list(store.usage())
        finally:
            store.close()

    def _start(self, start: Any) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RUNRAILS_")},
            "OPENAI_BASE_URL": self.provider.openai_url, "OPENAI_API_KEY": "k",
            "RUNRAILS_STORE": f"sqlite:///{self.ledger}", "RUNRAILS_PRICES": str(self._folder / "runrails.toml"),
            "IPYTHONDIR": str(self._folder / "ipython"), "PYTHONPATH": os.pathsep.join(sys.path), **self._environment,
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for left in range(STARTS_MAX - 1, -1, -1):
                start(env=environment, cwd=str(self._folder))
                self.client = self.manager.blocking_client()
                self.client.start_channels()
                try:
                    self.client.wait_for_ready(timeout=100)
                    break
                except RuntimeError as error:
                    if not left or "Kernel died before" not in str(error):
                        raise
                self.client.stop_channels()
                self.manager.cleanup_resources()
                self.manager = KernelManager(kernel_name="python3")
                start = self.manager.start_kernel
