"""A real SLURM of two nodes on this machine, under one folder: cluster.py up|down FOLDER [--sacct].

Needs Debian's packages (README.md) and root. Both nodes are this machine: each has 16 CPUs
and two GPUs that are clones of /dev/null, so that requests for them are scheduled and granted for
real.
It listens on the loopback interface alone.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")

SLURM_CONF = """\
ClusterName=eqco
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a requeued job waits as long as its credentials live
AuthInfo=socket={run}/munge.socket,cred_expire=5
SlurmctldPort={ctld}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
# a preempted job hears of it, and saves its state
SlurmctldParameters=preempt_send_user_signal
# 16 CPUs on two cores
SlurmdParameters=config_overrides
{control}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
EnforcePartLimits=ALL
KillWait=10
MinJobAge=300
OverTimeLimit=0
SlurmdTimeout=30
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} {node}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} {node}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
PLAIN = """\
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none"""
CGROUP = """\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup"""
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
"""
NODE = (
    "CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 "
    "RealMemory=32000 Gres=gpu:2 Features=fast"
)
SLURMDBD = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={dbd}
AccountingStoragePass={run}/munge.socket
AccountingStorageTRES=gres/gpu"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""
MARIADB_CONF = """\
[mariadbd]
user=root
datadir={folder}/db
socket={run}/mysqld.sock
pid-file={run}/mariadbd.pid
log-error={folder}/log/mariadbd.log
bind-address=127.0.0.1
port={sql}
innodb_buffer_pool_size=32M
innodb_log_file_size=16M
innodb_lock_wait_timeout=900
performance_schema=OFF
"""
GRANT = (
    "create database slurm_acct_db; create user 'slurm'@'127.0.0.1' identified by 'slurm'; "
    "create user 'slurm'@'localhost' identified by 'slurm'; "
    "grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1'; "
    "grant all on slurm_acct_db.* to 'slurm'@'localhost'"
)


def missing(accounting: bool = False) -> str:
    """Why no SLURM can be started here; empty where one can."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "needs Linux and root"
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    lacking = [name for name in wanted if shutil.which(name) is None]
    return f"needs {', '.join(lacking)}: README.md has Debian's packages" if lacking else ""


