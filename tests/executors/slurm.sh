#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for tests: `slurm.sh start DIR PID` and `slurm.sh stop DIR`. It also stops
# when process PID, which it was started for, has ended without stopping it.
#
# All files are in DIR, all addresses are 127.0.0.1, and commands of SLURM reach it with SLURM_CONF=DIR/slurm.conf.
# It needs root and Debian's packages munge, slurmctld, slurmd and slurm-client (`.ci/tools.sh` installs them), but
# neither systemd nor cgroups. The node has more cores than the machine and four GPUs that are empty files.
set -euo pipefail
command=$1
dir=$(realpath "$2")
pid=${3:-$PPID}

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

configure() {
    mkdir -p "$dir/state" "$dir/spool"
    touch "$dir"/gpu{0,1,2,3}
    head -c 1024 /dev/urandom >"$dir/munge.key"
    chmod 600 "$dir/munge.key"
    echo "Name=gpu File=$dir/gpu[0-3]" >"$dir/gres.conf"
    # cred_expire: seconds before a requeued job starts again. batch_sched_delay: before a new one starts.
    cat >"$dir/slurm.conf" <<EOF
ClusterName=mimbench-tests
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(port)
SlurmdPort=$(port)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1
KillWait=5
GresTypes=gpu
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
}

start() {
    configure
    # --force: the folder may belong to one user only. All processes here are root's.
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" 2>>"$dir/munged.log"
    export SLURM_CONF=$dir/slurm.conf
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    (while kill -0 "$pid" && [ -f "$dir/munged.pid" ]; do sleep 2; done && stop) >/dev/null 2>&1 </dev/null &
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
            exit 0
        fi
        sleep 0.2
    done
    echo "the node does not come up; see $dir/slurmctld.log and $dir/slurmd.log" >&2
    tail -n 5 "$dir/slurmctld.log" "$dir/slurmd.log" >&2 || true
    exit 1
}

# Ends the jobs, then the daemons: each by the number that it wrote down itself.
stop() {
    export SLURM_CONF=$dir/slurm.conf
    timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 50); do
        [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
        sleep 0.2
    done
    for daemon in slurmd slurmctld munged; do
        [ -f "$dir/$daemon.pid" ] || continue
        kill -9 "$(cat "$dir/$daemon.pid")" 2>/dev/null || true # asked to end, slurmctld takes five seconds
        rm -f "$dir/$daemon.pid"
    done
}

"$command"
