#!/usr/bin/env bash
# All that a CUDA card has to show, on one card in about 10 minutes: the tests marked cuda, every step, the yardstick.
#
#   bash benchmarks/gpu.sh [OUT] [SECONDS]
#
# OUT: folder of the results (default: $OUT, or benchmarks/gpu). SECONDS: of the whole run (default 580). Each part has a
# share of the time and writes what it has at once, so that a limit loses nothing. The most important runs come first.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-benchmarks/gpu}}; total=${2:-580}; python=${PYTHON:-python3}
began=$SECONDS; mkdir -p "$out"; export OMP_NUM_THREADS=4 PYTHONPATH=${PYTHONPATH:-.}
left() { echo $(( total - (SECONDS - began) )); }
part() {  # part NAME LIMIT COMMAND...: run a command for LIMIT seconds at most, or what is left
  local name=$1 limit=$2 rest; shift 2; rest=$(left)
  (( rest < 15 )) && { echo "== $name: no time left"; return; }
  (( limit > rest )) && limit=$rest
  echo "== $name (at most $limit s)"; local start=$SECONDS
  timeout "$limit" "$@" > "$out/$name.log" 2>&1; local code=$?
  echo "   ended with $code after $(( SECONDS - start )) s"; tail -n 12 "$out/$name.log"
}
nvidia-smi > "$out/nvidia-smi.txt" 2>&1
part baseline 60 "$python" benchmarks/eager_baseline.py --size full --device cuda --json "$out/baseline.json"
part steps 240 "$python" benchmarks/step.py --size full --device cuda --methods simmim,mae,beit --json "$out/steps.json"
part tests 100 "$python" -m pytest -q -m cuda tests
part overhead 45 "$python" benchmarks/step.py --device cuda --overhead mae --overhead-preset imagenet-vit-base \
  --json "$out/overhead.json"
part tf32 40 "$python" benchmarks/step.py --size full --device cuda --precision tf32 --methods simmim --loops bare \
  --compile off,on --json "$out/tf32.json"
part others 90 "$python" benchmarks/step.py --size full --device cuda --loops bare --compile off,on --seconds 80 \
  --methods maskfeat,data2vec,ibot,hpm,cae,spark,fcmae,beitv2 --json "$out/others.json"
echo "results in $out; for the table: $python benchmarks/step.py --readme $out/steps.json"
