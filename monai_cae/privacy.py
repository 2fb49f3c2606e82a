"""Take out of a text who uses this machine, what it is called, and what opens its doors."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

_USERS = ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER")
_SECRET = re.compile(r"PASSW|TOKEN|SECRET|KEY|CREDENTIAL", re.IGNORECASE)
_NOBODY = {"root", "localhost"}
_SHORT = 3  # letters of a name that is looked for inside words, too


def discreetly() -> Callable[[str], str]:
    """A function that takes out of a text what must not be in an issue: home folders become ~, users USER, this
    machine's name HOST; user names, passwords and queries of addresses go, and so does the value of every environment
    variable that is called a password, token, secret or key."""
    homes, names, hosts, secrets = _homes(), _names(), _hosts(), _secrets()

    def discreet(text: str) -> str:
        text = re.sub(r"(\w[\w+.-]*:/+)[^\s'\"]*@", r"\1", text)
        text = re.sub(r"(\w[\w+.-]*://[^\s'\"?#;]*)[?#;][^\s'\"]*", r"\1", text)
        for secret in secrets:
            text = text.replace(secret, "***")
        for home in homes:
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        text = re.sub(r"(?i)([\\/](?:home|users)[\\/])[^\\/\s'\":]+", r"\1USER", text)
        for name, instead in ((name, "USER") for name in names):
            text = _without(name, instead, text)
        for host in hosts:
            text = _without(host, "HOST", text)
        return re.sub(r"\b(GPU|MIG)-[0-9a-f][\w-]*", r"\1-...", text)

    return discreet


def _without(name: str, instead: str, text: str) -> str:
    inside = re.escape(name) if len(name) >= _SHORT else rf"(?<!\w){re.escape(name)}(?!\w)"
    return re.sub(inside, instead, text, flags=re.IGNORECASE)


def _longest_first(found: Iterable[str]) -> list[str]:
    return sorted({text for text in found if text.strip()}, key=len, reverse=True)


def _homes() -> list[str]:
    found = [os.environ.get("HOME", ""), os.environ.get("USERPROFILE", "")]
    with suppress(ImportError, KeyError):
        import pwd

        found.append(pwd.getpwuid(os.getuid()).pw_dir)
    found = [path.rstrip("/\\") for path in found]
    return _longest_first(path for one in found if one for path in (one, os.path.realpath(one)) if len(path) > 1)


def _names() -> list[str]:
    found = [_login()[0], *(os.environ.get(name, "") for name in _USERS)]
    with suppress(ImportError, KeyError, OSError):
        found.append(getpass.getuser())
    with suppress(ImportError, KeyError):
        import pwd

        entry = pwd.getpwuid(os.getuid())
        found += [entry.pw_name, entry.pw_gecos.partition(",")[0]]
    return [name for name in _longest_first(found) if name.lower() not in _NOBODY]


def _hosts() -> list[str]:
    found = [os.environ.get(name, "") for name in ("HOSTNAME", "COMPUTERNAME")]
    with suppress(OSError):
        found.append(socket.gethostname())
    found += [name.partition(".")[0] for name in found]
    return [name for name in _longest_first(found) if name.lower() not in _NOBODY]


def _secrets() -> list[str]:
    found = [value for name, value in os.environ.items() if _SECRET.search(name)]
    return _longest_first(value for value in (*found, _login()[1]) if len(value) > _SHORT)


def _login() -> tuple[str, str]:
    """User and password in MLflow's address."""
    found = re.match(r"\w[\w+.-]*:/+(.*)@", os.environ.get("MLFLOW_TRACKING_URI", ""))
    user, _, password = (found[1] if found else "").partition(":")
    return user, password
