#!/bin/sh
# A first argument that is a flag is for the server, as in the official image.
set -e
case "${1:--}" in -*) set -- nats-server "$@" ;; esac
exec "$@"
