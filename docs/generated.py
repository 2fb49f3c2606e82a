"""What the site tells of settings and commands, from where they are defined: conf.py puts it into their pages."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from monai_cae.cli import command_parser
from monai_cae.cli.runs import all_settings
from monai_cae.folders import bundle_folder

_SECTION = re.compile(r"^# --- settings: (?P<title>.+)$|^(?P<name>[a-z]\w*):", re.MULTILINE)
_CODE = re.compile(r"(`[^`]+`|(?<![\w-])--[\w#-]+)")  # what is in backticks, and options
_SPECIAL = re.compile(r"([!-/:-@\[-`{-~])")


def settings_page() -> str:
    """Every setting as a MyST directive `confval`, under the headings of bundle/configs/src/common.yaml."""
    sections = _sections(bundle_folder() / "configs" / "src" / "common.yaml")
    entries: dict[str, list[dict]] = {}
    for setting in all_settings():
        entries.setdefault(setting["name"], []).append(setting)
    by_section: dict[str, list[str]] = {title: [] for title in dict.fromkeys(sections.values())}
    for name, told in entries.items():
        readers = [reader for setting in told for reader in setting["readers"]]
        alone = "The experiment alone" if readers == ["experiment.yaml"] else "Single stages"
        by_section.setdefault(sections.get(name.partition("#")[0], alone), []).append(name)
    order = {name: place for place, name in enumerate(sections)}
    parts = []
    for title, names in by_section.items():
        names.sort(key=lambda name: order.get(name.partition("#")[0], len(order)))
        parts += [f"## {title[:1].upper()}{title[1:]}", *("\n".join(_setting(name, entries[name])) for name in names)]
    return "\n\n".join(parts)


def _sections(source: Path) -> dict[str, str]:
    """The heading of every setting that common.yaml has, in its order."""
    found, title = {}, ""
    for match in _SECTION.finditer(source.read_text(encoding="utf-8").partition("\n# --- items")[0]):
        title = match["title"] or title
        if title and match["name"]:
            found[match["name"]] = title
    return found


def _setting(name: str, told: list[dict]) -> Iterator[str]:
    yield f"````{{confval}} {name}"
    for setting in told:
        yield f"{_text(setting['remark'])}\n"
        yield f"Default: {_code(setting['default'])}. Read by {', '.join(setting['readers'])}.\n"
    yield "````"


def commands_page() -> str:
    """Every command of `monai-cae` with its usage, arguments and options, as MyST directives `option`."""
    (commands,) = (action for action in command_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return "\n\n".join("\n".join(_command(f"monai-cae {name}", one)) for name, one in commands.choices.items())


def _command(name: str, parser: argparse.ArgumentParser, level: str = "##") -> Iterator[str]:
    yield f"{level} {name}\n"
    yield f"{_text(_sentence(parser.description or ''))}\n"
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=80)
    yield f"```text\n{parser.format_usage().strip()}\n```\n"
    yield f"```{{program}} {name}\n```\n"
    inner: list[argparse._SubParsersAction] = []
    for group in parser._action_groups:
        listed = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        inner += [action for action in listed if isinstance(action, argparse._SubParsersAction)]
        listed = [action for action in listed if not isinstance(action, argparse._SubParsersAction)]
        if listed and group.title not in ("positional arguments", "options"):
            yield f"**{_text(_sentence(group.title or ''))}**\n"
        for action in listed:
            yield from _argument(action)
    if parser.epilog:
        yield f"{_text(parser.epilog)}\n"
    for action in inner:
        for sub, one in action.choices.items():
            yield from _command(f"{name} {sub}", one, f"{level}#")


def _argument(action: argparse.Action) -> Iterator[str]:
    shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    named = action.option_strings
    if not named:
        shown = action.metavar if isinstance(action.metavar, str) else action.dest
    value = "" if action.nargs == 0 else f" {shown}"
    signature = ", ".join(f"{name}{value}" for name in named) or shown
    yield f"````{{option}} {signature}\n{_text(action.help or '')}\n````\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _text(text: str) -> str:
    """Plain text, as argparse prints it (`%%` is a percent sign), as Markdown that reads the same."""
    parts = _CODE.split(" ".join(text.replace("%%", "%").split()))
    return "".join(f"`{part.strip('`')}`" if _CODE.fullmatch(part) else _SPECIAL.sub(r"\\\1", part) for part in parts)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}" if text else "empty"
