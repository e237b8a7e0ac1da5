rule prepare:
    output:
        manifest=f"{DATA}/MANIFEST.json",
        splits=expand("{data}/{split}.safetensors", data=DATA, split=["train", "test"]),
    log:
        "logs/prepare.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY_FILE,
        data=canonical(STUDY.data.model_dump(exclude={"train_images"})),
    shell:
        # from the root: a study names its images' folder from there
        f"(cd {os.path.relpath(ROOT)} && python -m eqco prepare"
        f" {shlex.quote(os.path.relpath(study_file, ROOT))} --out data/{STUDY.data.name}) > {{log:q}} 2>&1"
