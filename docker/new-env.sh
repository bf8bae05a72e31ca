#!/bin/sh
# Writes .env from .env.example with a fresh random value for every secret. Refuses to overwrite one that exists.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo ".env exists already: remove it first if you want new passwords (the volumes keep the old ones)" >&2
  exit 2
fi
umask 077
secret() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }
# A Kafka cluster id is 16 bytes in URL-safe base64 without padding; a leading dash would be taken for an option.
cluster_id() { head -c 16 /dev/urandom | base64 | tr '+/' 'Az' | tr -d '='; }
while IFS= read -r line; do
  case "$line" in
    KAFKA_CLUSTER_ID=) echo "$line$(cluster_id)" ;;
    *_PASSWORD= | *_TOKEN=) echo "$line$(secret)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done < .env.example > .env
echo "wrote .env; now: docker compose up -d"
