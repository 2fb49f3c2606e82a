"""Every link between the Markdown files of the repository leads somewhere; `make docs` builds the site of them."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from monai_cae.cli import command_parser
from monai_cae.cli.runs import all_settings
from monai_cae.data.cohort.tables import COVARIATES, ROLES, SCAN_IDS
from monai_cae.folders import bundle_folder

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "monai_cae" / "templates"  # with Jinja's places in them
LINK = re.compile(r"\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split() if (path := ROOT / name).is_file() and path.parent != TEMPLATES]


def prose(page: Path) -> str:
    """Its text without code, in which brackets mean something else."""
    text = re.sub(r"^(```+|~~~+).*?^\1`*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", lambda code: "x" * len(code[0]), text)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MyST make them: lower case, without punctuation, hyphens for spaces."""
    text = re.sub(r"^(```+|~~~+).*?^\1`*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for title in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.append(f"{slug}-{count}" if (count := found.count(slug)) else slug)
    return set(found)


def broken(page: Path, text: str) -> Iterator[str]:
    """The links that lead nowhere, of those within the repository."""
    for link in (first or second for first, second in LINK.findall(text)):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.is_relative_to(ROOT) or not target.exists():
            yield f"{page.relative_to(ROOT)}: {link}"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{page.relative_to(ROOT)}: {link}, no such heading"


def test_links_between_pages_lead_somewhere():
    found = pages()
    assert {"README.md", "docs/index.md", "docs/explanation/results.md"} <= {
        str(one.relative_to(ROOT)) for one in found
    }
    assert [fault for page in found for fault in broken(page, prose(page))] == []


def test_the_site_links_to_no_page_that_it_lacks():
    docs = ROOT / "docs"
    found = [
        f"{page.relative_to(docs)}: {link}"
        for page in pages()
        if page.is_relative_to(docs)
        for link in (first or second for first, second in LINK.findall(prose(page)))
        if (target := (page.parent / link.partition("#")[0]).resolve()).suffix == ".md"
        and not target.is_relative_to(docs)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("[a](docs/index.md#four-doors), [b](https://example.org/x) and [c](#two-commands)", []),
        ("[a](docs/nowhere.md)", ["README.md: docs/nowhere.md"]),
        ("[a](docs/index.md#five-doors)", ["README.md: docs/index.md#five-doors, no such heading"]),
        ("![a](docs/figures/none.png)", ["README.md: docs/figures/none.png"]),
        ("[a](../README.md)", ["README.md: ../README.md"]),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text, faults):
    assert list(broken(ROOT / "README.md", text)) == faults


def test_every_page_of_docs_is_in_a_list_of_pages():
    for folder in (ROOT / "docs").iterdir():
        if not (folder / "index.md").is_file():
            continue
        text = (folder / "index.md").read_text(encoding="utf-8")
        listed = re.search(r"```\{toctree\}(.*?)```", text, re.DOTALL)[1].split()
        names = {page.relative_to(folder).with_suffix("").as_posix() for page in folder.glob("*.md")} - {"index"}
        assert "*" in listed or names <= set(listed), folder.name


def test_files_that_messages_and_remarks_name_are_there():
    files = [*ROOT.glob("monai_cae/**/*.py"), *ROOT.glob("bundle/configs/**/*.yaml"), *ROOT.glob("tools/*.py"),
             *ROOT.glob("benchmarks/*.py"), ROOT / "Makefile", ROOT / "CONTRIBUTING.md"]  # fmt: skip
    named = {name for file in files for name in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text(encoding="utf-8"))}
    known = {"docs/README.md", "docs/model_card_experiment.md"}  # of a bundle
    assert "docs/how-to/cluster.md" in named
    assert {name for name in named - known if not (ROOT / name).is_file()} == set()


