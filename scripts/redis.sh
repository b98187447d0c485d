#!/bin/sh
# Runs one Redis in the foreground, for tests and for trying things out: without a password, listening
# on 127.0.0.1 only, and keeping nothing on disk. The process becomes the server, so a signal to it is a
# signal to the server.
#
#   scripts/redis.sh PORT
set -eu

[ $# = 1 ] || { echo "usage: scripts/redis.sh PORT" >&2; exit 2; }
command -v redis-server >/dev/null || { echo "redis.sh: Redis is missing; run scripts/setup.sh --tests" >&2; exit 1; }
exec redis-server --port "$1" --bind 127.0.0.1 --save "" --appendonly no --daemonize no
