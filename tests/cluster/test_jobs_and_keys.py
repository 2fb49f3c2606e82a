"""What a file of SLURM jobs may say, and the keys of a cluster."""

from __future__ import annotations

import stat

import pytest

from monai_cae.cli import main
from monai_cae.cluster.address import engine_of, key_files, security_of
from monai_cae.cluster.jobs import Jobs, read_jobs
from monai_cae.errors import MonaiCaeError

JOBS = """
jobs: 8
cores: 4
memory: 16 GB
walltime: "1-12:00:00"
gpus: 1
partition: gpu
prologue: [module load cuda]
"""


def test_a_file_of_jobs_is_read(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text(JOBS)
    made = Jobs(path, 8, 4, "16 GB", "1-12:00:00", 1, "gpu", prologue=("module load cuda",))
    assert read_jobs(path, needs_gpu=True) == made


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs: 8\ncores: 4\n", "does not say memory"),
        (JOBS + "partitoin: gpu", "unknown setting partitoin: did you mean partition?"),
        (JOBS.replace("8", "0"), "jobs must be a whole number above 0, not 0"),
        (JOBS.replace("gpus: 1", "gpus: 4"), "gpus must be 0 or 1"),
        (JOBS.replace("16 GB", "16"), "memory must be a size, such as "),
        (JOBS.replace('"1-12:00:00"', "12:00:00"), "walltime must be a time in quotes"),
        (JOBS.replace("partition: gpu", "partition: gpu; rm"), "partition must be a name"),
        (JOBS.replace("[module load cuda]", "module load cuda"), "prologue must be a list of lines"),
        ("- jobs", "must have settings"),
        ("jobs: [", "is no YAML file"),
        (JOBS.replace("gpus: 1", "gpus: 0"), "asks for no GPU, and device cuda needs one"),
    ],
)
def test_a_file_of_jobs_that_can_not_be_is_refused_in_one_line(tmp_path, text, told):
    (tmp_path / "jobs.yaml").write_text(text)
    with pytest.raises(MonaiCaeError, match=told) as error:
        engine_of(f"slurm:{tmp_path / 'jobs.yaml'}", gpus=True)
    assert "\n" not in str(error.value) and "jobs.yaml" in str(error.value)


def test_a_missing_file_of_jobs_and_a_missing_slurm_are_told(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(MonaiCaeError, match="No such file"):
        engine_of(f"slurm:{tmp_path / 'none.yaml'}")
    (tmp_path / "jobs.yaml").write_text(JOBS)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MonaiCaeError, match="there is no sbatch here"):
        engine_of(f"slurm:{tmp_path / 'jobs.yaml'}").__enter__()


def test_keys_are_made_for_their_owner_alone_and_trust_nobody_else(tmp_path, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")
    folder = tmp_path / "keys"
    assert main(["cluster", "keys", str(folder)]) == 0
    assert "dask scheduler --protocol tls" in capsys.readouterr().out
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert main(["cluster", "keys", str(folder)]) == 1 and "not an empty folder" in capsys.readouterr().err
    monkeypatch.setenv("MONAI_CAE_CLUSTER_KEYS", str(folder))
    ours = security_of(key_files())
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50, "n_workers": 0}
    with distributed.LocalCluster(security=ours, processes=False, protocol="tls://", **options) as cluster:
        address = cluster.scheduler_address
        with engine_of(address) as engine:
            assert engine.workers == 1  # which is yet to come
        assert main(["cluster", "keys", str(tmp_path / "others")]) == 0
        monkeypatch.setenv("MONAI_CAE_CLUSTER_KEYS", str(tmp_path / "others"))
        monkeypatch.setattr("monai_cae.cluster.dask_engine.CONNECT_SECONDS", 2)
        with pytest.raises(MonaiCaeError, match="reach the cluster tls"):
            engine_of(address).__enter__()
