"""The shipped price data against the packages it is made from."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import pytest

from runrails.pricing.compile import changes, installed_snapshot, write_checked
from runrails.pricing.patches import PATCHES_FILE
from runrails.pricing.snapshot import CROSSCHECK_FILE, SNAPSHOT_FILE, read_snapshot

pytest.importorskip("genai_prices", reason="drift is measured against an installed genai-prices")


@pytest.mark.parametrize("file", [SNAPSHOT_FILE, CROSSCHECK_FILE, PATCHES_FILE])
def test_the_checksums_are_right(file: str) -> None:
    """In the form that `sha256sum -c` reads."""
    path = Path(file)
    digest, name = path.with_suffix(".sha256").read_text().split()
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), path.name) == (digest, name)


def test_the_snapshot_is_what_the_installed_package_says() -> None:
    """Differences to another version are listed; a lost price, or any difference to the same version, fails."""
    installed, content = installed_snapshot()
    found = changes(Path(SNAPSHOT_FILE).read_bytes(), content)
    lines = [f"{change.model}: {change.before} -> {change.after}" for change in found]
    assert [] == [change.model for change in found if change.to_zero]
    if installed == read_snapshot().version:
        assert [] == lines
    elif lines:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(
                f"{len(lines)} models differ from genai-prices {installed}:\n" + "\n".join(lines), stacklevel=1
            )


def test_a_lost_price_is_recognised() -> None:
    """From something to nothing is called out; new, gone and changed models are only listed."""
    before, after = (
        json.dumps({"providers": [{"id": "p", "models": models}]}).encode()
        for models in (
            [
                ["a", "=a", {"input": "1"}, None],
                ["b", "=b", {"input": "1"}, None],
                ["c", "=c", {"input": ["1", [5, "2"]]}, None],
                ["gone", "=g", {"input": "1"}, None],
            ],
            [
                ["a", "=a", {"input": "2"}, None],
                ["b", "=b", {}, None],
                ["c", "=c", {"input": ["0.00", [5, "2"]]}, None],
                ["new", "=n", [[None, {"input": "1"}]], None],
            ],
        )
    )
    assert [("p:a", False), ("p:b", True), ("p:c", True), ("p:gone", False), ("p:new", False)] == [
        (change.model, change.to_zero) for change in changes(before, after)
    ]


def test_data_is_written_with_its_checksum(tmp_path: Path) -> None:
    """And reads back as the same snapshot."""
    _, content = installed_snapshot()
    for name, data in (("snapshot.json", content), ("crosscheck.json", Path(CROSSCHECK_FILE).read_bytes())):
        write_checked(tmp_path / name, data)
    assert read_snapshot(tmp_path / "snapshot.json", tmp_path / "crosscheck.json").version == installed_snapshot()[0]
