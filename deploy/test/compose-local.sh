#!/usr/bin/env bash
# Proves docker-compose.yml and the runtime stage of deploy/Dockerfile where no image can be pulled.
#
#   deploy/test/compose-local.sh <static millrace binary>
#   deploy/test/compose-local.sh --mechanics <any static program with `health`>   containers only, no orders
#
# The binary, built without an image (never for `cargo run`: its flags are not those of the normal build):
#   RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p app --target "$(uname -m)-unknown-linux-gnu"
#
# Needs Docker Engine 20.10 or later, Compose v2 (COMPOSE names it when it is not `docker compose`), curl, pip, Debian.
# Without a running engine, root's own is started in the work folder and stopped at the end. KEEP=1 leaves everything up.
set -euo pipefail

mechanics=
if [ "${1:-}" = --mechanics ]; then mechanics=1; shift; fi
binary=$(realpath "${1:?the path of a static millrace binary}")
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=${WORK:-${TMPDIR:-/tmp}/millrace-compose}
project=millrace-test
size_limit=$((19 * 1000 * 1000)) # what is reached is 17 to 18 MB; 15 is wanted
read -ra compose_command <<< "${COMPOSE:-docker compose}"
roles=(order payment inventory notification simulators producer)

# Away from the ports a developer's own run uses.
export API_PORT=${API_PORT:-18080} NATS_PORT=${NATS_PORT:-14222} NATS_MONITOR_PORT=${NATS_MONITOR_PORT:-18222}
export ORDERS_PER_SECOND=${ORDERS_PER_SECOND:-10}
export MILLRACE_CONTEXTS=$work/contexts MILLRACE_REPOSITORY=$repository

say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
compose() {
  "${compose_command[@]}" --project-name "$project" --project-directory "$repository" \
    --file "$repository/docker-compose.yml" --file "$repository/deploy/test/compose.local.yml" "$@"
}
of_project() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project" "$@"; }
of_service() { of_project --filter "label=com.docker.compose.service=$1"; }
# Those that stay: the catalog is imported once and that container ends.
containers() { of_project | grep -vxF "$(of_service catalog)"; }
pid_of() { docker inspect --format '{{.State.Pid}}' "$1"; }
address() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

# until_true <seconds> <what> <command...>: polls, never just sleeps.
until_true() {
  local seconds=$1 what=$2 end=$((SECONDS + $1))
  shift 2
  until "$@"; do
    if [ $SECONDS -ge $end ]; then fail "not within $seconds s: $what"; fi
    sleep 0.5
  done
}

engine_pid=
finish() {
  local status=$?
  if [ -n "${KEEP:-}" ]; then say "kept: project $project, DOCKER_HOST=${DOCKER_HOST:-default}"; exit $status; fi
  if [ $status != 0 ]; then compose ps --all || true; compose logs --tail 30 || true; fi
  compose down --volumes --timeout 20 > /dev/null 2>&1 || true
  if [ -n "$engine_pid" ]; then kill "$engine_pid" && wait "$engine_pid" || true; fi
  exit $status
}

start_engine() {
  if docker info --format '{{.ServerVersion}}' 2> /dev/null | grep -q .; then return; fi
  if [ "$(id -u)" != 0 ] || ! command -v dockerd > /dev/null; then
    fail "no engine answers; start one, set DOCKER_HOST, or run this as root with docker.io installed"
  fi
  say "starting an engine in $work/engine"
  export DOCKER_HOST=unix://$work/engine/docker.sock
  mkdir -p "$work/engine"
  dockerd --data-root "$work/engine/data" --exec-root "$work/engine/exec" --pidfile "$work/engine/pid" \
    --host "$DOCKER_HOST" > "$work/engine/log" 2>&1 &
  engine_pid=$!
  until_true 60 "the engine answers (see $work/engine/log)" docker_answers
}
docker_answers() { docker version > /dev/null 2>&1; }

# An engine that holds the official images needs none of this, and must not have them replaced.
refuse_to_replace_images() {
  local image
  for image in nats:2.15.1-alpine postgres:18-alpine; do
    if docker image inspect "$image" > /dev/null 2>&1 &&
      [ -z "$(docker image inspect --format '{{index .Config.Labels "millrace.stand-in"}}' "$image")" ]; then
      fail "$image is already here and is not a stand-in: use 'docker compose up --build' with it"
    fi
  done
}

all_healthy() {
  local state
  for state in $(docker inspect --format '{{.State.Status}}/{{if .State.Health}}{{.State.Health.Status}}{{end}}' $(containers)); do
    [ "$state" = running/healthy ] || return 1
  done
}

