rule prepare:
    output:
        manifest=f"{DATA}/MANIFEST.json",
        splits=expand("{data}/{split}.safetensors", data=DATA, split=["train", "test"]),
    log:
        f"{RESULTS}/logs/prepare.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY_FILE,
        data=canonical(STUDY.data.model_dump(exclude={"train_images"})),
    shell:
        "python -m eqco prepare {params.study:q} --out $(dirname {output.manifest:q}) > {log:q} 2>&1"
