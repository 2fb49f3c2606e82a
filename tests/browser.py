"""A page in headless Chromium, where there is one: what is wrong with it at several widths."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
WIDTHS = (400, 800, 1400)

_LOOK = """<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(one => !one.closest(".wide, .skip")
    && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.tagName + "." + one.className);
  parent.postMessage({ width: innerWidth, scrolled: document.documentElement.scrollWidth, wide,
    images: document.images.length, broken: [...document.images].filter(one => !one.naturalWidth).length }, "*");
});
</script>"""

_FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const seen = [];
addEventListener("message", event => { seen.push(event.data); document.body.dataset.seen = JSON.stringify(seen); });
</script>%s</body>"""


def looked_at(page: Path, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What Chromium sees of a page at each of `WIDTHS`, and the errors on its console.

    Args:
        page: an HTML file.
        folder: for copies of it, empty.
    """
    copy, frames = folder / "page.html", folder / "frames.html"
    text = page.read_text(encoding="utf-8").replace('loading="lazy"', "")  # all are loaded at its end
    copy.write_text(text.replace("</body>", f"{_LOOK}</body>"), encoding="utf-8")
    shown = "".join(f'<iframe src="page.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
    frames.write_text(_FRAMES % shown, encoding="utf-8")
    ended = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=20000", "--window-size=1500,900", "--dump-dom",
         frames.as_uri()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seen = ended.stdout.partition('data-seen="')[2].partition('"')[0].replace("&quot;", '"')
    told = sorted(json.loads(seen), key=lambda one: one["width"])
    return told, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
