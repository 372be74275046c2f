# Sourced: `go_tools NAME DIRECTORY PACKAGE...` builds programs of Go modules, by the versions in the directory's go.mod
# and the checksums in its go.sum, once, and sets `built` to the folder with them. `PACKAGE=NAME` gives the program
# another name than its package's; `ldflags` are those of the linker. Needs Go; exit code 2 when the modules cannot be had.
go_tools() {
    local name=$1 directory=$2 version package
    shift 2
    version=$(cd "$directory" && find . -name '*.go' -o -name 'go.*' | sort | xargs cat | sha256sum | cut -c1-12)
    built=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/intentd-parties/$name-$version
    mkdir -p "$built"
    exec 8> "$built/lock"
    flock 8
    for package; do
        local program=${package##*[/=]}
        [ ! -e "$built/$program" ] || continue
        (cd "$directory" && go list -deps "${package%=*}" > /dev/null) || exit 2
        # Renamed when whole: a build that was interrupted leaves none.
        (cd "$directory" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -ldflags="-s ${ldflags:-}" -o "$built/new" "${package%=*}")
        mv "$built/new" "$built/$program"
    done
    flock -u 8
}
