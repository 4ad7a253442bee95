"""Settings of callers with AWS credentials: what is refused by which words, and what is opened by what is left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rr_aws import ACCOUNT, REGION, SERVER_ID, StrictSTS
from runrails.documents.memory import MemoryDocuments
from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.opening import AWS_PREFIX, aws_of_environment
from runrails.identity.principal import Principal
from runrails.testing import ManualClock
from runrails_aws.identity.opening import EVENTS, FILE_BYTES_MAX, GRANTS, NETWORKS, REGION_NAMES, describe
from runrails_aws.identity.opening import SERVER_ID as NAMED

ROLE = f"arn:aws:iam::{ACCOUNT}:role/nightly"
UNIQUE = "AROA" + "B" * 17
NEEDED = f'[[grant]]\narn = "{ROLE}"\nuser = "nightly"\nscopes = ["ai:complete"]\n'
WHOLE = f'{NEEDED}org = "acme"\nunique_id = "{UNIQUE}"\n'
PROOFS = {NAMED: SERVER_ID, REGION_NAMES: REGION}
IAM = {
    "userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/nightly/job-1", "userId": f"{UNIQUE}:job-1", "accountId": ACCOUNT
}  # fmt: skip


class Surroundings:
    """The environment of a server, with a file of grants."""

    def __init__(self, path: Path, patched: pytest.MonkeyPatch) -> None:
        self._path, self._patched = path, patched
        for name in [name for name in os.environ if name.startswith(AWS_PREFIX)]:
            patched.delenv(name)
        self.grant(NEEDED)
        self.set({GRANTS: str(path)})

    def set(self, settings: dict[str, str]) -> None:
        """These as well."""
        for name, text in settings.items():
            self._patched.setenv(name, text)

    def grant(self, text: str) -> None:
        """The file says this, and nothing else."""
        self._path.write_text(text)


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """Grants are named, and nothing else yet."""
    return Surroundings(tmp_path / "grants.toml", monkeypatch)


def refused() -> str:
    """Why nothing is described; also whoever asks the core is told so."""
    with pytest.raises(ConfigError) as why:
        describe()
    with pytest.raises(ConfigError) as again:
        aws_of_environment()
    assert why.value.what == again.value.what
    return why.value.what


def event(iam: dict[str, str]) -> dict[str, object]:
    """What API Gateway hands to a function."""
    return {"version": "2.0", "requestContext": {"authorizer": {"iam": iam}}}


# Events.


@pytest.mark.parametrize("word", ["all", "IAM", "1", "iam,proofs"])
def test_another_word_for_events_opens_nothing(word: str, around: Surroundings) -> None:
    """Only `iam` is known; nobody is let in by a word that might mean more, or less."""
    around.set({EVENTS: word})
    assert f"{EVENTS} says something unknown." == refused()


@pytest.mark.parametrize(
    ("name", "text"), [(NAMED, SERVER_ID), (REGION_NAMES, REGION), (NETWORKS, "10.20.0.0/16")], ids=lambda each: each
)
def test_events_go_with_no_setting_of_proofs(name: str, text: str, around: Surroundings) -> None:
    """Whoever sets one of them expects proofs, which would not be taken: told by its name."""
    around.set({EVENTS: "iam", name: text})
    assert f"{EVENTS} goes without {name}." == refused()


def test_events_need_grants(around: Surroundings) -> None:
    """AWS says who it is, and nobody what that one may do."""
    around.set({EVENTS: "iam", GRANTS: " "})
    assert f"Callers with AWS credentials need {GRANTS} as well." == refused()


def test_where_events_are_believed_nobody_comes_in_by_proof(around: Surroundings) -> None:
    """No proof could be bound to a server without an id; whom no event names, or nobody has granted, is nobody."""
    around.set({EVENTS: "iam"})
    described, documents = describe(), MemoryDocuments()
    assert described.by_events
    assert described.open(documents) is None
    opened = described.open_events(documents)
    assert opened is not None
    other = IAM | {"userArn": IAM["userArn"].replace("nightly", "daily")}
    for untold in ({}, event({}), event(other), event(IAM) | {"version": "1.0"}):
        with pytest.raises(Unauthenticated):
            opened.verify(untold)
    found: Principal = opened.verify(event(IAM))
    assert ("nightly", None, frozenset({"ai:complete"})) == (found.user, found.org, found.scopes)
    assert "1 granted, as events of a function behind IAM name them" == described.told


def test_where_proofs_are_asked_no_event_is_believed(around: Surroundings) -> None:
    """Whoever may write an event names anybody; only the setting says that nobody else may."""
    around.set(PROOFS)
    described, documents = describe(), MemoryDocuments()
    assert (False, None) == (described.by_events, described.open_events(documents))
    assert described.open(documents) is not None
    sts = StrictSTS(ManualClock())
    assert described.open(documents, clock=ManualClock(), transport=sts) is not None
    assert [] == sts.asked
    assert f"1 granted, by proof to {SERVER_ID}, STS of {REGION}" == described.told


# Regions and networks.


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        (REGION_NAMES, " , ", f"{REGION_NAMES} names no region."),
        (REGION_NAMES, f"{REGION},eu-central-9", f"{REGION_NAMES} names an unknown region."),
        (REGION_NAMES, f"{REGION};us-east-1", f"{REGION_NAMES} names an unknown region."),
        (NETWORKS, "10.20.0.1/16", f"{NETWORKS} is malformed."),
        (NETWORKS, "10.20.0.0/16,sts.evil.example", f"{NETWORKS} is malformed."),
        (NETWORKS, "0.0.0.0/0", f"{NETWORKS} is malformed."),
        (NETWORKS, "169.254.0.0/16", f"{NETWORKS} is malformed."),
    ],
)
def test_one_wrong_place_of_sts_is_refused_whole(name: str, text: str, what: str, around: Surroundings) -> None:
    """Whoever answers in the place of STS names anybody: no guess, and none of it without the rest."""
    around.set({**PROOFS, name: text})
    assert what == refused()


def test_places_of_sts_are_those_named(around: Surroundings) -> None:
    """Several with commas; blanks and an empty item are nothing."""
    around.set({**PROOFS, REGION_NAMES: f" {REGION} , us-east-1,", NETWORKS: " 10.20.0.0/16,fd12:3456::/32 ,"})
    described = describe()
    assert ((REGION, "us-east-1"), ("10.20.0.0/16", "fd12:3456::/32")) == (described.regions, described.networks)
    assert described.told.endswith(f"STS of {REGION}, us-east-1 in 10.20.0.0/16, fd12:3456::/32")


# Grants.

MALFORMED = "has a grant, number 1, with a missing, unknown or malformed setting"
WRONG = {
    "none": ("grant = []\n", "has something else than [[grant]] tables"),
    "a table": (NEEDED.replace("[[grant]]", "[grant]"), "has something else than [[grant]] tables"),
    "tables and more": (f"month = 5\n{NEEDED}", "has something else than [[grant]] tables"),
    "no table": ('grant = ["nightly"]\n', MALFORMED),
    "a user without scopes": (NEEDED.replace("scopes", "org"), MALFORMED),
    "no user": (NEEDED.replace("user =", "org ="), MALFORMED),
    "a member for another system": (f"{WHOLE}admin = true\n", MALFORMED),
    "a number for a user": (NEEDED.replace('"nightly"', "5"), MALFORMED),
    "a number for an arn": (NEEDED.replace(f'"{ROLE}"', "5"), MALFORMED),
    "false for an organisation": (f"{NEEDED}org = false\n", MALFORMED),
    "several unique ids": (f'{NEEDED}unique_id = ["{UNIQUE}"]\n', MALFORMED),
    "a table of scopes": (NEEDED.replace('["ai:complete"]', '{"ai:complete" = false}'), MALFORMED),
    "a number for scopes": (NEEDED.replace('["ai:complete"]', "5"), MALFORMED),
    "a number among scopes": (NEEDED.replace('"]', '", 5]'), MALFORMED),
    "a list among scopes": (NEEDED.replace('["ai:complete"]', '[["ai:complete"]]'), MALFORMED),
    "the second": (
        f"{NEEDED}{NEEDED.replace('nightly', 'daily').replace('user =', 'name =')}", MALFORMED.replace("1", "2")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_grants_are_refused_by_what_is_wrong(name: str, around: Surroundings) -> None:
    """Nothing of the file counts when one thing in it is malformed, and the operator reads which grant it is."""
    text, why = WRONG[name]
    around.set(PROOFS)
    around.grant(text)
    assert f"The file that {GRANTS} names {why}." == refused()


def test_a_file_is_as_large_as_is_allowed_and_not_a_byte_larger(around: Surroundings) -> None:
    """The longest is read whole; one more is refused for its size, and not for what is cut off."""
    around.set(PROOFS)
    around.grant(f"{NEEDED}{'#' * (FILE_BYTES_MAX + 1 - len(NEEDED))}")
    assert f"The file that {GRANTS} names is too large." == refused()
    around.grant(f"{NEEDED}{'#' * (FILE_BYTES_MAX - len(NEEDED))}")
    assert 1 == len(describe().grants)


def test_a_grant_says_as_little_or_as_much_as_there_is(around: Surroundings) -> None:
    """The organisation and the unique id may be left out; all five are taken as they are written."""
    around.set(PROOFS)
    for text, org, unique in ((NEEDED, None, None), (WHOLE, "acme", UNIQUE)):
        around.grant(text)
        grant = describe().grants.of(ROLE)
        assert grant is not None
        expected = ("nightly", org, frozenset({"ai:complete"}), unique)
        assert expected == (grant.user, grant.org, grant.scopes, grant.unique_id)


def test_deep_nesting_is_no_toml(around: Surroundings) -> None:
    """It is told like anything else that cannot be read."""
    around.set(PROOFS)
    around.grant(f"a={'[' * 5_000}")
    with pytest.raises(ConfigError, match="is no TOML"):
        describe()


# The core.


def test_what_another_distribution_offers_is_not_asked(
    around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings for AWS without what verifies it are told, and not given to whoever else vouches for somebody."""
    offered = tmp_path / "other-1.0.dist-info"
    offered.mkdir()
    (offered / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (offered / "entry_points.txt").write_text("[runrails.identities]\nother = nowhere.at.all:describe\n")
    around.set(PROOFS)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="need the distribution"):
        aws_of_environment()
