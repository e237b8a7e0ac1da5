"""A grid on a real SLURM."""

import pytest
from helpers import python_path
from project import Project


@pytest.fixture
def grid(project: Project) -> Project:
    """A project for a copy of the package and the workflow."""
    project.environment = {
        **project.environment,
        "PYTHONPATH": python_path(project.folder),
        "EQCO_CHECKPOINT_SECONDS": "2",
        "EQCO_DEVICE": "cpu",  # this cluster's GPUs are pretended
    }
    return project
