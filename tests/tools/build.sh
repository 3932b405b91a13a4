#!/usr/bin/env bash
# Provides the real servers that the integration tests run against:
#
#   build.sh [system] [nats-server] [ferretdb] [kafka] [jaeger]      (all of them when none is named)
#   build.sh compose prometheus                                      (what tests/compose needs beside them)
#
# "system" is what comes as Debian packages: redis-server, Java and Maven for kafka, Python 3 for a worker in it. They are installed only if
# missing, and only by root.
#
# They go to $BOLTMESH_TOOLS, or to .cache/tools of the repository. A tool is built again only when what it is made from
# has changed, which is told by a checksum beside it, so that a fresh clone can share a directory of tools.
# Nothing is fetched but Debian packages, Go modules and Maven artifacts.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${BOLTMESH_TOOLS:-$here/../../.cache/tools}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)

# alone NAME: waits until nobody else builds that tool; whoever waited then finds nothing to do.
alone() {
  if command -v flock >/dev/null; then
    exec 9>"$tools/.$1.lock"
    flock 9
  fi
}

# sum FILE...: one checksum of what the files hold, wherever they are.
sum() { cat "$@" | sha256sum | cut -c1-64; }

# fresh NAME SUM: whether NAME is there, built from what SUM stands for.
fresh() { [[ -e $tools/$1 && $(cat "$tools/$1.sum" 2>/dev/null) == "$2" ]]; }

# finish NAME SUM: puts the new tool in the place of the old one, all at once.
finish() {
  rm -rf "${tools:?}/$1"
  mv "$tools/.$1.new" "$tools/$1"
  echo "$2" >"$tools/$1.sum"
}

