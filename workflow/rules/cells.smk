from eqco.runtime.files import canonical
from eqco.store.cells import TRANSFER, TUNED, settings_of


# Each step is a command of the installed package: an edit of its source re-runs nothing. What a
# cell depends on is in `params`: the hash of its resolved configuration, the protocols' settings.
rule pretrain:
    input:
        manifest=rules.prepare.output.manifest,
    output:
        encoder=f"{CELL_FOLDER}/encoder.safetensors",
        config=f"{CELL_FOLDER}/config.json",
        summary=f"{CELL_FOLDER}/pretrain.json",
    log:
        f"{CELL_FOLDER}/pretrain.log",
    threads: 1
    resources:
        gpus=1,
    params:
        study=PLAN.study_file,
        cell=CELL,
        hash=lambda wildcards: PLAN.hash(CELL.format(**wildcards)),
    shell:
        "python -m eqco pretrain {params.study:q} --cell {params.cell:q} --expect {params.hash}"
        " --data $(dirname {input.manifest:q}) --out $(dirname {output.encoder:q})"
        " --state state/{params.cell:q} --threads {threads} --gpus {resources.gpus} > {log:q} 2>&1"


rule linear_eval:
    input:
        encoder=rules.pretrain.output.encoder,
    output:
        f"{CELL_FOLDER}/linear.json",
    log:
        f"{CELL_FOLDER}/linear.log",
    priority: 1  # before the next pretraining: cells are finished one by one
    threads: 1
    resources:
        gpus=1,
    params:
        study=PLAN.study_file,
        cell=CELL,
        data=PLAN.data,
        linear=canonical(PLAN.study.evaluate.linear.model_dump()),
        linear_lbfgs=canonical(PLAN.study.evaluate.model_dump()["linear_lbfgs"]),
    shell:
        "python -m eqco linear-eval {params.study:q} --encoder {input.encoder:q}"
        " --data {params.data:q} --out {output:q} --state state/{params.cell:q}"
        " --threads {threads} --gpus {resources.gpus} > {log:q} 2>&1"


rule knn_eval:
    input:
        encoder=rules.pretrain.output.encoder,
    output:
        f"{CELL_FOLDER}/knn.json",
    log:
        f"{CELL_FOLDER}/knn.log",
    priority: 1
    threads: 1
    resources:
        gpus=1,
    params:
        study=PLAN.study_file,
        data=PLAN.data,
        knn=canonical(PLAN.study.evaluate.knn.model_dump()),
    shell:
        "python -m eqco knn-eval {params.study:q} --encoder {input.encoder:q}"
        " --data {params.data:q} --out {output:q}"
        " --threads {threads} --gpus {resources.gpus} > {log:q} 2>&1"


if PLAN.study.evaluate.finetune:

    rule finetune_eval:
        input:
            encoder=rules.pretrain.output.encoder,
        output:
            f"{CELL_FOLDER}/finetune.json",
        log:
            f"{CELL_FOLDER}/finetune.log",
        priority: 1
        threads: 1
        resources:
            gpus=1,
        params:
            study=PLAN.study_file,
            cell=CELL,
            data=PLAN.data,
            settings=[
                canonical(value)
                for value in settings_of(PLAN.study.evaluate, TUNED).values()
            ],
        shell:
            "python -m eqco finetune-eval {params.study:q} --encoder {input.encoder:q}"
            " --data {params.data:q} --out {output:q} --state state/{params.cell:q}"
            " --threads {threads} --gpus {resources.gpus} > {log:q} 2>&1"


if PLAN.others:

    rule transfer_eval:
        input:
            encoder=rules.pretrain.output.encoder,
            others=expand(rules.prepare_other.output.manifest, other=PLAN.others),
        output:
            f"{CELL_FOLDER}/transfer.json",
        log:
            f"{CELL_FOLDER}/transfer.log",
        priority: 1
        threads: 1
        resources:
            gpus=1,
        params:
            study=PLAN.study_file,
            cell=CELL,
            data=PLAN.data,
            settings=[
                canonical(value)
                for value in settings_of(PLAN.study.evaluate, TRANSFER).values()
            ],
        shell:
            "python -m eqco transfer-eval {params.study:q} --encoder {input.encoder:q}"
            " --data {params.data:q} --out {output:q} --state state/{params.cell:q}"
            " --threads {threads} --gpus {resources.gpus} > {log:q} 2>&1"
