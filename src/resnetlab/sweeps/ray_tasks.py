"""Backend of hydra/launcher=ray: a task of Ray for each job, on a cluster of this machine or on a running one.

Why not hydra-ray-launcher, nor Ray's own retries: docs/decisions.md.
"""

import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from resnetlab.config.option_files import CONFIG_DIR_VARIABLE
from resnetlab.config.schema import Config
from resnetlab.errors import first_line
from resnetlab.runs.files import data_beside
from resnetlab.runs.layout import OUTPUTS_VARIABLE
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.jobs import Backend, Job, killed_outcome
from resnetlab.sweeps.parallelism import JobResources, cores, gpus_per_job
from resnetlab.sweeps.process_setup import import_path
from resnetlab.sweeps.run_job import failure
from resnetlab.sweeps.worker import train_task

OBJECT_STORE_BYTES = 80 * 2**20  # an outcome is small; Ray would take a third of the memory


class RayTasks(Backend):
    """As many at once as the cluster has room for; a job whose worker is killed is started again.

    address: null for a cluster of this machine only that ends with this process, else where one is ("auto",
    "10.0.0.1:6379"), on whose nodes this folder has to be mounted. num_cpus, num_gpus: of a job.
    """

    def __init__(
        self, configs: Sequence[Config], address: str | None, num_cpus: int, num_gpus: float | None, retries: int
    ) -> None:
        self.address, self.retries = address, retries
        self.needs = {"CPU": num_cpus, "GPU": gpus_per_job(configs, num_gpus)}
        self.elsewhere = address is not None
        self.remote: Any = None
        self.temporary: tempfile.TemporaryDirectory[str] | None = None
        self.problem = ""
        os.umask(mask := os.umask(0o077))  # it can be read only by setting it
        self.umask = mask
        self.sigterm_handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own there
        variables = data_beside(__file__, "ray_environment.toml")
        for key, value in (variables["any_cluster"] | ({} if self.elsewhere else variables["local_cluster"])).items():
            os.environ.setdefault(key, value)  # before the import, which reads them
        if not self.elsewhere:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        self.ray: Any = import_module("ray")

    def has_room(self, running: Sequence[Job]) -> bool:
        return not running or len(running) < self.places()

    def places(self) -> int:
        """How many jobs fit on the nodes of the cluster as it is now, each on one node as a whole."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        needs = [(kind, need) for kind, need in self.needs.items() if need]
        # 0.3 / 0.1 < 3
        return sum(min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in needs) for node in nodes)

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        if self.problem:
            raise OSError(self.problem)  # trying takes long
        if self.remote is None:
            self.connect()
        if not self.places():
            wanted = " and ".join(f"{need:g} {kind}" for kind, need in self.needs.items() if need)
            raise OSError(f"no node of Ray's cluster has {wanted}: change hydra.launcher.num_cpus or num_gpus")
        environment = {key: os.environ[key] for key in (OUTPUTS_VARIABLE, CONFIG_DIR_VARIABLE) if key in os.environ}
        environment |= JobResources(1, int(self.needs["CPU"])).environment(0, job.config.threads)
        if not self.elsewhere:
            environment["PYTHONPATH"] = import_path()
        task = self.remote.options(name=f"resnetlab.worker {log}", runtime_env={"env_vars": environment})
        job.handle = task.remote(os.getcwd(), str(log), job.overrides, self.umask)

    def has_ended(self, job: Job) -> bool:
        return bool(self.ray.wait([job.handle], timeout=0)[0])

    def outcome_of(self, job: Job, log: Path) -> Outcome | None:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

        task, job.handle = job.handle, None
        try:
            return Outcome(**self.ray.get(task))
        except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
            reason = "memory ran out" if isinstance(error, OutOfMemoryError) else "its worker on Ray was killed"
            return killed_outcome(job, reason, log, self.retries)
        except RayError as error:  # the node has no resnetlab, or not this folder
            return failure(error, log, str(job.config.folder.path), cause=getattr(error, "cause", error))

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Disconnects, at which Ray ends the tasks, and a cluster of this machine only."""
        if self.remote is not None:
            self.ray.shutdown()
            signal.signal(signal.SIGTERM, self.sigterm_handler)
        if self.temporary is not None:
            self.temporary.cleanup()
        return []

    def connect(self) -> None:
        options: dict[str, Any] = {"address": self.address}
        if not self.elsewhere:
            short = "/tmp" if Path("/tmp").is_dir() else None  # a socket's path has 107 characters at most
            self.temporary = tempfile.TemporaryDirectory(prefix="resnetlab-ray-", dir=short, ignore_cleanup_errors=True)
            options = {"address": "local", "num_cpus": cores(), "include_dashboard": False}
            below = os.path.join(self.temporary.name, "r")  # which Ray makes writable for all; its parent is private
            options |= {"object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": below}
            os.umask(0o077)  # Ray's processes inherit it; a job has that of before
        try:
            self.ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, RuntimeError, ValueError) as error:
            self.problem = f"no cluster of Ray (hydra.launcher.address={self.address}): {first_line(error)}"
            raise OSError(self.problem) from error
        finally:
            os.umask(self.umask)
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        # a worker for each job, as memory and threads are a process's; not tried again by Ray
        limits = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_calls": 1, "max_retries": 0}
        self.remote = self.ray.remote(**limits)(train_task)
