#!/usr/bin/env bash
# What tests need besides what pip brings, from Debian's packages: pdflatex compiles tables, Chromium opens the page,
# SLURM runs jobs (tests/executors/slurm.sh starts it). Where they cannot be installed, the tests that need them are
# skipped and say so.
set -euo pipefail

missing=()
command -v pdflatex >/dev/null || missing+=(texlive-latex-base texlive-latex-recommended)
command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null &&
    command -v sbatch >/dev/null || missing+=(munge slurmctld slurmd slurm-client)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, as that takes root and apt-get: ${missing[*]}; the tests that need them are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
quickly=(-o Acquire::http::Timeout=20 -o Acquire::Retries=1)
if ! { timeout 120 apt-get update -qq "${quickly[@]}" &&
    timeout 400 apt-get install -y -qq --no-install-recommends "${quickly[@]}" "${missing[@]}" >/dev/null; }; then
    echo "apt-get could not install ${missing[*]}" >&2
fi
