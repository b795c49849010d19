# Shell functions that the scripts of this folder share; to be sourced in the repository's root.

# Where cargo puts what it builds, and what users' packages are made of.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cache=${REALM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/realm}

# Installs the Debian packages among "$@" that are missing.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    echo "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# python_tool PROGRAM VERSION PACKAGE: has a program from PyPI in .venv, which prints VERSION when it is asked for its version.
python_tool() {
    [ -x .venv/bin/python ] || python3 -m venv .venv
    if [ "$(".venv/bin/$1" --version 2>/dev/null)" != "$2" ]; then
        .venv/bin/pip install --quiet "$3"
    fi
}

# Has the packages' shared libraries linked against an old glibc, so that they run on old systems: see ci/old-glibc.
link_old_glibc() {
    if [ "$(uname -s)" = Linux ] && ldd --version 2>&1 | grep -qi 'gnu\|glibc'; then
        REALM_GLIBC=$(ci/old-glibc)
        export REALM_GLIBC
    fi
}

# build PROFILE CARGO-ARGUMENTS: what the packages are made of. With the profile of the tests it is built with everything else of
# the workspace, since that asks each dependency for the same features as its tests do, and so compiles it once.
build() {
    link_old_glibc
    if [ "$1" = dev ]; then
        cargo build --quiet --locked --workspace --all-targets
    else
        cargo build --quiet --locked --profile "$1" "${@:2}"
    fi
}

# once NAME PATH... -- COMMAND...: runs a command, but not where it has passed with the same files before. The paths hold all that
# it depends on besides the tools' versions; what git ignores does not count. REALM_CI_AGAIN=1 runs it in any case.
once() {
    local name=$1 paths=() stamp
    shift
    while [ "$1" != -- ]; do
        paths+=("$1")
        shift
    done
    shift
    stamp=$cache/passed/$name-$({
        git ls-files -z --cached --others --exclude-standard -- "${paths[@]}" | sort -zu | xargs -0 sha256sum 2>&1
        rustc --version
        uname -m
        echo "$@"
    } | sha256sum | cut -c1-32)
    if [ -f "$stamp" ] && [ -z "${REALM_CI_AGAIN:-}" ]; then
        echo "=== the same as when it passed on $(cat "$stamp"): $*"
        return
    fi
    step "$@"
    mkdir -p "$cache/passed"
    date +%F >"$stamp"
}

# Runs a step, and says how long it took.
# Builds the command `realm` in a profile, and sets command.
build_command() {
    build "$1" -p realm-cli
    command=$target/$1/realm
    [ "$1" != dev ] || command=$target/debug/realm
}

# Starts `realm serve smollm2-135m` with keys, by the command $1, with its files in the folder $2. Sets url, key, one of the tenant
# `acme`, and server, the process.
start_server() {
    key=$("$1" api-key create --api-keys "$2/keys.db" --tenant acme)
    "$1" serve smollm2-135m --port 0 --api-keys "$2/keys.db" 2>"$2/server.log" &
    server=$!
    until url=$(grep -om1 'http://[0-9.:]*' "$2/server.log"); do
        kill -0 "$server" || { cat "$2/server.log" >&2; return 1; }
        sleep 0.1
    done
}

stop_server() {
    [ -z "${server:-}" ] || kill "$server"
    server=
}

steps=()
step() {
    echo "=== $*"
    local start=$SECONDS
    "$@"
    steps+=("$((SECONDS - start)) s: $*")
    echo "=== ${steps[-1]}"
}

# Prints the steps that took longest.
slowest_steps() {
    printf '%s\n' "${steps[@]}" | sort -rn | head -10
}
