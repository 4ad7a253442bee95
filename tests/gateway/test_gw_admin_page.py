"""The operator's page: its files and their policy, and what somebody sees and does with it in a real browser."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import uvicorn

from rr_admin import ALL, Got, World, call_of
from rr_chromium import Chromium, Tab, find_chromium
from runrails import CallRefused, Limits
from runrails.credentials import CredentialId
from runrails.ledger import FullStore
from runrails.secretvalue import Secret
from runrails_gateway.admin.pages import FILES, PAGE_HEADERS

HOSTILE = "\"><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
COMING_BACK = "document.dispatchEvent(new Event('visibilitychange'))"
"""What the browser tells a page whose tab is seen again; the page then does not wait for its next turn."""


# Without a browser.


def test_the_page_is_sent_with_a_strict_policy() -> None:
    """Nothing from elsewhere, nothing inline, no frame, no text as markup; every file says so, and is sent once."""
    with World().client("") as client:
        for address, (_, media_type) in FILES.items():
            got = client.get(f"/admin/{address}")
            assert (200, media_type) == (got.status, got.headers["content-type"])
            assert PAGE_HEADERS.items() <= got.headers.items()
            again = client.ask("GET", f"/admin/{address}", headers=[("if-none-match", got.headers["etag"])])
            assert (304, b"") == (again.status, again.body)
        policy = PAGE_HEADERS["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy and ":" not in policy
        assert "require-trusted-types-for 'script'" in policy and "frame-ancestors 'none'" in policy
        got = client.get("/admin")
        assert (307, "admin/") == (got.status, got.headers["location"])
        for wrong in ("../api.py", "nothing.js", "%2e%2e/pages.py", "."):
            assert 404 == client.get(f"/admin/{wrong}").status


def test_every_file_of_the_page_is_served_and_none_is_from_elsewhere() -> None:
    """What the folder has is in the list; no file names another host, has inline code, or makes markup of text."""
    folder = Path(str(files("runrails_gateway.admin").joinpath("page")))
    assert {name for name, _ in FILES.values()} == {each.name for each in folder.iterdir()}
    for each in folder.iterdir():
        text = each.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, each.name
        wrong = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|javascript:|style=\""
        )
        assert not re.findall(wrong, text), each.name
        if each.suffix == ".html":
            assert not re.findall(r"<script(?![^>]*\ssrc=)|\son[a-z]+=|<style", text)


def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    """Or `pip install` gives a gateway without one. Without the build tool here, what it is told is looked at."""
    root = Path(__file__).parents[2]
    page = {f"runrails_gateway/admin/page/{name}" for name, _ in FILES.values()}
    if importlib.util.find_spec("hatchling") is None:
        told = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
        assert "integrations/runrails_gateway" in told["targets"]["wheel"]["packages"] and "exclude" not in told
        return
    from hatchling.builders.wheel import WheelBuilder

    path = next(iter(WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])))
    with zipfile.ZipFile(path) as wheel:
        assert page <= set(wheel.namelist())


# In a browser.


class Served:
    """A world with a month of runs, and a server in a thread over it."""

    def __init__(self) -> None:
        find_chromium()
        self.world = world = World(Limits(run="5.00", month="60.00"))
        world.clock.set(time.time_ns() // 1_000_000 - 5 * 60_000)
        for place in range(6):
            world.run(f"triage {place}", 1 + place, user=("alice", "bob", "carol")[place % 3], tags={"team": "search"})
        world.run("dear one", 1, user="bob", model="dear")
        self.stopped = world.stopped_run("classify tickets", tool="lookup_category", user="alice")
        self.hostile = world.stopped_run(HOSTILE, tool=HOSTILE, user="carol")
        self.open = world.run("nightly", 3, user="bob", close=False)
        self.open.before_model(call_of("cent"))
        world.registry.runs.append(self.open)
        world.keys.create("alice", scopes=["ai:complete"], name=HOSTILE[:120], month_pusd=25 * 10**12)
        assert isinstance(world.store, FullStore) and world.vault is not None
        world.store.set_limit("user:carol", 4 * 10**12)
        world.vault.add(CredentialId("user:alice", "openai"), Secret("sk-proj-" + "a" * 40))
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.listen()  # whoever connects before the server has started waits
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}/admin/"
        self._server = uvicorn.Server(uvicorn.Config(world.app, log_level="error", ws="none", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]}, daemon=True)
        self._thread.start()

    def get(self, path: str, key: str | None = None) -> Got:
        """What the same application answers, without a browser."""
        with self.world.client() as client:
            return client.ask("GET", path, key=key)

    def close(self) -> None:
        """End the server."""
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Once for all tests of this file; skips without Chromium."""
    found = Served()
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Iterator[Chromium]:
    """Likewise."""
    with Chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def tab(browser: Chromium, served: Served) -> Iterator[Tab]:
    """The page, signed out. Whatever went wrong in it fails the test."""
    with browser.tab() as opened:
        opened.go(served.url)
        opened.run("sessionStorage.clear(); localStorage.clear()")
        opened.go(f"{served.url}?{time.monotonic_ns()}")
        opened.until("document.querySelector('.door')")
        opened.told.clear()  # of the page before
        opened.asked_for.clear()
        yield opened
        assert [] == [each for each in opened.told if "the server responded with a status of 4" not in each]
        assert "owned" != opened.run("document.title")
        assert {served.url.split("/admin")[0]} == {re.sub(r"(//[^/]+).*", r"\1", each) for each in opened.asked_for}


