#!/usr/bin/env bash
# Builds the servers that the integration tests run against, two collectors and Jaeger, from their Go modules.
#   build.sh [otelcol|backends|jaeger|all]
# The binaries go to ${KAT_CACHE:-${XDG_CACHE_HOME:-~/.cache}/kat-otel}/bin and are built again only when the
# manifest or a version below changes. Their paths are the only thing printed on standard output.
set -euo pipefail

builder_version=v0.160.0
jaeger_version=v1.76.0 # Jaeger 2.13: as a Go module it carries the v1 number
go_needed=1.26         # what the collector's modules ask for

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kat-otel}

say() { printf 'build.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

need_go() {
  command -v go >/dev/null || fail "found no 'go' on PATH: install Go $go_needed or newer and run this again"
  local found
  found=$(go env GOVERSION)
  [ "$(printf '%s\n' "$go_needed" "${found#go}" | sort -V | head -n 1)" = "$go_needed" ] ||
    fail "found Go ${found#go}, $go_needed or newer is needed: install it, or set GOTOOLCHAIN=auto to let Go fetch it"
  # The cache may lie inside somebody's repository: no version stamp from there, and no workspace.
  GOFLAGS="$(go env GOFLAGS) -buildvcs=false"
  export GOFLAGS GOWORK=off
}

# All builders leave their binary in the current folder, an empty one.
build_otelcol() { build_collector otelcol-kat builder.yaml; }
build_backends() { build_collector otelcol-kat-backends builder-backends.yaml; }

build_collector() {
  local name=$1 manifest=$2
  GOBIN=$PWD go install -trimpath -ldflags="-s -w" "go.opentelemetry.io/collector/cmd/builder@$builder_version"
  # -e reaches the builder's 'go mod tidy': modules that only the components' own tests import may be missing from a
  # registry and must not stop us. A module that the binary needs still fails the compilation.
  GOFLAGS="$GOFLAGS -e" ./builder --config "$here/$manifest"
  mv "$name" source
  mv "source/$name" .
}

build_jaeger() {
  local module=github.com/jaegertracing/jaeger source
  # 'go install module@version' refuses a go.mod with replacements, so build in a copy of the module's own source,
  # where its go.mod and go.sum apply. The UI's assets are not part of it: the HTTP API is, and a placeholder page.
  (cd / && go mod download "$module@$jaeger_version")
  source=$(cd / && go list -m -f '{{.Dir}}' "$module@$jaeger_version")
  cp -r "$source" source && chmod -R u+w source
  (cd source && go build -trimpath -ldflags="-s -w" -o ../jaeger ./cmd/jaeger)
}

# ensure NAME RECIPE TEXT: builds NAME by RECIPE unless the stamp beside it has the hash of TEXT.
ensure() {
  local name=$1 recipe=$2 binary=$cache/bin/$1 hash began=$SECONDS
  hash=$(printf '%s' "$3" | sha256sum | cut -d ' ' -f 1)
  if [ ! -x "$binary" ] || [ "$(cat "$binary.stamp" 2>/dev/null)" != "$hash" ]; then
    need_go
    say "building $name, some minutes the first time"
    work=$(mktemp -d "$cache/build.XXXXXX")
    (cd "$work" && "$recipe") >&2 9>&- # without the lock, which a process that Go leaves behind would keep
    # The stamp goes first and comes last: an interrupted build is never taken for a finished one.
    rm -f "$binary.stamp"
    mv "$work/$name" "$binary"
    printf '%s\n' "$hash" >"$binary.stamp"
    rm -rf "$work"
    say "built $name in $((SECONDS - began)) s"
  fi
  printf '%s\n' "$binary"
}

what=${1:-all}
case $what in
otelcol | backends | jaeger | all) ;;
*) fail "unknown target '$what': use otelcol, backends, jaeger or all" ;;
esac

mkdir -p "$cache/bin"
work=
trap 'rm -rf "$work"' EXIT
# One build at a time in this cache: whoever comes second waits and then finds the binaries.
exec 9>"$cache/build.lock"
flock -n 9 || { say "waiting for another build in $cache"; flock 9; }
rm -rf "$cache"/build.*/ # what a killed build left

wanted() { [ "$what" = all ] || [ "$what" = "$1" ]; }
! wanted otelcol || ensure otelcol-kat build_otelcol "$builder_version $(cat "$here/builder.yaml")"
! wanted backends || ensure otelcol-kat-backends build_backends "$builder_version $(cat "$here/builder-backends.yaml")"
! wanted jaeger || ensure jaeger build_jaeger "$jaeger_version"
