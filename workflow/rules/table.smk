import os

from eqco.runtime.files import canonical
from eqco.store.archive import KEPT

if PLAN.study.select:

    localrules:
        select,

    # Which cells the table reads is known when the cells that select a value are finished.
    checkpoint select:
        input:
            cells=results_of(PLAN.deciding_cells),
            kept=KEPT if PLAN.archived else [],
        output:
            csv="selection.csv",
            svg="selection.svg",
            png="selection.png",
            made=touch("logs/selection.made") if PLAN.archived else [],
        log:
            "logs/selection.log",
        params:
            study=PLAN.study_file,
            select=canonical(PLAN.study.select.model_dump()),
            kept=list(PLAN.archived),
        shell:
            "python -m eqco select {params.study:q} --results . > {log:q} 2>&1"


rule table:
    input:
        cells=cells_of_the_table,
        selection="selection.csv" if PLAN.study.select else [],
        kept=KEPT if PLAN.archived else [],
        published=PLAN.published if os.path.exists(PLAN.published) else [],
    output:
        csv=report(
            "table.csv",
            category="Accuracy",
            labels={"shown": "table"},
            caption="../report/table.rst",
        ),
        markdown="table.md",
        summary="summary.md",
        svg=report(
            "negatives.svg",
            category="Accuracy",
            labels={"shown": "accuracy against K"},
            caption="../report/negatives.rst",
        ),
        png="negatives.png",
        comparisons=(
            ["comparisons.csv", "comparisons.md", "forest.svg", "forest.png"]
            if PLAN.study.comparisons
            else []
        ),
        claims=(
            ["claims.csv", "claims.md", "claims.svg", "claims.png"]
            if PLAN.study.claims
            else []
        ),
        metrics="metrics.json",
        provenance=report(
            "provenance.json",
            category="Provenance",
            labels={"shown": "revision, versions, hardware, parameters"},
            caption="../report/provenance.rst",
        ),
        # Not in git: a clone makes a table from what was kept once, and does not believe its own.
        made=touch("logs/table.made") if PLAN.archived else [],
    log:
        "logs/table.log",
    params:
        study=PLAN.study_file,
        kept=list(PLAN.archived),
        # a list of strings, empty without comparisons, so that nothing changes for such a study
        compared=[
            canonical(one.model_dump())
            for one in (*PLAN.study.comparisons, *PLAN.study.claims)
        ],
    shell:
        f"python -m eqco table {{params.study:q}} --results . --published {PLAN.published}"
        " > {log:q} 2>&1"


rule report:
    input:
        rules.table.input,
    output:
        report(
            "report.html",
            category="Accuracy",
            labels={"shown": "all of the study in one page"},
            caption="../report/report.rst",
        ),
    log:
        "logs/report.log",
    params:
        study=PLAN.study_file,
        kept=list(PLAN.archived),
    shell:
        f"python -m eqco report {{params.study:q}} --results . --published {PLAN.published}"
        " > {log:q} 2>&1"
