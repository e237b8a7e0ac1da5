# The grid of one study: params/<study>.yaml -> cells -> results/<study>/table.csv, report.html
#   snakemake                                                the demo (profiles/default)
#   snakemake --configfile params/fashion-mnist.yaml         another study
#   snakemake --profile slurm --configfile ...               on a cluster (docs/cluster.md)
from snakemake.utils import min_version

min_version("9.27")


# the study and its cells; what happens at the start and the end
include: "workflow/rules/common.smk"
include: "workflow/rules/hooks.smk"
# the stages
include: "workflow/rules/data.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/table.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    table,
    report,


rule all:
    default_target: True
    input:
        "table.csv",
        "report.html",
        # a table without its cells, as from another checkout, is not believed but made again
        cells_of_the_table,
        rules.table.output.made,