def sign_in(tab: Tab, key: str) -> None:
    """As somebody does: type the key, press Enter."""
    tab.type(key)
    tab.press("Enter")
    tab.until("!document.getElementById('top').hidden")


def show(tab: Tab, place: str, ready: str) -> str:
    """Go somewhere, wait for what shows that it is there, and read the page."""
    tab.run(f"location.hash = {place!r}")
    tab.until(ready)
    return str(tab.run("document.querySelector('main').innerText"))


def looks_drawn(png: bytes) -> bool:
    """Whether a picture is more than an empty page: it does not compress to nothing."""
    return png.startswith(b"\x89PNG") and len(png) > 20_000


def test_an_operator_sees_what_is_spent_and_stopped(served: Served, tab: Tab, tmp_path: Path) -> None:
    """Live spend, the month, models, users, and the runs that were stopped; in light, in dark and on a phone."""
    sign_in(tab, served.world.operator)
    tab.until("document.querySelector('.shares') && document.querySelector('.tile strong')")
    told = str(tab.run("document.querySelector('main').innerText"))
    live = served.get("/admin/api/live").json
    for text in (
        f"${float(live['month_usd']):.2f}",
        "In flight",
        "classify tickets",
        "Repeated failure",
        "alice",
        "dear",
    ):
        assert text in told
    assert 60 == tab.run("document.querySelectorAll('.plot')[0].querySelectorAll('.bar').length")
    assert looks_drawn(tab.picture(tmp_path / "light.png"))
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.run(paper)
    tab.dark()
    assert light != tab.run(paper)
    assert looks_drawn(tab.picture(tmp_path / "dark.png"))
    tab.dark(on=False)
    tab.run("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert light != tab.run(paper), "by hand it is dark whatever the system prefers"
    for width in (390, 320):
        tab.resize(width, 844, phone=True)
        assert width >= tab.run("document.documentElement.scrollWidth"), "nothing to scroll sideways"
    assert looks_drawn(tab.picture(tmp_path / "phone.png", whole=True))


def test_live_spend_moves_by_itself(served: Served, tab: Tab) -> None:
    """A call that is made while somebody looks is seen without a hand being moved, and at once by who comes back."""
    sign_in(tab, served.world.operator)
    tab.until("document.querySelector('.tile strong')")
    served.world.clock.advance(1_500)
    served.world.run("while looking", 1, user="alice")
    served.world.clock.advance(1_500)
    month = float(served.get("/admin/api/live").json["month_usd"])
    tab.run(COMING_BACK)
    tab.until(f"document.querySelector('.tile strong').textContent === '${month:.2f}'")


def test_a_stopped_run_shows_why_and_where(served: Served, tab: Tab, tmp_path: Path) -> None:
    """The rule, the tool, how to allow it, the cost curve, and every step with the repetitions marked."""
    sign_in(tab, served.world.operator)
    told = show(tab, f"#/runs/{served.stopped.id}", "document.querySelector('.timeline')")
    for text in (
        "Why it was stopped: repeated failure",
        "lookup_category",
        "5 times",
        "Stopped: repeated failure",
        "$3.24",
    ):
        assert text in told
    assert 5 == tab.run("document.querySelectorAll('.timeline .looped').length")
    assert 11 == tab.run("document.querySelectorAll('.timeline li').length")
    tab.run("document.querySelector('.why summary').click()")
    assert "ToolRule(poll=True)" in tab.run("document.querySelector('.why').innerText")
    assert looks_drawn(tab.picture(tmp_path / "run.png", whole=True))
    told = show(tab, f"#/runs/{served.open.id}", "document.querySelector('h1').innerText === 'nightly'")
    assert "Open" in told and "in flight" in told
    told = show(tab, "#/runs/nosuchrun", "document.querySelector('main').innerText.includes('That did not work')")
    assert "no such run" in told


def test_a_run_that_never_began_shows_why(served: Served, tab: Tab) -> None:
    """A call that was refused is no step; what kept it from being one is told in the list and on its page."""
    run = served.world.guard.run("never began", user="alice")
    with pytest.raises(CallRefused):
        run.before_model(call_of("nobody-knows"))
    run.close()
    sign_in(tab, served.world.operator)
    told = show(tab, "#/runs?q=never", "document.querySelector('main table a')")
    assert "Refused" in told
    told = show(tab, f"#/runs/{run.id}", "document.querySelector('.why')")
    assert "Why a call was refused" in told and "nobody-knows" in told
    assert "1 refusal" in told


def test_hostile_names_are_shown_and_never_obeyed(served: Served, tab: Tab) -> None:
    """A run, a tool, a key, a search with markup in their names appear as they are; no element is made of them."""
    sign_in(tab, served.world.operator)
    for place, ready in (
        ("/", ".shares"), ("/runs", "table a"), (f"/runs/{served.hostile.id}", ".timeline"), ("/keys", "table"),
        (f"/usage?by=user&user={HOSTILE}", ".card p"), (f"/runs?q={HOSTILE}", "q"), (f"/runs/{HOSTILE}", ".card p"),
        (f"/budgets?q={HOSTILE}&kind={HOSTILE}", ".empty"),
    ):  # fmt: skip
        show(tab, f"#{place}", f"document.querySelector('main {ready}')")
        assert 0 == tab.run("document.querySelectorAll('main img, main script, main [onerror]').length")
    told = show(tab, f"#/runs/{served.hostile.id}", "document.querySelector('.timeline')")
    assert told.count("<script>") >= 6
    # A refused policy would be told in the log; that trusted types hold at all is seen here.
    refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch (e) { return true } })()"
    assert tab.run(refused)
    tab.told.clear()


