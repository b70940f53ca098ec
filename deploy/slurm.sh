#!/usr/bin/env bash
# A SLURM job that resumes itself: sbatch deploy/slurm.sh EXPERIMENT NAME [OPTIONS OF `fedplug run`]
#
# After a preemption, at the time limit and after the loss of a node the job goes back into the queue and continues at the
# last checkpoint. The partition, memory, cores and GPUs are yours to add.
#SBATCH --job-name=fedplug
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time limit: more than the longest epoch takes.
#SBATCH --signal=TERM@120
set -u

experiment=${1:?usage: sbatch slurm.sh EXPERIMENT NAME [OPTIONS]}
name=${2:?usage: sbatch slurm.sh EXPERIMENT NAME [OPTIONS]}
shift 2
output=${FEDPLUG_OUTPUT:-runs}

# The job was put back into the queue although its run was complete.
if [ -f "$output/$name/summary.json" ]; then
    exit 0
fi
resume=()
if [ -f "$output/$name/manifest.json" ]; then
    resume=(--resume)
fi

# This shell outlives the signal, to see the exit code.
trap : TERM
srun fedplug run "$experiment" --name "$name" --output "$output" ${resume[@]+"${resume[@]}"} "$@"
code=$?

# 130: stopped on request, with a checkpoint.
if [ "$code" -eq 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
