#!/bin/sh
# First start: initialise, with a temporary server that answers on the socket alone, as the official image does; a health
# check that asks the socket would call that "ready". Later starts go straight to the server.
set -eu

if [ "$(id -u)" = 0 ]; then
  echo "stand-in: start this image with user 70:70; stepping down from root is not reproduced" >&2
  exit 1
fi
case "${1:--}" in -*) set -- postgres "$@" ;; esac
if [ "$1" != postgres ]; then exec "$@"; fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?superuser password is not specified}"
  user="${POSTGRES_USER:-postgres}"
  mkdir -p "$PGDATA"
  chmod 0700 "$PGDATA"
  printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
  initdb --username="$user" --pwfile=/tmp/password --pgdata="$PGDATA" ${POSTGRES_INITDB_ARGS:-}
  rm /tmp/password
  printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"

  pg_ctl --pgdata="$PGDATA" --wait start -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql"
  database="${POSTGRES_DB:-$user}"
  if [ "$database" != postgres ]; then
    printf 'CREATE DATABASE :"db";\n' |
      psql -v ON_ERROR_STOP=1 -v db="$database" --no-psqlrc --host=/var/run/postgresql --username="$user" --dbname=postgres
  fi
  pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
fi

shift
exec postgres -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql "$@"