def test_a_key_is_made_used_and_revoked(served: Served, tab: Tab) -> None:
    """In a dialog, shown once, gone from the page when that is closed; then suspended and revoked after being asked."""
    sign_in(tab, served.world.operator)
    show(tab, "#/keys", "document.querySelector('table')")
    click = "[...document.querySelectorAll('{}')].find((each) => each.textContent === '{}').click()"
    tab.run(click.format("button", "New key"))
    tab.until("document.activeElement.name === 'user'")
    tab.type("zoe")
    tab.press("Enter")
    tab.until("document.querySelector('.once input')")
    key = str(tab.run("document.querySelector('.once input').value"))
    assert 200 == served.get("/v1/budget", key).status
    tab.press("Escape")
    tab.until("!document.querySelector('dialog') && document.querySelector('main').innerText.includes('zoe')")
    assert key[25:60] not in str(tab.run("document.documentElement.outerHTML"))
    row = "[...document.querySelectorAll('tr')].find((each) => each.innerText.includes('zoe'))"
    tab.run(f"[...{row}.querySelectorAll('button')].find((each) => each.textContent === 'Suspend').click()")
    tab.until(f"{row}.innerText.includes('suspended')")
    assert 401 == served.get("/v1/budget", key).status
    tab.run(f"[...{row}.querySelectorAll('button')].find((each) => each.textContent === 'Revoke').click()")
    tab.until("document.querySelector('dialog')")
    tab.press("Escape")
    tab.until("!document.querySelector('dialog')")
    assert "suspended" in tab.run(f"{row}.innerText"), "who does not say yes has changed nothing"
    tab.run(f"[...{row}.querySelectorAll('button')].find((each) => each.textContent === 'Revoke').click()")
    tab.until("document.querySelector('dialog .danger')")
    tab.run("document.querySelector('dialog .danger').click()")
    tab.until(f"{row}.innerText.includes('revoked')")


