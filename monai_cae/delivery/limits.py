"""How long anything waits for MLflow: the one place that says so."""

from __future__ import annotations

REQUEST_SECONDS = 5  # of silence, after which MLflow's client gives a request up, and does not repeat it
WAIT_SECONDS = 10.0  # a run waits no longer for its store, at a time, whatever it is that hangs
PAUSE_SECONDS = 30.0  # no run of the process asks a store again sooner that has not answered; but once at its end
OPEN_SECONDS = 120.0  # to open a database at the start: MLflow makes a new one in about 10 s
SYNC_SECONDS = 60.0  # `monai-cae sync`, which keeps no training waiting, gives one operation
