#!/bin/sh
# Programs that tests start, from Debian's packages: packages.sh slurm chromium. Without them their
# tests are skipped.
set -eu
PATH=$PATH:/usr/sbin
for what; do
    case $what in
    slurm)
        tests="the executor on a SLURM"
        programs="slurmctld slurmd munged sbatch slurmdbd mariadbd"
        packages="slurmctld slurmd slurm-client munge slurmdbd slurm-wlm-mysql-plugin
            mariadb-server-core mariadb-client-core"
        ;;
    chromium)
        tests="tests/report/test_report.py in a browser"
        programs="chromium"
        packages="chromium fonts-dejavu-core"
        ;;
    esac
    lacking=""
    for program in $programs; do
        command -v "$program" >/dev/null || lacking="$lacking $program"
    done
    [ -z "$lacking" ] && continue
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # one word a package
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $packages >/dev/null
    else
        # shellcheck disable=SC2086
        echo "make: $tests is skipped:$lacking not found; as root on Debian: apt-get install" $packages >&2
    fi
done