def test_a_limit_is_set_and_a_provider_key_stored(served: Served, tab: Tab) -> None:
    """What is malformed is told in the dialog, which stays open with what was typed."""
    sign_in(tab, served.world.operator)
    show(tab, "#/budgets", "document.querySelector('table')")
    row = "[...document.querySelectorAll('tr')].find((each) => each.innerText.includes('user:bob'))"
    tab.run(f"{row}.querySelector('button').click()")
    tab.until("document.activeElement.name === 'limit'")
    tab.run("document.activeElement.value = 'much'")
    tab.press("Enter")
    tab.until("document.querySelector('dialog .problem').textContent.includes('more than 0')")
    tab.run(
        "document.querySelector('dialog input').value = '12.50'; document.querySelector('dialog form').requestSubmit()"
    )
    tab.until(f"!document.querySelector('dialog') && {row}.innerText.includes('$12.50')")
    show(tab, "#/credentials", "document.querySelector('table')")
    tab.run("[...document.querySelectorAll('button')].find((each) => each.textContent === 'Add a key').click()")
    tab.until("document.querySelector('dialog')")
    for name, value in (("owner", "user:eve"), ("provider", "anthropic"), ("key", "sk-ant-" + "c" * 40)):
        tab.run(f"document.querySelector('dialog [name={name}]').value = {value!r}")
    tab.run("document.querySelector('dialog form').requestSubmit()")
    tab.until("document.querySelector('main').innerText.includes('user:eve')")
    told = str(tab.run("document.documentElement.outerHTML"))
    assert "…cccc" in told and "cccccc" not in told


def test_it_is_used_by_keyboard_alone(served: Served, tab: Tab) -> None:
    """Sections, search, help and the charts; the first Tab leads past the header."""
    sign_in(tab, served.world.operator)
    tab.until("document.querySelector('.plot')")
    for key, title in (("r", "Runs"), ("u", "Usage"), ("k", "API keys"), ("o", "Overview")):
        tab.press("g")
        tab.press(key)
        tab.until(f"document.querySelector('h1')?.innerText === '{title}'")
    tab.press("?")
    tab.until("document.querySelector('dialog kbd')")
    tab.press("Escape")
    tab.until("!document.querySelector('dialog')")
    tab.until("document.querySelector('.plot')")
    tab.run("document.querySelector('.plot').focus()")
    tab.press("End")
    tab.until("document.querySelector('.readout').textContent.includes('call')")
    tab.press("/")
    tab.until("document.activeElement.id === 'q'")
    tab.type("classify")
    tab.press("Enter")
    tab.until("document.querySelectorAll('tbody tr').length === 1")
    tab.run("document.body.tabIndex = -1; document.body.focus()")
    tab.press("Tab")
    assert "skip" == tab.run("document.activeElement.id")
    names = "[...document.querySelectorAll('button, a, input, select')].filter((each) => !each.closest('[hidden]')"
    names += (
        " && !(each.innerText || each.ariaLabel || each.title || each.labels?.length)).map((each) => each.outerHTML)"
    )
    assert [] == tab.run(names), "everything that can be used has a name"


