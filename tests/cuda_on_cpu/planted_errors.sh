#!/usr/bin/env bash
# planted_errors.sh PROGRAM VARIANT: the correct kernels must pass, each planted error must be found.
set -u
program=$1
variant=$2
failed=0

must_pass() {
  if ! output=$("$program" "$1" 2>&1); then
    printf 'FAIL %s (%s): a correct kernel is reported\n%s\n' "$1" "$variant" "$output"
    failed=1
  fi
}

# must_find NAME TEXT: the program fails, and says TEXT.
must_find() {
  if output=$("$program" "$1" 2>&1) || [[ $output != *"$2"* ]]; then
    printf 'FAIL %s (%s): not found\n%s\n' "$1" "$variant" "$output"
    failed=1
  fi
}

for name in correct dynamic warp; do must_pass "$name"; done
must_find divergent_barrier "threads wait for others that never come"
case $variant in
  plain)
    must_find missing_barrier "wrong"
    ;;
  asan)
    must_find missing_barrier "wrong"
    must_find global_out_of_bounds "AddressSanitizer: heap-buffer-overflow"
    must_find shared_out_of_bounds "AddressSanitizer: heap-buffer-overflow"
    must_find dynamic_shared_out_of_bounds "AddressSanitizer: heap-buffer-overflow"
    ;;
  tsan)
    must_find missing_barrier "ThreadSanitizer: data race"
    ;;
esac
[ "$failed" = 0 ] && echo "planted errors ($variant): all found"
exit "$failed"
