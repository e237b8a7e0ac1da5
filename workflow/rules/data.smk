import os
import shlex

from eqco.runtime.files import canonical


rule prepare:
    output:
        manifest=f"{PLAN.data}/MANIFEST.json",
        splits=expand(
            "{data}/{split}.safetensors", data=PLAN.data, split=["train", "test"]
        ),
    log:
        "logs/prepare.log",
    params:
        study=PLAN.study_file,
        data=canonical(
            PLAN.study.data.model_dump(exclude={"train_images", "validation"})
        ),
    shell:
        # from the root: a study names its images' folder from there
        f"(cd {PLAN.from_folder(PLAN.root)} && python -m eqco prepare"
        f" {shlex.quote(os.path.relpath(PLAN.file, PLAN.root))} --out data/{PLAN.study.data.name}) > {{log:q}} 2>&1"
