#!/bin/bash
# Runs a command beside a Slurm of two nodes, n1 and n2, with two processors each, and ends all of it with the command:
#
#     test/slurm.sh srun --nodes=2 hostname
#
# As root, these are machines. Each node has a network and processes of its own, ctl, where slurmctld runs, a network;
# the command runs where their cables meet, and sees their processes in /run/proc only:
#
#     10.77.0.1 command ─ bridge ┬─ ctl 10.77.0.3          a shared folder: TMPDIR
#                                ├─ n1  10.77.0.11         to cut a cable: ip link set n1 down
#                                └─ n2  10.77.0.12         to be on ctl: nsenter --net=/run/netns/ctl COMMAND
#
# However this script ends, all of that ends with it: the kernel sees to it, and no file, no device is left.
#
# Without root both nodes are this machine, and CLUSTER_NET is empty.
set -eu
PATH=$PATH:/usr/sbin:/sbin

if [ -z "${CLUSTER_NET+set}" ]; then
  export CLUSTER_NET=
  devices='mount -t tmpfs none /run && ip link add type bridge && ip link add type veth'
  if unshare --net --pid --mount --fork sh -c "$devices" 2>/dev/null; then
    CLUSTER_NET=10.77.0 exec unshare --net --pid --mount-proc --fork --kill-child "$0" "$@"
  fi
fi

on() { exec "${@:2}"; }           # on MACHINE COMMAND…
alone=(setpriv --pdeathsig KILL)  # before a command: it ends with this script
declare -A address=([ctl]=127.0.0.1 [n1]=127.0.0.1 [n2]=127.0.0.1)
port=$((10000 + $$ % 7000 * 3))

if [ "$CLUSTER_NET" ]; then
  # Trap: `ip netns exec` hides /sys/fs/cgroup, and slurmd does not start.
  on() { exec nsenter --net=/run/netns/"$1" "${@:2}"; }
  alone=(unshare --pid --mount-proc --fork --kill-child sh -c '"$@"; exit $?' sh) # sh reaps orphans, as an init does
  address=([ctl]=$CLUSTER_NET.3 [n1]=$CLUSTER_NET.11 [n2]=$CLUSTER_NET.12)
  mount -t tmpfs none /run
  export TMPDIR=/run
  mkdir /run/proc && mount -t proc none /run/proc
  ip link set lo up
  ip link add bridge type bridge
  ip addr add $CLUSTER_NET.1/24 dev bridge
  ip link set bridge up
  for machine in ctl n1 n2; do
    ip netns add $machine
    ip link add $machine type veth peer name eth0 netns $machine
    ip link set $machine master bridge up
    ip -n $machine addr add ${address[$machine]}/24 dev eth0
    ip -n $machine link set eth0 up
    ip -n $machine link set lo up
  done
fi

folder=$(mktemp -d)
trap 'exec 2>/dev/null; kill -KILL $(jobs -p); wait; rm -rf "$folder"' EXIT
mkdir "$folder"/{state,n1,n2}
export SLURM_CONF=$folder/slurm.conf
# Traps: no NodeHostname, else srun, which runs on a host of that name, is looked for on the node when it is to be told
# of the node's failure; proctrack/linuxproc stumbles over a process title with a blank.
cat > "$SLURM_CONF" <<CONF
ClusterName=longrun
SlurmctldHost=$(hostname -s)(${address[ctl]})
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthInfo=socket=$folder/munge.sock
ProctrackType=proctrack/pgid
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=2
InactiveLimit=10
SlurmdTimeout=3
MessageTimeout=2
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
NodeName=n1 NodeAddr=${address[n1]} Port=$((port + 1)) CPUs=2
NodeName=n2 NodeAddr=${address[n2]} Port=$((port + 2)) CPUs=2
PartitionName=main Nodes=ALL Default=YES
CONF

mungekey --create --keyfile="$folder/munge.key"
{
  "${alone[@]}" munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" &
  on ctl "${alone[@]}" slurmctld -D -c &
  for node in n1 n2; do on $node "${alone[@]}" slurmd -D -c -N $node & done
} 2>"$folder/errors"

deadline=$((SECONDS + 30))
until [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null)" = 2 ]; do
  if [ $SECONDS -gt $deadline ]; then
    tail -n 20 "$folder"/errors "$folder"/*.log >&2
    exit 1
  fi
  sleep 0.05
done
"${alone[@]}" "$@"
