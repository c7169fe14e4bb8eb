#!/bin/sh
# Build images, and tag them with the package's version, alone and with the hash of the source: build.sh SOURCE TARGET...
# From the environment: ENGINE, and BUILD for more of its arguments.
set -eu
cd "$(dirname "$0")/.."
source=$1
shift
command -v "${ENGINE%% *}" >/dev/null || {
    echo "error: ENGINE must be a command that builds images and is installed, as docker or podman, got $ENGINE" >&2
    exit 2
}
version=${source#*:}
version=${version%-*}
revision=$(git rev-parse HEAD)
[ -z "$(git status --porcelain)" ] || revision="$revision-dirty"
export BUILDAH_FORMAT=docker # podman and buildah's own format knows no health check
for target in "$@"; do
    case $target in
        cpu) suffix=-cpu ;;
        gpu) suffix= ;;
        *) echo "error: TARGETS must be among cpu and gpu, got $target" >&2 && exit 2 ;;
    esac
    # shellcheck disable=SC2086
    $ENGINE build --file images/Dockerfile --target "$target" \
        --tag "$source$suffix" --tag "secateur:$version$suffix" \
        --build-arg SOURCE="$source" --build-arg VERSION="$version" --build-arg REVISION="$revision" ${BUILD:-} .
done
$ENGINE images secateur
