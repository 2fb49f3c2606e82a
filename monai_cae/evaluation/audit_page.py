"""The leakage audit as one HTML page for a reviewer: it loads nothing, runs nothing, and prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from monai_cae.errors import MonaiCaeError

SHOWN_FINDINGS = 100
SHOWN_MEMBERS = 6
CLASS_NAMES = {"0": "HC (label 0)", "1": "AD (label 1)"}

_NEEDED = ("sets", "checks", "findings", "synthetic")
_STYLE = """
:root { --ink: #1d2329; --muted: #5d6670; --line: #d9dee3; --good: #00664b; --bad: #a63a00; --warn: #7a5900 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 2.2rem 2rem 3rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif }
header p, footer, .muted { color: var(--muted) }
.kicker { margin: 0; font-size: .8rem; letter-spacing: .08em; text-transform: uppercase }
h1 { margin: .2rem 0 1.2rem; font-size: 1.7rem; font-weight: 650; line-height: 1.2 }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.1rem; font-weight: 650; break-after: avoid }
.verdict { padding: 1rem 1.3rem; border-left: .4rem solid var(--good); background: #edf6f2; break-inside: avoid }
.verdict.bad { border-color: var(--bad); background: #fcf0ea }
.verdict strong { display: block; font-size: 1.5rem; line-height: 1.3; color: var(--good) }
.verdict.bad strong { color: var(--bad) }
.verdict p { margin: .3rem 0 0 }
.synthetic { margin: 1rem 0 0; padding: .5rem 1.3rem; border: 1px solid var(--warn); color: var(--warn) }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .5rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { color: var(--muted); font-weight: 600; border-bottom: 2px solid var(--ink); white-space: nowrap }
tbody th { font-weight: 600; white-space: nowrap }
thead { display: table-header-group }
tr, li { break-inside: avoid }
.number { text-align: right; white-space: nowrap }
.result { white-space: nowrap; font-weight: 600 }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--warn) }
small { display: block; color: var(--muted); font-size: .82rem; overflow-wrap: anywhere }
td, li { overflow-wrap: break-word }
ol, ul { padding-left: 1.5rem } li { margin: .45rem 0 }
ol { font-size: .9rem }
footer { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--line); font-size: .85rem }
@page { size: A4; margin: 16mm 14mm }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt }
  .verdict { -webkit-print-color-adjust: exact; print-color-adjust: exact } }
@media (max-width: 48rem) { body { padding: 1.2rem 1rem } .wide { overflow-x: auto }
  tbody th { white-space: normal } }
"""


def audit_page(audit: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        audit: what `monai_cae.data.splits.audit.Audit.to_dict` gives, or the same read from JSON.

    Returns:
        A self-contained HTML document: inline style, no scripts, nothing loaded from elsewhere, all names escaped. It
        shows the first 100 findings, leaks first.

    Raises:
        MonaiCaeError: not an audit.
    """
    missing = [key for key in _NEEDED if key not in audit]
    if missing:
        raise MonaiCaeError(f"this is no leakage audit: it has no {', '.join(missing)}; give what `to_dict` wrote")
    findings = sorted(audit["findings"], key=lambda finding: not finding["leak"])
    leaks = sum(bool(finding["leak"]) for finding in findings)
    verdict = _verdict(leaks)
    synthetic = "<p class='synthetic'><b>SYNTHETIC DATA</b>, not real MRI: this audit says nothing about patients.</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leakage audit: {verdict}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<p class="kicker">monai-cae leakage audit</p>
