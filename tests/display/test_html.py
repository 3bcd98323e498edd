import base64
import hashlib
import re

from markupsafe import Markup

from segbench.compare.document import Table
from segbench.display.html import page, part

EVIL = "</td></title></script><script>alert(1)</script>\"' onerror=alert(1) {{ 7 * 7 }}\x1b[31m"
SAFE = (
    "&lt;/td&gt;&lt;/title&gt;&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39; onerror=alert(1) "
    "{{ 7 * 7 }}\\x1b[31m"
)
EVIL_TABLE = Table(EVIL, EVIL, (EVIL, EVIL), ((EVIL, EVIL),), (False, True), (EVIL,))


def test_every_string_of_every_part_is_escaped():
    made = {
        "table": (part("table", EVIL_TABLE), 6),
        "chart": (part("chart", Markup("<svg></svg>"), EVIL, EVIL_TABLE), 8),
        "sentences": (part("sentences", [EVIL, "b"]), 1),
        "sentence": (part("sentence", EVIL), 1),
        "facts": (part("facts", {EVIL: EVIL}), 2),
        "folded": (part("folded", EVIL, EVIL), 2),
        "picture": (part("picture", "YQ==", 1, 2, EVIL), 2),
    }
    for name, (text, count) in made.items():
        assert text.count(SAFE) == count, name
        assert "<script" not in text and "49" not in text and "\x1b" not in text


def test_what_is_empty_is_left_out():
    assert part("sentences", []) == part("facts", {}) == part("group", "figures", []) == ""


def test_a_page_runs_its_own_script_alone():
    text = page("report.html", EVIL, sections=[(EVIL, "a", Markup("<b>")), ("b", "b", EVIL)])
    assert text.count(SAFE) == 5 and text.count("<script") == 1
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)[1]
    assert policy.startswith(f"default-src &#39;none&#39;; script-src &#39;sha256-{digest}&#39;; ")
    assert "unsafe-inline" not in policy.split("style-src")[0] and "unsafe-eval" not in policy
