"""A Slurm cluster of two nodes on this machine: Debian's slurmctld, slurmd and munged on the loopback, ended by pid."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
PATHS = os.environ["PATH"] + ":/usr/sbin:/sbin"
CONFIGURATION = """\
ClusterName=segbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# No control groups, so that it starts in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
# A busy machine answers late.
SlurmdTimeout=0
MessageTimeout=60
KillWait=30
MinJobAge=300
ReturnToService=2
JobRequeue=1
MpiDefault=none
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=120 State=UP
"""
CGROUPS = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={folder}/cgroup\n"


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Cluster:
    """Starts the daemons in a folder of their own, and ends them."""

    def __init__(self):
        # munged wants every folder above its socket to be open, which pytest's are not.
        self.folder = Path(tempfile.mkdtemp(prefix="segbench-slurm-"))
        self.folder.chmod(0o755)
        self.daemons = []

    def start(self):
        folder = self.folder
        for name in ("state", "cgroup", "spool-n0", "spool-n1"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o600)
        facts = {"host": socket.gethostname(), "user": getpass.getuser(), "folder": folder, "ports": free_ports(3)}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**facts))
        (folder / "cgroup.conf").write_text(CGROUPS.format(**facts))
        self._daemon("munged", "--foreground", "--key-file", "{}/munge.key", "--socket", "{}/munge.socket")
        self._until(lambda: (folder / "munge.socket").exists(), 20.0)
        self._daemon("slurmctld", "-D", "-f", "{}/slurm.conf")
        self._until(lambda: self.ask("scontrol", "ping").returncode == 0, 30.0)
        for node in ("n0", "n1"):
            self._daemon("slurmd", "-D", "-N", node, "-f", "{}/slurm.conf")
        self._until(lambda: self.ask("sinfo", "-h", "-o", "%t").stdout.split() == ["idle"], 60.0)

    def _daemon(self, name, *arguments):
        own = [argument.format(self.folder) for argument in arguments]
        if name == "munged":
            own += [f"--{what}={self.folder}/munge.{what[:4]}" for what in ("pid-file", "log-file", "seed-file")]
        with (self.folder / f"{name}-{len(self.daemons)}.out").open("w") as out:
            path = shutil.which(name, path=PATHS)
            self.daemons.append(subprocess.Popen([path, *own], stdout=out, stderr=out, cwd=self.folder))

    def ask(self, *command):
        environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATHS}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)

    def _until(self, holds, seconds):
        until = time.monotonic() + seconds
        while not holds():
            ended = [daemon for daemon in self.daemons if daemon.poll() is not None]
            if ended or time.monotonic() > until:
                raise RuntimeError(f"{Path((ended or self.daemons)[-1].args[0]).name}: {self._last_words()}")
            time.sleep(0.2)

    def _last_words(self):
        out = max(self.folder.glob("*.out"), key=lambda path: path.stat().st_mtime)
        return " | ".join(out.read_text(errors="replace").splitlines()[-3:])

    def queue(self):
        """(job, state) of everything that waits or runs."""
        return [tuple(line.split()) for line in self.ask("squeue", "-h", "-r", "-o", "%i %T").stdout.splitlines()]

    def stop(self):
        if len(self.daemons) > 1:
            self.ask("scancel", "--me", "--signal=KILL")
            self.ask("scancel", "--me")
            until = time.monotonic() + 40.0
            while self.queue() and time.monotonic() < until:
                time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20.0)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _cluster():
    missing = [name for name in DAEMONS if shutil.which(name, path=PATHS) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurmctld slurmd slurm-client munge")
    cluster = Cluster()
    try:
        cluster.start()
    except RuntimeError as error:
        cluster.stop()
        pytest.skip(f"Slurm does not start here: {error}")
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(_cluster, monkeypatch):
    """The cluster, as this process sees it."""
    monkeypatch.setenv("SLURM_CONF", str(_cluster.folder / "slurm.conf"))
    return _cluster