check_confinement() {
  local id role facts
  for id in $(containers); do
    facts=$(docker inspect --format \
      '{{.Name}} ro={{.HostConfig.ReadonlyRootfs}} drop={{.HostConfig.CapDrop}} memory={{.HostConfig.Memory}} {{.HostConfig.SecurityOpt}}' "$id")
    [[ $facts == *"ro=true drop=[ALL]"*"no-new-privileges"* && $facts != *"memory=0 "* ]] || fail "not confined: $facts"
    grep -q '^CapEff:[[:space:]]*0*$' "/proc/$(pid_of "$id")/status" ||
      fail "has capabilities: $facts"
  done
  for id in $(for role in "${roles[@]}"; do of_service "$role"; done); do
    grep -q '^Uid:[[:space:]]*65532[[:space:]]' "/proc/$(pid_of "$id")/status" ||
      fail "does not run as 65532: $(docker inspect --format '{{.Name}}' "$id")"
  done
  for id in $(containers); do
    if docker port "$id" | grep -v -- '-> 127\.0\.0\.1:'; then fail "a port is published beyond loopback"; fi
  done
}

imported() { [ "$(docker inspect --format '{{.State.Status}}/{{.State.ExitCode}}' "$(of_service catalog)")" = exited/0 ]; }
confirmed_order() { curl -fsS "http://127.0.0.1:$API_PORT/orders" 2> /dev/null | grep -q '"confirmed"'; }
# Each instance has handled events, by its own count.
work_is_shared() {
  local id
  for id in $(of_service inventory); do
    curl -fsS "http://$(address "$id"):9090/metrics" 2> /dev/null |
      grep -qE '^millrace_handled_total\{[^}]*consumer="inventory-orders"[^}]*\} [1-9]' || return 1
  done
}
sql() { compose exec -T postgres psql --no-psqlrc --host=/var/run/postgresql --username=millrace -c "$1"; }
stored_messages() { curl -fsS "http://127.0.0.1:$NATS_MONITOR_PORT/jsz" | sed -n 's/^  "messages": \([0-9]*\).*/\1/p'; }
has_logged() { [ "$(compose logs --no-log-prefix "$1" 2> /dev/null | wc -l)" -gt "$2" ]; }
restarted() { [ "$(docker inspect --format '{{.RestartCount}}' "$1")" -ge 1 ]; }

say "the binary is static"
if ldd "$binary" 2> /dev/null | grep -q '=>'; then fail "$binary is linked to shared libraries; see the head of this script"; fi

mkdir -p "$work"
start_engine
refuse_to_replace_images
say "assembling the contexts in $MILLRACE_CONTEXTS"
"$repository/deploy/test/contexts.sh" "$binary" "$MILLRACE_CONTEXTS"

trap finish EXIT
say "docker compose up --build"
compose up --build --detach
until_true 120 "every container healthy" all_healthy
[ -n "$mechanics" ] || until_true 60 "the catalog is imported" imported

size=$(docker image inspect --format '{{.Size}}' millrace:local)
say "image: $size bytes"
[ "$size" -lt $size_limit ] || fail "the image has $size bytes, $size_limit are allowed"

say "confinement: user, capabilities, read-only root, memory, loopback ports"
check_confinement
curl -fsS "http://127.0.0.1:$NATS_MONITOR_PORT/jsz" | grep -q '"store_dir": "/data' || fail "JetStream does not use the volume"

say "docker compose logs payment"
until_true 30 "payment logs lines" has_logged payment 0
if [ -z "$mechanics" ]; then
  say "orders are confirmed"
  until_true 60 "a confirmed order in GET /orders" confirmed_order
fi

say "scaling inventory to 3"
compose up --detach --no-recreate --scale inventory=3
until_true 60 "three healthy inventory instances" all_healthy
[ "$(of_service inventory | wc -l)" = 3 ] || fail "not three inventory instances"
if [ -z "$mechanics" ]; then until_true 60 "all three handle events" work_is_shared; fi

say "kill -9 of payment: restarted by the engine"
payment=$(of_service payment)
kill -9 "$(pid_of "$payment")"
until_true 60 "payment restarted" restarted "$payment"
until_true 60 "healthy again" all_healthy
check_confinement
[ "$(stat -c %u "/proc/$(pid_of "$payment")/root/tmp")" = 65532 ] || fail "/tmp is not writable after a restart"

say "new NATS and PostgreSQL containers find the old data"
sql 'CREATE TABLE kept (here int)' > /dev/null
before=$(stored_messages)
compose up --detach --no-deps --force-recreate nats postgres
until_true 60 "healthy after the change" all_healthy
sql 'TABLE kept' > /dev/null || fail "PostgreSQL lost its data with its container"
[ "$(stored_messages)" -ge "$before" ] || fail "JetStream lost its data with its container"

say "docker compose stop: every service drains and exits 0 by itself"
compose stop
for role in "${roles[@]}"; do
  for id in $(of_service "$role"); do
    code=$(docker inspect --format '{{.State.ExitCode}}' "$id")
    [ "$code" = 0 ] || fail "$role exited with $code (137: killed after stop_grace_period)"
  done
done
say "passed"
