#!/usr/bin/env bash
# Makes the images that deploy/compose names, under the same names, where no registry can be reached:
#
#   forge.sh
#
# Each holds the real program, built or installed by tests/tools/build.sh, with busybox, bash and what ldd lists. Three are
# not what their tag says: mongo is FerretDB, redis the version that Debian has, and golang the Go that is installed. Grafana
# cannot be made at all. An image that is there already is left alone, unless an earlier run of this script made it of
# something else. The label boltmesh.forged tells which ones are from here:
#
#   docker images --filter label=boltmesh.forged
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=${BOLTMESH_TOOLS:-$root/.cache/tools}
compose=$root/deploy/compose
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT

# named SERVICE: the image that the compose file gives a service.
named() { sed -n "/^  $1:\$/,/^  [a-z]/s/^    image: \(&[a-z]* \)\{0,1\}//p" "$compose/compose.yaml"; }

# wanted IMAGE SUM: whether an image has to be made: it is not there, or this script made it of something else.
wanted() {
  local label
  if ! label=$(docker image inspect -f '{{index .Config.Labels "boltmesh.forged"}}' "$1" 2>/dev/null); then return 0; fi
  if [[ -z $label ]]; then
    echo "forge: $1 is there, and not from here"
    return 1
  fi
  if [[ $label == "$2" ]]; then
    echo "forge: $1 is up to date"
    return 1
  fi
}

# base DIR: a root file system with busybox, bash, certificates and nobody in it.
base() {
  mkdir -p "$1"/{bin,etc/ssl/certs,tmp,usr/bin,usr/local/bin,lib,lib64}
  chmod 1777 "$1/tmp"
  cp /bin/busybox "$1/bin/"
  for applet in $(busybox --list); do [[ $applet == busybox ]] || ln -s busybox "$1/bin/$applet"; done
  rm -f "$1/bin/bash"
  program "$1" "$(command -v bash)" /bin/bash
  cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
  echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
  echo 'root:x:0:' >"$1/etc/group"
}

# program DIR FILE PLACE: a program with the libraries that it is linked to.
program() {
  mkdir -p "$1$(dirname "$3")"
  cp -L "$2" "$1$3"
  libraries "$1" "$2"
}

