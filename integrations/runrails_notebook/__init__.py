"""
runrails for IPython and Jupyter: `%load_ext runrails_notebook` guards the whole kernel with one budget.

What a cell does is a run of its own inside the kernel's: clients of openai, anthropic and boto3, made before or after,
and everything LangChain runs. `%guardrails --budget 10` sets the kernel's budget, `%guardrails table` shows what each
cell has cost, `%%guarded --run 0.50` gives one cell a budget of its own.

Threads have no context of their own: what they call while a cell works counts for that cell. What goes on after its
cell has ended (an asyncio task, a thread) counts for the kernel, in a run beside those of the cells. Processes that are
started from a notebook are guarded only if their environment says so; see `runrails.autoguard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_notebook.kernel import KernelGuard
    from runrails_notebook.shell import Shell

__all__ = ["kernel_guard", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: Shell) -> None:
    """`%load_ext runrails_notebook`: guard this kernel from now on."""
    from runrails_notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: Shell) -> None:
    """`%unload_ext runrails_notebook`: nothing is stopped, no new client guarded any more, and the magics are gone."""
    from runrails_notebook.extension import unload

    unload(shell)


def kernel_guard() -> KernelGuard | None:
    """What guards this kernel; None before `%load_ext runrails_notebook`."""
    from runrails_notebook.extension import guarding

    return guarding()