def test_somebody_without_powers_sees_their_own(served: Served, tab: Tab) -> None:
    """Their budget, usage and runs, from the consumer's endpoints; no section that they may not use."""
    sign_in(tab, served.world.key("alice", "ai:complete", org="acme"))
    tab.until("document.querySelector('.shares')")
    told = str(tab.run("document.body.innerText"))
    assert "Hello, alice" in told and "of $60.00" in told and "API keys" not in told and "carol" not in told
    told = show(tab, "#/runs", "document.querySelector('table a')")
    assert "classify tickets" in told and "nightly" not in told
    tab.run("location.hash = '#/keys'")
    tab.until("document.querySelector('h1').innerText.startsWith('Hello')")
    assert not [each for each in tab.asked_for if "/admin/api/" in each]


def test_an_organisations_administrator_sees_its_own(served: Served, tab: Tab) -> None:
    """Every section works for it: live spend and runs of its own, budgets one by one."""
    world = served.world
    chief = world.key("chief", *ALL, org="acme")
    world.run("acme's", 2, user="chief", org="acme")
    sign_in(tab, chief)
    tab.until("document.querySelector('.shares')")
    told = str(tab.run("document.querySelector('main').innerText"))
    assert "$0.02" in told and "classify tickets" not in told
    assert "acme's" in show(tab, "#/runs", "document.querySelector('table a')")
    assert "chief" in show(tab, "#/keys", "document.querySelector('table')")
    assert "org:acme" in show(tab, "#/budgets", "document.querySelector('table')")
    assert "user:chief" in show(tab, "#/budgets?q=user:chief", "document.querySelector('td.main')")
    assert "No provider keys" in show(tab, "#/credentials", "document.querySelector('.empty')")
    show(tab, "#/budgets?q=user:bob", "document.querySelector('main').innerText.includes('may not do')")


def test_the_key_stays_in_the_tab(served: Served, tab: Tab) -> None:
    """In its session storage if that is wanted, else in memory; never in an address, and gone after signing out."""
    key = served.world.key("bob", *ALL)
    sign_in(tab, key)
    assert key in tab.run("JSON.stringify(sessionStorage)")
    assert key not in tab.run("JSON.stringify(localStorage) + document.cookie + document.documentElement.outerHTML")
    assert not [each for each in tab.asked_for if key[8:30] in each]
    tab.run("document.getElementById('out').click()")
    tab.until("document.querySelector('.door')")
    assert key not in tab.run("JSON.stringify(sessionStorage)")
    tab.run(
        "document.querySelector('.door [type=checkbox]').click(); document.querySelector('.door [name=key]').focus()"
    )
    sign_in(tab, key)
    assert "{}" == tab.run("JSON.stringify(sessionStorage)")
    tab.run("document.getElementById('out').click()")
    tab.until("document.querySelector('.door')")
    tab.type("rr_live_wrong")
    tab.press("Enter")
    tab.until("document.querySelector('.problem').textContent === 'That is no valid key.'")


def test_a_key_that_is_revoked_ends_the_session(served: Served, tab: Tab) -> None:
    """The next poll leads back to the door, and what was shown is gone."""
    info, secret = served.world.keys.create("mallory", scopes=ALL)
    sign_in(tab, secret.reveal())
    tab.until("document.querySelector('.tile strong')")
    served.world.keys.revoke(info.id)
    served.world.clock.advance(6_000)
    tab.run(COMING_BACK)
    tab.until("document.querySelector('.door')")
    told = str(tab.run("document.body.innerText"))
    assert "not taken any more" in told and "$" not in told


def test_the_scripts_are_modules_that_parse() -> None:
    """Where there is a Node; a browser is not everywhere."""
    import shutil

    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    folder = Path(str(files("runrails_gateway.admin").joinpath("page")))
    for each in sorted(folder.glob("*.js")):
        done = subprocess.run(
            [node, "--input-type=module", "--check"], input=each.read_bytes(), capture_output=True, check=False
        )
        assert (0, b"") == (done.returncode, done.stderr), each.name
    assert sys.version_info >= (3, 11)
