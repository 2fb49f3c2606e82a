#!/usr/bin/env bash
# Tries `--cluster slurm:FILE.yaml` and an array with `--part` against a SLURM of one node, on this machine alone.
#
#   apt-get install slurm-wlm munge        # Debian's; as root
#   bash tools/slurm.sh                    # as root, in the environment that has monai-cae
#
# It starts munged, slurmctld and slurmd with a configuration of its own in a temporary folder, listens on 127.0.0.1 only,
# runs a tiny experiment on synthetic subjects in process, by jobs, and by an array, compares the predictions byte for
# byte, and ends what it has started. CI does not need it.
set -euo pipefail

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    echo "logs and results: $work"
}
trap finish EXIT

name=$(hostname -s)
mkdir -p "$work"/{state,spool,munge}
head -c 1024 /dev/urandom >"$work/munge/key"
chmod 0700 "$work/munge"
chmod 0600 "$work/munge/key"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --seed-file="$work/munge/seed" --log-file="$work/munge/log" &
started+=($!)
until [ -S "$work/munge/socket" ]; do kill -0 $!; sleep 0.1; done

export SLURM_CONF="$work/slurm.conf"
cat >"$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk "/^Mem/ {print \$2}") State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
slurmctld -D &
started+=($!)
slurmd -D &
started+=($!)
until [ "$(sinfo --noheader --format %t 2>/dev/null)" = idle ]; do kill -0 "${started[1]}" "${started[2]}"; sleep 0.2; done
sinfo

cd "$work"
monai-cae phantom discs --subjects 24 --seed 0
common=(--repeats 2 --max_epochs 2 --image_size 32 --channels "[2,4]" --device cpu --threads 1 --baselines "['majority']")
common+=(--with phantom)
echo "== in process"
monai-cae run discs here "${common[@]}" >here.log
echo "== by jobs of SLURM"
cat >jobs.yaml <<END
jobs: 2
cores: 1
memory: 1 GB
walltime: "01:00:00"
partition: all
interface: lo            # one machine: nothing leaves it
END
monai-cae run discs jobs "${common[@]}" --cluster slurm:jobs.yaml | tee jobs.log | sed -n 1,20p
cmp here/predictions.csv jobs/predictions.csv
echo "== by an array without Dask"
printf -v line '%q ' "${common[@]}"
cat >array.sh <<END
#!/bin/bash
#SBATCH --array=1-2
#SBATCH --output=array-%a.log
monai-cae run discs array $line --part \$SLURM_ARRAY_TASK_ID/\$SLURM_ARRAY_TASK_COUNT --resume true
END
sbatch --wait array.sh
monai-cae run discs array "${common[@]}" --resume true >array.log
cmp here/predictions.csv array/predictions.csv
echo "the predictions are the same, byte for byte, in process, by jobs and by an array"
