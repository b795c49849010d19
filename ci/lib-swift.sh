# Shell functions for what is written in Swift, which runs on this machine or, where that has no Swift, in the folder of ci/swift-root;
# to be sourced after ci/lib.sh.

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo -n)

# Sets `root` to the folder that has Swift, empty for this machine's own. Fails where there is none to be had.
enter_swift() {
    root=
    command -v swift >/dev/null || { root=$(ci/swift-root) && in_root true; }
}

# in_root COMMAND: runs a command in `root`, with a /proc that nobody else sees and that goes with the command.
in_root() {
    # shellcheck disable=SC2016
    "${sudo[@]}" unshare --mount bash -c 'mount -t proc proc "$0/proc" && exec chroot "$0" bash -c "$1"' "$root" "$1"
}

# unpack_swift FOLDER: puts what ci/package-swift built and the models into a folder in `root`.
unpack_swift() {
    local model
    tar -C "$1" -xzf "$target"/swift/realm-swift-*.tar.gz
    mv "$1"/realm-swift-* "$1/Realm"
    mkdir -p "$1/cache/models"
    for model in smollm2-135m-instruct-q4_1.gguf qwen2.5-coder-0.5b-instruct-q4_k_m.gguf; do
        ln "$cache/models/$model" "$1/cache/models/" 2>/dev/null || cp "$cache/models/$model" "$1/cache/models/"
    done
}

# in_swift FOLDER PART COMMAND: runs a command where Swift is, in a part of a folder that unpack_swift filled.
in_swift() {
    local inside=${1#"$root"}
    local command="cd '$inside/$2' && export HOME='$inside' PKG_CONFIG_PATH='$inside/Realm/lib/pkgconfig' \
        LD_LIBRARY_PATH='$inside/Realm/lib' REALM_CACHE='$inside/cache' REALM_CONFORMANCE='$inside/conformance' && $3"
    if [ -z "$root" ]; then
        bash -c "$command"
    else
        in_root "$command"
    fi
}