<h1>Does anyone of the test set hide in training?</h1>
<div class="verdict{" bad" if leaks else ""}"><strong>{verdict}</strong>
<p>{_scope(audit["checks"], len(findings) - leaks)}</p></div>
{synthetic if audit["synthetic"] else ""}
</header>
<main>
<h2>The data</h2>
{_sets_table(audit["sets"])}
{_left_out(audit.get("bad_scans", []))}
{"".join(f"<p>{escape(str(note))}</p>" for note in audit.get("notes", ()))}
<h2>What was looked for</h2>
{_checks_table(audit["checks"], findings)}
<h2>What was found</h2>
{_findings_list(findings)}
<h2>What was not checked</h2>
{_not_checked(audit)}
</main>
<footer>Research software, not a medical device. A leak lets a network recognise a test subject instead of the disease;
a warning is something to explain. Only the comparisons above were made.</footer>
</body>
</html>
"""


def _left_out(bad: Sequence[Mapping[str, Any]]) -> str:
    if not bad:
        return "<p class='muted'>No scan was left out as unusable.</p>"
    rows = [
        f"<li><b>{escape(str(scan['subject']))}</b>, {escape(str(scan.get('set') or 'before the split'))}: "
        f"{escape(str(scan['reason']))}<small>{escape(str(scan['image']))}</small></li>"
        for scan in bad[:SHOWN_FINDINGS]
    ]
    more = f"<p>and {len(bad) - SHOWN_FINDINGS:,} more</p>" if len(bad) > SHOWN_FINDINGS else ""
    return f"<p><b>{_count(len(bad), 'scan')} left out</b>, unusable:</p>\n<ol>\n{chr(10).join(rows)}\n</ol>{more}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _verdict(leaks: int) -> str:
    return f"{_count(leaks, 'leak')} found" if leaks else "No leak found"


def _scope(checks: Sequence[Mapping[str, Any]], warnings: int) -> str:
    not_done = [escape(str(check["name"])) for check in checks if check["passed"] is None]
    warned = _count(warnings, "warning") if warnings else "no warnings"
    done = f"{_count(len(checks) - len(not_done), 'check')} done, {warned}"
    return f"{done}. <b>Not done:</b> {', '.join(not_done)}." if not_done else f"{done}."


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th scope='col'{' class=number' if h.endswith('#') else ''}>{h.rstrip('#')}</th>" for h in heads)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _sets_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    shown = {
        label: name for label, name in CLASS_NAMES.items() if any(label in one["classes"] for one in sets.values())
    }
    heads = ("Set", "Scans#", "Subjects#", *(f"{name}#" for name in shown.values()))
    heads += ("Age, mean ± SD (range)#", "Women / men#")
    rows = []
    for name, one in sets.items():
        classes = [f"{one['classes'].get(label, 0):,}" for label in shown]
        sexes = f"{one['women']:,} / {one['men']:,}" if one["women"] + one["men"] else "not given"
        cells = (f"{one['n']:,}", f"{one.get('subjects', one['n']):,}", *classes, _age(one), sexes)
        rows.append(
            f"<tr><th scope='row'>{escape(name)}</th>{''.join(f'<td class=number>{c}</td>' for c in cells)}</tr>"
        )
    return _table(heads, rows)


def _age(one: Mapping[str, Any]) -> str:
    age = one["age"]
    if not age:
        return "not given"
    known = "" if age["n"] == one["n"] else f"<small>of {age['n']:,}</small>"
    return f"{age['mean']:.1f} ± {age['sd']:.1f} ({age['min']:g}–{age['max']:g}){known}"


def _checks_table(checks: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]) -> str:
    leaks = Counter(finding["check"] for finding in findings if finding["leak"])
    rows = []
    for check in checks:
        compared = "–" if check["passed"] is None else f"{check['compared']:,}<small>{escape(check['unit'])}</small>"
        rows.append(
            f"<tr><th scope='row'>{escape(check['name'])}</th><td>{escape(check['looks_for'])}"
            f"<small>{escape(check['threshold'])}</small></td><td class=number>{compared}</td>"
            f"<td class=result>{_result(check, leaks[check['name']])}</td></tr>"
        )
    return _table(("Check", "Looks for, and the threshold", "Compared#", "Result"), rows)


def _result(check: Mapping[str, Any], leaks: int) -> str:
    if check["passed"] is None:
        return "<span class=muted>not done</span>"
    warnings = check["findings"] - leaks
    parts = [f"<span class=bad>✗ {_count(leaks, 'leak')}</span>"] if leaks else []
    parts += [f"<span class=warn>! {_count(warnings, 'warning')}</span>"] if warnings else []
    return "<br>".join(parts) or "<span class=good>✓ nothing</span>"


def _findings_list(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return "<p>Nothing.</p>"
    rest = len(findings) - SHOWN_FINDINGS
    more = f"<p class=muted>{_count(rest, 'more finding')} not shown.</p>" if rest > 0 else ""
    return f"<ol>{''.join(map(_finding, findings[:SHOWN_FINDINGS]))}</ol>{more}"


def _finding(finding: Mapping[str, Any]) -> str:
    kind = "<b class=bad>Leak</b>" if finding["leak"] else "<b class=warn>Warning</b>"
    members = [escape(str(member)) for member in finding["members"]]
    rest = len(members) - SHOWN_MEMBERS
    names = " · ".join(members[:SHOWN_MEMBERS]) + (f" · and {rest:,} more" if rest > 0 else "")
    message = escape(finding["message"])
    return f"<li>{kind}, {escape(finding['check']).lower()}: {message}{f'<small>{names}</small>' if names else ''}</li>"


def _not_checked(audit: Mapping[str, Any]) -> str:
    skipped = [f"{check['name']}: {check['looks_for']}" for check in audit["checks"] if check["passed"] is None]
    lines = [*skipped, *audit.get("not_checked", ())]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
