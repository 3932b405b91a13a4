#!/usr/bin/env bash
# Builds the real servers that the integration tests run against:
#
#   build.sh [nats-server] [ferretdb] [kafka] [jaeger]      (all of them when none is named)
#
# They go to $BOLTMESH_TOOLS, or to .cache/tools of the repository. A tool is built again only when what it is made from
# has changed, which is told by a checksum beside it, so that a fresh clone can share a directory of tools.
# Needed: Go; for kafka also Java 17 and Maven. Nothing is fetched but Go modules and Maven artifacts.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${BOLTMESH_TOOLS:-$here/../../.cache/tools}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)

# Two builds at once would only get in each other's way: the second waits, then finds nothing to do.
if command -v flock >/dev/null; then
  exec 9>"$tools/.lock"
  flock 9
fi

sum() { sha256sum "$@" | sha256sum | cut -c1-64; }

# fresh NAME SUM: whether NAME is there, built from what SUM stands for.
fresh() { [[ -e $tools/$1 && $(cat "$tools/$1.sum" 2>/dev/null) == "$2" ]]; }

# finish NAME SUM: puts the new tool in the place of the old one, all at once.
finish() {
  rm -rf "${tools:?}/$1"
  mv "$tools/.$1.new" "$tools/$1"
  echo "$2" >"$tools/$1.sum"
}

build_go() { # build_go NAME PACKAGE
  go -C "$here" build -mod=readonly -ldflags='-s -w' -o "$tools/.$1.new" "$2"
}

build_kafka() {
  local out=$tools/.kafka.new
  rm -rf "$out"
  mvn -B -q -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$out"
}

build() { # build NAME: with a line about what happened
  local name=$1 want start=$SECONDS
  case $name in
    nats-server | jaeger) want=$({ sum "$here"/go.mod "$here"/go.sum; go env GOVERSION; } | sha256sum | cut -c1-64) ;;
    ferretdb) want=$({ sum "$here"/go.mod "$here"/go.sum "$here"/ferretdb/*.go; go env GOVERSION; } | sha256sum | cut -c1-64) ;;
    kafka) want=$(sum "$here"/kafka/pom.xml) ;;
    *) echo "tools: unknown tool $name" >&2; return 2 ;;
  esac
  if fresh "$name" "$want"; then
    echo "tools: $name is up to date"
    return
  fi
  echo "tools: building $name ..."
  case $name in
    nats-server) build_go "$name" github.com/nats-io/nats-server/v2 ;;
    ferretdb) build_go "$name" ./ferretdb ;;
    jaeger) build_go "$name" github.com/jaegertracing/jaeger/cmd/all-in-one ;;
    kafka) build_kafka ;;
  esac
  finish "$name" "$want"
  echo "tools: $name built in $((SECONDS - start)) s"
}

if (($# == 0)); then set -- kafka nats-server ferretdb jaeger; fi
for name in "$@"; do build "$name"; done
