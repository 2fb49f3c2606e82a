"""How long anything waits for MLflow."""

from __future__ import annotations

REQUEST_SECONDS = 5  # of silence, after which MLflow's client gives a request up, and does not repeat it
WAIT_SECONDS = 10.0  # that a run waits for a server at its start and at its end; half of it when it was away before
PAUSE_SECONDS = 30.0  # before a server that was away is asked again, beside the training
MIRROR_SECONDS = 1.0  # between two copies of what is new, to a server that answers
LOCAL_SECONDS = 10.0  # for one record in the local database
OPEN_SECONDS = 120.0  # to open that: MLflow makes a new one in about 10 s
SYNC_SECONDS = 60.0  # for one request of `monai-cae sync`, which keeps no training waiting
