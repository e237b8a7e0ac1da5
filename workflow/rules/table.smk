rule table:
    input:
        expand(
            "{results}/cells/{cell}/{file}",
            results=RESULTS,
            cell=CELLS,
            file=["pretrain.json", "linear.json", "knn.json"],
        ),
    output:
        csv=f"{RESULTS}/table.csv",
        markdown=f"{RESULTS}/table.md",
        svg=f"{RESULTS}/negatives.svg",
        png=f"{RESULTS}/negatives.png",
        provenance=f"{RESULTS}/provenance.json",
    log:
        f"{RESULTS}/logs/table.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY_FILE,
    shell:
        "python -m eqco table {params.study:q} --results $(dirname {output.csv:q}) > {log:q} 2>&1"
