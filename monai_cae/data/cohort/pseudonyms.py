"""Pseudonyms: keyed hashes that replace subject IDs in everything that may leave the machine.

Without a key, anybody could hash every possible ID (OASIS-1 has 457) and look them up.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.persons import person, spellings
from monai_cae.data.scan import BadScan
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing

KEY_VARIABLE = "MONAI_CAE_ID_KEY"
_SHORTEST = 16


def pseudonym(subject: str) -> str:
    """ "s" and 16 hexadecimal digits: HMAC-SHA256 of the subject's ID under this user's key.

    The ID is taken without a session at its end, in lower case, so all scans of one subject get one pseudonym. The key
    is in the environment variable `MONAI_CAE_ID_KEY` or, without it, in `monai-cae/id_key` of the user's configuration
    folder, made at random if there is none; the same key gives the same pseudonyms in all runs.

    Raises:
        MonaiCaeError: a key that is too short, or a key file that can't be read or written.
    """
    return "s" + hmac.new(_key(), person(subject).encode(), "sha256").hexdigest()[:16]


def is_pseudonym(subject: str) -> bool:
    """Whether a subject's name may be a pseudonym."""
    return re.fullmatch(r"s[0-9a-f]{16}", subject) is not None


def names_of(subject: str) -> set[str]:
    """The spellings of a subject's name and, if a key exists, their pseudonyms; makes no key."""
    if is_pseudonym(subject):
        return {subject}
    names = spellings(subject)
    known = KEY_VARIABLE in os.environ or key_file().is_file()
    return names | {pseudonym(name) for name in names} if known else names


def hash_subject(subject: str) -> str:
    """The first 16 hex digits of the SHA-256 of "monai-cae subject:" and the name, the same everywhere and always.

    The name is taken as `person` spells it: in lower case, without "sub-" and without a session at its end. The hash
    identifies, it does not protect: anyone who can guess the names can hash them. The hash of a pseudonym starts with
    k, because it can't be compared with that of a name.
    """
    digest = hashlib.sha256(f"monai-cae subject:{person(subject)}".encode()).hexdigest()[:16]
    return f"k{digest}" if is_pseudonym(subject) else digest


def hashed_subjects(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """The hashed subject IDs of items, without duplicates, for a checkpoint."""
    return sorted({hash_subject(item["subject"]) for item in items})


def with_pseudonyms(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items of a datalist with pseudonyms instead of subjects."""
    return [{**item, "subject": pseudonym(item["subject"])} for item in items]


def hidden(scan: BadScan, alias: str) -> BadScan:
    """A scan that can't be used, its subject and the name of its file replaced; the reason may name the file, too."""
    name = Path(scan.image).name
    stem = re.escape(name.partition(".")[0])
    as_a_name = re.compile(rf"(?<!\w){stem}(?=\.)") if stem else re.compile("(?!)")  # of 7.nii not the 7 in "7 bytes"
    image, reason = (as_a_name.sub(alias, text) for text in (name, scan.brief))
    return replace(scan, subject=alias, image=image, reason=reason)


def key_file() -> Path:
    """Where the key is when `MONAI_CAE_ID_KEY` is not set."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "monai-cae" / "id_key"


def _key() -> bytes:
    given = os.environ.get(KEY_VARIABLE)
    source = KEY_VARIABLE if given is not None else str(key_file())
    if given is None:
        given = _read_or_make(key_file())
    if len(given.strip()) < _SHORTEST:
        raise MonaiCaeError(
            f"the key in {source} must have {_SHORTEST} characters or more: anyone who guesses it learns the IDs"
        )
    return given.strip().encode()


def _read_or_make(path: Path) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MonaiCaeError(f"can't read {path}: repair it, or set {KEY_VARIABLE} to a key of your own") from error
    key = secrets.token_hex(32)
    with replacing(path, f"set {KEY_VARIABLE} to a key of your own") as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(key + "\n", encoding="utf-8")
    print(f"made the pseudonym key {path}: keep it, and keep it secret", flush=True)
    return key
