"""The report of a real sweep in a real browser: it draws, asks the network for nothing, and fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `make browser` installs it on Debian"),
]

# What the page looks like, as it says itself once it is loaded. A phone's width is that of a frame: no window is so
# narrow. Scripts run in the outer page, so that nothing of the report is changed.
OUTER = """<!doctype html><body style="margin:0"><iframe id="page" src="{source}"
style="border:0;width:{width}px;height:900px"></iframe><pre id="found"></pre><script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => {{
  const root = frame.contentDocument.documentElement;
  const shown = frame.contentDocument.body;
  const outside = [...shown.querySelectorAll("*")].filter((one) => {{
    let box = one.parentElement;
    while (box && box !== shown && !["auto", "scroll", "hidden"].includes(getComputedStyle(box).overflowX)) {{
      box = box.parentElement;
    }}
    return box === shown && one.getBoundingClientRect().right > root.clientWidth + 1;
  }});
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth,
    scroll_width: root.scrollWidth,
    num_svgs: shown.querySelectorAll("svg").length,
    num_drawn: [...shown.querySelectorAll("svg")].filter((one) => one.getBoundingClientRect().width > 100).length,
    outside: outside.map((one) => one.tagName + "." + one.getAttribute("class")),
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name),
    text: shown.innerText,
    title: frame.contentDocument.title,
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def page(prune_cli: Callable, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("page") / "store"
    tasks = ("--task", "noise/uniform/0.5", "--task", "noise/uniform/1.0")
    words = ("--method", "ft", "--delta", "0.02", "--delta", "0.1", "--budget", "2", "--max-probes", "8", *tasks)
    ran = prune_cli("sweep", "lenet5", *tiny, *words, "--storage", storage)
    assert ran.code in (0, 3), ran.err
    return storage / "sweeps" / "lenet5" / "report.html"


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict]:
    """What the browser shows at a width."""
    known: dict[int, dict] = {}

    def look(width: int) -> dict:
        if width not in known:
            folder = tmp_path_factory.mktemp("browser")
            outer = folder / "outer.html"
            outer.write_text(OUTER.format(source=page.as_uri(), width=width))
            dom = browse(outer, folder / "profile", width=max(width, 500))
            found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
            assert found and found[1], dom[-2000:]
            known[width] = json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
        return known[width]

    return look


def browse(page: Path, profile: Path, *, width: int) -> str:
    """The document after its scripts ran. No name but this machine's resolves."""
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", "--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *(f"--user-data-dir={profile}", f"--window-size={width},900", "--virtual-time-budget=8000", "--dump-dom"),
    ]
    done = subprocess.run(
        [str(CHROMIUM), *flags, page.as_uri()], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("width", [1280, 390])
def test_report_draws_its_plots_at_a_width(width: int, seen: Callable[[int], dict]):
    found = seen(width)
    assert found["width"] == width
    assert found["num_svgs"] > 0
    assert found["num_drawn"] > 0
    assert "lenet5" in found["title"]


@pytest.mark.parametrize("width", [1280, 390])
def test_report_does_not_scroll_sideways(width: int, seen: Callable[[int], dict]):
    found = seen(width)
    assert found["scroll_width"] <= width, found["outside"]


@pytest.mark.parametrize("width", [1280, 390])
def test_report_asks_nobody_for_anything(width: int, seen: Callable[[int], dict]):
    assert [one for one in seen(width)["fetched"] if not one.startswith("data:")] == []


def test_report_says_the_answer_in_words_and_holds_its_tables(seen: Callable[[int], dict]):
    text = seen(1280)["text"]
    for part in ("noise/uniform/1.0", "wt", "ft", "images"):
        assert part in text


def test_report_names_no_address_that_a_browser_would_load(page: Path):
    html = page.read_text()
    assert not re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//""", html)
    assert not re.findall(r"""url\(["']?(?:https?:)?//""", html)
    assert "@import" not in html
