"""The check of the site finds what it is to find, and is silent where nothing is wrong."""

import shutil

import pytest

from site_check import NAMES, complaints

PAGE = """<!doctype html><html data-theme="light"><head><meta charset="utf-8"><script>
document.documentElement.dataset.theme = localStorage.getItem("mode");
</script><style>html[data-theme=dark] body { background: #111; color: #eee; }</style></head>
<body style="margin:0"><main>%s</main></body></html>"""

WRONG = {
    "wide": ('<div style="width:700px">a table</div>', "700 px wide"),
    "picture": ('<img src="nowhere.png">', "no picture"),
    "faint": ('<p style="color:#ccc;background:#fff">text</p>', "1 faint texts"),
    "error": ("<script>missing.call()</script>", "missing is not defined"),
}


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def test_what_is_wrong_is_found_on_its_page_alone(tmp_path, browser):
    for name, (text, _) in WRONG.items():
        (tmp_path / f"{name}.html").write_text(PAGE % text)
    (tmp_path / "good.html").write_text(PAGE % "<p>text</p>")
    found = complaints(tmp_path, browser, ("good.html", *(f"{name}.html" for name in WRONG)))
    for name, (_, expected) in WRONG.items():
        assert any(f"{name}.html" in each and expected in each for each in found), (name, found)
    assert not any("good.html" in each for each in found)
    assert complaints(tmp_path, browser, ("absent.html",)) == ["absent.html: no such page"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(["good", *WRONG])
