#!/bin/sh
# The SLURM that tests/slurm starts, from Debian's packages; without it those tests are skipped.
set -eu
programs="slurmctld slurmd munged sbatch slurmdbd mariadbd"
packages="slurmctld slurmd slurm-client munge slurmdbd slurm-wlm-mysql-plugin
    mariadb-server-core mariadb-client-core"
PATH=$PATH:/usr/sbin
lacking=""
for program in $programs; do
    command -v "$program" >/dev/null || lacking="$lacking $program"
done
[ -z "$lacking" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086 # one word a package
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
else
    # shellcheck disable=SC2086
    echo "make: tests/slurm is skipped:$lacking not found; as root on Debian: apt-get install" $packages >&2
fi
