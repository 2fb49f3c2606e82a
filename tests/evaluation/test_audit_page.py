import re
from html.parser import HTMLParser

import pytest

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.audit_page import audit_page

ONE_SET = {
    "n": 12,
    "subjects": 11,
    "classes": {"0": 7, "1": 5},
    "age": {"n": 12, "mean": 75.25, "sd": 7.5, "min": 60, "max": 93.0},
    "women": 8,
    "men": 4,
}


def check(name, findings=0, passed=True):
    return {
        "name": name,
        "looks_for": f"looks for {name}",
        "threshold": "p < 0.01",
        "compared": 1234,
        "unit": "pairs",
        "findings": findings,
        "passed": passed,
    }


def an_audit(findings=(), checks=(), **others):
    names = ("training", "validation", "test")
    checks = list(checks) or [check("Files")]
    return {"synthetic": False, "sets": dict.fromkeys(names, ONE_SET), "checks": checks, "findings": findings} | others


def leak(message="a leak", leak=True, members=("training: A", "test: B")):
    return {"check": "Files", "leak": leak, "message": message, "members": list(members)}


class Reader(HTMLParser):
    """The tags that are open, and all text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""


def text_of(page):
    return re.sub(r"\s+", " ", Reader(page).text)


@pytest.mark.parametrize(("count", "verdict"), [(0, "No leak found"), (1, "1 leak found"), (3, "3 leaks found")])
def test_the_verdict_counts_leaks_and_not_warnings(count, verdict):
    page = audit_page(an_audit([leak("odd", leak=False), *[leak()] * count], [check("Files", count + 1, False)]))
    assert f"<strong>{verdict}</strong>" in page and f"<title>Leakage audit: {verdict}</title>" in page
    assert ('class="verdict bad"' in page) == (count > 0)
    text = text_of(page)
    assert "1 check done, 1 warning." in text and "Warning, files: odd" in text
    assert text.index("Warning, files") > max(text.find("Leak, files"), 0)


def test_the_page_says_what_was_compared_and_what_was_not():
    page = audit_page(an_audit([], [check("Files"), check("Pixels", passed=None)], not_checked=["twins"]))
    text = text_of(page)
    assert "1 check done, no warnings. Not done: Pixels." in text
    assert "training12117575.2 ± 7.5 (60–93)8 / 4" in text
    assert "looks for Filesp < 0.011,234pairs✓ nothing" in text and "looks for Pixelsp < 0.01–not done" in text
    assert re.search(r"What was not checked Pixels: looks for Pixels ?twins", text)
    assert "Research software, not a medical device" in text


def test_results_tell_leaks_from_warnings():
    text = text_of(audit_page(an_audit([leak(), leak(), leak(leak=False)], [check("Files", 3, False)])))
    assert "✗ 2 leaks! 1 warning" in text


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_are_named(synthetic):
    assert ("SYNTHETIC DATA" in text_of(audit_page(an_audit(synthetic=synthetic)))) == synthetic


def test_names_are_escaped_everywhere():
    evil = "<b onload='x'>&\"</td><script>alert(1)</script>"
    broken = [{**check(evil), "looks_for": evil, "threshold": evil, "unit": evil}, check(evil, passed=None)]
    content = an_audit([leak(evil, members=[evil]) | {"check": evil}], broken, not_checked=[evil])
    page = audit_page(content | {"sets": {evil: ONE_SET}})
    reader = Reader(page)
    assert "script" not in reader.seen and reader.open == [] and "<b onload" not in page
    assert reader.text.count("<script>alert(1)</script>") == 14


def test_at_most_a_hundred_findings_and_six_members_are_listed():
    many = [leak(f"number {n}.", members=[f"m{k}." for k in range(9)]) for n in range(120)]
    text = text_of(audit_page(an_audit([leak("late", leak=False), *many])))
    assert "number 99." in text and "number 100." not in text and "late" not in text
    assert "21 more findings not shown" in text and "120 leaks found" in text
    assert "m5. · and 3 more" in text and "m6." not in text


def test_the_page_loads_nothing_and_runs_nothing():
    page = audit_page(an_audit([leak()]))
    assert not re.search(r"<(script|link|img|iframe|object|embed)|https?:|url\(|@import", page)


def test_ages_and_sexes_may_be_unknown():
    sets = {"training": {**ONE_SET, "age": None, "women": 0, "men": 0}}
    partly = {"test": {**ONE_SET, "age": {**ONE_SET["age"], "n": 9}}}
    text = text_of(audit_page(an_audit(sets=sets | partly)))
    assert text.count("not given") == 2 and "(60–93)of 9" in text


def test_something_else_than_an_audit_is_refused():
    with pytest.raises(MonaiCaeError, match="not a leakage audit: it has no checks, findings") as caught:
        audit_page({"sets": {}, "synthetic": True})
    assert "\n" not in str(caught.value)