install_system() {
  local missing=()
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
  command -v python3 >/dev/null || missing+=(python3)
  command -v mvn >/dev/null || missing+=(maven)
  if ((${#missing[@]} == 0)); then
    echo "tools: redis-server, java, mvn and python3 are installed"
    return
  fi
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "tools: missing: ${missing[*]}; install them first (Debian: sudo apt-get install ${missing[*]})" >&2
    return 1
  fi
  echo "tools: installing ${missing[*]} ..."
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build_go() { # build_go NAME PACKAGE [FLAG...]
  go -C "$here" build -mod=readonly -ldflags='-s -w' "${@:3}" -o "$tools/.$1.new" "$2"
}

build_own() { # build_own NAME PACKAGE FLAG...: from the module in the folder of that name
  go -C "$here/$1" build -mod=readonly "${@:3}" -o "$tools/.$1.new" "$2"
}

# FerretDB is built from a copy changed in a few places, where 1.24.2 would not do for what MongoDB is here:
#   - it keeps the query of every matched update of a command open, each on a connection of its own, until the command ends: 100 of
#     them, from one command or from several at once, wait for a 101st connection for ever;
#   - it looks a document up by its _id only if the filter has nothing else, and reads the whole collection otherwise;
#   - and so it does even then, as the lookup is not the expression that the index is on;
#   - it does not say, as MongoDB does, which index a duplicate key is in, so that the product has to ask;
#   - it finds what an update matches and writes it in two transactions, so that of two updates of one document, each for a lower version, the lower may be the last;
#   - its writers poll SQLite's lock, sleeping up to 100 ms, where they could wait for each other.
build_ferretdb() {
  local copy=$tools/.ferretdb.src source
  rm -rf "$copy"
  go -C "$here" mod download github.com/FerretDB/FerretDB
  source=$(go -C "$here" list -mod=readonly -m -f '{{.Dir}}' github.com/FerretDB/FerretDB)
  cp -r --no-preserve=mode "$source" "$copy"
  change "$copy/internal/handler/msg_update.go" 's/^\t\tresult, err := common\.UpdateDocument(.*/&\n\t\tcloser.Close()/'
  change "$copy/internal/handler/msg_update.go" 's/^func (h \*Handler) updateDocument(.*/var updating sync.Mutex\n\n&\n\tupdating.Lock()\n\tdefer updating.Unlock()\n/; s/^\t"fmt"$/&\n\t"sync"/'
  change "$copy/internal/handler/msg_insert.go" 's/`E11000 duplicate key error collection: %s\.%s`, params\.DB, params\.Collection)/`E11000 duplicate key error collection: %s.%s%s`, params.DB, params.Collection, map[bool]string{true: " index: _id_ dup key"}[strings.Contains(err.Error(), "_id_")])/; s/^\t"slices"$/&\n\t"strings"/'
  change "$copy/internal/handler/msg_findandmodify.go" 's/`E11000 duplicate key error collection: %s\.%s`, db, coll)/`E11000 duplicate key error collection: %s.%s%s`, db, coll, map[bool]string{true: " index: _id_ dup key"}[strings.Contains(be.Error(), "_id_")])/; s/^\t"fmt"$/&\n\t"strings"/'
  change "$copy/internal/util/fsql/db.go" 's/^\t"time"$/\t"sync"\n&/; s/^func (db \*DB) InTransaction(.*/var writer sync.Mutex\n\n&\n\twriter.Lock()\n\tdefer writer.Unlock()\n/'
  change "$copy/internal/backends/sqlite/metadata/metadata.go" "s/->'\$\._id'/->'_id'/"
  change "$copy/internal/backends/sqlite/collection.go" 's/params\.Filter\.Len() == 1/params.Filter.Len() > 0/'
  cp "$here/go.mod" "$tools/.ferretdb.mod"
  cp "$here/go.sum" "$tools/.ferretdb.sum"
  go mod edit -replace="github.com/FerretDB/FerretDB=$copy" "$tools/.ferretdb.mod"
  build_go ferretdb ./ferretdb -modfile="$tools/.ferretdb.mod"
  rm -rf "$copy" "$tools/.ferretdb.mod" "$tools/.ferretdb.sum"
}

# change FILE EXPRESSION: applies a sed expression that must change something.
change() {
  cp "$1" "$1.before"
  sed -i "$2" "$1"
  if cmp -s "$1" "$1.before"; then
    echo "tools: $1 is not as expected" >&2
    return 1
  fi
}

build_kafka() {
  local out=$tools/.kafka.new
  rm -rf "$out"
  mvn -B -q -Dstyle.color=never -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$out"
}

build() { # build NAME: with a line about what happened
  local name=$1 want start
  alone "$name"
  start=$SECONDS
  case $name in
    system) install_system; return ;;
    nats-server | jaeger) want=$(sum "$here"/go.mod "$here"/go.sum) ;;
    ferretdb) want=$(sum "$here"/go.mod "$here"/go.sum "$here"/ferretdb/*.go "$here"/build.sh) ;;
    kafka) want=$(sum "$here"/kafka/pom.xml) ;;
    compose | prometheus) want=$(sum "$here/$name"/go.mod "$here/$name"/go.sum) ;;
    *) echo "tools: unknown tool $name" >&2; return 2 ;;
  esac
  if fresh "$name" "$want"; then
    echo "tools: $name is up to date"
    return
  fi
  echo "tools: building $name ..."
  case $name in
    nats-server) build_go "$name" github.com/nats-io/nats-server/v2 ;;
    ferretdb) build_ferretdb ;;
    jaeger) build_go "$name" github.com/jaegertracing/jaeger/cmd/all-in-one ;;
    kafka) build_kafka ;;
    compose) build_own compose github.com/docker/compose/v2/cmd -ldflags='-s -w -X github.com/docker/compose/v2/internal.Version=v2.40.3' ;;
    # Of its ways to find targets only DNS, which the compose file uses: the others bring the clients of every cloud.
    prometheus) build_own prometheus github.com/prometheus/prometheus/cmd/prometheus -tags=remove_all_sd,enable_dns_sd -ldflags='-s -w' ;;
  esac
  finish "$name" "$want"
  echo "tools: $name built in $((SECONDS - start)) s"
}

if (($# == 0)); then set -- system kafka nats-server ferretdb jaeger; fi
for name in "$@"; do build "$name"; done
