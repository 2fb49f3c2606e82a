"""MLflow's records of the sets that a run used, and of what its network takes and gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def cohort_name(dataset_dir: str | Path) -> str:
    """What a cohort is called: its folder's name, without the folders above."""
    path = Path(dataset_dir).resolve()
    return (path.parent if path.is_file() else path).name


def dataset_inputs(cohort: str, sets: Mapping[str, Sequence[Mapping[str, Any]]], synthetic: bool) -> list[Any]:
    """Sets as MLflow's datasets: how many scans, subjects and patients, and a digest of who they are; no ID, no path.

    Args:
        cohort: its name.
        sets: name of a set -> its items, with `subject`, `label` and, where there are several, `session`.
        synthetic: the images are a phantom's.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for name, items in sets.items():
        who = sorted([str(item["subject"]), str(item.get("session") or ""), str(item["label"])] for item in items)
        labels = [item["label"] for item in items]
        classes = {"AD": labels.count(1), "HC": labels.count(0)} if set(labels) <= {0, 1} else {}
        sizes = {"scans": len(items), "subjects": len({subject for subject, *_ in who}), **classes}
        digest = hashlib.sha256(json.dumps(who).encode()).hexdigest()[:16]
        source = json.dumps({"cohort": cohort, "synthetic": synthetic})
        profile = json.dumps({**sizes, "synthetic": synthetic})
        dataset = Dataset(f"{cohort} {name}", digest, "cohort", source, profile=profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", name)]))
    return inputs


def model_text(image: Sequence[int], pred: Sequence[int], run_id: str, about: Mapping[str, Any]) -> str:
    """MLflow's MLmodel of a network: its signature, and where its weights are. The weights stay where they are: the
    classifier's have 250 MB, which a copy per run would multiply.

    Args:
        image, pred: shapes of what goes in and what comes out, without the batch.
        run_id: of the training.
        about: metadata.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs, outputs = (
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape), name)])
        for name, shape in (("image", image), ("pred", pred))
    )
    signature = ModelSignature(inputs, outputs)
    return str(Model(artifact_path="model", run_id=run_id, signature=signature, metadata=dict(about)).to_yaml())
