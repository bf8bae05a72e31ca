#!/bin/sh
# Writes docker-compose.digests.yml, in which every image of the servers has the digest that its registry answers for its
# tag today. Then: docker compose -f docker-compose.yml -f docker-compose.digests.yml up -d
# Images that docker-compose.yml pins already are left as they are.
set -eu
cd "$(dirname "$0")/.."
images=$(sed -n 's/^  \([a-z-]*\):$/service \1/p; s/^    image: \([^ ]*\)$/image \1/p' docker-compose.yml)
made=docker-compose.digests.yml.new
trap 'rm -f "$made"' EXIT
echo "services:" > "$made"
pinned=0
service=
while read -r kind name; do
  case "$kind $name" in
    "service "*) service=$name ;;
    "image "*@sha256:* | "image liq_pipeline:"*) ;;
    "image "*)
      digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$name")
      case "$digest" in
        sha256:*) printf '  %s:\n    image: %s@%s\n' "$service" "$name" "$digest" >> "$made"; pinned=$((pinned + 1)) ;;
        *) echo "the registry named no digest for $name: is this machine on the network, and is the tag still there?" >&2; exit 2 ;;
      esac ;;
  esac
done <<LIST
$images
LIST
mv "$made" docker-compose.digests.yml
echo "wrote docker-compose.digests.yml: $pinned images pinned"
