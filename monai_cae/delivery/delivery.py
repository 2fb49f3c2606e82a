"""One run's way to MLflow: at once while MLflow answers, else to disk, and from there when it is back."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from monai_cae.delivery import limits
from monai_cae.delivery.kept import OFFLINE, UNSENT, Kept, kept_in
from monai_cae.delivery.operations import (
    FILES,
    LOCAL_ID,
    RECORDS,
    Operation,
    experiment_id,
    find_local,
    lane,
)
from monai_cae.delivery.sending import Sent, ask_for, broken_off, make_run, send_all, send_kept
from monai_cae.delivery.store import Store, StoreAway, StoreRefuses
from monai_cae.errors import MonaiCaeError

T = TypeVar("T")


class Delivery:
    """Tells MLflow what a run has to say, in order, and never ends the run once it has begun.

    A store that does not answer lets the run wait for `limits.WAIT_SECONDS` at most, and is then left alone for
    `limits.PAUSE_SECONDS`. What it would have got, and later what it refuses, is kept in `output_dir/unsent`.

    Args:
        store: where to.
        output_dir: the run's folder.
        name: of the run, for people.
        experiment: MLflow's experiment.

    Attributes:
        run_id: as MLflow knows the run; `offline-...` while it does not.
        experiment_id: as MLflow knows the experiment; "" while that is not known.
    """

    def __init__(self, store: Store, output_dir: Path, name: str, experiment: str) -> None:
        self.store = store
        self.output_dir = output_dir.resolve()
        self.name = name
        self.experiment = experiment
        self.run_id = ""
        self.experiment_id = ""
        self._kept = Kept(Path())
        self._begun = False
        self._behind: frozenset[str] = frozenset()
        self._next_try = 0.0
        self._refused = False

    def start(self, tags: dict[str, str], parent: str) -> None:
        """Create the run.

        Raises:
            MonaiCaeError: MLflow answers, and refuses.
        """
        local = f"{OFFLINE}{uuid.uuid4().hex}"
        about = {"experiment": self.experiment, "name": self.name, "parent": parent}
        operation = {"do": "create", **about, "tags": {**tags, LOCAL_ID: local}, "time": milliseconds()}
        try:
            made = self._ask(partial(make_run, store=self.store, operation=operation, near=self.output_dir))
        except StoreAway as away:
            self._note_away(RECORDS, away)
            self._use(local)
            self._behind = frozenset((RECORDS, FILES))
            self._keep(operation)
        except StoreRefuses as refused:
            raise self._mistake(refused) from refused
        else:
            self._use(*made)
            self._send_others()

    def go_on(self, run_id: str) -> bool:
        """Open a run again, also one that MLflow does not know yet; whether it is still there.

        Raises:
            MonaiCaeError: MLflow answers, and refuses.
        """
        self._use(run_id)
        if self._kept.path.is_file():
            self._keep({"do": "reopen"})
            self._behind = frozenset((RECORDS, FILES))
            self._send()
            return True
        try:
            found = self._ask(partial(self._find, run_id=run_id))
        except StoreAway as away:
            self._note_away(RECORDS, away)
            self._behind = self._behind | {RECORDS}
        except StoreRefuses as refused:
            raise self._mistake(refused) from refused
        else:
            if not found:
                self._use("")
                return False
            self._use(found, self.experiment_id)
        self.tell({"do": "reopen"})
        return True

    def tell(self, operation: Operation, source: Path | None = None) -> None:
        """Have MLflow do an operation, now or later."""
        which = lane(operation)
        if self._behind and time.monotonic() >= self._next_try:
            self._send()
        if not self._behind & {which, RECORDS} and not self.store.paused(which):
            try:
                ask_for(self.store, operation, self.run_id, source)
            except StoreAway as away:
                self._note_away(which, away)
            except StoreRefuses as refused:
                self._note_refused(str(refused))
                self._keep(operation, source)
                return
            else:
                return
        self._behind = self._behind | {which}
        self._keep(operation, source)

    def look_up(self, question: Callable[[Any, str], T]) -> T | None:
        """An answer that needs client and experiment; None where the store is away, or won't tell."""
        try:
            return self._ask(lambda client: question(client, self._experiment(client)))
        except StoreAway as away:
            self._note_away(RECORDS, away)
        except StoreRefuses as refused:
            self._note_refused(str(refused))
        return None

    def close(self, last: bool) -> None:
        """Try once more, also in a pause if it is the `last` chance; then what other runs have kept beside this one."""
        if self._behind and (last or time.monotonic() >= self._next_try):
            self._send(last)
        if not self.store.paused(RECORDS):
            self._send_others()

    def _send_others(self) -> None:
        send_all(kept_in(self.output_dir), self.store)

    def _ask(self, question: Callable[[Any], T]) -> T:
        if self.store.paused(RECORDS) or RECORDS in self._behind:
            raise StoreAway("it did not a moment ago")
        answer = self.store.ask(question)
        self.store.resume(RECORDS)
        return answer

    def _experiment(self, client: Any) -> str:
        self.experiment_id = self.experiment_id or experiment_id(client, self.experiment, self.store.uri)
        return self.experiment_id

    def _find(self, client: Any, run_id: str) -> str:
        """The run, if the experiment still has it, by MLflow's name or the local one."""
        from mlflow.exceptions import MlflowException

        experiment = self._experiment(client)
        if run_id.startswith(OFFLINE):
            return find_local(client, experiment, run_id)
        try:
            info = client.get_run(run_id).info
        except MlflowException as error:
            if error.get_http_status_code() in (400, 404):  # no such run, or nothing that could be one's name
                return ""
            raise
        there = info.experiment_id == experiment and info.lifecycle_stage == "active"
        return run_id if there else ""

    def _use(self, run_id: str, experiment: str = "") -> None:
        self.run_id, self.experiment_id = run_id, experiment
        self._kept = Kept(self.output_dir / UNSENT / run_id)

    def _keep(self, operation: Operation, source: Path | None = None) -> None:
        if not self._begun:
            about = {"tracking_uri": self.store.shown, "name": self.name, "experiment": self.experiment}
            if self._kept.begin(**about):
                tqdm.write(f"note: {broken_off(self._kept)}")
            self._begun = True
        self._kept.add(operation, source)

    def _send(self, at_once: bool = False) -> None:
        which = RECORDS if RECORDS in self._behind else FILES
        if self.store.paused(which) and not at_once:
            return
        try:
            sent = send_kept(self.store, self._kept, limits.WAIT_SECONDS, own=True)
        except MonaiCaeError as damaged:
            tqdm.write(f"note: {damaged}")
            sent = Sent(behind=self._behind)
        self._next_try = time.monotonic() + limits.PAUSE_SECONDS
        if sent.run_id:
            self.run_id, self.experiment_id = sent.run_id, sent.experiment_id or self.experiment_id
        if sent.refused:
            self._note_refused(sent.refused)
        for one in (RECORDS, FILES):
            if one not in sent.behind:
                self.store.resume(one)
            elif sent.away and not sent.busy:
                self.store.pause(one)
        if sent.run_id and not sent.behind:
            tqdm.write(f"MLflow at {self.store.shown} answers again: {self.name}: {sent.content} sent")
        self._behind = sent.behind
        self._begun = self._kept.path.is_file()

    def _note_away(self, which: str, away: StoreAway) -> None:
        if not self.store.known_away(which):
            what = "does not answer" if which == RECORDS else "does not take files"
            command = f"monai-cae sync {shlex.quote(str(self.output_dir))}"
            tqdm.write(
                f"MLflow at {self.store.shown} {what} ({away}): training goes on; what it has not got is kept in "
                f"{self.output_dir / UNSENT} and sent when it is back, or by: {command}"
            )
        self.store.pause(which)

    def _note_refused(self, reason: str) -> None:
        if not self._refused:
            self._refused = True
            tqdm.write(
                f"MLflow at {self.store.shown} refuses some of {self.name} ({reason}): training goes on; it is kept in "
                f"{self.output_dir / UNSENT}"
            )

    def _mistake(self, refused: StoreRefuses) -> MonaiCaeError:
        return MonaiCaeError(
            f"MLflow at {self.store.shown} refuses to open the run ({refused}): check --tracking_uri, "
            "--experiment_name and your login"
        )


def milliseconds() -> int:
    """Now, as MLflow counts."""
    return int(time.time() * 1000)
