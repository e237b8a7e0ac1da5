# At the start: lock the study, start the fork server. At the end: remove the state for resuming.
import shutil
from contextlib import ExitStack

from eqco import forkserver
from eqco.runtime import lock

held = ExitStack()  # until this process ends


onstart:
    # In place of Snakemake's own lock (`nolock` in the profiles), which outlives a killed owner.
    # The jobs of a cluster run without these hooks.
    held.enter_context(lock.hold(Path.cwd() / "lock", wait=False))
    settings = workflow.dag_settings
    if settings.forceall or "pretrain" in settings.forcerun:
        shutil.rmtree("state", ignore_errors=True)
    if (
        workflow.local_exec
        and forkserver.VARIABLE not in os.environ
        and not IN_IMAGE
    ):
        # Small cells would spend more time on imports than on training.
        forkserver.start()


# In a cluster's job, where hooks do not run: a cell's steps share the imports there too.
# A server outside of the image would run its commands there.
if workflow.remote_exec and not IN_IMAGE:
    forkserver.start()


onsuccess:
    # Checkpoints and finished files are for resuming. A training that diverged keeps its last good
    # checkpoint.
    if not any(Path("state").rglob("step-*")):
        shutil.rmtree("state", ignore_errors=True)
