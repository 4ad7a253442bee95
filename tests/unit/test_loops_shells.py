"""What coding agents put around a command's output is another one each time; what the command says is what counts."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from runrails.calls import Proceed, ToolCall, ToolOutcome
from runrails.loops.detector import LoopDetector
from runrails.loops.outcome import read_outcome

MISSING = "cat: /srv/report: No such file or directory\n"
Shell = Callable[[random.Random, str], str]


def _seconds(drawn: random.Random, places: int) -> str:
    return f"{drawn.random() / 5:.{places}f}"


SHELLS: dict[str, Shell] = {
    "codex, exec_command": lambda drawn, said: (
        f"Chunk ID: {drawn.randrange(16**6):06x}\nWall time: {_seconds(drawn, 4)} seconds\n"
        f"Process exited with code 1\nOriginal token count: {len(said) // 4}\nOutput:\n{said}"
    ),
    "codex, shell_command": lambda drawn, said: (
        f"Exit code: 1\nWall time: {_seconds(drawn, 1)} seconds\nOutput:\n{said}"
    ),
    "codex, shell": lambda drawn, said: (
        f'{{"output":"{said.strip()}","metadata":{{"exit_code":1,"duration_seconds":{_seconds(drawn, 1)}}}}}'
    ),
    "claude code": lambda _, said: f"Exit code 1\n{said}",
    "gemini": lambda drawn, said: (
        f"Command: cat report\nDirectory: (root)\nStdout: (empty)\nStderr: {said}Error: (none)\nExit Code: 1\n"
        f"Signal: (none)\nBackground PIDs: (none)\nProcess Group PGID: {drawn.randrange(1_000, 4_000_000)}"
    ),
    "openhands": lambda _, said: (
        f"{said}\n[The command completed with exit code 1.]\n[Current working directory: /work]"
    ),
    "swe-agent": lambda _, said: f"<returncode>1</returncode>\n<output>\n{said}</output>",
}


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_the_same_output_is_the_same(shell: Shell) -> None:
    """Whatever number the harness gives it, and however long it took."""
    drawn = random.Random(7)
    assert 1 == len({read_outcome(ToolOutcome(ok=True, result=shell(drawn, MISSING))).key for _ in range(200)})


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_another_output_is_another(shell: Shell) -> None:
    """Numbers in what a command says are news: so many tests fail, then fewer."""
    drawn = random.Random(7)
    said = [shell(drawn, f"{failing} failed, {200 - failing} passed\n") for failing in range(100, 200)]
    assert 100 == len({read_outcome(ToolOutcome(ok=True, result=each)).key for each in said})


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_a_command_that_fails_alike_is_made_five_times(shell: Shell) -> None:
    """With what the harness puts around it."""
    drawn, detector = random.Random(7), LoopDetector()
    made = 0
    while made < 20:
        call = ToolCall(name="shell", args={"command": "cat report"}, id=f"c{made}")
        if not isinstance(detector.before_tool(call, can_block=False), Proceed):
            break
        made += 1
        detector.after_tool(call, ToolOutcome(ok=True, result=shell(drawn, MISSING)), can_block=False)
    assert 5 == made
