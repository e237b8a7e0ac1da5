#!/bin/sh
# Start a job's Python. It takes seconds until it bears a signal: one that comes before would kill it.
# usage: start.sh REQUEUES PYTHON ARGUMENT...
requeues=$1 stop=${SUBMITIT_PREEMPT_SIGNAL:-USR2}
shift
trap : "$stop" TERM # this shell lives on; Python begins with the signals' usual meanings
"$@"
code=$?
[ "$code" -gt 128 ] || exit "$code"
case $(kill -l "$code") in
"$stop") # before a time limit or a preemption: begin again under this id, as after a later signal
    [ "${SLURM_RESTART_COUNT:-0}" -lt "$requeues" ] && scontrol requeue "$SLURM_JOB_ID"
    ;;
TERM) # SLURM kills the job soon; a job that has ended before has failed, whatever SLURM's reason is
    waited=0
    while [ "$waited" -lt 60 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    ;;
esac
exit "$code"
