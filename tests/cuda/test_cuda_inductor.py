"""Networks whose kernels inductor has fused: the same numbers. In a file of its own, as compiling takes a minute."""

from __future__ import annotations

import shutil

import pytest
from cuda_runs import SAME_NUMBERS, SMOOTH, history_of

pytestmark = pytest.mark.cuda


def test_metrics_are_those_of_kernels_that_are_not_fused(run_bundle, discs, gpu, tmp_path, tracking_uri):
    """Batches of one size, and one of validation: each is compiled."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("inductor takes a C compiler, and there is none")
    options = {**SAME_NUMBERS, **SMOOTH["pretrain"], "max_epochs": 5, "batch_size": 6, "device": gpu}
    histories = []
    for compile in ("inductor", "off"):
        name = f"{tmp_path} {compile}"
        run_bundle("pretrain.json", discs, tmp_path / compile, compile=compile, experiment_name=name, **options)
        histories.append(history_of(tracking_uri, name))
    fused, ordinary = histories
    assert fused.keys() == ordinary.keys() and len(ordinary["val_psnr"]) == 5
    for name, values in ordinary.items():
        assert fused[name] == pytest.approx(values, rel=2e-3), name
