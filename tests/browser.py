"""Pages in headless Chromium, where there is one: what is wrong with them at several widths."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
WIDTHS = (400, 800, 1400)

_LOOK = """<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(one => !one.closest(".wide, .skip")
    && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.tagName + "." + one.className);
  parent.postMessage({ page: document.URL.split("/").pop(), width: innerWidth,
    scrolled: document.documentElement.scrollWidth, wide,
    broken: [...document.images].filter(one => !one.naturalWidth).length }, "*");
});
</script>"""

_FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const seen = [];
addEventListener("message", event => { seen.push(event.data); document.body.dataset.seen = JSON.stringify(seen); });
</script>%s</body>"""


def problems(pages: Mapping[str, str], folder: Path) -> list[str]:
    """What is wrong with pages at each of `WIDTHS`: errors on the console, images that are broken, what is wider than
    the window. Chromium is started once for all of them.

    Args:
        pages: text of each by a name for it.
        folder: for copies of them, empty.
    """
    files = {f"page_{number}.html": name for number, name in enumerate(pages)}
    for file, name in files.items():
        text = pages[name].replace('loading="lazy"', "")  # all are loaded at its end
        (folder / file).write_text(text.replace("</body>", f"{_LOOK}</body>"), encoding="utf-8")
    frames = folder / "frames.html"
    shown = (f'<iframe src="{file}" width="{width}" height="900"></iframe>' for file in files for width in WIDTHS)
    frames.write_text(_FRAMES % "".join(shown), encoding="utf-8")
    ended = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=20000", "--window-size=1500,900", "--dump-dom",
         frames.as_uri()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seen = json.loads(ended.stdout.partition('data-seen="')[2].partition('"')[0].replace("&quot;", '"') or "[]")
    found = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    missing = {(file, width) for file in files for width in WIDTHS} - {(one["page"], one["width"]) for one in seen}
    found += [f"{files[file]} at {width}: not seen" for file, width in sorted(missing)]
    for one in seen:
        where = f"{files[one['page']]} at {one['width']}"
        found += [f"{where}: {one['broken']} broken images"] * bool(one["broken"])
        found += [f"{where}: too wide, {', '.join(one['wide'][:3])}"] * bool(one["wide"])
        found += [f"{where}: scrolls to {one['scrolled']}"] * (one["scrolled"] > one["width"])
    return found
