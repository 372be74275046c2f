#!/usr/bin/env bash
# Installs Apache Kafka from Maven's repository, by the versions in pom.xml and the checksums in SHA256SUMS, and prints
# the folder with its jars. `update` writes the checksums anew. Needs java and mvn (Debian: default-jre-headless, maven).
# Exit code 2 when the repository cannot be reached.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/intentd-parties/kafka-$(sha256sum "$here/pom.xml" | cut -c1-12)

are_right() {
    [ "$(find "$jars" -name '*.jar' 2> /dev/null | wc -l)" = "$(wc -l < "$here/SHA256SUMS")" ] &&
        (cd "$jars" && sha256sum --quiet --check "$here/SHA256SUMS" > /dev/null 2>&1)
}

for program in java mvn; do
    if ! command -v "$program" > /dev/null; then
        echo "tests/parties/kafka/install.sh: there is no $program; apt-get install default-jre-headless maven" >&2
        exit 1
    fi
done
# Several test programs may ask at once.
mkdir -p "$(dirname "$jars")"
exec 9> "$jars.lock"
flock 9
if [ "${1:-}" = update ] || ! are_right; then
    rm -rf "$jars"
    mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$jars" >&2 ||
        exit 2
    if [ "${1:-}" = update ]; then
        (cd "$jars" && sha256sum -- *.jar | LC_ALL=C sort -k 2) > "$here/SHA256SUMS"
    elif ! are_right; then
        echo "tests/parties/kafka/install.sh: what came is not what SHA256SUMS names" >&2
        exit 1
    fi
fi
echo "$jars"
