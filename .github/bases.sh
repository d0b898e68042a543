#!/bin/bash
# The digests that the base images of a Dockerfile have now, as an output of a workflow's step:
# the build is of these and no others, and its provenance names them.
set -euo pipefail
echo "arguments<<END"
{ grep -oP '^ARG \K\w+_IMAGE=\S+' "$1"; echo "RUN_IMAGE=$RUN_IMAGE"; } | while IFS='=' read -r name image; do
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
  echo "$name=$image"
  echo "${name%_IMAGE}_DIGEST=$digest"
done
echo "END"