def test_commands_of_the_tutorials_have_options_and_settings_that_exist():
    """`make docs` runs the tutorials; this tells in a moment where a name has changed."""
    known = {setting["name"].partition("#")[0] for setting in all_settings()} | {"stages"}
    lines = [
        line
        for page in sorted((ROOT / "docs" / "tutorials").glob("*.md"))
        for cell in re.findall(r"```\{code-cell\}[^\n]*\n%%bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        for line in cell.replace("\\\n", " ").splitlines()
        if line.startswith("monai-cae ")
    ]
    assert len(lines) > 20
    for line in lines:
        words = [*takewhile(lambda word: not re.match(r"[|>&]|2>", word), shlex.split(line, comments=True))]
        _, further = command_parser().parse_known_args(words[1:])
        names = {word[2:].partition("=")[0].partition("#")[0] for word in further if word.startswith("--")}
        assert names <= known, line


def test_the_reference_has_every_command_and_setting():
    made = runpy.run_path(str(ROOT / "docs" / "generated.py"))
    commands = made["commands_page"]()
    for name in ("run", "predict", "audit", "cluster keys"):
        assert re.search(rf"^#+ monai-cae {name}$", commands, re.MULTILINE)
    options = {option for action in command_parser()._subparsers._group_actions[0].choices["datalist"]._actions
               for option in action.option_strings if option.startswith("--")} - {"--help"}  # fmt: skip
    section = commands.partition("## monai-cae datalist\n")[2].partition("\n## ")[0]
    assert options == set(re.findall(r"^````\{option\} (--[\w-]+)", section, re.MULTILINE))
    settings = made["settings_page"]()
    entry = settings.partition("{confval} batch_size\n")[2].partition("````")[0]
    assert "images per step" in entry and "Default: `32`" in entry and "train.json" in entry
    # a member; a setting of the experiment alone; one whose remarks differ
    assert "{confval} cohort#task\n" in settings
    assert settings.index("## The experiment alone") < settings.index("{confval} repeats\n")
    assert settings.partition("{confval} datalist\n")[2].partition("````")[0].count("Default: ") == 2


def test_every_caveat_stands_on_its_page():
    """The capital letters that a text of the package begins with; formats and such are no caveats."""
    begins = re.compile(r"""["'](?:! )?(?:([A-Z][A-Z']+(?: [A-Z']+)*): |((?:[A-Z,]+ ){3,}[A-Z]+)["'])""")
    sources = [path.read_text("utf-8") for path in ROOT.glob("monai_cae/**/*.py")]
    printed = {first or second for source in sources for first, second in begins.findall(source)}
    printed -= {"BIDS", "DICOM", "IXI", "MINC", "NRRD", "YAML"}
    page = (ROOT / "docs" / "reference" / "caveats.md").read_text("utf-8")
    assert set(re.findall(r"^\*\*([A-Z][A-Z', ]+)\*\*$", page, re.MULTILINE)) == printed
    assert {"FEW REPEATS", "SYNTHETIC DATA, NOT REAL MRI", "COLLAPSED CODE"} <= printed


def test_names_of_columns_are_those_that_are_known():
    page = (ROOT / "docs" / "how-to" / "cohorts.md").read_text("utf-8")
    section = page.partition("\n## Names of columns\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| `--(\w+)-column` \| (.+) \|$", section, re.MULTILINE)
    assert {role: tuple(re.findall("`([^`]+)`", names)) for role, option, names in rows if option == role} == ROLES
    assert set(SCAN_IDS) | set(COVARIATES) <= set(re.findall("`([^`]+)`", section))


def test_the_baselines_that_a_page_names_are_those_of_the_config():
    models = json.loads((bundle_folder() / "configs" / "baselines.json").read_text("utf-8"))["models"]
    page = (ROOT / "docs" / "how-to" / "experiments.md").read_text("utf-8")
    section = page.partition("\n### The baselines\n")[2].partition("\n### ")[0]
    assert set(models) <= set(re.findall(r"`(\w+)`", section))