# libraries DIR FILE...: what the files are linked to, where the loader looks for it. Static ones need nothing.
libraries() {
  local dir=$1 lib
  for lib in $(ldd "${@:2}" 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^\s*\(\/lib[^ ]*\) (.*/\1/p' | sort -u); do
    [[ $lib == "$dir"/* || -e $dir$lib ]] && continue
    mkdir -p "$dir$(dirname "$lib")"
    cp -L "$lib" "$dir$lib"
  done
}

# owned DIR PLACE UID:GID: a directory that a fresh volume mounted there takes its owner from, as the real image has it.
owned() {
  mkdir -p "$1$2"
  chown "$3" "$1$2"
}

# import IMAGE SUM DIR [CHANGE...]: the image of a root file system; changes are lines of a Dockerfile.
import() {
  local changes=() change
  for change in "${@:4}" "LABEL boltmesh.forged=$2"; do changes+=(--change "$change"); done
  tar -C "$3" -c . | docker import "${changes[@]}" - "$1" >/dev/null
  chmod -R u+w "$3" && rm -rf "$3"
}

# sum FILE...: one checksum of what goes into an image, and of how it is made.
sum() { cat "$@" "${BASH_SOURCE[0]}" /bin/busybox | sha256sum | cut -c1-16; }

forge_nats() {
  program "$2" "$tools/nats-server" /usr/local/bin/nats-server
  import "$1" "$3" "$2" 'ENTRYPOINT ["nats-server"]'
}

forge_redis() {
  program "$2" "$(command -v redis-server)" /usr/local/bin/redis-server
  program "$2" "$(command -v redis-cli)" /usr/local/bin/redis-cli
  owned "$2" /data 999:999
  import "$1" "$3" "$2" 'ENTRYPOINT ["redis-server"]'
}

# FerretDB takes other flags than mongod; what they say is where to listen and where the data is, and both are the same here.
forge_mongo() {
  program "$2" "$tools/ferretdb" /usr/local/bin/ferretdb
  printf '#!/bin/sh\nexec ferretdb -listen 0.0.0.0:27017 -dir /data/db\n' >"$2/usr/local/bin/mongod"
  chmod +x "$2/usr/local/bin/mongod"
  owned "$2" /data/db 999:999
  import "$1" "$3" "$2" 'ENTRYPOINT ["mongod"]'
}

forge_kafka() {
  local jvm
  jvm=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
  mkdir -p "$2/opt/java" "$2/opt/kafka/libs" "$2/etc/ssl/certs/java"
  # Links into /etc become files; some, as that to the sources, lead nowhere.
  (cd "$jvm" && find -L bin lib conf -type f | tar -ch -T -) | tar -x -C "$2/opt/java"
  libraries "$2" "$jvm/bin/java" $(find -L "$jvm/lib" -name '*.so')
  cp "$tools"/kafka/*.jar "$2/opt/kafka/libs/"
  owned "$2" /var/lib/kafka/data 1000:1000
  import "$1" "$3" "$2" 'ENV PATH=/opt/java/bin:/usr/local/bin:/usr/bin:/bin' 'ENV JAVA_HOME=/opt/java'
}

forge_jaeger() {
  program "$2" "$tools/jaeger" /usr/local/bin/all-in-one
  import "$1" "$3" "$2" 'ENTRYPOINT ["all-in-one"]'
}

forge_prometheus() {
  program "$2" "$tools/prometheus" /usr/local/bin/prometheus
  owned "$2" /prometheus 65534:65534
  import "$1" "$3" "$2" 'ENTRYPOINT ["prometheus"]'
}

# The builder of the Dockerfile: Go, and the modules that boltmesh needs, since a build reaches no proxy either. They are compiled
# here already (kept beside the tools), as a build that begins with nothing takes minutes.
forge_go() {
  local cache=$tools/go-build
  mkdir -p "$2/usr/local"
  cp -r "$(go env GOROOT)" "$2/usr/local/go"
  rm -rf "$2"/usr/local/go/{test,doc,api}
  (cd "$root" && GOFLAGS=-modcacherw GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GOMODCACHE="$2/go/pkg/mod" go mod download)
  (cd "$root" && export CGO_ENABLED=0 GOFLAGS=-trimpath GOPROXY=off GOMODCACHE="$2/go/pkg/mod" GOCACHE="$cache" &&
    go list -e -deps -f '{{if .Module}}{{if not .Module.Main}}{{.ImportPath}}{{end}}{{end}}' ./services/... ./cmd/boltmesh | xargs nice go build)
  cp -r "$cache" "$2/go/build"
  import "$1" "$3" "$2" 'ENV PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin' 'ENV GOPATH=/go' 'ENV GOCACHE=/go/build' 'ENV GOTOOLCHAIN=local' 'ENV GOPROXY=off'
}

# forge NAME IMAGE FILE...: makes an image unless it is there.
forge() {
  local name=$1 image=$2 start=$SECONDS want
  want=$(sum "${@:3}")
  wanted "$image" "$want" || return 0
  base "$work/$name"
  "forge_$name" "$image" "$work/$name" "$want"
  echo "forge: $image made in $((SECONDS - start)) s"
}

missing=()
command -v docker >/dev/null || missing+=(docker.io)
[[ -x /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1 || missing+=(busybox-static)
if ((${#missing[@]})); then
  echo "forge: missing: ${missing[*]} (Debian: sudo apt-get install ${missing[*]})" >&2
  exit 1
fi
docker info >/dev/null
"$root/tests/tools/build.sh" system nats-server ferretdb kafka jaeger prometheus compose

forge nats "$(named nats)" "$tools/nats-server"
forge redis "$(named redis)" "$(command -v redis-server)"
forge mongo "$(named mongo)" "$tools/ferretdb"
forge kafka "$(named kafka)" "$tools/kafka.sum" "$(command -v java)"
forge jaeger "$(named jaeger)" "$tools/jaeger"
forge prometheus "$(named prometheus)" "$tools/prometheus"
forge go "${GO_IMAGE:-golang:1.26.8}" "$root/go.mod" "$root/go.sum" "$(command -v go)"
