"""The site, opened in Chromium: errors, pictures that are missing, pages too wide, faint text.

    python -m tests.site_check [docs/_build/html]

Every page that counts is opened at the width of a telephone and of a screen, light and dark. What
is wrong is printed, a line each, and the exit code is 1; where there is no Chromium that is said,
and the code is 0.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAGES = (
    "index.html",
    "tutorial.html",
    "choose.html",
    "coming_from.html",
    "trust.html",
    "real.html",
    "auto_examples/index.html",
    "auto_examples/plot_01_patches.html",
    "api/generated/shoal.DictionaryAutoencoder.html",
)
WIDTHS = (390, 1400)
# Of a page's messages, which all have one level in the browser's log.
WRONG = re.compile("error|uncaught|failed|refused|denied|blocked", re.IGNORECASE)
HARNESS = "_site_check.html"

# Each page in a frame of that width, one after the other; what is found becomes the only text.
PAGE = """<!doctype html><meta charset="utf-8"><title>site</title><body><script>
const jobs = %s;
const level = (c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => .2126 * level(r) + .7152 * level(g) + .0722 * level(b);
const parts = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
const behind = (e, view) => {
  for (; e; e = e.parentElement) {
    const c = parts(view.getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > .99) return c;
  }
  return [255, 255, 255];
};
const faint = (view) => [...view.document.querySelectorAll("main p, main li, main td, main pre")]
  .slice(0, 300).filter((e) => e.offsetHeight && e.textContent.trim()).filter((e) => {
    const [a, b] = [light(parts(view.getComputedStyle(e).color)), light(behind(e, view))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
  });
const look = async ([page, width, theme]) => {
  const found = [];
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  localStorage.setItem("mode", theme); localStorage.setItem("theme", theme);
  await new Promise((done) => {
    frame.onload = done; frame.src = page; document.body.append(frame);
  });
  const view = frame.contentWindow;
  view.onerror = (text) => { found.push(`error: ${text}`); };
  await new Promise((done) => setTimeout(done, 300));
  const root = view.document.documentElement;
  if (root.dataset.theme !== theme) found.push(`theme ${root.dataset.theme}`);
  if (root.scrollWidth > width + 1) found.push(`${root.scrollWidth} px wide`);
  const pictures = [...view.document.images];
  pictures.forEach((e) => { e.loading = "eager"; });
  await Promise.race([Promise.all(pictures.map((e) => e.decode().catch(() => 0))),
                      new Promise((done) => setTimeout(done, 3000))]);
  pictures.filter((e) => !e.naturalWidth).forEach((e) => found.push(`no picture ${e.src}`));
  const pale = faint(view);
  if (pale.length) {
    const first = pale[0].textContent.trim().slice(0, 40);
    found.push(`${pale.length} faint texts, such as "${first}"`);
  }
  frame.remove();
  return found.map((text) => `${page} at ${width} px, ${theme}: ${text}`);
};
(async () => {
  const all = [];
  for (const job of jobs) all.push(...await look(job));
  document.body.textContent = "FOUND" + JSON.stringify(all) + "END";
})();
</script>"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def complaints(folder: Path, browser: str, pages: tuple[str, ...] = PAGES) -> list[str]:
    """What is wrong with the pages of a site, a line each."""
    found = [f"{page}: no such page" for page in pages if not (folder / page).is_file()]
    there = [page for page in pages if (folder / page).is_file()]
    jobs = [(page, width, mode) for page in there for width in WIDTHS for mode in ("light", "dark")]
    harness = folder / HARNESS
    harness.write_text(PAGE % json.dumps(jobs), encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory() as profile:
            told = subprocess.run(
                [
                    *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
                    *("--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}"),
                    *("--virtual-time-budget=300000", "--dump-dom"),
                    f"http://127.0.0.1:{server.server_port}/{HARNESS}",
                ],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
    finally:
        server.shutdown()
        server.server_close()
        harness.unlink()
    answer = re.search(r"FOUND(.*)END", html.unescape(told.stdout), re.DOTALL)
    if answer is None:
        return [*found, f"{browser} told nothing: {told.stderr[-400:]}"]
    said = re.findall(r'CONSOLE[^"]*"(.*)", source: (\S*)', told.stderr)
    errors = [f"console: {text} ({source})" for text, source in said if WRONG.search(text)]
    return found + json.loads(answer[1]) + list(dict.fromkeys(errors))


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0] if arguments else "docs/_build/html")
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        print(f"the site was not opened: none of {', '.join(NAMES)} is installed")
        return 0
    found = complaints(folder, browser)
    print(*found, sep="\n") if found else print(f"{len(PAGES)} pages opened, nothing found")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
