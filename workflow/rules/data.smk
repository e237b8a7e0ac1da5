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


# The datasets that the study's encoders are also evaluated on, beside its own.
if PLAN.others:

    rule prepare_other:
        output:
            manifest=f"{PLAN.from_folder(PLAN.root / 'data')}/{{other}}/MANIFEST.json",
            splits=expand(
                "{data}/{{other}}/{split}.safetensors",
                data=PLAN.from_folder(PLAN.root / "data"),
                split=["train", "test"],
            ),
        log:
            "logs/prepare-{other}.log",
        wildcard_constraints:
            other="|".join(PLAN.others),
        params:
            study=PLAN.study_file,
            data=lambda wildcards: PLAN.others[wildcards.other],
        shell:
            f"(cd {PLAN.from_folder(PLAN.root)} && python -m eqco prepare"
            f" {shlex.quote(os.path.relpath(PLAN.file, PLAN.root))} --on {{wildcards.other:q}}"
            " --out data/{wildcards.other:q}) > {log:q} 2>&1"