class Cluster:
    """SLURM in one folder, which must be readable by all on the way to it."""

    def __init__(self, folder: Path, *, accounting: bool = False, cgroup: bool = False) -> None:
        self.cgroup = cgroup
        self.folder = folder.absolute()
        self.run = self.folder / "run"
        self.accounting = accounting
        self.conf = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}

    def up(self) -> None:
        """Start it; returns when both nodes are idle."""
        for name in ("run", "log", "state", "db"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.run):
            folder.chmod(0o755)
        self._configure()
        self.start_munged()
        if self.accounting:
            self._start_accounting()
        self.start_slurmctld()
        for node in ("n1", "n2"):
            self.start_slurmd(node)
        self.set_up_again()

    def set_up_again(self) -> None:
        """Bring back nodes that were set down or drained, and wait until no node works."""

        def all_idle() -> bool:
            if set(self("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}:
                return True
            self.resume()
            return False

        # a slurmctld that was restarted may wait two minutes until it asks a node again
        wait_until(all_idle, "idle", 240)

    def resume(self) -> None:
        """Bring back nodes that were set down or drained."""
        for node in ("n1", "n2"):
            with contextlib.suppress(subprocess.SubprocessError):  # it may be back by itself
                self("scontrol", "update", f"nodename={node}", "state=resume")

    def preempt(self, job: str) -> None:
        """Let a job make way for an urgent one on both nodes, which goes again when it has."""
        command = ("sbatch", "--parsable", "-o", "/dev/null", "-p", "high", "--exclusive", "-N2")
        urgent = self(*command, "--wrap", "sleep 300").strip()
        state = ("squeue", "-h", "-t", "all", "-o", "%T", "-j", job)
        try:
            wait_until(lambda: self(*state).strip() == "PENDING", f"preemption of {job}")
        finally:
            self("scancel", urgent)

    def down(self) -> None:
        """Cancel what runs and stop the programs, each by the process id that it wrote."""
        with contextlib.suppress(subprocess.SubprocessError):
            self("scancel", "--full", "-u", "root", "-s", "KILL")
            self("scancel", "-u", "root")
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self.stop(name)
        for group in Path("/sys/fs/cgroup").glob("*/slurm_n[12]") if self.cgroup else ():
            for folder in sorted(group.rglob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def __call__(self, *command: str) -> str:
        """The output of one of SLURM's commands."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop one program and wait for its end."""
        file = self.run / f"{name}.pid"
        if not file.exists():
            return
        process = int(file.read_text())
        command = Path(f"/proc/{process}/comm")
        with contextlib.suppress(OSError):
            if command.read_text().strip() == name.split("-")[0]:
                os.kill(process, number)
                wait_until(lambda: self._has_ended(command), f"end of {name}")
        file.unlink(missing_ok=True)

    def start_munged(self) -> None:
        options = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "seed-file": "munged.seed",
        }
        self(
            "munged",
            *(f"--{name}={self.run / file}" for name, file in options.items()),
            f"--log-file={self.folder}/log/munged.log",
            "--num-threads=4",
        )

    def start_slurmctld(self, *options: str) -> None:
        self("slurmctld", *options)

    def start_slurmd(self, node: str) -> None:
        self("slurmd", "-N", node)

    def _configure(self) -> None:
        names = {
            "folder": self.folder,
            "run": self.run,
            "host": socket.gethostname().split(".")[0],
            "node": NODE,
            **dict(zip(("ctld", "n1", "n2", "dbd", "sql"), free_ports(5), strict=True)),
        }
        accounting = SLURMDBD.format(**names) if self.accounting else ""
        accounting = accounting or "AccountingStorageType=accounting_storage/none"
        control = CGROUP if self.cgroup else PLAIN
        self.conf.write_text(SLURM_CONF.format(accounting=accounting, control=control, **names))
        devices = [self.run / f"gpu{i}" for i in range(2)]
        for device in devices:
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
        self.folder.joinpath("gres.conf").write_text(
            f"NodeName=n[1-2] Name=gpu File={self.run}/gpu[0-1]\n"
        )
        configurations = {
            "slurmdbd.conf": SLURMDBD_CONF,
            "my.cnf": MARIADB_CONF,
            "cgroup.conf": CGROUP_CONF,
        }
        for name, content in configurations.items():
            path = self.folder / name
            path.write_text(content.format(**names))
            path.chmod(0o600)
        key = self.run / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))

    def _start_accounting(self) -> None:
        with (self.folder / "log" / "install.log").open("w") as log:
            subprocess.run(
                [
                    *("mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db"),
                    *(f"--datadir={self.folder}/db", "--auth-root-authentication-method=normal"),
                ],
                stdout=log,
                stderr=log,
                check=True,
            )
            subprocess.Popen(
                ["mariadbd", f"--defaults-file={self.folder}/my.cnf"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        sql = ("mariadb", "--no-defaults", "-S", f"{self.run}/mysqld.sock", "-u", "root", "-e")
        wait_until(lambda: self._answers(*sql, "select 1"), "mariadbd")
        self(*sql, GRANT)
        self("slurmdbd")
        wait_until(lambda: self._answers("sacctmgr", "-n", "show", "cluster"), "slurmdbd")
        if "eqco" not in self("sacctmgr", "-n", "show", "cluster", "format=cluster"):
            self("sacctmgr", "-i", "add", "cluster", "eqco")

    @staticmethod
    def _has_ended(command: Path) -> bool:
        try:
            status = command.with_name("stat").read_text()
        except OSError:
            return True
        return status.rpartition(")")[2].split()[0] == "Z"

    def _answers(self, *command: str) -> bool:
        try:
            self(*command)
        except subprocess.SubprocessError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(true: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Look again and again until something is true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["up", "down"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sacct", action="store_true", help="with accounting")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.folder, accounting=arguments.sacct)
    if arguments.what == "down":
        cluster.down()
        return
    if why := missing(arguments.sacct):
        sys.exit(f"cluster.py: {why}")
    cluster.up()
    print(cluster("sinfo", "-o", "%P %T %N %G %C %m"), end="")
    print(f"export SLURM_CONF={cluster.conf}")


if __name__ == "__main__":
    main()
